"""Initial values of parameters, in place."""

from __future__ import annotations

import math

import numpy as np

from .backend import RNG, Array, generator
from .module import Parameter


def _set(parameter: Parameter, values: Array) -> Parameter:
    parameter.data = values.astype(parameter.dtype)
    return parameter


def uniform_(parameter: Parameter, a: float = 0.0, b: float = 1.0, *, rng: RNG = None) -> Parameter:
    """Draw from the uniform distribution on ``[a, b)``.

    Examples
    --------
    >>> import minirnn
    >>> w = minirnn.init.uniform_(minirnn.Linear(3, 2).weight, -1, 1, rng=0)
    >>> bool((abs(w.data) <= 1).all())
    True
    """
    return _set(parameter, generator(rng).uniform(a, b, parameter.shape))


def xavier_uniform_(parameter: Parameter, gain: float = 1.0, *, rng: RNG = None) -> Parameter:
    """Draw from the uniform distribution on ``+-gain * sqrt(6 / (fan_in + fan_out))``.

    Parameters
    ----------
    parameter : Parameter of shape (fan_out, fan_in)
    gain : float
    rng : seed or Generator, optional

    References
    ----------
    X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010.
    """
    fan_out, fan_in = _matrix(parameter)
    bound = gain * math.sqrt(6 / (fan_in + fan_out))
    return uniform_(parameter, -bound, bound, rng=rng)


def orthogonal_(
    parameter: Parameter, gain: float = 1.0, *, blocks: int = 1, rng: RNG = None
) -> Parameter:
    """Draw an orthogonal matrix, uniformly; rows or columns, whichever are fewer, are orthonormal.

    Parameters
    ----------
    parameter : Parameter of shape (rows, columns)
    gain : float
        Factor of the orthonormal matrix.
    blocks : int, keyword-only
        Cut the rows into this many blocks, each orthogonal by itself: 4 for an LSTM's W_hh, 3 for
        a GRU's.
    rng : seed or Generator, optional

    References
    ----------
    A. Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks", ICLR 2014; F. Mezzadri, "How to generate random matrices from the classical compact
    groups", Notices of the AMS 54 (2007), on the signs.
    """
    rows, columns = _matrix(parameter)
    if blocks < 1 or rows % blocks:
        raise ValueError(f"blocks: expected a divisor of {rows} rows, got {blocks}")
    draw = generator(rng)
    values = []
    for _ in range(blocks):
        normal = draw.standard_normal((max(rows // blocks, columns), min(rows // blocks, columns)))
        q, r = np.linalg.qr(normal)
        q *= np.sign(np.diag(r))
        values.append(q if rows // blocks >= columns else q.T)
    return _set(parameter, gain * np.concatenate(values))


def _matrix(parameter: Parameter) -> tuple[int, int]:
    if len(parameter.shape) != 2:
        raise ValueError(f"{parameter.name}: expected a matrix, got shape {parameter.shape}")
    return parameter.shape[0], parameter.shape[1]
