"""Contexts: what a training pass leaves, what inference does not, and what cannot change them."""

import threading

import numpy as np
import pytest
from makers import Model, Scale

import minirnn


def test_contexts_are_independent_and_survive_later_calls():
    rng = np.random.default_rng(0)
    for layer in (minirnn.RNN(3, 4), minirnn.LSTM(3, 4), minirnn.GRU(3, 4)):
        xs = [rng.standard_normal((40, 2, 3)).astype(np.float32) for _ in range(2)]
        alone = []
        for x in xs:
            layer.zero_grad()
            (y, _), ctx = layer.forward(x)
            dx, _ = layer.backward(ctx, y)
            alone.append((y.copy(), dx, layer.weight_hh_l0.grad.copy()))
        calls = [layer.forward(x) for x in xs]
        for k in (0, 1):  # in the order of the calls, not its reverse
            layer.zero_grad()
            (y, _), ctx = calls[k]
            np.testing.assert_array_equal(y, alone[k][0])
            dx, _ = layer.backward(ctx, y)
            np.testing.assert_array_equal(dx, alone[k][1])
            np.testing.assert_array_equal(layer.weight_hh_l0.grad, alone[k][2])
            again, _ = layer.backward(ctx, y)  # and a second time
            np.testing.assert_array_equal(again, dx)


def test_inference_saves_nothing_in_a_users_module_either():
    model = Model()
    tokens = np.zeros((3, 2), np.int64)
    model(tokens)
    assert all(ctx.saved is None for ctx in model.contexts)
    with pytest.raises(ValueError, match=r"made inside model\(x\)"):
        model.backward(model.contexts, np.zeros((3, 2, 3)))
    model.forward(tokens)
    assert all(ctx.saved is not None for ctx in model.contexts)


def test_inference_ends_with_an_error_and_is_of_one_thread():
    class Failing(minirnn.Module):
        def __init__(self):
            self.inner = minirnn.Linear(2, 2)

        def forward(self, x):
            thread = threading.Thread(target=lambda: seen.append(self.inner.forward(x)[1].saved))
            thread.start()
            thread.join()
            raise RuntimeError

    seen = []
    model = Failing()
    with pytest.raises(RuntimeError):
        model(np.ones((1, 2), np.float32))
    assert seen[0] is not None
    assert model.inner.forward(np.ones((1, 2), np.float32))[1].saved is not None


@pytest.mark.parametrize(
    "result", [lambda y, _: y, lambda y, _: [y, y], lambda y, ctx: (y, y, ctx), lambda *_: None]
)
def test_a_forward_without_a_context_is_refused_and_told_both_forms(result):
    with pytest.raises(TypeError, match=r"return y, ctx.*model\.forward\(x\).*y = model\(x\)"):
        Scale(result)(np.ones((2, 3)))
    assert (Scale()(np.ones((2, 3))) == 2).all()


def test_a_result_of_inference_is_no_context():
    gru = minirnn.GRU(2, 3)
    (_, _), ctx = gru(np.ones((2, 4, 2), np.float32))  # two steps: unpacks, and is h_n
    with pytest.raises(ValueError, match=r"`layer\(x\)` does not"):
        gru.backward(ctx, np.ones((2, 4, 3), np.float32))


def test_backward_without_a_gradient_is_an_error():
    for cell, none in (("RNN", None), ("GRU", None), ("LSTM", (None, None))):
        layer = getattr(minirnn, cell)(2, 3)
        _, ctx = layer.forward(np.ones((2, 4, 2), np.float32))
        for dh_n in (None, none):
            with pytest.raises(ValueError, match="expected doutput or dh_n"):
                layer.backward(ctx, None, dh_n)


def _single_layers():
    return [
        minirnn.RNN(3, 4, num_layers=2, dtype="float64", rng=0),
        minirnn.GRU(3, 4, dtype="float64", rng=0),
        minirnn.LSTM(3, 4, dtype="float64", rng=0),
        minirnn.LSTM(3, 4, proj_size=2, dtype="float64", rng=0),
        minirnn.GRU(3, 4, bidirectional=True, dtype="float64", rng=0),
        minirnn.LSTM(3, 4, checkpoint=True, dtype="float64", rng=0),
    ]


@pytest.mark.parametrize("layer", _single_layers(), ids=repr)
def test_the_output_of_a_training_pass_cannot_be_changed_before_backward(layer):
    x = np.random.default_rng(1).standard_normal((5, 2, 3))
    packed = minirnn.pack_padded_sequence(x, [5, 3])
    (y, _), _ = layer.forward(x)
    (y_packed, _), _ = layer.forward(packed)
    *_, trace = layer.forward(x, trace=True)[0]
    for seen in (y, y_packed.data, *trace.h, *trace.c):
        with pytest.raises(ValueError, match="read-only"):
            seen *= 0
    layer(x)[0][...] = 0  # inference keeps nothing, so its output is the user's


@pytest.mark.parametrize("layer", _single_layers()[:-1], ids=repr)
@pytest.mark.parametrize("packs", [False, True])
def test_an_input_changed_before_backward_does_not_change_gradients(layer, packs):
    x = np.random.default_rng(1).standard_normal((5, 2, 3))
    given = minirnn.pack_padded_sequence(x, [5, 3]) if packs else x
    found = []
    for change in (False, True):
        (y, _), ctx = layer.forward(given)
        if change:
            (given.data if packs else given)[...] = 7
        dy = y._with(np.ones_like(y.data)) if packs else np.ones_like(y)
        dx, _ = layer.backward(ctx, dy)
        found.append([dx.data if packs else dx, *[p.grad.copy() for p in layer.parameters()]])
        layer.zero_grad()
    for before, after in zip(*found, strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("kind", [minirnn.Linear, minirnn.RNNCell, minirnn.GRUCell])
def test_a_row_changed_before_backward_does_not_change_gradients(kind):
    layer, x = kind(3, 4, dtype="float64", rng=0), np.random.default_rng(1).standard_normal((2, 3))
    found = []
    for change in (False, True):
        y, ctx = layer.forward(x)
        if change:
            x += 1
        layer.backward(ctx, np.ones_like(y))
        found.append([p.grad.copy() for p in layer.parameters()])
        layer.zero_grad()
    for before, after in zip(*found, strict=True):
        np.testing.assert_array_equal(after, before)


def test_a_result_with_its_context_is_not_taken_for_an_input():
    embedding, linear = minirnn.Embedding(5, 3), minirnn.Linear(3, 2)
    pair = embedding.forward(np.array([1, 2]))
    layers = [linear, minirnn.RNN(3, 4), minirnn.GRUCell(3, 4), minirnn.Dropout(), embedding]
    for layer in layers:
        with pytest.raises(TypeError, match=r"\.forward returned.*y, ctx = layer\.forward"):
            layer.forward(pair)


def _taken_apart(layer, x, form):
    """Do what is written by mistake for ``layer.forward(x)``, in the form that the layer's pair has."""
    if form == "(output, h_n)":
        (y, _), ctx = layer(x)
    elif form == "(output, (h_n, c_n))":
        (y, (_, _)), ctx = layer(x)
    elif form == "(h, c)":
        (y, _), ctx = layer(x)
    else:
        y, ctx = layer(x)
    return y, ctx


X = np.ones((2, 2, 3), np.float32)


@pytest.mark.parametrize(
    ("layer", "x", "form"),
    [
        (minirnn.RNN(3, 4), X, "(output, h_n)"),
        (minirnn.GRU(3, 4, bidirectional=True), X, "(output, h_n)"),
        (minirnn.LSTM(3, 4), X, "(output, (h_n, c_n))"),
        (minirnn.RNNCell(3, 4), X[0], "h"),
        (minirnn.GRUCell(3, 4), X[0], "h"),
        (minirnn.LSTMCell(3, 4), X[0], "(h, c)"),
        (minirnn.Linear(3, 4), X, "y"),
        (minirnn.Embedding(5, 4), np.array([1, 2]), "y"),
        (minirnn.Dropout(0.5), X, "y"),
        (minirnn.LayerNorm(3), X, "y"),
        (minirnn.Tanh(), X, "y"),
        (minirnn.Sequential(minirnn.Linear(3, 4)), X, "y"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_half_of_a_result_is_no_context_and_forward_is_named(layer, x, form):
    y, ctx = _taken_apart(layer, x, form)  # without a word: an axis of each is 2
    with pytest.raises(ValueError, match="ctx: expected") as raised:
        layer.backward(ctx, y)
    assert f"`{form}, ctx = layer.forward(x)`" in str(raised.value)
    assert not any(p.grad.any() for p in layer.parameters())


def test_half_of_a_loss_is_no_context():
    criterion = minirnn.MSELoss(reduction="none")
    _, ctx = criterion(np.ones(2), np.zeros(2))
    with pytest.raises(ValueError, match=r"`loss, ctx = layer\.forward\(x\)`"):
        criterion.backward(ctx, np.ones(2))


@pytest.mark.parametrize("kind", [minirnn.RNNCell, minirnn.LSTMCell, minirnn.GRUCell])
def test_a_cells_backward_without_a_gradient_is_an_error(kind):
    cell = kind(3, 4, rng=0)
    y, ctx = cell.forward(np.ones((2, 3), np.float32))
    for nothing in (None, (None, None)):
        with pytest.raises((ValueError, TypeError), match="expected"):
            cell.backward(ctx, nothing)
    if kind is minirnn.LSTMCell:
        cell.backward(ctx, (None, np.ones_like(y[1])))  # one of the two is enough
        assert cell.weight_ih.grad.any()
