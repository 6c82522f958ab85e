"""Activations, layer normalisation and the softmax, compared with torch and at the ends of their range."""

import numpy as np
import pytest
from helpers import close

import minirnn

LAYERS = {
    "ReLU": {},
    "Tanh": {},
    "Sigmoid": {},
    "Softmax": {"dim": -1},
    "Softmax of axis 1": {"dim": 1},
    "LogSoftmax": {"dim": 2},
    "LayerNorm": {"normalized_shape": 5},
    "LayerNorm of two axes": {"normalized_shape": (3, 5)},
    "LayerNorm without bias": {"normalized_shape": 5, "bias": False},
    "LayerNorm alone": {"normalized_shape": 5, "elementwise_affine": False, "eps": 0.1},
}


@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_are_those_of_torch(name):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    cls, options = name.split()[0], LAYERS[name]
    dtype = {"dtype": np.float64} if cls == "LayerNorm" else {}
    layer = getattr(minirnn, cls)(**options, **dtype)
    reference = getattr(torch.nn, cls)(**options).double()
    for p, q in zip(layer.parameters(), reference.parameters(), strict=True):
        p.data = rng.standard_normal(p.shape)
        q.data = torch.tensor(p.data.copy())
    x, dy = 2 * rng.standard_normal((2, 4, 3, 5))
    z = torch.tensor(x, requires_grad=True)
    expected = reference(z)
    expected.backward(torch.tensor(dy))
    y, ctx = layer.forward(x)
    close(y, expected.detach().numpy())
    close(layer.backward(ctx, dy), z.grad.numpy())
    for p, q in zip(layer.parameters(), reference.parameters(), strict=True):
        close(p.grad, q.grad.numpy())
    close(layer(x), y)


@pytest.mark.parametrize("name", ["ReLU", "Tanh", "Sigmoid", "Softmax", "LogSoftmax", "LayerNorm"])
def test_packed_rows_are_rows(name):
    layer = minirnn.LayerNorm(3) if name == "LayerNorm" else getattr(minirnn, name)()
    packed = minirnn.pack_sequence([np.array([[1, -2, 3]] * 2, "f4"), np.zeros((1, 3), "f4")])
    y, ctx = layer.forward(packed)
    rows, ctx_rows = layer.forward(packed.data)
    assert (y.data == rows).all()
    assert (layer.backward(ctx, packed).data == layer.backward(ctx_rows, packed.data)).all()


def test_tails_and_extremes():
    x = np.array([-80.0, -18.0, 0.0, 18.0, 1000.0, -1000.0], np.float32)
    y = minirnn.Sigmoid()(x)
    np.testing.assert_allclose(y[:2], [1.8048513e-35, 1.5229979e-8], rtol=1e-6)
    assert y[2:].tolist() == [0.5, 1.0, 1.0, 0.0]
    relu = minirnn.ReLU()
    y, ctx = relu.forward(np.array([-1.0, np.nan]))
    dx = relu.backward(ctx, np.array([np.inf, 3.0]))
    assert dx.tolist() == [0, 3]
    with pytest.raises(ValueError, match="read-only"):
        y *= 2
    with pytest.raises(ValueError, match=r"input: expected shape \(\.\.\., 3\)"):
        minirnn.LayerNorm(3)(np.ones((2, 4), np.float32))


def test_softmax():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((3, 4, 5)) * 300
    for axis in (0, 1, -1):
        close(minirnn.softmax(x, axis), torch.softmax(torch.tensor(x), axis).numpy())
        close(minirnn.log_softmax(x, axis), torch.log_softmax(torch.tensor(x), axis).numpy())


@pytest.mark.parametrize("function", [minirnn.softmax, minirnn.log_softmax])
@pytest.mark.parametrize(
    ("x", "got"),
    [
        (np.arange(3, dtype=np.int16), "ndarray of dtype int16"),
        (np.ones(3, np.float16), "ndarray of dtype float16"),
        (np.ma.masked_less(np.ones(3), 2), "MaskedArray of dtype float64"),
        (np.ones((2, 2)).view(np.matrix), "matrix of dtype float64"),
    ],
)
def test_a_softmax_is_of_a_plain_array_of_floats(function, x, got):
    message = rf"^x: expected an array of float32 or float64, got {got}; convert it with numpy\.asarray and"
    with pytest.raises(TypeError, match=message):
        function(x)
    with pytest.raises(TypeError, match=r"^axis: expected an integer, got float"):
        function(np.ones(3), 1.0)


def test_an_axis_that_there_is_not():
    for layer in (minirnn.Softmax(2), minirnn.LogSoftmax(-3)):
        with pytest.raises(ValueError, match=r"input: expected an axis .* got 2 axes"):
            layer.forward(np.ones((2, 3)))
    with pytest.raises(TypeError, match="dim"):
        minirnn.Softmax("1")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("lead", [10.0, 18.0, 40.0, 80.0])
def test_the_softmax_of_a_certain_answer_keeps_the_digits_of_what_is_left(lead, axis, dtype):
    """:math:`1 - p` is not to be had from a p that is rounded to 1."""
    x = np.zeros((2, 3), dtype)
    x[1] = lead
    x = x if axis == 0 else x.T.copy()
    certain, other = (1, 0) if axis == 0 else ((slice(None), 1), (slice(None), 0))
    small = np.exp(-lead) / (1 + np.exp(-lead))
    tolerance = 1e-6 if dtype is np.float32 else 1e-13
    close_to = {"rtol": tolerance, "atol": 0}
    log_p = minirnn.log_softmax(x, axis)
    np.testing.assert_allclose(log_p[certain], -np.log1p(np.exp(-lead)), **close_to)
    np.testing.assert_allclose(log_p[other], -lead - np.log1p(np.exp(-lead)), **close_to)
    for at, sign in (certain, 1), (other, -1):
        dy = np.zeros_like(x)
        dy[at] = 1
        softmax, log_softmax = minirnn.Softmax(axis), minirnn.LogSoftmax(axis)
        dx = softmax.backward(softmax.forward(x)[1], dy)
        np.testing.assert_allclose(dx[certain], sign * small * (1 - small), **close_to)
        dx = log_softmax.backward(log_softmax.forward(x)[1], dy)
        expected = small if sign == 1 else small - 1
        np.testing.assert_allclose(dx[certain], expected, **close_to)
        np.testing.assert_allclose(dx[other], -expected, **close_to)


@pytest.mark.parametrize("function", [minirnn.softmax, minirnn.log_softmax])
def test_ties_and_what_is_impossible_in_a_softmax(function):
    p = function(np.array([[3.0, 3.0, -np.inf], [0.0, 0.0, 0.0], [0.0, np.nan, 1.0]]))
    p = p if function is minirnn.softmax else np.exp(p)
    close(p[:2], [[0.5, 0.5, 0.0], [1 / 3] * 3])
    assert np.isnan(p[2]).all()


@pytest.mark.parametrize("function", [minirnn.softmax, minirnn.log_softmax])
@pytest.mark.parametrize("axis", [None, "x", True, 1.5, [], 1j, np.array([1]), 2**70, 2, -3])
def test_the_axis_of_a_softmax_is_one_of_the_array(function, axis):
    with pytest.raises((TypeError, ValueError), match=r"^axis: expected"):
        function(np.ones((2, 3)), axis)
