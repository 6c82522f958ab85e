"""Adam's step in one pass in C; :mod:`minirnn.functional.adam` has the formula, which gives the same bits."""

from __future__ import annotations

from collections.abc import Sequence

from ..backend import Array
from . import _training


def update(
    data: Array,
    grad: Array,
    state: Sequence[Array],
    t: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """Step the weights once, in place."""
    m, v, *largest, _ = state
    most = largest[0] if largest else None
    _training.adam(data, grad, m, v, most, lr, *betas, eps, t)
