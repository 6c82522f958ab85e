"""The whole library on arrays of CuPy's: the strict stand-in, and a GPU where there is one.

Everything is computed once on the host and once on the device, by the same code, and compared.
"""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import strict_cupy
from strict_cupy import COUNTS, waiting_for_nothing

import minirnn
from minirnn import PackedSequence, init
from minirnn.cuda import launch

HERE = Path(__file__).parent
LAYERS = {"RNN": minirnn.RNN, "LSTM": minirnn.LSTM, "GRU": minirnn.GRU}


def moved(xp, tree):
    """Return nested arrays and packed sequences with all data on the device."""
    if isinstance(tree, PackedSequence):
        return tree.map(xp.asarray)
    if isinstance(tree, tuple | list):
        return type(tree)(moved(xp, x) for x in tree)
    return xp.asarray(tree) if isinstance(tree, np.ndarray) else tree


def flat(tree):
    """Return all arrays in nested tuples, dicts and packed sequences, in order, on the host."""
    if tree is None:
        return []
    if isinstance(tree, PackedSequence):
        return [minirnn.asnumpy(tree.data)]
    if isinstance(tree, dict):
        return [a for x in tree.values() for a in flat(x)]
    if isinstance(tree, tuple | list):
        return [a for x in tree for a in flat(x)]
    return [minirnn.asnumpy(tree)]


def same(actual, expected, tolerance=1e-5):
    actual, expected = flat(actual), flat(expected)
    assert len(actual) == len(expected) > 0
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        assert a.shape == e.shape
        scale = max(1.0, np.abs(np.nan_to_num(e)).max(initial=0.0)) if e.dtype.kind == "f" else 1
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * scale)


def on_both(xp, module, run, *arrays, tolerance=1e-5):
    """Compare ``run(module, *arrays)``, and the gradients it leaves, on the host and on the device."""
    twin = copy.deepcopy(module).to("cupy")
    expected = run(module, *arrays)
    uploaded = moved(xp, arrays)
    with waiting_for_nothing(xp):
        actual = run(twin, *uploaded)
    same(actual, expected, tolerance)
    for p, q in zip(twin.parameters(), module.parameters(), strict=True):
        assert isinstance(p.grad, xp.ndarray)
        same([p.data, p.grad], [q.data, q.grad], tolerance)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def floats(rng, *shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype)


def packed(rng, features, dtype=np.float32, lengths=(2, 5, 0, 3, 5)):
    sequences = [floats(rng, n, features, dtype=dtype) for n in lengths]
    return minirnn.pack_sequence(sequences, enforce_sorted=False)


# -- layers and losses --------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["array", "packed"])
def test_linear(xp, rng, form):
    x = floats(rng, 2, 3, 4) if form == "array" else packed(rng, 4)
    dy = floats(rng, 2, 3, 5) if form == "array" else packed(rng, 5)

    def run(layer, x, dy):
        y, ctx = layer.forward(x)
        return y, layer.backward(ctx, dy), layer(x)

    on_both(xp, minirnn.Linear(4, 5), run, x, dy)


@pytest.mark.parametrize("rows", [7, 100])
@pytest.mark.parametrize("padding_idx", [None, 3])
def test_embedding(xp, rng, rows, padding_idx):
    def run(layer, tokens, dy):
        y, ctx = layer.forward(tokens)
        return y, layer.backward(ctx, dy)

    layer = minirnn.Embedding(rows, 5, padding_idx)
    on_both(xp, layer, run, rng.integers(0, rows, (4, 3)), floats(rng, 4, 3, 5))
    tokens = minirnn.pack_sequence([rng.integers(0, rows, n) for n in (4, 2)])
    on_both(xp, layer, run, tokens, tokens.map(lambda t: floats(rng, len(t), 5)))


def test_dropout(xp, rng):
    def run(layer, x, dy):
        layer._rng = np.random.default_rng(3)
        y, ctx = layer.forward(x)
        out = (y, layer.backward(ctx, dy))
        y, ctx = layer.eval().forward(x)
        return *out, y, layer.backward(ctx, dy)

    on_both(xp, minirnn.Dropout(0.4), run, floats(rng, 6, 5), floats(rng, 6, 5))
    on_both(xp, minirnn.Dropout(0.4), run, packed(rng, 3), packed(rng, 3))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(xp, rng, reduction, weighted, smoothing):
    weight = np.abs(floats(rng, 4)) if weighted else None
    targets = rng.integers(0, 4, 6)
    targets[2] = -100

    def run(criterion, logits, targets, weight, dloss):
        criterion.weight = weight
        loss, ctx = criterion.forward(logits, targets)
        return loss, criterion.backward(ctx, dloss)

    criterion = minirnn.CrossEntropyLoss(None, -100, reduction, smoothing)
    dloss = floats(rng, 6) if reduction == "none" else 0.5
    on_both(xp, criterion, run, floats(rng, 6, 4), targets, weight, dloss)
    images = rng.integers(0, 4, (6, 2, 3)), floats(rng, 6, 2, 3) if reduction == "none" else 2.0
    on_both(xp, criterion, run, floats(rng, 6, 4, 2, 3), images[0], weight, images[1])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_other_losses(xp, rng, reduction):
    def run(criterion, x, target, dloss):
        loss, ctx = criterion.forward(x, target)
        return loss, criterion.backward(ctx, dloss)

    x, target = floats(rng, 5, 3), rng.random((5, 3), np.float32)
    dloss = floats(rng, 5, 3) if reduction == "none" else 0.5
    on_both(xp, minirnn.MSELoss(reduction), run, x, target, dloss)

    def weighted(criterion, weight, *rest):
        criterion.weight = criterion.pos_weight = weight
        return run(criterion, *rest)

    on_both(xp, minirnn.BCEWithLogitsLoss(reduction=reduction), run, x, target, dloss)
    weight = np.abs(floats(rng, 3))
    on_both(xp, minirnn.BCEWithLogitsLoss(reduction=reduction), weighted, weight, x, target, dloss)


# -- recurrent layers ---------------------------------------------------------------------------

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


def initial(rng, layer, B):
    L = layer.num_layers * layer.num_directions
    states = tuple(floats(rng, L, B, s, dtype=layer.weight_ih_l0.dtype) for s in layer._state_sizes)
    return states if len(states) == 2 else states[0]


def recur(layer, x, state, dy, dstate):
    layer._rng = np.random.default_rng(5)
    (y, last), ctx = layer.forward(x, state)
    found = [y, last, layer.backward(ctx, dy, dstate)]
    (y, last), ctx = layer.forward(x)
    return [*found, y, last, layer.backward(ctx, None, dstate), layer.eval()(x)]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("cell", LAYERS)
def test_recurrent_layers(xp, rng, cell, option):
    options = {"hidden_size": 9, **OPTIONS[option]}
    layer = LAYERS[cell](4, rng=1, **options)
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
    T, B = (130, 2) if form == "long" else (5, 3)  # long: three spans, 64 steps each at most
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


# -- packing ------------------------------------------------------------------------------------


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


# -- training -----------------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": lambda p: minirnn.SGD(p, 0.1),
    "momentum": lambda p: minirnn.SGD(p, 0.1, 0.9, weight_decay=0.1, nesterov=True),
    "dampened": lambda p: minirnn.SGD(p, 0.1, 0.9, dampening=0.2),
    "adam": lambda p: minirnn.Adam(p, 0.1, weight_decay=0.1),
    "adamw": lambda p: minirnn.AdamW(p, 0.1),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("flat_buffer", [False, True])
def test_optimizers(xp, rng, kind, flat_buffer):
    gradients = [floats(rng, 5, 4) for _ in range(3)]

    def run(layer, *gradients):
        if flat_buffer:
            layer.flatten_parameters()
        optimizer = OPTIMIZERS[kind](layer.parameters())
        schedule = minirnn.CosineAnnealingLR(optimizer, 5)
        for g in gradients:
            optimizer.zero_grad()
            layer.weight.grad += g
            optimizer.step()
            schedule.step()
        return layer.weight.data

    on_both(xp, minirnn.Linear(4, 5), run, *gradients)


def test_an_optimizer_follows_its_parameters(xp, rng):
    layer = minirnn.Linear(4, 5, rng=0)
    other = copy.deepcopy(layer)
    optimizers = [minirnn.Adam(m.parameters(), 0.1) for m in (layer, other)]
    g = floats(rng, 5, 4)
    for step in range(3):
        if step == 1:
            layer.to("cupy")
        for m, optimizer in zip((layer, other), optimizers, strict=True):
            m.zero_grad()
            m.weight.grad += xp.asarray(g) if m is layer and step else g
            optimizer.step()
    same(layer.weight.data, other.weight.data)
    state = optimizers[0].state_dict()
    optimizers[1].load_state_dict(state)
    same(state["state"], optimizers[1].state_dict()["state"], 0)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, np.inf, 3.0])
@pytest.mark.parametrize("flat_buffer", [False, True])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clipping(xp, rng, norm_type, flat_buffer, max_norm):
    def run(layer, g):
        if flat_buffer:
            layer.flatten_parameters()
        layer.weight.grad += g
        norm = minirnn.clip_grad_norm_(layer.parameters(), max_norm, norm_type)
        minirnn.clip_grad_value_(layer.parameters(), 0.3)
        return norm

    on_both(xp, minirnn.Linear(4, 5), run, floats(rng, 5, 4))


def test_a_norm_that_is_not_finite_is_named(xp):
    layer = minirnn.Linear(2, 2).to("cupy")
    layer.weight.grad[0, 0] = np.inf
    with pytest.raises(FloatingPointError, match="weight"):
        minirnn.clip_grad_norm_(layer.parameters(), 1.0, error_if_nonfinite=True)


class Model(minirnn.Module):
    def __init__(self, cell, **options):
        self.embedding = minirnn.Embedding(11, 6, padding_idx=10, rng=1)
        self.rnn = LAYERS[cell](6, 9, 2, dropout=0.2, bidirectional=True, rng=2, **options)
        self.head = minirnn.Linear(9, 10, rng=3)

    def forward(self, tokens):
        x, ctx_x = self.embedding.forward(tokens)
        (_, state), ctx_h = self.rnn.forward(x)
        h_n = state[0] if isinstance(state, tuple) else state
        logits, ctx_y = self.head.forward(h_n[-1])
        return logits, (ctx_x, ctx_h, ctx_y, h_n)

    def backward(self, ctx, dlogits):
        ctx_x, ctx_h, ctx_y, h_n = ctx
        dh_n = minirnn.get_array_module(h_n).zeros_like(h_n)
        dh_n[-1] = self.head.backward(ctx_y, dlogits)
        dx, _ = self.rnn.backward(
            ctx_h, None, (dh_n, None) if isinstance(self.rnn, minirnn.LSTM) else dh_n
        )
        self.embedding.backward(ctx_x, dx)


def training(model, batches):
    """Yield the loss of every step."""
    model.flatten_parameters()
    criterion, parameters = minirnn.CrossEntropyLoss(), list(model.parameters())
    optimizer = minirnn.AdamW(parameters, 0.05)
    schedule = minirnn.LinearLR(optimizer)
    for tokens, targets in batches:
        logits, ctx = model.forward(tokens)
        loss, ctx_loss = criterion.forward(logits, targets)
        optimizer.zero_grad()
        model.backward(ctx, criterion.backward(ctx_loss))
        minirnn.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        schedule.step()
        yield loss


def batches_of(rng, steps):
    for _ in range(steps):
        sequences = [rng.integers(0, 11, n) for n in (5, 3, 1, 4)]
        yield minirnn.pack_sequence(sequences, enforce_sorted=False), rng.integers(0, 10, 4)


@pytest.mark.parametrize("cell", LAYERS)
def test_training_waits_for_nothing(xp, rng, cell):
    batches = list(batches_of(rng, 4))
    host, device = Model(cell), Model(cell).to("cupy")
    expected = list(training(host, batches))
    uploaded = moved(xp, batches)
    with waiting_for_nothing(xp):
        losses = list(training(device, uploaded))
    same(losses, expected, 1e-4)
    same(list(device.state_dict().values()), list(host.state_dict().values()), 1e-4)


def test_a_batch_uploads_its_indices_once(double, rng):
    tokens, targets = moved(double, next(batches_of(rng, 1)))
    model = Model("GRU").to("cupy").eval()  # dropout draws on the host, and uploads its masks
    list(training(model, [(tokens, targets)]))
    before = COUNTS["uploads"]
    list(training(model, [(tokens, targets)]))
    # What the second pass uploads is the order in which the batch was given: to put h_n and dh_0 into it,
    # and dh_n out of it.
    assert COUNTS["uploads"] - before == 3


@pytest.mark.parametrize("form", ["padded", "packed"])
def test_each_stream_uploads_for_itself(double, rng, form):
    """What another stream uploads may not have arrived, and nobody waits for it."""
    layer = minirnn.GRU(4, 9, bidirectional=True, rng=1).to("cupy")
    x = floats(rng, 5, 3, 4) if form == "padded" else packed(rng, 4)
    expected = minirnn.GRU(4, 9, bidirectional=True, rng=1)(x)[0]
    x = moved(double, x)
    double.cuda.Device().synchronize()
    for _ in range(2):
        with double.cuda.Stream(non_blocking=True), waiting_for_nothing(double):
            y, _ = layer(x)
            before = COUNTS["uploads"]
            layer.forward(x)
            # Once a stream: what goes up again is the order in which the batch was given, for h_n.
            assert COUNTS["uploads"] - before == (form == "packed")
        same(y, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", ["padded", "packed"])
def test_another_device(double, rng, form, dtype, monkeypatch):
    """Addresses of one mean nothing on the other, also where both see a batch of the same form."""
    x = floats(rng, 5, 3, 4, dtype=dtype) if form == "padded" else packed(rng, 4, dtype)
    layer = minirnn.GRU(4, 9, bidirectional=True, rng=1, dtype=dtype)
    expected = layer(x)[0]
    right, counts = launch.shape, []
    monkeypatch.setattr(launch, "shape", lambda *a: counts.append(a[3]) or right(*a))
    for number in (0, 1, 0):
        with double.cuda.Device(number):
            here = copy.deepcopy(layer).to("cupy")
            # Of the same layout each time.
            here_x = double.asarray(x) if form == "padded" else x.map(double.asarray)
            same(here(here_x)[0], expected, 1e-5 if dtype == np.float32 else 1e-12)
    if dtype == np.float32:
        assert counts == [1, 3, 1]


def test_a_layout_pickles_without_its_uploads(double, rng):
    """Where they are uploaded again, another device may be the current one."""
    layout = packed(rng, 4).packing.layout
    layout.index("last", double)
    before = COUNTS["syncs"]
    with double.cuda.Device(1):
        again = pickle.loads(pickle.dumps(layout))
    assert COUNTS["syncs"] == before
    same(again.index("last", double) + 0, layout.last, 0)


@pytest.mark.parametrize(("dtype", "launches"), [(np.float32, 4), (np.float64, 8 * 5)])
def test_launches_of_a_training_step(double, rng, dtype, launches):
    """One a layer and way with persistent kernels; without, one for each of 5 steps and each direction."""
    model = Model("LSTM", dtype=dtype)
    model = model.to(np.dtype(dtype)).to("cupy")
    batch = moved(double, next(batches_of(rng, 1)))
    before = COUNTS["launches"]
    list(training(model, [batch]))
    assert COUNTS["launches"] - before == launches


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("trace", [False, True])
def test_one_launch_runs_both_directions(double, rng, cell, trace):
    layer = LAYERS[cell](4, 9, bidirectional=True, recurrent_dropout=0.2, rng=1).to("cupy")
    (y, *_), ctx = layer.forward(moved(double, packed(rng, 4)), trace=trace)
    assert COUNTS["launches"] == 1
    layer.backward(ctx, y, trace=trace)
    assert COUNTS["launches"] == 2
    layer(moved(double, floats(rng, 5, 3, 4)))
    assert COUNTS["launches"] == 3


# -- moving, saving, and where new arrays are made ----------------------------------------------


def test_state_dicts_cross(xp):
    host, device = minirnn.LSTM(3, 4, rng=1), minirnn.LSTM(3, 4, rng=2).to("cupy")
    device.load_state_dict(host.state_dict())
    same(device.state_dict(), host.state_dict(), 0)
    assert all(isinstance(v, xp.ndarray) for v in device.state_dict().values())
    other = minirnn.LSTM(3, 4, rng=3)
    other.load_state_dict(device.state_dict())
    same(other.state_dict(), host.state_dict(), 0)
    same(device.to("numpy").state_dict(), host.state_dict(), 0)
    assert all(isinstance(p.data, np.ndarray) for p in device.parameters())


def test_to_keeps_values_gradients_and_buffer(xp, rng):
    layer = minirnn.GRU(3, 4, rng=1)
    layer.flatten_parameters()
    layer.weight_hh_l0.grad += floats(rng, 12, 4)
    expected = [(p.data.copy(), p.grad.copy()) for p in layer.parameters()]
    layer.to("cupy").to(np.float64)
    assert all(p.buffer is layer.weight_ih_l0.buffer is not None for p in layer.parameters())
    assert layer.weight_ih_l0.dtype == np.float64
    layer.to(np.float32)
    same([(p.data, p.grad) for p in layer.parameters()], expected, 0)


def test_set_backend(xp):
    def made():
        minirnn.manual_seed(4)
        layers = [
            minirnn.RNN(3, 4, init="orthogonal"),
            minirnn.LSTM(3, 4, forget_bias=1.0),
            minirnn.GRUCell(3, 4),
            minirnn.Embedding(5, 3, padding_idx=1),
            minirnn.Linear(3, 4),
        ]
        init.uniform_(layers[-1].bias)
        init.constant_(layers[2].bias_ih, 2.0)
        return [p.data for layer in layers for p in layer.parameters()]

    expected = made()
    minirnn.set_backend("cupy")
    actual = made()
    assert all(isinstance(a, xp.ndarray) for a in actual)
    same(actual, expected, 0)


def test_mixed_arrays_are_refused(xp, rng):
    layer = minirnn.GRU(3, 4).to("cupy")
    x = floats(rng, 2, 1, 3)
    with pytest.raises(TypeError, match="input"):
        layer(x)
    with pytest.raises(TypeError, match="h_0"):
        layer(xp.asarray(x), np.zeros((1, 1, 4), np.float32))
    (y, _), ctx = layer.forward(xp.asarray(x))
    with pytest.raises(TypeError, match="doutput"):
        layer.backward(ctx, minirnn.asnumpy(y))
    with pytest.raises(TypeError, match="input lies in"):
        minirnn.Embedding(3, 4).to("cupy")(np.array([1]))
    with pytest.raises(TypeError, match="target lies in"):
        minirnn.CrossEntropyLoss()(xp.asarray(x[0]), np.array([1]))
    with pytest.raises(
        TypeError, match=r"weight_hh_l0\.data lies in numpy, parameter lies in cupy"
    ):
        layer.weight_hh_l0.data = np.zeros((12, 4), np.float32)


def test_checks_of_values_run_when_asked_for(xp):
    layer = minirnn.Embedding(3, 4).to("cupy")
    minirnn.set_checks(True)
    try:
        with pytest.raises(IndexError, match="position 1"):
            layer(xp.asarray([0, 3]))
    finally:
        minirnn.set_checks(False)


@pytest.fixture
def tf32(xp):
    """Return the least relative error that TF32 leaves, where there is TF32; it is off again afterwards.

    On a GPU none is asked for: cuBLAS may compute a small product in float32 all the same.
    """
    real = not isinstance(xp, strict_cupy.Module)
    if real and int(xp.cuda.Device().compute_capability) < 80:
        pytest.skip("TF32 needs compute capability 8.0")
    yield 0.0 if real else 1e-6
    minirnn.set_tf32(False)


def test_tf32(xp, rng, tf32):
    """Off at first; on, it is in the products of float32, forward and backward, and can be switched off."""

    def run(layer, dtype=np.float32):
        layer.zero_grad()
        y, ctx = layer.forward(xp.asarray(x.astype(dtype)))
        dx = layer.backward(ctx, xp.asarray(dy.astype(dtype)))
        return [xp.asnumpy(a) for a in (y, dx, layer.weight.grad)]

    def errors(found):
        return [np.abs(a - e).max() / np.abs(e).max() for a, e in zip(found, exact, strict=True)]

    x, dy = floats(rng, 96, 64), floats(rng, 96, 80)
    layer = minirnn.Linear(64, 80, rng=0).to("cupy")
    wide = copy.deepcopy(layer).to(np.float64)
    exact, single = run(wide, np.float64), run(layer)
    assert max(errors(single)) < 3e-6
    minirnn.set_tf32(True)
    assert all(10 * tf32 <= e < 2e-3 for e in errors(run(layer)))
    same(run(wide, np.float64), exact, 0)
    minirnn.set_tf32(False)
    same(run(layer), single, 0)


@pytest.mark.parametrize("cell", LAYERS)
def test_tf32_stays_out_of_persistent_kernels(xp, rng, cell, tf32):
    """Without input a step's product is all there is."""
    for hidden, persistent in ((32, True), (200, False)):
        layer = LAYERS[cell](1, hidden, rng=0).to("cupy")
        x, h_0 = np.zeros((5, 64, 1), np.float32), moved(xp, initial(rng, layer, 64))
        y = []
        for enabled in (False, True):
            minirnn.set_tf32(enabled)
            y.append(xp.asnumpy(layer(xp.asarray(x), h_0)[0]))
        apart = np.abs(y[0] - y[1]).max()
        assert apart == 0 if persistent else tf32 <= apart < 1e-2


def test_tf32_of_cupys_own_variable(double, rng, monkeypatch):
    """It holds until minirnn is told otherwise."""
    layer = minirnn.Linear(64, 80, rng=0).to("cupy")
    x = double.asarray(floats(rng, 96, 64))
    single = layer(x)
    double._core._routines_linalg.kinds.clear()
    monkeypatch.setenv("CUPY_TF32", "1")
    assert np.abs((layer(x) - single).get()).max() > 1e-5
    minirnn.set_tf32(False)
    same(layer(x), single, 0)


def python(code, **environment):
    """Run `code` in a fresh interpreter, in which `strict_cupy` can be imported."""
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_minirnn_does_not_load_the_kernels():
    python(
        "import sys, minirnn\n"
        "assert 'cupy' not in sys.modules\n"
        "assert not [m for m in sys.modules if m.startswith('minirnn.cuda.')]"
    )


def test_environment_variable():
    python(
        "import sys, strict_cupy\n"
        "sys.modules['cupy'] = strict_cupy.make()\n"
        "import minirnn\n"
        "assert type(minirnn.Linear(2, 2).weight.data) is strict_cupy.ndarray",
        MINIRNN_BACKEND="cupy",
    )


EXAMPLE = HERE.parents[1] / "examples" / "sum_mod"


def test_the_example_trains_and_answers(double, tmp_path, monkeypatch, capsys):
    """The same scripts: `MINIRNN_BACKEND=cupy python examples/sum_mod/train.py`."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import predict
    import train

    flags = "--total_steps 4 --warmup_step 1 --hidden_dim 8 --batch_size 6 --log_every 2 --run_name"
    results = []
    for backend in ("numpy", "cupy"):
        minirnn.set_backend(backend)
        args = train.arguments([*flags.split(), backend, "--save_dir", str(tmp_path)])
        rows, saved = [], {}
        train.train(
            args, rows.append, lambda model, step, kept=saved: kept.update(model.state_dict())
        )
        results.append(
            [np.array([row[k] for row in rows]) for k in ("loss", "grad_norm")] + [saved]
        )
        assert isinstance(saved["head.bias"], double.ndarray if backend == "cupy" else np.ndarray)
    same(results[1], results[0], 1e-4)
    monkeypatch.setattr(train, "accuracy", lambda *args: 0.5)
    monkeypatch.setattr(train, "plot", lambda *args: None)
    train.main([*flags.split(), "run", "--save_dir", str(tmp_path)])
    predict.main(["--sequence", "3 7 1", "--save_dir", str(tmp_path)])
    assert "3 + 7 + 1 = " in capsys.readouterr().out
