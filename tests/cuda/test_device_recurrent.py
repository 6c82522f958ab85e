"""Recurrent layers, cells and packing on the device against the host."""

import pickle

import numpy as np
import pytest
from both import BEFORE, LAYERS, floats, initial, moved, on_both, packed, recur, same
from strict_cupy import waiting_for_nothing

import minirnn

OPTIONS = {
    "plain": {},
    "stacked": {"num_layers": 2, "dropout": 0.3},
    "bidirectional": {"num_layers": 2, "bidirectional": True},
    "float64": {"dtype": np.float64, "bidirectional": True},
    "large": {"hidden_size": 200, "bidirectional": True},
    "no bias": {"bias": False},
    "recurrent dropout": {"recurrent_dropout": 0.3, "bidirectional": True},
    "checkpoint": {"checkpoint": True, "num_layers": 2, "bidirectional": True},
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("cell", [*LAYERS, *BEFORE])
def test_recurrent_layers(xp, rng, cell, option):
    options = {"hidden_size": 9, **OPTIONS[option]}
    layer = {**LAYERS, **BEFORE}[cell](4, rng=1, **options)
    dtype = layer.weight_ih_l0.dtype
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    features = layer.output_size * layer.num_directions
    x, dy = packed(rng, 4, dtype), packed(rng, features, dtype)
    on_both(
        xp, layer, recur, x, initial(rng, layer, 5), dy, initial(rng, layer, 5), tolerance=tolerance
    )


@pytest.mark.parametrize("form", ["padded", "batch_first", "unbatched", "long"])
@pytest.mark.parametrize("cell", LAYERS)
def test_forms_of_input(xp, rng, cell, form):
    T, B = (520, 2) if form == "long" else (5, 3)  # long: three spans, 256 steps each at most
    layer = LAYERS[cell](4, 9, batch_first=form == "batch_first", rng=1)
    shape = {"batch_first": (B, T), "unbatched": (T,)}.get(form, (T, B))
    states = [initial(rng, layer, B) for _ in range(2)]
    if form == "unbatched":
        states = [tuple(s[:, 0] for s in x) if isinstance(x, tuple) else x[:, 0] for x in states]
    x, dy = floats(rng, *shape, 4), floats(rng, *shape, 9)
    on_both(xp, layer, recur, x, states[0], dy, states[1])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_checkpoints_hold_less(xp, rng, cell, bidirectional):
    def size(tree):
        if isinstance(tree, tuple | list):
            return sum(map(size, tree))
        return tree.nbytes if isinstance(tree, xp.ndarray) else 0

    def held(checkpoint):
        layer = LAYERS[cell](4, 9, bidirectional=bidirectional, checkpoint=checkpoint).to("cupy")
        _, ctx = layer.forward(xp.asarray(floats(rng, 300, 3, 4)))
        return size(ctx.saved.contexts)

    assert 0 < held(True) < 0.5 * held(False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_projection(xp, rng, dtype):
    layer = minirnn.LSTM(4, 9, 2, proj_size=3, bidirectional=True, rng=1, dtype=dtype)
    x, dy = packed(rng, 4, dtype), packed(rng, 6, dtype)
    on_both(xp, layer, recur, x, initial(rng, layer, 5), dy, initial(rng, layer, 5))


@pytest.mark.parametrize("cell", LAYERS)
def test_trace(xp, rng, cell):
    def run(layer, x, dy):
        (y, last, trace), ctx = layer.forward(x, trace=True)
        found = [y, last, trace.h, trace.c]
        found += [trace.gates[name] for name in sorted(trace.gates)]
        return [*found, layer.backward(ctx, dy, trace=True)]

    layer = LAYERS[cell](4, 9, 2, bidirectional=True, rng=1)
    on_both(xp, layer, run, packed(rng, 4), packed(rng, 18))


@pytest.mark.parametrize("cell", [minirnn.RNNCell, minirnn.LSTMCell, minirnn.GRUCell])
def test_cells(xp, rng, cell):
    def run(layer, x, state, dstate):
        h, ctx = layer.forward(x, state)
        return h, layer.backward(ctx, dstate)

    pair = cell is minirnn.LSTMCell
    states = [tuple(floats(rng, 3, 9) for _ in range(1 + pair)) for _ in range(2)]
    states = states if pair else [s[0] for s in states]
    on_both(xp, cell(4, 9, rng=1), run, floats(rng, 3, 4), *states)


@pytest.mark.parametrize("cell", LAYERS)
def test_streaming_and_windows(xp, rng, cell):
    def run(layer, x, rows):
        state, found = None, []
        for x_t in x:
            y, state = layer.step(x_t, state)
            found.append(y)
        for window in minirnn.truncated_bptt(layer, x, 2):
            found.append(layer.backward(window.ctx, window.output))
        for window in minirnn.truncated_bptt(layer, rows, 2):
            found.append(layer.backward(window.ctx, window.output)[0])
        output, h_n = layer(rows)
        h_n = h_n[0] if isinstance(h_n, tuple) else h_n
        return [*found, state, minirnn.last_step(output), minirnn.by_layer_direction(h_n, 1)]

    rows = packed(rng, 4, lengths=(5, 4, 4, 1))
    on_both(xp, LAYERS[cell](4, 9, rng=1), run, floats(rng, 5, 3, 4), rows)


@pytest.mark.parametrize("cell", LAYERS)
def test_views_are_as_good_as_arrays(xp, rng, cell):
    """Kernels know no strides: what is given as a view has to reach them as an array."""

    def run(layer, *wide):
        x, dy, *states = [a[..., ::2] for a in wide]
        pairs = [tuple(states[:2]), tuple(states[2:])] if layer._states == 2 else states[::2]
        (y, last), ctx = layer.forward(x, pairs[0])
        return y, last, layer.backward(ctx, dy, pairs[1])

    wide = [floats(rng, 3, 5, 8), floats(rng, 3, 5, 18), *(floats(rng, 1, 5, 18) for _ in range(4))]
    on_both(xp, LAYERS[cell](4, 9, rng=1), run, *wide)


def test_last_step_takes_lengths_of_the_device(xp, rng):
    x, lengths = floats(rng, 4, 3, 2), np.array([4, 1, 2])
    expected = minirnn.last_step(x, lengths)
    same(minirnn.last_step(xp.asarray(x), xp.asarray(lengths)), expected)


def test_a_pair_of_ones_own_runs_as_it_is(xp, rng):
    """A recurrence that has no kernel goes through CuPy's functions."""

    class Sum:
        GATES = ("h",)

        @staticmethod
        def forward(x, states, weights, layout, mask=None, save=True):
            (h,) = states
            h_prev, rows = h[: layout.batch_size], layout.split(h[layout.batch_size :])
            for h_t, x_t in zip(rows, layout.split(x), strict=True):
                h_t[...] = h_prev[: len(h_t)] + x_t @ weights[0].T
                h_prev = h_t
            return h

    class Layer(minirnn.Recurrent):
        recurrence = Sum

    for bidirectional in (False, True):
        layer = Layer(4, 9, bidirectional=bidirectional, rng=1)
        on_both(xp, layer, lambda layer, x: layer(x), packed(rng, 4))


@pytest.mark.parametrize("batch_first", [False, True])
def test_packing(xp, rng, batch_first):
    lengths = np.array([2, 4, 0, 3])
    x = floats(rng, *((4, 5) if batch_first else (5, 4)), 2)
    sequences = [floats(rng, n, 2) for n in lengths]

    def run(x, lengths, sequences):
        rows = minirnn.pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False)
        padded, n = minirnn.pad_packed_sequence(rows, batch_first, -1.0, total_length=6)
        listed = minirnn.pack_sequence(sequences, enforce_sorted=False)
        return [
            rows,
            rows.batch_sizes,
            padded,
            n,
            listed,
            minirnn.unpack_sequence(listed),
            minirnn.pad_sequence(sequences, batch_first),
            minirnn.pad_sequence(sequences, batch_first, 9.0, "left"),
            minirnn.unpad_sequence(padded, lengths, batch_first),
        ]

    expected = run(x, lengths, sequences)
    uploaded = xp.asarray(x), lengths, moved(xp, sequences)
    with waiting_for_nothing(xp):
        actual = run(*uploaded)
    for a in (actual[1], actual[3]):  # stays on the host, whatever the data does
        assert isinstance(a, np.ndarray)
    same(actual, expected, 0)
    same(run(xp.asarray(x), xp.asarray(lengths), moved(xp, sequences)), expected, 0)


def test_packed_batches_pickle(xp, rng):
    """Also after their index arrays were uploaded."""
    layer = minirnn.GRU(3, 4, bidirectional=True, rng=1).to("cupy")
    x = packed(rng, 3).map(xp.asarray)
    y, h = layer(x)
    again, h_again = layer(pickle.loads(pickle.dumps(x)))
    same([again, h_again], [y, h], 0)
