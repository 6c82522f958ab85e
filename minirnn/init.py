"""Initial values, written in place into a parameter or an array.

Numbers are drawn on the host, in float64, on every backend: a seed means the same everywhere.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from . import checks
from .backend import RNG, Array, generator, get_array_module, is_array

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
    _array(parameter)[...] = value
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
    if not a <= b:
        raise ValueError(f"a, b: expected a <= b, got {a!r} and {b!r}")
    _fill(data, generator(rng).uniform(a, b, data.shape))
    return parameter


def xavier_uniform_(parameter: T, gain: float = 1.0, *, rng: RNG = None) -> T:
    r"""Draw from the uniform distribution that neither swells nor shrinks what a layer passes on.

    .. math::  W_{ij} \sim U(-a, a), \qquad a = \mathrm{gain} \sqrt{6 / (\mathrm{rows} + \mathrm{columns})}

    so that the variance is :math:`2\,\mathrm{gain}^2 / (\mathrm{rows} + \mathrm{columns})`.

    Parameters
    ----------
    parameter : Parameter or array, of shape (rows, columns)
        The rows are the outputs, the columns the inputs.
    gain : float
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
        If it is no matrix.

    References
    ----------
    X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010;
    https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.xavier_uniform_

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import xavier_uniform_
    >>> w = xavier_uniform_(np.empty((50, 100)), rng=0)  # the bound is sqrt(6 / 150) = 0.2
    >>> float(abs(w).max().round(3))
    0.2
    """
    rows, columns = _matrix(_array(parameter))
    bound = abs(gain) * math.sqrt(6 / (rows + columns))
    return uniform_(parameter, -bound, bound, rng=rng)


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


def _matrix(data: Array) -> tuple[int, int]:
    if data.ndim != 2:
        raise ValueError(
            f"parameter: expected a matrix of shape (rows, columns), got shape {data.shape}"
        )
    rows, columns = data.shape
    return rows, columns


def _fill(data: Array, values: Array) -> None:
    data[...] = get_array_module(data).asarray(values.astype(data.dtype))
