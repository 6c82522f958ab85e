"""Clipping by norm and by value, against torch and in what overflows."""

import math

import numpy as np
import pytest
from helpers import close
from makers import parameters, weight

import minirnn


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.5, math.inf])
@pytest.mark.parametrize("max_norm", [0.1, 1e3])
@pytest.mark.parametrize("flat", [False, True])
def test_clip_grad_norm(norm_type, max_norm, flat):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ours, values = parameters(rng)
    theirs = [torch.nn.Parameter(torch.from_numpy(v)) for v in values]
    if flat:
        minirnn.ParameterBuffer(ours)
    for p, q in zip(ours, theirs, strict=True):
        p.grad[...] = rng.standard_normal(p.shape)
        q.grad = torch.from_numpy(p.grad.copy())
    norm = minirnn.clip_grad_norm_(iter(ours), max_norm, norm_type)
    close(norm, torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type))
    for p, q in zip(ours, theirs, strict=True):
        close(p.grad, q.grad)


@pytest.mark.parametrize("flat", [False, True])
def test_a_norm_whose_square_overflows(flat):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    shapes = ((3, 4), (5,))
    ours = [minirnn.Parameter(np.zeros(shape, np.float32)) for shape in shapes]
    if flat:
        minirnn.ParameterBuffer(ours)
    gradients = [
        rng.standard_normal(shape).astype(np.float32) * np.float32(1e30) for shape in shapes
    ]
    for p, g in zip(ours, gradients, strict=True):
        p.grad[...] = g
    expected = math.sqrt(sum(float(np.vdot(g, g)) for g in map(np.float64, gradients)))
    # torch's own norm is infinite there, but right in float64.
    theirs = [torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in shapes]
    for p, g in zip(theirs, gradients, strict=True):
        p.grad = torch.from_numpy(g.astype(np.float64))
    norm = minirnn.clip_grad_norm_(ours, 2.0, error_if_nonfinite=True)
    assert norm.dtype == np.float32
    assert float(norm) == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, 2.0)))
    for p, q in zip(ours, theirs, strict=True):
        close(p.grad, q.grad, 1e-6)


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        (
            lambda p: minirnn.clip_grad_norm_([], 1.0),
            ValueError,
            "^parameters: expected at least one parameter, got none",
        ),
        (lambda p: minirnn.clip_grad_norm_([p, p.grad], 1.0), TypeError, "got ndarray"),
        (lambda p: minirnn.clip_grad_norm_(p, -1.0), ValueError, "max_norm: .* >= 0, got -1.0"),
        (lambda p: minirnn.clip_grad_norm_(p, math.nan), ValueError, "max_norm"),
        (lambda p: minirnn.clip_grad_norm_(p, 1.0, 0), ValueError, "norm_type: .* > 0, got 0"),
        (lambda p: minirnn.clip_grad_norm_(p, 1.0, -2.0), ValueError, "norm_type"),
        (
            lambda p: minirnn.clip_grad_value_([], 1.0),
            ValueError,
            "^parameters: expected at least one parameter, got none",
        ),
        (lambda p: minirnn.clip_grad_value_([p, None], 1.0), TypeError, "got NoneType"),
        (lambda p: minirnn.clip_grad_value_(p, -1.0), ValueError, "clip_value: .* >= 0, got -1.0"),
    ],
)
def test_clipping_refuses(clip, error, message):
    p = minirnn.Parameter(np.zeros(2))
    p.grad[...] = [3, 4]
    with pytest.raises(error, match=message):
        clip(p)
    np.testing.assert_array_equal(p.grad, [3, 4])


def test_clip_grad_value():
    rng = np.random.default_rng(0)
    ours, _ = parameters(rng)
    before = []
    for p in ours:
        p.grad[...] = rng.standard_normal(p.shape)
        before.append(p.grad.copy())
    minirnn.clip_grad_value_(ours, 0.5)
    for p, g in zip(ours, before, strict=True):
        np.testing.assert_array_equal(p.grad, np.minimum(np.maximum(g, -0.5), 0.5))


def test_nonfinite_gradients_are_named_and_left_alone():
    model = minirnn.Sequential(minirnn.Linear(2, 2), minirnn.RNN(2, 2))
    for p in model.parameters():
        p.grad[...] = 1
    named = dict(model.named_parameters())
    named["0.bias"].grad[1] = named["1.weight_hh_l0"].grad[0, 0] = np.nan
    before = [p.grad.copy() for p in model.parameters()]
    with pytest.raises(FloatingPointError, match=r"not finite in 0\.bias, 1\.weight_hh_l0$"):
        minirnn.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
    for p, g in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.grad, g)
    assert np.isnan(minirnn.clip_grad_norm_(model.parameters(), 1.0))


def test_a_norm_of_finite_entries_may_be_infinite_and_says_so():
    p = weight(0.0, 0.0, dtype=np.float64)
    p.grad[:] = 1.7e308
    with pytest.raises(FloatingPointError, match=r"finite norm, got inf; all entries are finite$"):
        minirnn.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
    np.testing.assert_array_equal(p.grad, [1.7e308, 1.7e308])


@pytest.mark.parametrize("norm_type", [2, 3, np.inf, "inf"])
def test_a_norm_that_is_not_finite_warns_of_nothing(norm_type):
    a, b = minirnn.Parameter(np.zeros(2)), minirnn.Parameter(np.zeros(2))
    a.grad, b.grad = [np.inf, 1.0], [3.0, 4.0]
    assert np.isinf(minirnn.clip_grad_norm_([a, b], 1.0, norm_type))
    assert np.isnan(a.grad[0])  # as in torch
    assert a.grad[1] == 0
    assert not b.grad.any()


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, float("inf")])
def test_the_norm_of_zeros_is_zero_without_a_sign(p):
    norm = minirnn.clip_grad_norm_([minirnn.Parameter(np.ones(2))], 1.0, p)
    assert str(float(norm)) == "0.0"


@pytest.mark.parametrize("norm_type", [0.5, 1.0, 2.0, 3.0, 10.0, np.inf])
@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e20, 1e35])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_power_of_a_norm_overflows_or_is_lost(norm_type, scale, dtype):
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(size).astype(dtype) * dtype(scale) for size in (7, 5)]
    exact = np.concatenate(values).astype(np.longdouble)
    power = np.longdouble(norm_type)
    expected = (
        abs(exact).max() if np.isinf(norm_type) else (abs(exact) ** power).sum() ** (1 / power)
    )
    ours = [weight(*np.zeros(len(v)), dtype=dtype) for v in values]
    for p, v in zip(ours, values, strict=True):
        p.grad[:] = v
    norm = minirnn.clip_grad_norm_(ours, 1.0, norm_type)
    assert norm.dtype == dtype
    np.testing.assert_allclose(norm, expected, rtol=1e-5)
    clipped = np.concatenate([p.grad for p in ours])
    factor = min(1, 1 / (expected + np.longdouble(1e-6)))
    np.testing.assert_allclose(clipped, (exact * factor).astype(dtype), rtol=2e-5)


@pytest.mark.parametrize("norm_type", [3.0, np.inf])
def test_the_largest_entry_of_a_gradient_may_be_negative(norm_type):
    p = weight(0.0, 0.0)
    p.grad[:] = -1e-30, -5
    assert minirnn.clip_grad_norm_([p], 10.0, norm_type) == 5


@pytest.mark.parametrize("dtypes", [(np.float32, np.float64), (np.float64, np.float32)])
@pytest.mark.parametrize("native", [False, True])
def test_squares_are_lost_in_the_narrowest_dtype(dtypes, native):
    minirnn.set_native(native and minirnn.native_available())
    ours = [weight(0.0, dtype=dtype) for dtype in dtypes]
    for p, g in zip(ours, (3e-30, 4e-30), strict=True):
        p.grad[...] = g
    assert float(minirnn.clip_grad_norm_(ours, 1.0)) == pytest.approx(5e-30, rel=1e-6, abs=0)


def test_a_norm_counts_what_is_small_beside_its_largest_entry():
    p = weight(*np.zeros(4))
    p.grad[:] = 2**24, 1, 1, 1  # in float32 the sum would not notice a one
    assert minirnn.clip_grad_norm_([p], 1.0, 1) == 2**24 + 4


@pytest.mark.parametrize("limit", [4.1, 6.0, 7.9, 8.1])
def test_a_norm_below_the_limit_changes_no_bit(limit):
    p = weight(0.0, 0.0)
    p.grad[:] = before = np.array([2.4, -3.2], np.float32)
    assert minirnn.clip_grad_norm_([p], limit) == pytest.approx(4)
    np.testing.assert_array_equal(p.grad, before)


def test_a_norm_beyond_the_dtype_still_clips():
    p = weight(3e38, 3e38)
    p.grad[:] = 3e38
    assert np.isinf(minirnn.clip_grad_norm_([p], 1.0))
    np.testing.assert_allclose(p.grad, np.sqrt(0.5), rtol=1e-2)  # by a factor that has few digits
    assert f"{minirnn.clip_grad_norm_([p], 1.0):.2f}" == "1.00"


def test_parameters_without_entries_are_clipped_too():
    empty, p = minirnn.Parameter(np.zeros((0, 3), np.float32)), weight(1.0)
    p.grad[:] = 3
    for norm_type in (1, 2, "inf"):
        p.grad[:] = 3
        assert minirnn.clip_grad_norm_([empty, p], 1.0, norm_type) == 3
    assert minirnn.clip_grad_norm_([empty], 1.0) == 0
    assert minirnn.clip_grad_norm_([empty], 1.0).dtype == np.float32
    minirnn.clip_grad_value_([empty, p], 0.5)
    assert p.grad[0] == 0.5


@pytest.mark.parametrize("value", [float("nan"), True, "1", None, 10**400, np.ones(2), -1.0])
def test_a_limit_is_a_number(value):
    p = weight(1.0)
    p.grad[:] = 3
    with pytest.raises(ValueError, match="max_norm: expected a number >= 0, got"):
        minirnn.clip_grad_norm_([p], value)
    with pytest.raises(ValueError, match="norm_type: expected a number > 0, got"):
        minirnn.clip_grad_norm_([p], 1.0, value)
    with pytest.raises(ValueError, match="clip_value: expected a number >= 0, got"):
        minirnn.clip_grad_value_([p], value)
    with pytest.raises(TypeError, match="error_if_nonfinite: expected True or False"):
        minirnn.clip_grad_norm_([p], 1.0, error_if_nonfinite=1)
    assert p.grad[0] == 3
    assert minirnn.clip_grad_norm_([p], float("inf")) == 3  # to look at the norm alone
