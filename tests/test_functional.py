"""What the pure pairs promise beyond the equations: digits, selection, scratch space."""

import numpy as np
import pytest

import minirnn
from minirnn.functional import dropout, gru, linear, lstm, rnn, scratch, shared
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
        scratch.put_back(scratch.scratch((size, 80), np.zeros(1)))
    kept = [a for arrays in scratch._scratch.store.arrays.values() for a in arrays]
    assert 0 < sum(a.nbytes for a in kept) <= 4 << 20
    assert len(scratch._scratch.store.arrays) <= 16


def closed(cell, z, dtype):
    """Return what a layer whose sigmoids get z computes, and leaves as their biases' gradient."""
    layer, alone = (
        getattr(minirnn, name)(2, 3, dtype=dtype, rng=0) for name in (cell, cell + "Cell")
    )
    gates = len(layer.recurrence.GATES)
    for p in layer.parameters():
        p.data[...] = 0  # products would be rounded
    layer.bias_ih_l0.data[...] = np.repeat([z] * (gates - 2) + [1.0, z], 3)
    if cell == "GRU":
        layer.bias_ih_l0.data[...] = np.repeat([z, z, 1.0], 3)
    for p, of_layer in zip(alone.parameters(), layer.parameters(), strict=True):
        p.data[...] = of_layer.data
    x, h = np.ones((1, 4, 2), dtype), np.full((1, 4, 3), 2, dtype)
    state, dlast = ((h, h), (None, h)) if cell == "LSTM" else (h, h)
    with np.errstate(
        all="raise"
    ):  # an exponential that overflows, or vanishes, is nobody's mistake
        (_, last, trace), ctx = layer.forward(x, state, trace=True)
        stepped = alone(x[0], (h[0], h[0]) if cell == "LSTM" else h[0])
    layer.backward(ctx, None, dlast)
    found = {name: gate[0] for name, gate in trace.gates.items()}
    if z > -20:  # beyond, their products vanish in float32
        found |= {
            "db": layer.bias_ih_l0.grad,
            "last": np.asarray(last),
            "stepped": np.asarray(stepped),
        }
    return found


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
@pytest.mark.parametrize("native", [False, True], ids=["NumPy", "C"])
@pytest.mark.parametrize("z", [-5, -10, -15, -18, -40, -80, -200, 200])
def test_a_closed_gate_has_all_its_digits(cell, native, z):
    """In float32 1/2 + tanh(z/2) / 2 has two digits left at -15, and none at -18: closed for good."""
    if native and not minirnn.native_available():
        pytest.skip("the loops in C were not built")
    minirnn.set_native(native)
    try:
        found, exact = (closed(cell, z, dtype) for dtype in (np.float32, np.float64))
    finally:
        minirnn.set_native(minirnn.native_available())
    for name in "ifo" if cell == "LSTM" else "rz":
        np.testing.assert_allclose(exact[name], 1 / (1 + np.exp(-z)), rtol=1e-12, err_msg=name)
    for name in exact:
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-5, atol=1e-38, err_msg=name)


def test_a_large_workspace_serves_again_and_two_at_once_are_two():
    like = np.zeros(1)
    for shape, again in (((100, 100), True), ((10, 10), False), ((1000, 1000), False)):
        one = scratch.workspace(shape, like)
        scratch.put_back_workspace(one)
        two, other = scratch.workspace(shape, like), scratch.workspace(shape, like)
        assert (two is one) == again
        assert other is not two
