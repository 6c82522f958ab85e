"""Initial values, written in place into a parameter or an array.

Numbers are drawn on the host, in float64, on every backend: a seed means the same everywhere.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from . import checks
from .backend import RNG, Array, generator, get_array_module, is_array, quiet

# A Parameter or an array of floating point; every function returns the one that it was given.
T = TypeVar("T")


def constant_(parameter: T, value: float) -> T:
    """Set every entry to `value`.

    Parameters
    ----------
    parameter : Parameter or array of floating point
    value : float

    Returns
    -------
    Parameter or array
        `parameter`.

    Raises
    ------
    TypeError
        If `parameter` is no Parameter and no array of floating point.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import constant_
    >>> constant_(np.empty(3), 0.5)
    array([0.5, 0.5, 0.5])
    """
    _array(parameter)[...] = checks.number("value", value)
    return parameter


def zeros_(parameter: T) -> T:
    """Set every entry to zero, as :func:`constant_` does.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import zeros_
    >>> zeros_(np.empty(3))
    array([0., 0., 0.])
    """
    return constant_(parameter, 0.0)


def ones_(parameter: T) -> T:
    """Set every entry to one, as :func:`constant_` does.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import ones_
    >>> ones_(np.empty(3))
    array([1., 1., 1.])
    """
    return constant_(parameter, 1.0)


def eye_(parameter: T) -> T:
    """Set a matrix to ones on its diagonal and zeros elsewhere, also if it is not square.

    Raises
    ------
    TypeError
        If `parameter` is no Parameter and no array of floating point.
    ValueError
        If it is no matrix.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import eye_
    >>> eye_(np.empty((2, 3)))
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """
    data = _array(parameter)
    _fill(data, np.eye(*_matrix(data)))
    return parameter


def uniform_(parameter: T, a: float = 0.0, b: float = 1.0, *, rng: RNG = None) -> T:
    """Draw every entry from the uniform distribution on ``[a, b)``.

    Parameters
    ----------
    parameter : Parameter or array of floating point
    a, b : float
        The bounds, ``a <= b``.
    rng : seed or Generator, optional

    Returns
    -------
    Parameter or array
        `parameter`.

    Raises
    ------
    TypeError
        If `parameter` is no Parameter and no array of floating point.
    ValueError
        If `a` is above `b`.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import uniform_
    >>> uniform_(np.empty(3), -1.0, 1.0, rng=0).round(3)
    array([ 0.274, -0.46 , -0.918])
    """
    data = _array(parameter)
    if not isinstance(a, checks.NUMBER) or not isinstance(b, checks.NUMBER) or not a <= b:
        raise ValueError(f"a, b: expected a <= b, got {checks.got(a)} and {checks.got(b)}")
    low, high = checks.number("a", a), checks.number("b", b)
    _fill(data, generator(rng).uniform(low, high, data.shape))
    return parameter


def normal_(parameter: T, mean: float = 0.0, std: float = 1.0, *, rng: RNG = None) -> T:
    """Draw every entry from the normal distribution.

    Parameters
    ----------
    parameter : Parameter or array of floating point
    mean, std : float
        `std` not negative.
    rng : seed or Generator, optional

    Returns
    -------
    Parameter or array
        `parameter`.

    Raises
    ------
    TypeError
        If `parameter` is no Parameter and no array of floating point.
    ValueError
        If `std` is negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import normal_
    >>> normal_(np.empty(3), 10.0, 0.5, rng=0).round(3)
    array([10.063,  9.934, 10.32 ])
    """
    data = _array(parameter)
    mean, std = checks.number("mean", mean), checks.number("std", std, "[0, inf)")
    _fill(data, generator(rng).normal(mean, std, data.shape))
    return parameter


def trunc_normal_(
    parameter: T,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    *,
    rng: RNG = None,
) -> T:
    """Draw every entry from the normal distribution, drawing anew what lies outside ``[a, b]``.

    Parameters
    ----------
    parameter : Parameter or array of floating point
    mean, std : float
        Of the distribution before it is cut; `std` positive.
    a, b : float
        The bounds, ``a < b``.
    rng : seed or Generator, optional

    Returns
    -------
    Parameter or array
        `parameter`.

    Raises
    ------
    TypeError
        If `parameter` is no Parameter and no array of floating point.
    ValueError
        If `std` is not positive, or `a` not below `b`.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import trunc_normal_
    >>> bool(abs(trunc_normal_(np.empty(1000), a=-1.0, b=1.0, rng=0)).max() <= 1)
    True
    """
    data, draw = _array(parameter), generator(rng)
    mean, std = checks.number("mean", mean), checks.number("std", std, "[0, inf)")
    a, b = checks.number("a", a), checks.number("b", b)
    if not std or not a < b:
        raise ValueError(f"std, a, b: expected std > 0 and a < b, got {std}, {a} and {b}")
    inside = math.erf((b - mean) / (std * math.sqrt(2))) - math.erf(
        (a - mean) / (std * math.sqrt(2))
    )
    highest = max(a, min(mean, b))  # where the density is, within the bounds

    def proposed(count: int) -> tuple[Array, Array]:
        """Return values, and which of them are taken."""
        if inside > 0.5:
            x = draw.normal(mean, std, count)
            return x, (x >= a) & (x <= b)
        x = draw.uniform(a, b, count)
        log_ratio = ((highest - mean) ** 2 - (x - mean) ** 2) / (2 * std**2)
        return x, draw.random(count) < np.exp(log_ratio)

    values = np.empty(data.size)
    left = np.arange(data.size)
    while left.size:
        values[left], taken = proposed(left.size)
        left = left[~taken]
    _fill(data, values.reshape(data.shape))
    return parameter


_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    r"""Return by what the weights before a nonlinearity should grow, for signals to keep their size.

    Parameters
    ----------
    nonlinearity : {"linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"}
        Their gains are 1, 1, 5/3, :math:`\sqrt 2`, :math:`\sqrt{2 / (1 + a^2)}` and 3/4, as torch has them.
    param : float, optional
        The slope a of the leaky ReLU, 0.01 if not given.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If `nonlinearity` is none of these, or `param` no number.

    References
    ----------
    https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.calculate_gain

    Examples
    --------
    >>> from minirnn.init import calculate_gain
    >>> calculate_gain("leaky_relu", 1.0)
    1.0
    """
    checks.choice("nonlinearity", nonlinearity, (*_GAINS, "leaky_relu"))
    if nonlinearity != "leaky_relu":
        return _GAINS[nonlinearity]
    slope = 0.01 if param is None else param
    return math.sqrt(2 / (1 + checks.number("param", slope) ** 2))


def xavier_uniform_(parameter: T, gain: float = 1.0, *, rng: RNG = None) -> T:
    r"""Draw from the uniform distribution that neither swells nor shrinks what a layer passes on.

    .. math::  W_{ij} \sim U(-a, a), \qquad a = \mathrm{gain} \sqrt{6 / (\mathrm{rows} + \mathrm{columns})}

    so that the variance is :math:`2\,\mathrm{gain}^2 / (\mathrm{rows} + \mathrm{columns})`.

    Parameters
    ----------
    parameter : Parameter or array, of shape (rows, columns)
        The rows are the outputs, the columns the inputs; each further axis multiplies both.
    gain : float
        See :func:`calculate_gain`.
    rng : seed or Generator, optional

    Returns
    -------
    Parameter or array
        `parameter`.

    Raises
    ------
    TypeError
        If `parameter` is no Parameter and no array of floating point.
    ValueError
        If it has fewer than two axes.

    References
    ----------
    X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010;
    https://docs.pytorch.org/docs/stable/nn.init.html

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import xavier_uniform_
    >>> w = xavier_uniform_(np.empty((50, 100)), rng=0)  # the bound is sqrt(6 / 150) = 0.2
    >>> float(abs(w).max().round(3))
    0.2
    """
    bound = abs(checks.number("gain", gain)) * math.sqrt(6 / sum(_fans(parameter)))
    return uniform_(parameter, -bound, bound, rng=rng)


def xavier_normal_(parameter: T, gain: float = 1.0, *, rng: RNG = None) -> T:
    r"""Draw from the normal distribution of the variance of :func:`xavier_uniform_`.

    .. math::  W_{ij} \sim N(0, \sigma^2), \qquad
               \sigma = \mathrm{gain} \sqrt{2 / (\mathrm{rows} + \mathrm{columns})}

    Arguments and errors are those of :func:`xavier_uniform_`.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import xavier_normal_
    >>> w = xavier_normal_(np.empty((50, 150)), rng=0)  # sigma is sqrt(2 / 200) = 0.1
    >>> float(w.std().round(2))
    0.1
    """
    std = abs(checks.number("gain", gain)) * math.sqrt(2 / sum(_fans(parameter)))
    return normal_(parameter, 0.0, std, rng=rng)


def kaiming_uniform_(
    parameter: T,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: RNG = None,
) -> T:
    r"""Draw from the uniform distribution that keeps the size of what passes through rectifiers.

    .. math::  W_{ij} \sim U(-b, b), \qquad b = \mathrm{gain} \sqrt{3 / \mathrm{fan}}

    so that the variance is :math:`\mathrm{gain}^2 / \mathrm{fan}`.

    Parameters
    ----------
    parameter : Parameter or array, of shape (rows, columns)
        The rows are the outputs, the columns the inputs; each further axis multiplies both.
    a : float
        The slope of a leaky ReLU after the layer, 0 for a plain one.
    mode : {"fan_in", "fan_out"}
        Whether fan counts the inputs, which keeps the forward pass, or the outputs, which keeps gradients.
    nonlinearity : str
        What comes after the layer: see :func:`calculate_gain`.
    rng : seed or Generator, optional

    Returns
    -------
    Parameter or array
        `parameter`.

    Raises
    ------
    TypeError
        If `parameter` is no Parameter and no array of floating point.
    ValueError
        If it has fewer than two axes, or `mode` or `nonlinearity` is unknown.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", ICCV 2015;
    https://docs.pytorch.org/docs/stable/nn.init.html

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import kaiming_uniform_
    >>> w = kaiming_uniform_(np.empty((50, 600)), rng=0)  # the bound is sqrt(2) sqrt(3 / 600) = 0.1
    >>> float(abs(w).max().round(3))
    0.1
    """
    bound = math.sqrt(3) * _kaiming_std(parameter, a, mode, nonlinearity)
    return uniform_(parameter, -bound, bound, rng=rng)


def kaiming_normal_(
    parameter: T,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: RNG = None,
) -> T:
    r"""Draw from the normal distribution of the variance of :func:`kaiming_uniform_`.

    .. math::  W_{ij} \sim N(0, \sigma^2), \qquad \sigma = \mathrm{gain} / \sqrt{\mathrm{fan}}

    Arguments and errors are those of :func:`kaiming_uniform_`.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import kaiming_normal_
    >>> w = kaiming_normal_(np.empty((50, 200)), rng=0)  # sigma is sqrt(2 / 200) = 0.1
    >>> float(w.std().round(2))
    0.1
    """
    return normal_(parameter, 0.0, _kaiming_std(parameter, a, mode, nonlinearity), rng=rng)


def _kaiming_std(parameter: object, a: float, mode: str, nonlinearity: str) -> float:
    checks.choice("mode", mode, ("fan_in", "fan_out"))
    fan_in, fan_out = _fans(parameter)
    return calculate_gain(nonlinearity, a) / math.sqrt(fan_in if mode == "fan_in" else fan_out)


@quiet
def orthogonal_(parameter: T, gain: float = 1.0, *, blocks: int = 1, rng: RNG = None) -> T:
    r"""Draw an orthogonal matrix, each as likely as any other, times `gain`.

    .. math::  W^\top W = \mathrm{gain}^2 I \quad (\text{rows} \ge \text{columns}), \qquad
               W W^\top = \mathrm{gain}^2 I \quad (\text{rows} \le \text{columns})

    A square one leaves lengths as they are, so that a recurrent product over many steps starts without
    vanishing or exploding.

    Parameters
    ----------
    parameter : Parameter or array, of shape (rows, columns)
    gain : float
    blocks : int, keyword-only
        Cut the rows into this many blocks, each orthogonal by itself: 4 for the gates of an LSTM's
        `weight_hh`, 3 for a GRU's.
    rng : seed or Generator, optional

    Returns
    -------
    Parameter or array
        `parameter`.

    Raises
    ------
    TypeError
        If `parameter` is no Parameter and no array of floating point.
    ValueError
        If it is no matrix, or `blocks` does not divide its rows.

    References
    ----------
    A. Saxe, J. McClelland, S. Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", ICLR 2014;
    F. Mezzadri, "How to generate random matrices from the classical compact groups", Notices of the AMS
    54 (2007), for the signs.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import orthogonal_
    >>> w = orthogonal_(np.empty((8, 4)), blocks=2, rng=0)
    >>> bool(np.allclose(w[4:].T @ w[4:], np.eye(4)))
    True
    """
    data = _array(parameter)
    rows, columns = _matrix(data)
    gain = checks.number("gain", gain)
    checks.positive(blocks=blocks)
    if rows % blocks:
        raise ValueError(f"blocks: expected a divisor of the {rows} rows, got {blocks}")
    draw = generator(rng)
    drawn = [_orthogonal(draw, rows // blocks, columns) for _ in range(blocks)]
    _fill(data, gain * np.concatenate(drawn))
    return parameter


def _orthogonal(draw: np.random.Generator, rows: int, columns: int) -> Array:
    q, r = np.linalg.qr(draw.standard_normal((max(rows, columns), min(rows, columns))))
    # QR leaves the signs of q's columns open; those that make r's diagonal positive make q uniform.
    q *= np.copysign(1.0, np.diag(r))
    return q if rows >= columns else q.T


def _array(parameter: object) -> Array:
    # An array has an attribute `data` too, its buffer.
    data: Array = parameter if is_array(parameter) else getattr(parameter, "data", parameter)
    checks.floating("parameter", data)
    return data


def _fans(parameter: object) -> tuple[int, int]:
    """Return how many inputs an output has, and how many outputs an input."""
    shape = _array(parameter).shape
    if len(shape) < 2 or 0 in shape:
        raise ValueError(
            f"parameter: expected a matrix of shape (rows, columns), got shape {shape}"
        )
    rows, columns, *further = shape
    return columns * math.prod(further), rows * math.prod(further)


def _matrix(data: Array) -> tuple[int, int]:
    if data.ndim != 2:
        raise ValueError(
            f"parameter: expected a matrix of shape (rows, columns), got shape {data.shape}"
        )
    rows, columns = data.shape
    return rows, columns


@quiet
def _fill(data: Array, values: Array) -> None:
    data[...] = get_array_module(data).asarray(values.astype(data.dtype))
