"""What the pure pairs promise beyond the equations: digits, selection, scratch space."""

import inspect

import numpy as np
import pytest

import minirnn
from minirnn.functional import (
    dropout,
    embedding,
    gru,
    gru_before,
    linear,
    loss,
    lstm,
    normalized_gru,
    normalized_lstm,
    rnn,
    scratch,
    shared,
)
from minirnn.layout import equal_lengths

CELLS = {"rnn": (rnn, 1), "gru": (gru, 1), "lstm": (lstm, 2)}


def test_a_bias_gradient_over_a_million_rows_keeps_its_digits():
    x, w = np.zeros((10**6, 1), np.float32), np.zeros((3, 1), np.float32)
    _, ctx = linear.forward(x, w)
    db = np.zeros(3, np.float32)
    linear.backward(ctx, np.full((10**6, 3), 0.1, np.float32), np.zeros_like(w), db)
    assert abs(db - 100_000).max() < 0.1


@pytest.mark.parametrize("rows", [1, 128, 129, 1000, 5000])
def test_column_sums(rows):
    a = np.random.default_rng(0).standard_normal((rows, 5))
    np.testing.assert_allclose(shared.column_sums(a), a.sum(0), rtol=1e-10, atol=1e-12)
    assert shared.column_sums(a.astype(np.float32)).dtype == np.float32


def test_what_dropout_drops_has_no_influence():
    x = np.array([1.0, np.nan, np.inf, 2.0])
    y, ctx = dropout.forward(x, 1.0)
    assert not y.any()
    assert not dropout.backward(ctx, x).any()
    mask = np.array([2.0, 0, 0, 2.0])
    np.testing.assert_array_equal(shared.masked(x, mask), [2, 0, 0, 4])
    for p in (0.5, 1.0):
        assert dropout.draw_mask((2, 3), p, 0, np.ones(1, np.float32)).dtype == np.float32


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
    like, counts = np.zeros(1), []

    def kept():
        store = scratch._scratch.store
        arrays = [a for same in store.arrays.values() for a in same]
        size = sum(a.nbytes for a in arrays)
        assert 0 < size <= 4 << 20
        assert (store.count, store.bytes) == (len(arrays), size)
        return len(arrays)

    for size in (*range(1, 200), 10**5):
        scratch.put_back(scratch.scratch((size, 400), like))
        counts.append(kept())
    assert max(counts) == 16
    too_large, small, other = np.zeros(10**6), np.zeros((3, 5)), np.zeros((3, 5))
    scratch.put_back(too_large, small, other)
    before = kept()
    assert {id(scratch.scratch((3, 5), like)) for _ in range(2)} == {id(small), id(other)}
    assert kept() == before - 2


LOSSES = {
    "cross_entropy": minirnn.CrossEntropyLoss,
    "soft_cross_entropy": minirnn.CrossEntropyLoss,
    "nll": minirnn.NLLLoss,
    "mse": minirnn.MSELoss,
    "bce": minirnn.BCELoss,
    "bce_with_logits": minirnn.BCEWithLogitsLoss,
}


def defaults(function):
    empty = inspect.Parameter.empty
    every = inspect.signature(function).parameters.items()
    return {name: p.default for name, p in every if p.default is not empty}


@pytest.mark.parametrize("name", LOSSES)
def test_a_losss_pair_has_the_defaults_of_its_module(name):
    own, of_module = defaults(getattr(loss, name + "_forward")), defaults(LOSSES[name])
    own.pop("ignore_index", None)  # the pair ignores nothing unless told
    assert own.pop("save") is True
    assert own == {setting: of_module[setting] for setting in own}
    assert defaults(getattr(loss, name + "_backward")) == {"dloss": 1.0}


@pytest.mark.parametrize(
    "pair",
    [rnn, lstm, gru, gru_before, normalized_lstm, normalized_gru, dropout, linear, embedding],
    ids=lambda pair: pair.__name__.rpartition(".")[2],
)
def test_what_is_not_asked_for_is_saved_unmasked_and_tanh(pair):
    given = defaults(pair.forward)
    assert given.pop("save") is True
    assert given.pop("nonlinearity", "tanh") == "tanh"
    assert set(given.values()) <= {None}
    if hasattr(pair, "step"):
        assert defaults(pair.step) in ({}, {"nonlinearity": "tanh"})


@pytest.mark.parametrize("pair", [rnn, lstm, gru, gru_before, normalized_lstm, normalized_gru])
def test_without_save_a_pair_gives_the_same_states_and_no_context(pair):
    rng = np.random.default_rng(0)
    shapes = pair.weight_shapes(2, 4, 4, True).values()
    weights = [None if s is None else rng.standard_normal(s) for s in shapes]
    x, layout, found = rng.standard_normal((6, 2)), equal_lengths(3, 2), []
    for save in (True, False):
        states = [np.zeros((8, 4)) for _ in pair.STATES]
        ctx = pair.forward(x, states, weights, layout, save=save)
        assert (ctx is not None) == save
        found.append(states)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("pair", [lstm, gru, gru_before, normalized_lstm, normalized_gru])
@pytest.mark.parametrize("z", [-100, 100])
def test_a_gate_may_close_in_a_pair_that_is_called_by_itself(pair, z):
    """Its exponential overflows, or it is less than any normal number: nobody's mistake."""
    shapes = pair.weight_shapes(2, 4, 4, True)
    weights = [s and np.full(s, z if k.startswith("bias") else 0, "f4") for k, s in shapes.items()]
    x, old = np.ones((1, 2), np.float32), [np.zeros((1, 4), np.float32) for _ in pair.STATES]
    new, every = ([np.zeros_like(s) for s in old], [np.zeros((2, 4), np.float32) for _ in old])
    with np.errstate(all="raise"):
        pair.step(x, old, weights, new)
        pair.forward(x, every, weights, equal_lengths(1, 1))
    for stepped, states in zip(new, every, strict=True):
        np.testing.assert_allclose(stepped, states[1:], rtol=1e-6)


def test_without_save_a_layers_pair_has_no_context():
    x, w, tokens = np.ones((3, 2)), np.ones((4, 2)), np.array([1, 0])
    assert dropout.forward(x, 0.5, save=False)[1] is None
    assert linear.forward(x, w, save=False)[1] is None
    assert embedding.forward(tokens, w, save=False)[1] is None


@pytest.mark.parametrize("name", LOSSES)
def test_without_save_a_loss_is_the_same_and_has_no_context(name):
    p = np.full((3, 2), 0.25)
    target = np.array([0, 1, 1]) if name in ("cross_entropy", "nll") else p
    forward = getattr(loss, name + "_forward")
    value, ctx = forward(p, target)
    assert ctx is not None
    assert forward(p, target, save=False) == (value, None)


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
    """By the exponential; see the next test for the other way."""
    if native and not minirnn.native_available():
        pytest.skip("the loops in C were not built")
    minirnn.set_native(native)
    found, exact = (closed(cell, z, dtype) for dtype in (np.float32, np.float64))
    for name in "ifo" if cell == "LSTM" else "rz":
        np.testing.assert_allclose(exact[name], 1 / (1 + np.exp(-z)), rtol=1e-12, err_msg=name)
    for name in exact:
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-5, atol=1e-38, err_msg=name)


def test_by_tanh_a_closed_gate_would_have_none_left():
    """Whoever's tanh it is: one digit or two at -15, at most one step at -18, and nothing from -20 on."""
    z = np.float32([-15, -18, -19, -20, -21, -40])
    gate = np.tanh(z / 2) / 2 + np.float32(0.5)
    sigma = 1 / (1 + np.exp(-z.astype(np.float64)))
    assert 1e-3 < abs(gate[0] / sigma[0] - 1) < 0.1
    assert set((gate[1:3] * 2**25).tolist()) <= {0, 1}
    assert (gate[3:] == 0).all()
    assert (sigma > 0).all()


def test_a_large_workspace_serves_again_and_two_at_once_are_two():
    like = np.zeros(1)
    for shape, again in (((100, 100), True), ((10, 10), False), ((1000, 1000), False)):
        one = scratch.workspace(shape, like)
        scratch.put_back_workspace(one)
        two, other = scratch.workspace(shape, like), scratch.workspace(shape, like)
        assert (two is one) == again
        assert other is not two
