"""One step after the other gives what the whole sequence gives."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from helpers import close
from makers import F8, LIBRARY, arrays

import minirnn


@pytest.mark.parametrize("batch_first", [True, False])
def test_streaming_equals_the_batch(make, batch_first):
    rng = np.random.default_rng(0)
    layer = make(3, 4, num_layers=2, batch_first=batch_first, dtype=F8)
    x = rng.standard_normal((6, 2, 3))
    output, h_n = layer(x.swapaxes(0, 1) if batch_first else x)
    output = output.swapaxes(0, 1) if batch_first else output
    state = None
    for x_t, expected in zip(x, output, strict=True):
        y, state = layer.step(x_t, state)
        close(y, expected)
    for a, b in zip(arrays(state), arrays(h_n), strict=True):
        close(a, b)
    state = None
    for x_t, expected in zip(x[:, 1], output[:, 1], strict=True):
        y, state = layer.step(x_t, state)
        close(y, expected)
    with pytest.raises(ValueError, match="bidirectional"):
        make(3, 4, bidirectional=True).step(x[0].astype(np.float32))


@pytest.mark.parametrize("make", LIBRARY, indirect=True)
@pytest.mark.parametrize("batch", [1, 2])
def test_streaming_without_biases(make, batch):
    layer = make(3, 4, bias=False, dtype=F8)
    x, state = np.random.default_rng(0).standard_normal((6, batch, 3)), None
    for x_t, expected in zip(x, layer(x)[0], strict=True):
        y, state = layer.step(x_t, state)
        close(y, expected)


@pytest.mark.parametrize("make", LIBRARY, indirect=True)
@pytest.mark.parametrize("batch", [16, 40])
def test_streaming_allocates_its_result_and_nothing_else(make, batch):
    layer = make(64, 512, num_layers=2)
    x = np.ones((batch, 64), np.float32)
    _, state = layer.step(x)
    result = batch * x.itemsize * (2 * sum(layer._state_sizes) + layer.output_size)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = layer.step(x, state)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert kept is not None
    assert peak < result + 16_000  # iterators, views, tuples: less than one array (B, H)


@pytest.mark.parametrize(
    ("x_t", "state", "error", "message"),
    [
        (np.ones((2, 4), np.float32), None, ValueError, "x_t: expected shape"),
        (np.ones((1, 2, 3), np.float32), None, ValueError, "x_t: expected shape"),
        (np.ones((2, 3)), None, TypeError, "x_t: expected dtype float32"),
        (
            np.ones((2, 3), np.float32),
            np.ones((1, 1, 4), np.float32),
            ValueError,
            "state: expected",
        ),
    ],
)
def test_streaming_refuses(x_t, state, error, message):
    with pytest.raises(error, match=message):
        minirnn.GRU(3, 4).step(x_t, state)


def test_a_step_hears_of_what_has_changed():
    """What it found for one input it keeps for the next."""
    layer, x = (
        minirnn.RNN(3, 4, 2, dtype=F8, rng=0),
        np.random.default_rng(0).standard_normal((2, 3)),
    )

    def agrees():
        y, state = layer.step(x)
        close(y, layer(x[None])[0][0], 1e-6 if y.dtype == np.float32 else 1e-14)
        assert y.dtype == x.dtype
        return y, state

    before, _ = agrees()
    layer.weight_hh_l0.data[...] += 1  # in its place
    layer.weight_ih_l1.data = layer.weight_ih_l1.data * 2
    assert (agrees()[0] != before).all()
    layer.nonlinearity = "relu"
    assert (agrees()[0] >= 0).all()
    for rows in (x[:1], x[0][None], np.concatenate([x, x])):
        x = rows
        agrees()
    y, state = layer.step(x[1])
    close(y, agrees()[0][1], 1e-14)
    with pytest.raises(ValueError, match="state: expected shape"):
        layer.step(x, state)
    with pytest.raises(TypeError, match="x_t: expected a NumPy or CuPy array"):
        layer.step(x.tolist())
    with pytest.raises(ValueError, match="x_t: expected shape"):
        layer.step(x[:, :2])
    layer.to(np.float32)
    with pytest.raises(TypeError, match="x_t: expected dtype float32"):
        layer.step(x)
    x = x.astype(np.float32)
    y, _ = agrees()
    minirnn.set_native(False)
    close(layer.step(x)[0], y, 1e-6)
    np.testing.assert_array_equal(copy.deepcopy(layer).step(x)[0], layer.step(x)[0])


def test_the_class_of_the_first_input_does_not_decide_what_runs():
    if not minirnn.native_available():
        pytest.skip("the loops in C were not built")
    minirnn.set_native(True)
    layer, steps = minirnn.GRU(3, 4, rng=0), []
    x = np.ones((2, 3), np.float32)
    for first in (x, x.view(np.memmap)):
        minirnn.set_native(True)  # what was kept is good no more
        layer.step(first)
        steps.append(layer._kept_step.value.step)
    assert steps[0] is steps[1]
    assert "native" in steps[0].__module__


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_stepper_goes_on_by_itself(make, copied):
    layer = make(3, 4, num_layers=2)
    stepper, x = layer.stepper(2), np.ones((2, 3), np.float32)
    stepper(x)
    other = copied(stepper)
    ahead = [stepper(x) for _ in range(3)]
    for expected in ahead:
        np.testing.assert_array_equal(other(x), expected)
    other.reset()
    np.testing.assert_array_equal(other(x), layer.stepper(2)(x))
    with pytest.raises(TypeError, match="a stepper cannot be pickled: pickle the layer"):
        pickle.dumps(stepper)
