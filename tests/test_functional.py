"""What the pure pairs promise beyond the equations: digits, selection, scratch space."""

import numpy as np
import pytest

from minirnn.functional import dropout, gru, linear, lstm, rnn, shared
from minirnn.layout import equal_lengths

CELLS = {"rnn": (rnn, 1), "gru": (gru, 1), "lstm": (lstm, 2)}


def test_a_bias_gradient_over_a_million_rows_keeps_its_digits():
    x, w = np.zeros((10**6, 1), np.float32), np.zeros((3, 1), np.float32)
    _, ctx = linear.forward(x, w)
    *_, db = linear.backward(ctx, np.full((10**6, 3), 0.1, np.float32))
    assert abs(db - 100_000).max() < 0.1


@pytest.mark.parametrize("rows", [1, 128, 129, 1000, 5000])
def test_column_sums(rows):
    a = np.random.default_rng(0).standard_normal((rows, 5))
    np.testing.assert_allclose(shared.column_sums(a), a.sum(0), rtol=1e-10, atol=1e-12)


def test_what_dropout_drops_has_no_influence():
    x = np.array([1.0, np.nan, np.inf, 2.0])
    y, ctx = dropout.forward(x, 1.0)
    assert not y.any()
    assert not dropout.backward(ctx, x).any()
    mask = np.array([2.0, 0, 0, 2.0])
    np.testing.assert_array_equal(shared.masked(x, mask), [2, 0, 0, 4])


def test_relu_selects_as_torch_does():
    layout, h = equal_lengths(1, 1), np.zeros((2, 3))
    x = np.array([[-1.0, 1.0, 1.0]])
    weights = np.eye(3), np.zeros((3, 3)), None, None
    ctx = rnn.forward(x, (h,), weights, layout, "relu")
    dy, dw = np.array([[np.inf, 2.0, 3.0]]), (np.zeros((3, 3)), np.zeros((3, 3)), None, None)
    dh, trace = np.zeros((1, 3)), np.zeros((1, 3))
    h[1, 2] = np.nan
    dx = rnn.backward(ctx, dy, (dh,), dw, (trace,))
    np.testing.assert_array_equal(trace, dy)
    np.testing.assert_array_equal(dx, [[0, 2, 3]])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("B", [1, 3])
def test_a_step_within_a_step_changes_nothing(cell, B, monkeypatch):
    pair, states = CELLS[cell]
    rng = np.random.default_rng(0)
    shapes = pair.weight_shapes(2, 4, 4, True).values()
    weights = [None if s is None else rng.standard_normal(s) for s in shapes]
    x, old = rng.standard_normal((B, 2)), [rng.standard_normal((B, 4)) for _ in range(states)]

    def run(x):
        new = [np.empty_like(s) for s in old]
        pair.step(x, old, weights, new)
        return new

    expected, gate_sums = run(x), shared.gate_sums

    def interrupted(w, b, x, out):
        result = gate_sums(w, b, x, out)
        monkeypatch.setattr(pair, "gate_sums", gate_sums)
        run(-np.ones((B, 2)))
        monkeypatch.setattr(pair, "gate_sums", interrupted)
        return result

    monkeypatch.setattr(pair, "gate_sums", interrupted)
    for a, b in zip(run(x), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_scratch_is_bounded_in_bytes():
    for size in (*range(1, 200), 10**6):
        shared.keep(shared.scratch((size, 80), np.zeros(1)))
    kept = [a for arrays in shared._scratch.arrays.values() for a in arrays]
    assert 0 < sum(a.nbytes for a in kept) <= 1 << 20
    assert len(shared._scratch.arrays) <= 16
