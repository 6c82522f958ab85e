"""The recurrent layers where torch has no answer: numerical gradients, traces, windows, errors."""

import os
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import check_gradients, close, data, spans
from hypothesis import given, settings
from hypothesis import strategies as st

import minirnn
from minirnn.forms import pack_state
from minirnn.layout import Layout

F8 = np.float64


class MinimalGated:
    """A recurrence of a user's own, the minimal gated unit (Zhou et al. 2016) with the GRU's q.

    f = sigmoid(W_if x_t + W_hf h_{t-1}), q = W_hn h_{t-1}, n = tanh(W_in x_t + f q), all with their
    biases; h_t = h_{t-1} + f (n - h_{t-1}).
    """

    GATES = ("f", "n")

    class Context(NamedTuple):
        x: Any
        h: Any
        weights: Any
        layout: Any
        mask: Any
        steps: list  # of (f, n, q)

    @staticmethod
    def equations(x, h, h_in, weights):
        w_ih, w_hh, b_ih, b_hh = weights
        from_x, from_h, H = x @ w_ih.T + b_ih, h_in @ w_hh.T + b_hh, h.shape[1]
        f = 1 / (1 + np.exp(-from_x[:, :H] - from_h[:, :H]))
        q = from_h[:, H:]
        n = np.tanh(from_x[:, H:] + f * q)
        return f, n, q, h + f * (n - h)

    @classmethod
    def forward(cls, x, states, weights, layout, mask=None, save=True):
        (h,), B = states, layout.batch_size
        mask = np.ones_like(h[:B]) if mask is None else mask
        ctx = cls.Context(x, h, weights, layout, mask, [])
        per_step = layout.split(x), *layout.transitions(h), layout.heads(mask)
        for x_t, h_prev, h_t, mask_t in zip(*per_step, strict=True):
            *kept, h_t[...] = cls.equations(x_t, h_prev, h_prev * mask_t, weights)
            ctx.steps.append(kept)
        return ctx if save else None

    @staticmethod
    def backward(ctx, dy, dstates, dweights, trace=None):
        (w_ih, w_hh, *_), (dw_ih, dw_hh, db_ih, db_hh), layout = ctx.weights, dweights, ctx.layout
        dx = np.empty_like(ctx.x)
        per_step = (
            ctx.steps,
            *map(layout.split, (ctx.x, dx)),
            layout.transitions(ctx.h)[0],
            *map(layout.heads, (dstates[0], ctx.mask)),
            layout.split(dy),
            layout.split(None if trace is None else trace[0]),
        )
        for (f, n, q), x_t, dx_t, h, dh, mask, dy_t, trace_t in reversed(
            list(zip(*per_step, strict=True))
        ):
            if dy_t is not None:
                dh += dy_t
            if trace_t is not None:
                trace_t[...] = dh
            da_n = dh * f * (1 - n**2)
            da_f = (dh * (n - h) + da_n * q) * f * (1 - f)
            da_x, da_h = np.concatenate((da_f, da_n), 1), np.concatenate((da_f, da_n * f), 1)
            dx_t[...] = da_x @ w_ih
            dh[...] = dh * (1 - f) + da_h @ w_hh * mask
            dw_ih += da_x.T @ x_t
            dw_hh += da_h.T @ (h * mask)
            db_ih += da_x.sum(0)
            db_hh += da_h.sum(0)
        return dx

    @classmethod
    def step(cls, x, states, weights, new):
        *_, new[0][...] = cls.equations(x, *states, *states, weights)

    @staticmethod
    def gates(ctx):
        f, n, _ = (np.concatenate(rows) for rows in zip(*ctx.steps, strict=True))
        return {"f": f, "n": n}


class MinimalGatedUnit(minirnn.Recurrent):
    recurrence = MinimalGated


LIBRARY = {
    "tanh": (minirnn.RNN, {}),
    "relu": (minirnn.RNN, {"nonlinearity": "relu"}),
    "lstm": (minirnn.LSTM, {}),
    "lstm_proj": (minirnn.LSTM, {"proj_size": 2}),
    "gru": (minirnn.GRU, {}),
}
# A new cell is a pair and a subclass, and can all that the library's own can.
MAKERS = {**LIBRARY, "own": (MinimalGatedUnit, {})}
LENGTHS = [3, 40, 0, 17]


@pytest.fixture(params=MAKERS)
def make(request):
    layer, options = MAKERS[request.param]
    return lambda *args, **more: layer(*args, **{"rng": 0, **options, **more})


def packed_input(rng, features=3, lengths=LENGTHS):
    x = rng.standard_normal((len(lengths), max(lengths), features))
    return minirnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)


def arrays(state):
    return list(state) if isinstance(state, tuple) else [state]


def like_state(layer, draw, B):
    L = layer.num_layers * layer.num_directions
    values = [draw((L, B, size)) for size in layer._state_sizes]
    return values[0] if len(values) == 1 else tuple(values)


@pytest.mark.parametrize(
    "options", [{}, {"recurrent_dropout": 0.4}, {"recurrent_dropout": 0.4, "checkpoint": True}]
)
def test_numerical_gradients_with_zero_lengths(make, options):
    """Every gradient, through the same dropout masks, over several spans."""
    with spans(rows=5):
        numerical_gradients_with_zero_lengths(make, options)


def numerical_gradients_with_zero_lengths(make, options):
    rng = np.random.default_rng(0)
    drop = {} if "checkpoint" in options else {"dropout": 0.3}
    layer = make(3, 4, num_layers=2, bidirectional=True, dtype=F8, **options, **drop)
    x = packed_input(rng)
    h_0 = like_state(layer, rng.standard_normal, len(LENGTHS))

    def forward():
        layer._rng = np.random.default_rng(1)
        return layer.forward(x, h_0)

    (output, h_n), ctx = forward()
    doutput = output.map(lambda rows: rng.standard_normal(rows.shape))
    dh_n = like_state(layer, rng.standard_normal, len(LENGTHS))

    def loss():
        (output, h_n), _ = forward()
        total = np.vdot(output.data, doutput.data)
        return total + sum(np.vdot(h, d) for h, d in zip(arrays(h_n), arrays(dh_n), strict=True))

    dx, dh_0 = layer.backward(ctx, doutput, dh_n)
    pairs = [(x.data, dx.data), *zip(arrays(h_0), arrays(dh_0), strict=True)]
    pairs += [(p.data, p.grad) for p in layer.parameters()]
    check_gradients(loss, pairs, rng)
    # The sequence of length zero hands its state and its gradient through.
    for a, b in zip(arrays(h_0) + arrays(dh_0), arrays(h_n) + arrays(dh_n), strict=True):
        np.testing.assert_array_equal(a[:, 2], b[:, 2])


def test_one_step_one_sequence_and_no_step(make):
    rng = np.random.default_rng(0)
    layer = make(3, 4, bidirectional=True, dtype=F8)
    for shape in [(1, 1, 3), (1, 4, 3), (6, 1, 3)]:
        x = rng.standard_normal(shape)
        (output, _), ctx = layer.forward(x)
        d = rng.standard_normal(output.shape)
        layer.zero_grad()
        dx, _ = layer.backward(ctx, d)
        pairs = [(x, dx)] + [(p.data, p.grad) for p in layer.parameters()]
        check_gradients(lambda x=x, d=d: np.vdot(layer(x)[0], d), pairs, rng)
    h_0 = like_state(layer, rng.standard_normal, 2)
    (output, h_n), ctx = layer.forward(np.zeros((0, 2, 3)), h_0)
    for a, b in zip(arrays(h_n), arrays(h_0), strict=True):
        np.testing.assert_array_equal(a, b)
    layer.backward(ctx, None, h_n)


def test_padded_and_packed_of_equal_lengths_agree(make):
    rng = np.random.default_rng(0)
    layer = make(3, 4, num_layers=2, bidirectional=True, dtype=F8)
    x = rng.standard_normal((50, 3, 3))
    packed = minirnn.pack_padded_sequence(x, [50] * 3)
    results = []
    for input in (x, packed):
        layer.zero_grad()
        (output, h_n), ctx = layer.forward(input)
        doutput = output.map(np.sin) if input is packed else np.sin(output)
        dx, _ = layer.backward(ctx, doutput, h_n)
        grads = [p.grad.copy() for p in layer.parameters()]
        results.append([data(output).ravel(), data(dx).ravel(), *grads])
    for a, b in zip(*results, strict=True):
        close(a, b)


def test_reverse_direction_is_the_forward_one_over_reversed_sequences():
    rng = np.random.default_rng(0)
    both = minirnn.GRU(3, 4, bidirectional=True, dtype=F8)
    one = minirnn.GRU(3, 4, dtype=F8)
    one.load_state_dict({name: getattr(both, name + "_reverse").data for name in one.state_dict()})
    sequences = [rng.standard_normal((n, 3)) for n in (5, 2, 4)]
    output, h_n = both(minirnn.pack_sequence(sequences, enforce_sorted=False))
    backwards = [s[::-1].copy() for s in sequences]
    expected, last = one(minirnn.pack_sequence(backwards, enforce_sorted=False))
    for a, b in zip(
        minirnn.unpack_sequence(output), minirnn.unpack_sequence(expected), strict=True
    ):
        close(a[:, 4:], b[::-1])
    close(h_n[1], last[0])


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("span_rows", [20, 100, 1024])
def test_checkpointing_changes_no_bit(make, packed, span_rows):
    with spans(span_rows, steps=2):
        checkpointing_changes_no_bit(make, packed)


def checkpointing_changes_no_bit(make, packed):
    rng = np.random.default_rng(0)
    layer = make(3, 8, num_layers=2, bidirectional=True)
    layer_2 = make(3, 8, num_layers=2, bidirectional=True, checkpoint=True)
    layer_2.load_state_dict(layer.state_dict())
    lengths = list(range(1, 80, 7))
    x = rng.standard_normal((80, len(lengths), 3)).astype(np.float32)
    if packed:
        x = minirnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    results = []
    start = [rng.standard_normal(p.shape).astype(np.float32) for p in layer.parameters()]
    for one in (layer, layer_2):
        for p, g in zip(one.parameters(), start, strict=True):
            p.grad = g  # to be added to, as after another batch
        (output, h_n), ctx = one.forward(x)
        doutput = output.map(np.cos) if packed else np.cos(output)
        dx, dh_0 = one.backward(ctx, doutput, h_n)
        grads = [p.grad for p in one.parameters()]
        results.append([data(output), *arrays(h_n), data(dx), *arrays(dh_0), *grads])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_checkpointing_and_inference_need_less_memory(name):
    T, B, H = 512, 64, 32
    x = np.ones((T, B, H), np.float32)
    unit = x.nbytes

    def peak(work):
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / unit

    def train(checkpoint):
        layer = getattr(minirnn, name)(H, H, num_layers=1, checkpoint=checkpoint)
        layer.zero_grad()

        def work():
            (_, h_n), ctx = layer.forward(x)
            layer.backward(ctx, None, h_n)

        return work

    plain, checkpointed = peak(train(False)), peak(train(True))
    layer = getattr(minirnn, name)(H, H)
    inference = peak(lambda: layer(x))
    assert checkpointed < 0.5 * plain
    assert inference < 1.5 + (name == "LSTM")  # the output, a span, and c
    assert checkpointed < 3.3  # output, dx, and 20 arrays of a window, 1/32 of the steps


def test_trace(make):
    rng = np.random.default_rng(0)
    layer = make(3, 4, num_layers=2, bidirectional=True, dtype=F8)
    x = packed_input(rng, lengths=[3, 40, 17])
    output, h_n = layer(x)
    (output_2, _, trace), _ = layer.forward(x, trace=True)
    np.testing.assert_array_equal(output.data, output_2.data)
    np.testing.assert_array_equal(trace.h[-1].data, output.data)
    (_, _, again) = layer(x, trace=True)
    np.testing.assert_array_equal(again.h[0].data, trace.h[0].data)
    H = layer.hidden_size
    if isinstance(layer, minirnn.LSTM):
        i, f, g, o = (trace.gates[name][1].data for name in "ifgo")
        c = trace.c[1]
        previous = np.zeros_like(c.data)
        previous[:, :H] = np.r_[np.zeros((3, H)), c.data[:, :H]][c.layout.previous]
        # Directions stand side by side; check the equation of the forward one.
        one = slice(0, H)
        close(c.data[:, one], (f * previous + i * g)[:, one])
        if not layer.proj_size:
            close(trace.h[1].data[:, one], (o * np.tanh(c.data))[:, one])
        final = minirnn.last_step(c)
        close(h_n[1][2], final[:, :H])
    elif isinstance(layer, minirnn.GRU):
        _, z, n = (trace.gates[name][1].data[:, :H] for name in "rzn")
        h = trace.h[1]
        previous = np.r_[np.zeros((3, H)), h.data[:, :H]][h.layout.previous]
        close(h.data[:, :H], (1 - z) * n + z * previous)
    elif isinstance(layer, MinimalGatedUnit):
        f, n = (trace.gates[name][1].data[:, :H] for name in "fn")
        h = trace.h[1]
        previous = np.r_[np.zeros((3, H)), h.data[:, :H]][h.layout.previous]
        close(h.data[:, :H], (1 - f) * previous + f * n)
    else:
        assert trace.gates == {}
        assert trace.c == ()


def test_backward_trace_is_the_gradient_of_each_state():
    """dL/dh_t is what a nudge of h_t changes: nudge it by starting again from there."""
    rng = np.random.default_rng(0)
    T, B = 37, 2
    for cell in (minirnn.RNN, minirnn.LSTM, minirnn.GRU, MinimalGatedUnit):
        layer = cell(3, 4, dtype=F8)
        x, d = rng.standard_normal((T, B, 3)), rng.standard_normal((T, B, 4))
        (_, _), ctx = layer.forward(x)
        plain, _ = layer.backward(ctx, d)
        dx, _, trace = layer.backward(ctx, d, trace=True)
        np.testing.assert_array_equal(dx, plain)
        for t in (0, 5, T - 2):
            _, state = layer(x[: t + 1])
            (_, _), rest = layer.forward(x[t + 1 :], state)
            _, dstate = layer.backward(rest, d[t + 1 :])
            close(trace.h[0][t], arrays(dstate)[0][0] + d[t])
            if cell is minirnn.LSTM:
                # dL/dc_t also counts what c_t does through h_t.
                (_, _, states) = layer(x, trace=True)
                o, c = states.gates["o"][0][t], states.c[0][t]
                through_h = trace.h[0][t] * o * (1 - np.tanh(c) ** 2)
                close(trace.c[0][t], dstate[1][0] + through_h)


@pytest.mark.parametrize("packed", [True, False])
def test_truncated_bptt(make, packed):
    rng = np.random.default_rng(0)
    layer = make(3, 4, num_layers=2, dtype=F8)
    x = packed_input(rng) if packed else rng.standard_normal((40, 4, 3))
    h_0 = like_state(layer, rng.standard_normal, 4)
    (output, h_n), ctx = layer.forward(x, h_0)
    d = output.map(np.sin) if packed else np.sin(output)
    dx, _ = layer.backward(ctx, d)
    full = [p.grad.copy() for p in layer.parameters()]

    layer.zero_grad()
    (window,) = minirnn.truncated_bptt(layer, x, k=40, h_0=h_0)
    dx_w, _ = layer.backward(window.ctx, d)
    np.testing.assert_array_equal(data(dx_w), data(dx))
    for p, g in zip(layer.parameters(), full, strict=True):
        np.testing.assert_array_equal(p.grad, g)

    layer.zero_grad()
    outputs = []
    for window in minirnn.truncated_bptt(layer, x, k=7, h_0=h_0):
        outputs.append(data(window.output))
        # By hand: the same steps from the same state, as a constant.
        part = window.output.map(np.sin) if packed else np.sin(window.output)
        layer.backward(window.ctx, part)
    close(np.concatenate(outputs), data(output))
    for a, b in zip(arrays(window.h_n), arrays(h_n), strict=True):
        close(a, b)
    truncated = [p.grad.copy() for p in layer.parameters()]
    assert max(np.abs(a - b).max() for a, b in zip(truncated, full, strict=True)) > 1e-3

    if not packed:
        layer.zero_grad()
        state = h_0
        for first in range(0, 40, 7):
            (y, state), ctx = layer.forward(x[first : first + 7], state)
            layer.backward(ctx, np.sin(y))
        for p, g in zip(layer.parameters(), truncated, strict=True):
            np.testing.assert_array_equal(p.grad, g)


def test_truncated_bptt_with_batch_first():
    rng = np.random.default_rng(0)
    layer = minirnn.RNN(3, 4, batch_first=True, dtype=F8)
    x = rng.standard_normal((2, 10, 3))
    parts = [w.output for w in minirnn.truncated_bptt(layer, x, k=4)]
    close(np.concatenate(parts, axis=1), layer(x)[0])


@pytest.mark.parametrize("batch_first", [True, False])
def test_streaming_equals_the_batch(make, batch_first):
    rng = np.random.default_rng(0)
    layer = make(3, 4, num_layers=2, batch_first=batch_first, dtype=F8)
    x = rng.standard_normal((6, 2, 3))
    output, h_n = layer(x.swapaxes(0, 1) if batch_first else x)
    output = output.swapaxes(0, 1) if batch_first else output
    state = None
    for x_t, expected in zip(x, output, strict=True):
        y, state = layer.step(x_t, state)
        close(y, expected)
    for a, b in zip(arrays(state), arrays(h_n), strict=True):
        close(a, b)
    state = None
    for x_t, expected in zip(x[:, 1], output[:, 1], strict=True):
        y, state = layer.step(x_t, state)
        close(y, expected)
    with pytest.raises(ValueError, match="bidirectional"):
        make(3, 4, bidirectional=True).step(x[0].astype(np.float32))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_threads_change_no_bit(make, checkpoint, monkeypatch):
    """Two directions in two threads, nested in callers that are threads themselves."""
    monkeypatch.setattr("minirnn.bptt.execution._THREADED_SIZE", 1)
    rng = np.random.default_rng(0)
    options = {"num_layers": 2, "bidirectional": True, "recurrent_dropout": 0.2}
    layer = make(3, 40, checkpoint=checkpoint, **options)
    x = packed_input(rng).map(lambda rows: rows.astype(np.float32))

    def run(_=None):
        one = make(3, 40, checkpoint=checkpoint, **options)
        one.load_state_dict(layer.state_dict())
        one._rng = np.random.default_rng(5)
        (output, h_n), ctx = one.forward(x)
        dx, dh_0 = one.backward(ctx, output.map(np.cos), h_n)
        grads = [p.grad for p in one.parameters()]
        return [output.data, *arrays(h_n), dx.data, *arrays(dh_0), *grads]

    alone = run()
    minirnn.set_num_threads(2)
    try:
        with ThreadPoolExecutor(3) as pool:
            for result in [run(), *pool.map(run, range(6))]:
                for a, b in zip(result, alone, strict=True):
                    np.testing.assert_array_equal(a, b)
    finally:
        minirnn.set_num_threads(1)
    with pytest.raises(ValueError, match="threads: expected a positive integer, got 0"):
        minirnn.set_num_threads(0)


@pytest.mark.parametrize("form", ["packed", "padded", "unsorted, one of length zero"])
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_threads_share_a_batch(make, bidirectional, checkpoint, form, monkeypatch):
    """Parts of the batch change nothing beyond rounding, and not from one run to the next."""
    monkeypatch.setattr("minirnn.bptt.execution._THREADED_SIZE", 1)
    rng = np.random.default_rng(0)
    options = {"num_layers": 2, "dropout": 0.3, "recurrent_dropout": 0.2, "dtype": F8}
    layer = make(3, 5, bidirectional=bidirectional, checkpoint=checkpoint, **options)
    of_two_sequences = 2 * layer.weight_hh_l0.size
    monkeypatch.setattr("minirnn.bptt.execution._THREADED_STEP", of_two_sequences)
    x = rng.standard_normal((9, 7, 3))
    if form != "padded":
        lengths = [9, 8, 8, 5, 2, 1, 1] if form == "packed" else [2, 9, 0, 3, 5, 1, 8]
        x = minirnn.pack_padded_sequence(x, lengths, enforce_sorted=form == "packed")
    shapes = [(layer.num_layers * layer.num_directions, 7, size) for size in layer._state_sizes]
    h_0, dh_n = ([rng.standard_normal(shape) for shape in shapes] for _ in range(2))
    for p in layer.parameters():
        p.grad = rng.standard_normal(p.shape)
    before = [p.grad.copy() for p in layer.parameters()]

    def run(threads, given):
        for p, grad in zip(layer.parameters(), before, strict=True):
            p.grad = grad
        layer._rng = np.random.default_rng(5)
        minirnn.set_num_threads(threads)
        state = pack_state(h_0) if given else None
        (output, h_n), ctx = layer.forward(x, state)
        dy = output.map(np.cos) if form != "padded" else np.cos(output)
        dstate = pack_state(dh_n)
        dx, dh_0, trace = layer.backward(ctx, dy if given else None, dstate, trace=True)
        grads = [p.grad.copy() for p in layer.parameters()]
        traced = [data(t) for t in (*trace.h, *trace.c)]
        return [data(output), *arrays(h_n), data(dx), *arrays(dh_0), *traced, *grads]

    deal, calls = Layout.parts, []
    monkeypatch.setattr(Layout, "parts", lambda *args: calls.append(args[1]) or deal(*args))
    try:
        for given in (False, True):
            alone = run(1, given)
            assert not calls
            for threads in (2, 4, 9):
                for a, b, c in zip(run(threads, given), run(threads, given), alone, strict=True):
                    np.testing.assert_array_equal(a, b)
                    close(a, c, 1e-12)
                count = min(threads // layer.num_directions, 3)
                assert set(calls) == ({count} if count > 1 else set())
                calls.clear()
    finally:
        minirnn.set_num_threads(1)


@pytest.mark.parametrize("make", LIBRARY, indirect=True)
def test_streaming_allocates_its_result_and_nothing_else(make):
    layer = make(64, 512, num_layers=2)
    x = np.ones((16, 64), np.float32)
    _, state = layer.step(x)
    result = 16 * x.itemsize * (2 * sum(layer._state_sizes) + layer.output_size)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = layer.step(x, state)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert kept is not None
    assert peak < result + 16_000  # iterators, views, tuples: less than one array (B, H)


@pytest.mark.parametrize(
    ("x_t", "state", "error", "message"),
    [
        (np.ones((2, 4), np.float32), None, ValueError, "x_t: expected shape"),
        (np.ones((1, 2, 3), np.float32), None, ValueError, "x_t: expected shape"),
        (np.ones((2, 3)), None, TypeError, "x_t: expected dtype float32"),
        (
            np.ones((2, 3), np.float32),
            np.ones((1, 1, 4), np.float32),
            ValueError,
            "state: expected",
        ),
    ],
)
def test_streaming_refuses(x_t, state, error, message):
    with pytest.raises(error, match=message):
        minirnn.GRU(3, 4).step(x_t, state)


def test_last_step_and_by_layer_direction():
    rng = np.random.default_rng(0)
    lengths = [2, 5, 3]
    layer = minirnn.RNN(3, 4, num_layers=2, dtype=F8)
    x = rng.standard_normal((3, 5, 3))
    packed = minirnn.pack_padded_sequence(x, lengths, True, False)
    output, h_n = layer(packed)
    close(minirnn.last_step(output), h_n[-1])
    padded, n = minirnn.pad_packed_sequence(output)
    close(minirnn.last_step(padded, n), h_n[-1])
    close(minirnn.last_step(padded.swapaxes(0, 1), lengths, batch_first=True), h_n[-1])
    close(minirnn.last_step(padded), padded[-1])
    both = minirnn.GRU(3, 4, num_layers=3, bidirectional=True, dtype=F8)
    output, h_n = both(x.swapaxes(0, 1))
    grid = minirnn.by_layer_direction(h_n, 2)
    close(grid[-1, 0], output[-1, :, :4])
    close(grid[-1, 1], output[0, :, 4:])
    for call in (
        lambda: minirnn.last_step(padded, [6, 1, 1]),
        lambda: minirnn.last_step(padded, [0, 1, 1]),
        lambda: minirnn.last_step(padded[0]),
        lambda: minirnn.last_step(padded, [1.0, 2.0, 3.0]),
        lambda: minirnn.by_layer_direction(h_n[:3], 2),
    ):
        with pytest.raises(ValueError, match=r"expected|length"):
            call()


def test_recurrent_dropout_is_one_mask_a_sequence_and_off_in_eval():
    rng = np.random.default_rng(0)
    layer = minirnn.RNN(3, 50, recurrent_dropout=0.5, rng=3, dtype=F8)
    layer.weight_ih_l0.data[...] = 0
    layer.bias_ih_l0.data[...] = 1
    layer.bias_hh_l0.data[...] = 0
    layer.weight_hh_l0.data[...] = np.eye(50)
    x = rng.standard_normal((4, 2, 3))
    output, _ = layer(x)
    # h_t = tanh(1 + m h_{t-1}): a unit that is dropped once is dropped at every step.
    dropped = np.isclose(output[1:], np.tanh(1))
    assert (dropped == dropped[0]).all()
    assert 0.3 < dropped[0].mean() < 0.7
    assert (dropped[0, 0] != dropped[0, 1]).any()
    plain = minirnn.RNN(3, 50, dtype=F8)
    plain.load_state_dict(layer.state_dict())
    layer.eval()
    np.testing.assert_array_equal(layer(x)[0], plain(x)[0])


def test_dropout_between_layers_is_reproducible_and_off_in_eval():
    x = np.random.default_rng(0).standard_normal((4, 2, 3))
    runs = [minirnn.LSTM(3, 4, 2, dropout=0.5, dtype=F8, rng=1)(x)[0] for _ in range(2)]
    np.testing.assert_array_equal(*runs)
    layer = minirnn.LSTM(3, 4, 2, dropout=0.5, dtype=F8)
    plain = minirnn.LSTM(3, 4, 2, dtype=F8)
    plain.load_state_dict(layer.state_dict())
    assert (layer(x)[0] != plain(x)[0]).any()
    np.testing.assert_array_equal(layer.eval()(x)[0], plain(x)[0])
    with pytest.warns(UserWarning, match="only one: it does nothing"):
        minirnn.LSTM(3, 4, dropout=0.5)


def test_orthogonal_start_and_forget_bias():
    lstm = minirnn.LSTM(3, 8, 2, bidirectional=True, init="orthogonal", forget_bias=1.0, dtype=F8)
    for name, p in lstm.named_parameters():
        if "weight_hh" in name:
            for block in p.data.reshape(4, 8, 8):
                close(block @ block.T, np.eye(8))
        if "bias" in name:
            expected = np.zeros(32)
            expected[8:16] = 1.0 if "bias_ih" in name else 0.0
            np.testing.assert_array_equal(p.data, expected)
    with pytest.raises(ValueError, match="init"):
        minirnn.LSTM(3, 4, init="xavier")
    with pytest.raises(TypeError, match="dtype: expected a floating-point one"):
        minirnn.RNN(3, 4, dtype=int)
    with pytest.raises(ValueError, match="forget_bias"):
        minirnn.LSTM(3, 4, bias=False, forget_bias=1.0)


CELLS = [("RNNCell", {}), ("RNNCell", {"nonlinearity": "relu"}), ("LSTMCell", {}), ("GRUCell", {})]


@settings(max_examples=60, deadline=None)
@given(
    cell=st.sampled_from(CELLS),
    sizes=st.tuples(*[st.integers(1, 6)] * 3),
    bias=st.booleans(),
    batched=st.booleans(),
    with_state=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_cells_agree_with_torch(cell, sizes, bias, batched, with_state, seed):
    torch = pytest.importorskip("torch")
    (name, options), (B, E, H) = cell, sizes
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    ours = getattr(minirnn, name)(E, H, bias=bias, dtype=F8, **options)
    theirs = getattr(torch.nn, name)(E, H, bias=bias, dtype=torch.float64, **options)
    ours.load_state_dict(theirs.state_dict())
    lead = (B,) if batched else ()
    x = rng.standard_normal((*lead, E))
    pair = name == "LSTMCell"
    state = [rng.standard_normal((*lead, H)) for _ in range(2 if pair else 1)]
    their_x = torch.from_numpy(x).requires_grad_(True)
    their_state = [torch.from_numpy(s).requires_grad_(True) for s in state]

    def pack(s):
        return None if not with_state else tuple(s) if pair else s[0]

    h, ctx = ours.forward(x, pack(state))
    expected = theirs(their_x, pack(their_state))
    for a, b in zip(arrays(ours(x, pack(state))), arrays(h), strict=True):
        close(a, b)  # inference takes a way of its own
    d = [rng.standard_normal((*lead, H)) for _ in state]
    loss = 0
    for a, b, g in zip(arrays(h), expected if pair else [expected], d, strict=True):
        close(a, b.detach())
        loss = loss + (b * torch.from_numpy(g)).sum()
    loss.backward()
    dx, dstate = ours.backward(ctx, tuple(d) if pair else d[0])
    close(dx, their_x.grad)
    if with_state:
        for a, b in zip(arrays(dstate), their_state, strict=True):
            close(a, b.grad)
    for key, p in theirs.named_parameters():
        close(getattr(ours, key).grad, p.grad)


X = np.ones((5, 2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: r(np.ones((5, 2, 4), np.float32)), ValueError, r"input.*\(T, B, features\)"),
        (lambda r: r(np.ones(3, np.float32)), ValueError, r"\(T, B, I\), \(T, I\) or a Packed"),
        (lambda r: r(np.ones((5, 0, 3), np.float32)), ValueError, "at least one sequence"),
        (lambda r: r(np.ones((5, 2, 3))), TypeError, "input: expected dtype float32"),
        (lambda r: r(np.ones((5, 2, 3), int)), TypeError, "floating-point"),
        (lambda r: r(X, np.ones((1, 3, 4), np.float32)), ValueError, r"h_0.*\(1, 2, 4\), got"),
        (lambda r: r(X, np.ones((1, 2, 4))), TypeError, "h_0: expected dtype"),
        (lambda r: r(X, [[1.0]]), TypeError, "got builtins.list"),
        (
            lambda r: r.backward(r.forward(X)[1], np.ones((5, 2, 3), np.float32)),
            ValueError,
            "doutput",
        ),
        (lambda r: r.backward(r.forward(X)[1], np.ones((5, 2, 4))), TypeError, "doutput"),
        (
            lambda r: r.backward(r.forward(X)[1], None, np.ones((2, 2, 4), np.float32)),
            ValueError,
            "dh_n",
        ),
        (
            lambda r: r.backward(minirnn.RNN(3, 4).forward(X)[1], None),
            ValueError,
            "another RNN",
        ),
        (
            lambda r: r.backward(r.forward(minirnn.pack_padded_sequence(X, [5, 2]))[1], X),
            TypeError,
            "PackedSequence",
        ),
        (lambda r: minirnn.RNN(0, 4), ValueError, "input_size: expected a positive"),
        (lambda r: minirnn.RNN(3, 4, num_layers=0), ValueError, "num_layers"),
        (lambda r: minirnn.RNN(3, 4, nonlinearity="sin"), ValueError, "nonlinearity"),
        (lambda r: minirnn.RNN(3, 4, 2, dropout=1.5), ValueError, "dropout"),
        (lambda r: minirnn.LSTM(3, 4, proj_size=4), ValueError, "proj_size"),
        (lambda r: minirnn.GRU(3, 4, proj_size=2), TypeError, "proj_size"),
        (lambda r: minirnn.LSTM(3, 4)(X, X), TypeError, "expected a pair"),
        (lambda r: minirnn.RNNCell(3, 4)(np.ones((2, 5), np.float32)), ValueError, "input"),
        (lambda r: minirnn.LSTMCell(3, 4)(X[0], X[0]), TypeError, "pair"),
    ],
)
def test_bad_input_changes_nothing(call, error, message):
    layer = minirnn.RNN(3, 4)
    with pytest.raises(error, match=message):
        call(layer)
    assert not any(p.grad.any() for p in layer.parameters())


def test_a_gradient_packed_in_another_way_is_refused():
    layer = minirnn.RNN(3, 4)
    _, ctx = layer.forward(minirnn.pack_padded_sequence(X, [5, 2]))
    other = minirnn.pack_padded_sequence(np.ones((5, 2, 4), np.float32), [4, 3])
    with pytest.raises(ValueError, match=r"doutput: expected batch_sizes \[2, 2, 1, 1, 1\]"):
        layer.backward(ctx, other)


@pytest.mark.parametrize("way", ["fortran", "broadcast", "strided"])
def test_any_memory_order_of_the_input(make, way):
    rng = np.random.default_rng(0)
    layer = make(3, 4, dtype=F8)
    x = rng.standard_normal((6, 2, 3))
    if way == "broadcast":
        x = np.broadcast_to(x[0, 0], x.shape)
    results = []
    for one in (np.ascontiguousarray(x), {"fortran": np.asfortranarray(x)}.get(way, x)):
        one = one[::2] if way == "strided" else one
        layer.zero_grad()
        (output, _), ctx = layer.forward(one)
        dx, _ = layer.backward(ctx, np.cos(output))
        (last, _), ctx = layer.forward(one[:, 0].T.copy().T)
        dx_1, _ = layer.backward(ctx, np.cos(last))
        results.append([output, dx, last, dx_1, *[p.grad.copy() for p in layer.parameters()]])
    for a, b in zip(*results, strict=True):
        close(a, b)


def test_checkpoints_of_no_steps(make):
    layer = make(3, 4, num_layers=2, checkpoint=True)
    x = minirnn.pack_padded_sequence(np.ones((3, 2, 3), np.float32), [0, 0])
    (_, h_n), ctx = layer.forward(x)
    dx, dh_0 = layer.backward(ctx, None, h_n)
    assert dx.data.shape == (0, 3)
    for a, b in zip(arrays(dh_0), arrays(h_n), strict=True):
        np.testing.assert_array_equal(a, b)


def test_truncated_bptt_refuses_at_the_call():
    x = np.ones((5, 2, 3), np.float32)
    with pytest.raises(ValueError, match="k: expected"):
        minirnn.truncated_bptt(minirnn.RNN(3, 4), x, k=0)
    with pytest.raises(ValueError, match="bidirectional"):
        minirnn.truncated_bptt(minirnn.RNN(3, 4, bidirectional=True), x, k=2)
    with pytest.raises(ValueError, match="h_0: expected"):
        minirnn.truncated_bptt(minirnn.RNN(3, 4), x, k=2, h_0=np.ones((1, 1, 4), np.float32))
    with pytest.raises(TypeError, match="input"):
        minirnn.truncated_bptt(minirnn.RNN(3, 4), [[1.0]], k=2)


def test_a_gradient_in_another_order_is_refused(make):
    layer = make(3, 4)
    x = minirnn.pack_sequence([np.ones((2, 3), np.float32)] * 2)
    (output, _), ctx = layer.forward(x)
    turned = minirnn.PackedSequence(output.data, output.batch_sizes, [1, 0])
    with pytest.raises(ValueError, match=r"doutput: expected the sequences in the order \[0, 1\]"):
        layer.backward(ctx, turned)


@pytest.mark.parametrize("sizes", [(3, 0, 0), (3, 4, 1.5), (3, "a", 0)])
def test_lstm_sizes_are_named(sizes):
    input_size, hidden_size, proj_size = sizes
    name = "proj_size" if proj_size else "hidden_size"
    with pytest.raises(ValueError, match=f"{name}: expected a positive integer"):
        minirnn.LSTM(input_size, hidden_size, proj_size=proj_size)


def test_a_pair_may_be_a_list_and_its_members_are_told_apart():
    x, h = np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)
    cell, layer = minirnn.LSTMCell(3, 4, rng=0), minirnn.LSTM(3, 4, rng=0)
    close(cell(x, [h, 2 * h])[1], cell(x, (h, 2 * h))[1], 0)
    with pytest.raises(ValueError, match=r"hx\[1\]: expected shape .* \(2, 4\), got \(2, 5\)"):
        cell(x, (h, np.ones((2, 5), np.float32)))
    with pytest.raises(TypeError, match="hx: expected a pair of h and c, got ndarray"):
        cell(x, h)
    with pytest.raises(ValueError, match=r"c_0: expected shape .* \(1, 2, 4\), got \(1, 2, 5\)"):
        layer(x[None], [h[None], np.ones((1, 2, 5), np.float32)])
    with pytest.raises(TypeError, match="h_0: expected a pair of h and c, got ndarray"):
        layer(x[None], h[None])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own():
    code = """
import os, numpy as np, minirnn
minirnn.set_num_threads(2)
layer, x = minirnn.LSTM(128, 256, rng=0), np.ones((3, 8, 128), np.float32)
before = layer(x)[0]
if os.fork() == 0:
    os._exit(0 if (layer(x)[0] == before).all() else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=120).returncode == 0
