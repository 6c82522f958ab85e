"""Matrices, drawn so that what passes through them keeps its size."""

from __future__ import annotations

import math

import numpy as np

from .. import checks
from ..backend import RNG, Array, generator, quiet
from .entries import T, array_of, fill, normal_, uniform_


def eye_(parameter: T) -> T:
    """Set a matrix to ones on its diagonal and zeros elsewhere, also if it is not square.

    Parameters
    ----------
    parameter : Parameter or array of floating point
        What is written to.

    Returns
    -------
    Parameter or array
        `parameter`.

    Raises
    ------
    TypeError
        If `parameter` is no Parameter and no array of floating point.
    ValueError
        If it is no matrix.

    See Also
    --------
    orthogonal_ : Which leaves lengths as they are, too.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import eye_
    >>> eye_(np.empty((2, 3)))
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """
    data = array_of(parameter)
    fill(data, np.eye(*_matrix(data)))
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
        The gain.

    Raises
    ------
    ValueError
        If `nonlinearity` is none of these, or `param` no number.

    See Also
    --------
    xavier_uniform_, kaiming_uniform_ : Take it.

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
        For the draws; the library's own generator if not given.

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

    See Also
    --------
    kaiming_uniform_ : For rectifiers.

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

    Parameters
    ----------
    parameter, gain, rng : Parameter or array, float, seed or Generator
        As for :func:`xavier_uniform_`.

    Returns
    -------
    Parameter or array
        `parameter`.

    Raises
    ------
    TypeError, ValueError
        As :func:`xavier_uniform_`.

    See Also
    --------
    xavier_uniform_ : Of the same variance, and bounded.

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
        For the draws; the library's own generator if not given.

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

    See Also
    --------
    xavier_uniform_ : For tanh and sigmoid.

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

    Parameters
    ----------
    parameter, a, mode, nonlinearity, rng : Parameter or array, float, str, str, seed or Generator
        As for :func:`kaiming_uniform_`.

    Returns
    -------
    Parameter or array
        `parameter`.

    Raises
    ------
    TypeError, ValueError
        As :func:`kaiming_uniform_`.

    See Also
    --------
    kaiming_uniform_ : Of the same variance, and bounded.

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
        What is written to.
    gain : float
        The factor; see :func:`calculate_gain`.
    blocks : int, keyword-only
        Cut the rows into this many blocks, each orthogonal by itself: 4 for the gates of an LSTM's
        `weight_hh`, 3 for a GRU's.
    rng : seed or Generator, optional
        For the draws; the library's own generator if not given.

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

    See Also
    --------
    eye_ : The simplest one.

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
    data = array_of(parameter)
    rows, columns = _matrix(data)
    gain = checks.number("gain", gain)
    checks.positive(blocks=blocks)
    if rows % blocks:
        raise ValueError(f"blocks: expected a divisor of the {rows} rows, got {blocks}")
    draw = generator(rng)
    drawn = [_orthogonal(draw, rows // blocks, columns) for _ in range(blocks)]
    fill(data, gain * np.concatenate(drawn))
    return parameter


def _orthogonal(draw: np.random.Generator, rows: int, columns: int) -> Array:
    q, r = np.linalg.qr(draw.standard_normal((max(rows, columns), min(rows, columns))))
    # QR leaves the signs of q's columns open; those that make r's diagonal positive make q uniform.
    q *= np.copysign(1.0, np.diag(r))
    return q if rows >= columns else q.T


def _fans(parameter: object) -> tuple[int, int]:
    """Return how many inputs an output has, and how many outputs an input."""
    shape = array_of(parameter).shape
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
