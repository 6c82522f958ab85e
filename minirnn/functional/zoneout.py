r"""Zoneout: units that keep their state of the step before, at random.

.. math::
    h_t = k \odot h_{t-1} + (1 - k) \odot \tilde h_t, \qquad
    d h_{t-1} = k \odot dh_t, \quad d \tilde h_t = (1 - k) \odot dh_t

with :math:`k \sim \mathrm{Bernoulli}(p)` in training, and its mean p in evaluation.

References
----------
D. Krueger et al., "Zoneout: regularizing RNNs by randomly preserving hidden activations", ICLR 2017
"""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array
from .shared import masked


class ZoneoutContext(NamedTuple):
    """Which units keep their state: 1, or the share of it that they keep."""

    kept: Array


def forward(before: Array, after: Array, kept: Array) -> tuple[Array, ZoneoutContext]:
    """Return the state that comes of the one before and the one after the step."""
    return masked(before, kept) + masked(after, 1 - kept), ZoneoutContext(kept)


def backward(ctx: ZoneoutContext, dh: Array) -> tuple[Array, Array]:
    """Return the gradients of both."""
    return masked(dh, ctx.kept), masked(dh, 1 - ctx.kept)
