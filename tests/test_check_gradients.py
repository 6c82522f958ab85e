"""check_gradients finds what is wrong, and nothing else."""

import numpy as np
import pytest
from diagnosed import LAYERS, packed

import minirnn
from minirnn import diagnostics as see


class Wrong(minirnn.Module):
    """A layer with one gradient that is off by a factor."""

    def __init__(self, weight=1.0, bias=1.0, dx=1.0):
        self.linear = minirnn.Linear(3, 2, dtype=np.float64, rng=0)
        self.factors = weight, bias, dx

    def forward(self, x):
        return self.linear.forward(x)

    def backward(self, ctx, dy):
        dx = self.linear.backward(ctx, dy)
        self.linear.weight.grad *= self.factors[0]
        self.linear.bias.grad *= self.factors[1]
        return dx * self.factors[2]


@pytest.mark.parametrize(
    ("factors", "named"),
    [({"weight": 1.001}, "linear.weight"), ({"bias": -1}, "linear.bias"), ({"dx": 0.5}, "input 0")],
)
def test_check_gradients_finds_a_wrong_factor(rng, factors, named):
    x = rng.standard_normal((4, 3))
    assert set(see.check_gradients(Wrong(), x)) == {"linear.weight", "linear.bias", "input 0"}
    with pytest.raises(AssertionError, match=named) as error:
        see.check_gradients(Wrong(**factors), x)
    assert str(error.value).count(":") == 1 + 2  # that array alone, in each direction


@pytest.mark.parametrize("kind", LAYERS)
def test_check_gradients_of_layers_with_states_and_packed(rng, kind):
    layer = LAYERS[kind](3, 4, num_layers=2, bidirectional=True, dtype=np.float64, rng=0)
    x, h = packed(rng, 3), rng.standard_normal((4, 5, 4))
    before = x.data.copy()
    layer.weight_hh_l0.grad.fill(7)
    errors = see.check_gradients(layer, x, (h, h.copy()) if kind == "LSTM" else h)
    assert np.array_equal(x.data, before)
    assert (layer.weight_hh_l0.grad == 7).all()
    inputs = {"input 0", "input 1[0]", "input 1[1]"} if kind == "LSTM" else {"input 0", "input 1"}
    assert set(errors) == inputs | {name for name, _ in layer.named_parameters()}
    assert max(errors.values()) < 1e-8


def test_check_gradients_refuses_float32_and_dropout(rng):
    with pytest.raises(TypeError, match="weight: expected float64"):
        see.check_gradients(minirnn.Linear(3, 2), rng.standard_normal((4, 3)))
    with pytest.raises(ValueError, match="eval"):
        see.check_gradients(minirnn.Dropout(0.5), rng.standard_normal((4, 3)))
