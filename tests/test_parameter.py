"""Parameters, and the buffer that holds those of a whole model."""

import copy
import operator
import pickle

import numpy as np
import pytest
from makers import Model

import minirnn


@pytest.mark.parametrize("what", ["data", "grad"])
def test_what_is_assigned_to_a_parameter_is_floating_point_and_of_its_shape(what):
    p = minirnn.Linear(3, 2, rng=0).weight
    before = getattr(p, what).copy()
    bad = (np.arange(6).reshape(2, 3), np.full((2, 3), "7"), np.ones((2, 3), complex))
    for value in bad:
        with pytest.raises(TypeError, match=rf"weight\.{what}: expected a floating-point array"):
            setattr(p, what, value)
    with pytest.raises(ValueError, match=rf"weight\.{what}: expected shape \(2, 3\), got \(3, 2\)"):
        setattr(p, what, np.ones((3, 2)))
    assert (getattr(p, what) == before).all()
    setattr(p, what, [[1, 2, 3], [4, 5, 6]])
    assert (getattr(p, what) == np.arange(1, 7).reshape(2, 3)).all()
    setattr(p, what, np.full((2, 3), 0.5))
    assert p.data.dtype == p.grad.dtype == np.float32
    assert (getattr(p, what) == 0.5).all()


def test_a_parameter_may_be_a_single_number():
    class Scale(minirnn.Module):
        def __init__(self):
            self.scale = minirnn.Parameter(np.array(2.0))

    model = Scale()
    assert model.scale.shape == model.scale.grad.shape == ()
    model.load_state_dict({"scale": np.array(3.0)})
    model.scale.grad += 1.5
    minirnn.SGD(model.parameters(), lr=1.0).step()
    assert model.scale.data == 1.5


def test_the_buffer_holds_values_and_gradients_and_stays():
    model = Model()
    before = model.state_dict()
    model.layers[0].weight.grad[...] = 3
    buffer = model.flatten_parameters()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert model.layers[0].weight.grad.sum() == 3 * 16
    for p in model.parameters():
        assert np.shares_memory(p.data, buffer.data)
        assert np.shares_memory(p.grad, buffer.grad)
    p = model.rnn.weight_hh_l0
    p.data = np.full((3, 3), 7.0)
    p.grad = np.full((3, 3), 8.0)
    p.grad += 1
    assert np.shares_memory(p.data, buffer.data)
    assert (buffer.data == 7).sum() == 9
    assert (buffer.grad == 9).sum() == 9
    model.load_state_dict(before)
    assert np.shares_memory(p.data, buffer.data)
    model.zero_grad()
    assert not buffer.grad.any()
    with pytest.raises(ValueError, match=r"rnn\.weight_hh_l0\.data: expected shape \(3, 3\)"):
        p.data = np.zeros(3)


def test_a_buffer_of_two_dtypes_is_refused():
    model = minirnn.Sequential(minirnn.Linear(2, 2), minirnn.Linear(2, 2, dtype=np.float64))
    with pytest.raises(TypeError, match="one dtype"):
        model.flatten_parameters()
    assert all(p.buffer is None for p in model.parameters())


def test_a_buffer_that_a_parameter_has_left_is_not_used():
    model = minirnn.Linear(3, 2)
    model.flatten_parameters()
    minirnn.ParameterBuffer([model.bias])
    before = model.bias.data.copy()
    for p in model.parameters():
        p.grad[...] = 1
    minirnn.SGD(model.parameters(), lr=0.5).step()
    np.testing.assert_array_equal(model.bias.data, before - np.float32(0.5))
    model.zero_grad()
    assert not model.bias.grad.any()


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_of_a_flattened_model_trains(copy_of):
    model = minirnn.Linear(3, 2)
    model.flatten_parameters()
    twin = copy_of(model)
    start = twin.weight.data.copy()
    twin.weight.grad[...] = 1
    minirnn.SGD(twin.parameters(), lr=0.5).step()
    np.testing.assert_array_equal(twin.weight.data, start - np.float32(0.5))
    np.testing.assert_array_equal(model.weight.data, start)
    assert twin.weight.name == "weight"


def test_a_parameter_is_not_replaced_by_an_array():
    layer = minirnn.Linear(3, 2)
    with pytest.raises(TypeError, match=r"weight: expected a Parameter or None, got ndarray"):
        layer.weight = np.ones((2, 3))
    with pytest.raises(ValueError, match="every parameter once"):
        minirnn.ParameterBuffer([layer.weight, layer.weight])
    layer.bias = None
    assert layer(np.ones((1, 3), np.float32)).shape == (1, 2)


def test_a_copied_buffer_holds_the_copied_parameters():
    layer = minirnn.Linear(2, 1)
    buffer = layer.flatten_parameters()
    layer.weight.grad[:] = 3
    for other, copied in (
        copy.deepcopy([layer, buffer]),
        pickle.loads(pickle.dumps([layer, buffer])),
    ):
        assert other.weight.buffer is copied
        assert copied.complete
        assert (other.weight.grad == 3).all()
        copied.zero_grad()
        assert (other.weight.grad == 0).all()
        copied.data[:] = 7
        assert (other.bias.data == 7).all()
    assert (layer.weight.grad == 3).all()
    layer.to("float64")
    assert not copy.deepcopy(buffer).complete


@pytest.mark.parametrize("what", ["data", "grad"])
def test_none_is_no_value_of_a_parameter(what):
    layer = minirnn.Linear(2, 1)
    with pytest.raises(TypeError, match=rf"weight\.{what}: expected an array, got None"):
        setattr(layer.weight, what, None)
    assert np.isfinite(getattr(layer.weight, what)).all()
    layer.zero_grad(set_to_none=True)
    assert layer.weight.grad.shape == (1, 2)


@pytest.mark.parametrize(
    "use",
    [
        np.tanh,
        np.asarray,
        np.linalg.norm,
        lambda p: np.ones((1, 1), np.float32) @ p,
        lambda p: p + 1.0,
        lambda p: 1.0 - p,
        lambda p: p @ np.ones((2, 1), np.float32),
        lambda p: -p,
        abs,
        lambda p: p > 0,
        lambda p: p**2,
        lambda p: operator.iadd(p, 1.0),
        lambda p: operator.imul(np.ones((1, 2), np.float32), p),
        lambda p: np.concatenate([p, p]),
        lambda p: np.where(True, p, 0),
        np.zeros_like,
        list,
    ],
)
def test_a_parameter_is_no_array_and_says_what_is(use):
    layer = minirnn.Linear(2, 1)
    before = layer.weight.data.copy()
    with pytest.raises(TypeError, match=r"weight: a Parameter is no array.* \.data"):
        use(layer.weight)
    np.testing.assert_array_equal(layer.weight.data, before)


def test_parameters_are_compared_as_themselves():
    a, b = minirnn.Parameter(np.ones(2)), minirnn.Parameter(np.ones(2))
    assert a == a
    assert a != b
    assert b in [a, b]
    assert len({a, b, a}) == 2


@pytest.mark.parametrize("value", ["False", 0, None, np.ones(2)])
def test_a_parameter_is_frozen_or_not(value):
    p = minirnn.Parameter(np.ones(2))
    with pytest.raises(TypeError, match="requires_grad: expected True or False"):
        p.requires_grad = value
    assert p.requires_grad is True
    p.requires_grad = np.False_
    assert copy.deepcopy(p).requires_grad is False
