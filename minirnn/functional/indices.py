"""Integers that say where: tokens, classes, lengths."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..backend import Array


def within(index: Array, limit: int) -> bool:
    """Tell whether all integers lie in ``[0, limit)``; there is one at least."""
    unsigned, beyond = _unsigned(index.dtype)
    if limit > beyond:
        return bool(index.min() >= 0)  # the dtype has no number beyond the limit
    # Read without its sign, a negative number is larger than the limit: one reduction, not two.
    return bool(index.view(unsigned).max() < limit)


@cache
def _unsigned(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], int]:
    """Return the integer dtype of as many bits without a sign, and the least number beyond `dtype`."""
    bits = 8 * dtype.itemsize - (dtype.kind == "i")
    return np.dtype(dtype.str.replace("i", "u")), 2**bits
