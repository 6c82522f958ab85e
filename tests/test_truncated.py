"""Truncated BPTT against the same windows by hand."""

import numpy as np
import pytest
from helpers import close, data
from makers import F8, arrays, like_state, packed_input

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
