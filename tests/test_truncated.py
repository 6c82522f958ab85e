"""Truncated BPTT against the same windows by hand."""

import numpy as np
import pytest
from helpers import all_close, all_equal, close, data
from makers import F8, LENGTHS, arrays, like_state, packed_input

import minirnn


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
    packed = minirnn.pack_sequence([np.ones((4, 2), np.float32), np.ones((2, 2), np.float32)])
    with pytest.raises(ValueError, match="input: expected"):
        minirnn.truncated_bptt(minirnn.RNN(3, 4), packed, k=2)
    with pytest.raises(TypeError, match="input: expected dtype"):
        minirnn.truncated_bptt(minirnn.RNN(2, 4, dtype=F8), packed, k=2)


def test_truncated_bptt_starts_from_the_state_as_it_was_given():
    layer, h_0 = minirnn.RNN(3, 4), np.ones((1, 2, 4), np.float32)
    x = np.zeros((4, 2, 3), np.float32)
    expected = layer(x, h_0)[0]
    windows = minirnn.truncated_bptt(layer, x, k=2, h_0=h_0)
    h_0[...] = 0  # before the first window is asked for
    np.testing.assert_array_equal(np.concatenate([w.output for w in windows]), expected)


class Speaker(minirnn.Module):
    """A language model that carries its state: embedding, LSTM, head."""

    def __init__(self, batch_first=False):
        self.embedding = minirnn.Embedding(7, 3, dtype=F8, rng=0)
        self.rnn = minirnn.LSTM(3, 4, 2, batch_first=batch_first, dtype=F8, rng=1)
        self.head = minirnn.Linear(4, 7, dtype=F8, rng=2)

    def forward(self, tokens, state=None):
        x, ctx_x = self.embedding.forward(tokens)
        (h, state), ctx_h = self.rnn.forward(x, state)
        y, ctx_y = self.head.forward(h)
        return (y, state), (ctx_x, ctx_h, ctx_y)

    def backward(self, ctx, dy):
        ctx_x, ctx_h, ctx_y = ctx
        dx, _ = self.rnn.backward(ctx_h, self.head.backward(ctx_y, dy))
        self.embedding.backward(ctx_x, dx)


def as_sequential(model):
    return minirnn.Sequential(model.embedding, minirnn.Sequential(model.rnn), model.head)


def tokens_in(form, T=40):
    rng = np.random.default_rng(0)
    if form == "packed":
        sequences = [rng.integers(0, 7, n) for n in LENGTHS]
        return minirnn.pack_sequence(sequences, enforce_sorted=False)
    shape = {"padded": (T, 4), "batch first": (4, T), "unbatched": (T,)}[form]
    return rng.integers(0, 7, shape)


def sines(y):
    return y.map(np.sin) if isinstance(y, minirnn.PackedSequence) else np.sin(y)


def gradients(model):
    return {name: p.grad.copy() for name, p in model.named_parameters()}


@pytest.mark.parametrize("kind", ["module", "function", "sequential"])
@pytest.mark.parametrize("form", ["padded", "batch first", "unbatched", "packed"])
def test_truncated_bptt_of_a_whole_model_over_tokens(form, kind):
    model, tokens = Speaker(batch_first=form == "batch first"), tokens_in(form)
    axis = int(form == "batch first")
    options = {"batch_first": bool(axis)} if kind == "function" else {}
    runs = {"module": model, "function": model.forward, "sequential": as_sequential(model)}
    run, back = runs[kind], runs["sequential" if kind == "sequential" else "module"].backward

    (output, state), ctx = model.forward(tokens)
    model.backward(ctx, sines(output))
    full = gradients(model)

    for k in (40, 100):  # all of it in one window: plain BPTT
        model.zero_grad()
        (window,) = minirnn.truncated_bptt(run, tokens, k, **options)
        back(window.ctx, sines(window.output))
        all_close(gradients(model), full, 1e-12)

    model.zero_grad()
    outputs, ends = [], []
    for window in minirnn.truncated_bptt(run, tokens, k=7, **options):
        back(window.ctx, sines(window.output))
        outputs.append(data(window.output))
        ends.append((window.steps, window.rows))
    truncated = gradients(model)
    close(np.concatenate(outputs, axis=axis if form != "packed" else 0), data(output), 1e-12)
    last = window.h_n if kind != "sequential" else window.h_n[1][0]
    for a, b in zip(last, state, strict=True):
        close(a, b, 1e-12)

    # By hand: the same steps from the same state, as a constant.
    model.zero_grad()
    state = None
    for steps, rows in ends:
        if form == "packed":
            batch = np.maximum(0, np.minimum(LENGTHS, steps.stop) - steps.start)
            x = np.zeros((7, 4), int)
            for k, s in enumerate(minirnn.unpack_sequence(tokens)):
                x[: batch[k], k] = s[steps]
            part = minirnn.pack_padded_sequence(x[: batch.max()], batch, enforce_sorted=False)
            np.testing.assert_array_equal(tokens.data[rows], part.data)
        else:
            part = tokens[:, steps] if axis else tokens[steps]
        (y, state), ctx = model.forward(part, state)
        model.backward(ctx, sines(y))
    all_close(gradients(model), truncated, 1e-12)
    assert max(np.abs(truncated[n] - full[n]).max() for n in full) > 1e-3


def test_the_optimiser_may_step_between_windows():
    model, twin, tokens = Speaker(), Speaker(), tokens_in("padded")
    optimizer, other = (minirnn.SGD(m.parameters(), 0.1) for m in (model, twin))
    for window in minirnn.truncated_bptt(model, tokens, k=9):
        optimizer.zero_grad()
        model.backward(window.ctx, np.sin(window.output))
        optimizer.step()
    state = None
    for first in range(0, 40, 9):
        (y, state), ctx = twin.forward(tokens[first : first + 9], state)
        other.zero_grad()
        twin.backward(ctx, np.sin(y))
        other.step()
    all_equal(model.state_dict(), twin.state_dict())


def test_a_model_goes_on_from_the_state_of_an_earlier_part():
    model, tokens = as_sequential(Speaker()), tokens_in("padded")
    whole = [w.output for w in minirnn.truncated_bptt(model, tokens, k=10)]
    first = [*minirnn.truncated_bptt(model, tokens[:20], k=10)]
    rest = [*minirnn.truncated_bptt(model, tokens[20:], k=10, h_0=first[-1].h_n)]
    for a, b in zip(whole, first + rest, strict=True):
        np.testing.assert_array_equal(a, b.output)


class Pair(minirnn.Module):
    """A layer of a user's own that returns a state too, which the next layer is not given."""

    def forward(self, x):
        return (2 * x, None), None

    def backward(self, ctx, dy):
        return 2 * dy


def test_a_sequential_hands_on_outputs_as_in_forward():
    model, x = minirnn.Sequential(Pair(), minirnn.GRU(3, 4, dtype=F8)), np.ones((5, 2, 3))
    (window,) = minirnn.truncated_bptt(model, x, k=5)
    np.testing.assert_array_equal(window.output, model(x))


@pytest.mark.parametrize(
    ("input", "batch_first", "expected"),
    [
        (np.arange(12).reshape(6, 2), False, [(0, 4), (4, 6)]),
        (np.arange(12).reshape(2, 6), True, [(0, 4), (4, 6)]),
        (np.arange(6), True, [(0, 4), (4, 6)]),
        (np.arange(12.0).reshape(6, 2), True, [(0, 4), (4, 6)]),  # unbatched: time, features
        (np.arange(24.0).reshape(2, 6, 2), True, [(0, 4), (4, 6)]),
    ],
)
def test_windows_cut_along_time(input, batch_first, expected):
    found = [*minirnn.windows(input, 4, batch_first=batch_first)]
    assert [(w.steps.start, w.steps.stop) for w in found] == expected
    axis = input.shape.index(6)
    np.testing.assert_array_equal(np.concatenate([w.input for w in found], axis), input)


def test_windows_of_input_and_targets_fit_each_other():
    rng = np.random.default_rng(0)
    x = packed_input(rng)
    targets = x.map(lambda rows: rows.sum(1))
    for a, b in zip(minirnn.windows(x, 7), minirnn.windows(targets, 7), strict=True):
        np.testing.assert_array_equal(a.input.data.sum(1), b.input.data)
        assert len(minirnn.unpack_sequence(a.input)) == len(LENGTHS)


def test_what_cannot_be_carried_or_cut_is_refused_at_the_call():
    tokens = tokens_in("padded")
    embedding = minirnn.Embedding(7, 3, dtype=F8)
    two_ways = minirnn.RNN(3, 4, bidirectional=True, dtype=F8)
    for model, error, says in [
        (minirnn.Sequential(embedding, two_ways), ValueError, "unidirectional"),
        (minirnn.Sequential(minirnn.Sequential(embedding, two_ways)), ValueError, "unidirectional"),
        (minirnn.Sequential(Speaker()), ValueError, "0: expected no state inside Speaker"),
        (3, TypeError, "layer: expected a module or a function"),
    ]:
        with pytest.raises(error, match=says):
            minirnn.truncated_bptt(model, tokens, k=2)
    with pytest.raises(TypeError, match="input: expected an array"):
        minirnn.truncated_bptt(Speaker(), [1, 2], k=2)
    with pytest.raises(ValueError, match="axis of time"):
        minirnn.windows(np.array(3), 2)
    with pytest.raises(ValueError, match="k: expected"):
        minirnn.windows(tokens, 0)
    for wrong in (None, (1, 2), ((1, 2, 3), 4), [[1, 2], 3]):
        with pytest.raises(TypeError, match=r"expected \(\(output, state\), ctx\)"):
            next(minirnn.truncated_bptt(lambda x, state, r=wrong: r, tokens, k=2))
