r"""Inverted dropout: :math:`y = x \odot m / (1 - p)` with :math:`m \sim \mathrm{Bernoulli}(1 - p)`.

References
----------
N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
JMLR 15 (2014).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..backend import RNG, Array, generator, get_array_module
from .shared import masked


class DropoutContext(NamedTuple):
    """The mask, divided by ``1 - p``."""

    mask: Array


def draw_mask(shape: tuple[int, ...], p: float, rng: RNG, like: Array) -> Array:
    """Draw a mask that is 0 with probability `p` and ``1 / (1 - p)`` else.

    It is drawn on the host, so that a seed means the same on every backend, and then lies
    where `like` does.

    Parameters
    ----------
    shape : tuple of int
    p : float
    rng : seed or Generator, optional
    like : array
        Of its dtype is the mask.
    """
    if p == 1:
        mask = np.zeros(shape, like.dtype)
    else:
        keep = generator(rng).random(shape, np.float32) >= p
        mask = keep.astype(like.dtype)
        mask /= 1 - p
    return get_array_module(like).asarray(mask)


def forward(
    x: Array, p: float, rng: RNG = None, save: bool = True
) -> tuple[Array, DropoutContext | None]:
    """Return `x` with entries dropped, and the mask.

    Parameters
    ----------
    x : array of any shape
    p : float
        Probability to drop an entry.
    rng : seed or Generator, optional
    """
    mask = draw_mask(x.shape, p, rng, x)
    return masked(x, mask), DropoutContext(mask) if save else None


def backward(ctx: DropoutContext, dy: Array) -> Array:
    """Return ``dx = dy * mask``."""
    return masked(dy, ctx.mask)
