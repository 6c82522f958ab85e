r"""The affine map :math:`y = x W^\top + b`, over rows.

:math:`dx = dy\, W, \quad dW = dy^\top x, \quad db = \sum_{rows} dy`
"""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, quiet
from .shared import column_sums


class LinearContext(NamedTuple):
    """The input and the weight."""

    x: Array  # (N, in)
    weight: Array  # (out, in)


@quiet
def forward(
    x: Array, weight: Array, bias: Array | None = None, save: bool = True
) -> tuple[Array, LinearContext | None]:
    """Return ``x @ weight.T + bias``.

    Parameters
    ----------
    x : array of shape (N, in)
    weight : array of shape (out, in)
    bias : array of shape (out,), optional
    """
    y = x.dot(weight.T)
    if bias is not None:
        y += bias
    return y, LinearContext(x, weight) if save else None


@quiet
def backward(ctx: LinearContext, dy: Array, dweight: Array, dbias: Array | None) -> Array:
    """Return ``dx`` for dy of shape (N, out), and add to the gradients of weight and bias."""
    dweight += dy.T.dot(ctx.x)
    if dbias is not None:
        dbias += column_sums(dy)
    return dy.dot(ctx.weight)
