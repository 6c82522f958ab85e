"""The order of a packed batch, in C; :mod:`minirnn.functional.order` says what is what."""

from __future__ import annotations

import numpy as np

from ..backend import Array
from ..layout import Layout
from . import _training


def batch_sizes(lengths: Array, most: int) -> Array | None:
    """Return how many sequences of these lengths run at each step; None if one is outside ``[0, most]``."""
    sizes = np.empty(most, np.intp)
    steps = _training.batch_sizes(sizes, lengths)
    if steps == most:
        return sizes
    return None if steps < 0 else sizes[:steps].copy()  # which keeps no memory of so many steps


def arrange(
    lengths: Array, first: Array | None, stride: int, layout: Layout, sort: bool
) -> tuple[Array, Array, Array] | None:
    """Return which sequence is the k-th longest, the inverse, and where each packed row comes from."""
    B = len(lengths)
    order, inverse, rows = (
        np.empty(B, np.intp),
        np.empty(B, np.intp),
        np.empty(layout.rows, np.intp),
    )
    descending = _training.arrange(order, inverse, rows, lengths, first, stride)
    return (order, inverse, rows) if sort or descending else None
