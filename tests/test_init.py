"""First values: torch's formulas, and distributions as they are drawn."""

import math

import numpy as np
import pytest
from helpers import close

import minirnn
from minirnn import init

N = 400  # a matrix of 400 x 100 entries: its mean is known to sigma / 200

GAINS = [
    ("linear", None),
    ("sigmoid", None),
    ("tanh", None),
    ("relu", None),
    ("leaky_relu", None),
    ("leaky_relu", 0.2),
    ("leaky_relu", 0),
    ("selu", None),
]


@pytest.mark.parametrize(("nonlinearity", "param"), GAINS)
def test_gains_are_those_of_torch(nonlinearity, param):
    torch = pytest.importorskip("torch")
    expected = torch.nn.init.calculate_gain(nonlinearity, param)
    assert init.calculate_gain(nonlinearity, param) == pytest.approx(expected, rel=1e-15)


def test_gains_that_there_are_not():
    with pytest.raises(ValueError, match="nonlinearity"):
        init.calculate_gain("swish")
    for param in ("0.1", True):
        with pytest.raises(ValueError, match="param"):
            init.calculate_gain("leaky_relu", param)


FANS = [
    ("xavier", {}, math.sqrt(2 / 500)),
    ("xavier", {"gain": 3.0}, 3 * math.sqrt(2 / 500)),
    ("kaiming", {}, math.sqrt(2 / 100)),
    ("kaiming", {"mode": "fan_out"}, math.sqrt(2 / 400)),
    ("kaiming", {"a": 0.5}, math.sqrt(2 / 1.25 / 100)),
    ("kaiming", {"nonlinearity": "tanh"}, 5 / 3 / math.sqrt(100)),
]


@pytest.mark.parametrize("kind", ["uniform", "normal"])
@pytest.mark.parametrize(("family", "options", "std"), FANS)
def test_the_spread_follows_the_fans(family, options, std, kind):
    torch = pytest.importorskip("torch")
    name = f"{family}_{kind}_"
    x = getattr(init, name)(np.empty((N, 100)), rng=0, **options)
    assert abs(x.mean()) < 4 * std / 200
    assert x.std() == pytest.approx(std, rel=0.02)
    theirs = getattr(torch.nn.init, name)(torch.empty(N, 100, dtype=torch.float64), **options)
    assert theirs.std().item() == pytest.approx(std, rel=0.02)
    if kind == "uniform":
        assert abs(x).max() <= math.sqrt(3) * std
        assert abs(x).max() == pytest.approx(math.sqrt(3) * std, rel=1e-3)
    else:  # a fourth moment of 3 sigma^4, where the uniform one has 1.8
        assert (x**4).mean() / std**4 == pytest.approx(3, rel=0.06)


def test_further_axes_multiply_both_fans():
    torch = pytest.importorskip("torch")
    x = init.kaiming_uniform_(np.empty((20, 30, 5, 7)), rng=0)
    expected = torch.nn.init.kaiming_uniform_(torch.empty(20, 30, 5, 7))
    assert abs(x).max() == pytest.approx(abs(expected).max().item(), rel=1e-2)


def test_normal_has_its_mean_and_spread():
    x = init.normal_(np.empty(40000), 3.0, 0.5, rng=0)
    assert x.mean() == pytest.approx(3, abs=0.01)
    assert x.std() == pytest.approx(0.5, rel=0.02)
    assert (init.normal_(np.empty(3), 7.0, 0.0) == 7).all()


@pytest.mark.parametrize(
    ("mean", "std", "a", "b"),
    [(0, 1, -2, 2), (1, 0.5, 0.9, 1.1), (0, 1, 3, 5), (-4, 2, -1, 6), (0, 1, -9, 0.1)],
)
def test_what_is_cut_off_is_drawn_anew(mean, std, a, b):
    """The mean and variance of a cut normal distribution, by numerical integration."""
    x = init.trunc_normal_(np.empty(40000), mean, std, a, b, rng=0)
    assert x.min() >= a
    assert x.max() <= b
    t = np.linspace(a, b, 20001)
    density = np.exp(-(((t - mean) / std) ** 2) / 2)
    density /= density.sum()
    expected = (t * density).sum()
    deviation = math.sqrt(((t - expected) ** 2 * density).sum())
    assert x.mean() == pytest.approx(expected, abs=5 * deviation / 200)
    assert x.std() == pytest.approx(deviation, rel=0.02)


def test_constants():
    assert (init.ones_(np.empty((2, 3))) == 1).all()
    p = minirnn.Parameter(np.empty((3, 2), np.float32))
    assert init.eye_(p) is p
    np.testing.assert_array_equal(p.data, np.eye(3, 2))


DRAWN = ["normal_", "trunc_normal_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"]


@pytest.mark.parametrize("name", DRAWN)
def test_a_seed_means_the_same_in_every_dtype_and_writes_in_place(name):
    draw = getattr(init, name)
    p = minirnn.Parameter(np.zeros((5, 4), np.float32))
    array = p.data
    assert draw(p, rng=7) is p
    assert p.data is array
    np.testing.assert_array_equal(array, draw(np.empty((5, 4)), rng=7).astype(np.float32))
    minirnn.manual_seed(3)
    first = draw(np.empty((5, 4)))
    assert (first != draw(np.empty((5, 4)))).any()
    minirnn.manual_seed(3)
    np.testing.assert_array_equal(first, draw(np.empty((5, 4))))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: init.normal_(np.empty(3), 0, -1), ValueError, "std"),
        (lambda: init.normal_(np.empty(3, int)), TypeError, "parameter"),
        (lambda: init.trunc_normal_(np.empty(3), 0, 0), ValueError, "std"),
        (lambda: init.trunc_normal_(np.empty(3), 0, 1, 2, 2), ValueError, "a < b"),
        (lambda: init.eye_(np.empty(3)), ValueError, "matrix"),
        (lambda: init.xavier_normal_(np.empty(3)), ValueError, "matrix"),
        (lambda: init.xavier_uniform_(np.empty((0, 3))), ValueError, "matrix"),
        (lambda: init.kaiming_normal_(np.empty(3)), ValueError, "matrix"),
        (lambda: init.kaiming_normal_(np.empty((3, 3)), mode="fan"), ValueError, "mode"),
        (lambda: init.kaiming_uniform_(np.empty((3, 3)), 0, "fan_in", "x"), ValueError, "nonlin"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_initial_values():
    p = minirnn.Parameter(np.zeros((12, 4)))
    minirnn.init.orthogonal_(p, gain=2.0, blocks=3, rng=0)
    for block in p.data.reshape(3, 4, 4):
        close(block @ block.T, 4 * np.eye(4))
    wide = minirnn.init.orthogonal_(minirnn.Parameter(np.zeros((3, 7))), rng=0)
    close(wide.data @ wide.data.T, np.eye(3))
    x = minirnn.init.xavier_uniform_(minirnn.Parameter(np.zeros((300, 200))), rng=0).data
    bound = math.sqrt(6 / 500)
    assert np.abs(x).max() <= bound
    assert abs(x.std() - bound / math.sqrt(3)) < 0.01 * bound
    again = minirnn.init.xavier_uniform_(minirnn.Parameter(np.zeros((300, 200))), rng=0).data
    np.testing.assert_array_equal(x, again)
    with pytest.raises(ValueError, match="blocks"):
        minirnn.init.orthogonal_(p, blocks=5)
    with pytest.raises(ValueError, match="matrix"):
        minirnn.init.orthogonal_(minirnn.Parameter(np.zeros(3)))


def test_uniform_initial_values():
    rng = np.random.default_rng(0)
    p = minirnn.Parameter(np.zeros((30, 40)))
    assert minirnn.init.uniform_(p, -3.0, 1.0, rng=rng) is p
    assert p.data.min() >= -3
    assert p.data.max() < 1
    assert abs(p.data.mean() + 1) < 0.1
    assert abs(p.data.std() - 4 / math.sqrt(12)) < 0.1
    before = p.data.copy()
    for a, b in ((2.0, 1.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match=f"a, b: expected a <= b, got {a} and {b}"):
            minirnn.init.uniform_(p, a, b, rng=rng)
    np.testing.assert_array_equal(p.data, before)
    minirnn.init.uniform_(p, 0.5, 0.5, rng=rng)
    np.testing.assert_array_equal(p.data, np.full((30, 40), 0.5))
    for bad, got in (([1.0], "got builtins.list"), (np.zeros(2, int), "got dtype int64")):
        with pytest.raises(TypeError, match=f"parameter: expected .*{got}"):
            minirnn.init.uniform_(bad)
