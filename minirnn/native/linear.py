"""The affine map of few rows in C; :mod:`minirnn.functional.linear` has the equations."""

from __future__ import annotations

import numpy as np

from ..backend import Array
from ..functional import linear
from ..functional.linear import LinearContext
from . import _training
from .shared import read

# So few multiplications take less time in C than NumPy and a BLAS take to begin them.
_FEW = 3 << 13


def forward(
    x: Array, weight: Array, bias: Array | None = None, save: bool = True
) -> tuple[Array, LinearContext | None]:
    """Return ``x @ weight.T + bias``."""
    if x.size * len(weight) > _FEW:
        return linear.forward(x, weight, bias, save)
    y = np.empty((len(x), len(weight)), x.dtype)
    _training.linear(y, read(x), weight, bias, x.shape[1])
    return y, LinearContext(x, weight) if save else None


def backward(ctx: LinearContext, dy: Array, dweight: Array, dbias: Array | None) -> Array:
    """Return ``dx`` for dy of shape (N, out), and add to the gradients of weight and bias."""
    x, weight = ctx
    if dy.size * x.shape[1] > _FEW:
        return linear.backward(ctx, dy, dweight, dbias)
    dx = np.empty(x.shape, x.dtype)
    _training.linear_backward(dx, dweight, dbias, read(dy), read(x), weight, x.shape[1])
    return dx
