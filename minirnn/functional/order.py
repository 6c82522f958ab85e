"""The order of a packed batch: how many sequences run at each step, and where the packed rows come from."""

from __future__ import annotations

import numpy as np

from ..backend import Array
from ..layout import Layout, inverse_of
from .indices import within


def batch_sizes(lengths: Array, most: int) -> Array | None:
    """Return how many sequences of these lengths run at each step; None if one is outside ``[0, most]``.

    Parameters
    ----------
    lengths : array of intp, shape (B,)
    most : int
    """
    if not within(lengths, most + 1):
        return None
    ended = np.bincount(lengths).cumsum(dtype=np.intp)  # by step t: lengths of at most t
    sizes: Array = len(lengths) - ended[:-1]
    return sizes


def arrange(
    lengths: Array, first: Array | None, stride: int, layout: Layout, sort: bool
) -> tuple[Array, Array, Array] | None:
    """Return which sequence is the k-th longest, the inverse of that, and where each packed row comes from.

    None if the lengths are not descending, and not to be sorted.

    Parameters
    ----------
    lengths : array of intp, shape (B,)
    first : array of intp, shape (B,), optional
        Step t of sequence k is row ``first[k] + t * stride``; if not given, ``k + t * stride``.
    stride : int
    layout : Layout
        Of the packed rows.
    sort : bool
    """
    if not sort and np.count_nonzero(lengths[1:] > lengths[:-1]):
        return None
    order = np.argsort(-lengths, kind="stable")
    step, sequence = layout.step_and_sequence
    rows = step * stride
    rows += (order if first is None else first[order])[sequence]
    return order, inverse_of(order), rows
