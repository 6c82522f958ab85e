"""State dicts, moves and conversions: all of it or nothing."""

import numpy as np
import pytest
from helpers import close
from makers import NAMES, Model

import minirnn


@pytest.mark.parametrize("target", ["cuda", "int64", 3, None])
def test_to_says_what_it_takes(target):
    layer = minirnn.Linear(3, 2)
    with pytest.raises(TypeError, match="to: expected 'numpy', 'cupy' or a floating-point dtype"):
        layer.to(target)
    assert layer.weight.dtype == np.float32


def test_state_dict_is_a_copy_and_goes_back():
    model, other = Model(), Model()
    state = model.state_dict()
    assert set(state) == {*NAMES, "shared.weight", "shared.bias"}
    state["embedding.weight"][...] = 0
    assert model.embedding.weight.data.any()
    other.load_state_dict(model.state_dict())
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(p.data, q.data)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_torch_reads_our_state_dict(name):
    torch = pytest.importorskip("torch")
    options = {"num_layers": 2, "bidirectional": True}
    ours = getattr(minirnn, name)(3, 4, **options)
    theirs = getattr(torch.nn, name)(3, 4, **options)
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    close(ours(x)[0], theirs(torch.from_numpy(x))[0].detach(), 1e-5)


def test_a_state_dict_that_does_not_fit_changes_nothing():
    model = Model()
    before = model.state_dict()
    state = model.state_dict()
    del state["rnn.bias_ih_l0"]
    state["extra"] = np.zeros(2)
    state["embedding.weight"] = np.zeros((5, 3))
    state["layers.0.bias"] = np.zeros(4, int)
    state["layers.1.bias"] = np.ones(4)
    with pytest.raises(ValueError, match="does not fit Model") as error:
        model.load_state_dict(state)
    text = str(error.value)
    for part in (
        "missing: rnn.bias_ih_l0",
        "unexpected: extra",
        "embedding.weight: expected shape (5, 4), got (5, 3)",
        "layers.0.bias: expected floating point",
    ):
        assert part in text
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_loading_not_strictly():
    layer = minirnn.Linear(2, 2)
    layer.load_state_dict({"weight": np.eye(2), "other": np.ones(1)}, strict=False)
    np.testing.assert_array_equal(layer.weight.data, np.eye(2))
    with pytest.raises(ValueError, match="weight: expected shape"):
        layer.load_state_dict({"weight": np.eye(3)}, strict=False)


def test_conversion_keeps_values_gradients_and_the_buffer():
    model = minirnn.Sequential(minirnn.Linear(2, 2), minirnn.Linear(2, 2))
    model.flatten_parameters()
    before = model.state_dict()
    model[0].weight.grad[...] = 2
    model.to("float64")
    for name, value in model.state_dict().items():
        assert value.dtype == np.float64
        np.testing.assert_array_equal(value, before[name])
    assert model[0].weight.grad.sum() == 8
    assert model[0].weight.buffer is model[1].bias.buffer is not None
    with pytest.raises(TypeError, match="floating-point dtype"):
        model.to("int64")


def test_a_state_dict_that_numpy_cannot_read_is_one_of_the_problems():
    class Odd:
        def __array__(self, dtype=None, copy=None):
            raise TypeError("Got unsupported ScalarType BFloat16")

    layer = minirnn.Linear(3, 2)
    before = layer.state_dict()
    with pytest.raises(
        ValueError, match=r"(?s)weight: expected .*BFloat16.*unexpected|unexpected.*BFloat16"
    ):
        layer.load_state_dict({"weight": Odd(), "bias": np.zeros(2), "other": 1})
    with pytest.raises(TypeError, match="state_dict: expected a mapping, got NoneType"):
        layer.load_state_dict(None)
    assert all((value == before[name]).all() for name, value in layer.state_dict().items())


def test_load_state_dict_returns_the_names_that_did_not_match():
    layer = minirnn.Linear(2, 1)
    before = layer.state_dict()
    keys = layer.load_state_dict({f"module.{n}": v + 1 for n, v in before.items()}, strict=False)
    assert keys.missing_keys == ["weight", "bias"]
    assert keys.unexpected_keys == ["module.weight", "module.bias"]
    assert layer.load_state_dict(before) == ([], [])


def test_where_warnings_are_errors_nothing_is_done_by_half():
    """A value that float32 cannot hold: everything is as it was, whichever entry it is."""
    model = minirnn.Sequential(
        minirnn.Linear(2, 2, dtype=np.float64), minirnn.Linear(2, 2, dtype=np.float64)
    )
    model[1].bias.data[0] = 1e300
    before = model.state_dict()
    with pytest.raises(RuntimeWarning, match="overflow"):
        model.to("float32")
    assert all(p.dtype == np.float64 for p in model.parameters())
    other = minirnn.Sequential(minirnn.Linear(2, 2), minirnn.Linear(2, 2))
    untouched = other.state_dict()
    with pytest.raises(RuntimeWarning, match="overflow"):
        other.load_state_dict(before)
    for name, value in untouched.items():
        assert (other.state_dict()[name] == value).all()
