"""The norm of few numbers in C; :mod:`minirnn.functional.norm` has it for many, and of any power."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..backend import Array
from ..functional import norm as functional
from . import _training

# So few numbers take less time in C than NumPy takes to begin a product and to look at what comes out.
_FEW = 1 << 13

_SMALLEST = functional.smallest(np.dtype(np.float64))
# What is not below may be too large for a dtype; so may what is no number.
_LARGE = 2.0**127


def of(arrays: Sequence[Array], p: float) -> float:
    """Return the p-norm of all entries together: in NumPy, unless the squares' sum in float64 tells it."""
    if p == 2 and sum(x.size for x in arrays) <= _FEW:
        total = math.sqrt(sum(map(_training.squares, arrays)))
        if _SMALLEST < total < math.inf:
            return total
    norm: float = functional.of(arrays, p)
    return norm


def limit(arrays: Sequence[Array], norm: float, most: float) -> Array:
    """Scale all arrays, whose norm this is, to one of `most` if it is more; return it in their dtype."""
    if not norm < _LARGE:
        return functional.limit(arrays, norm, most)
    by = most / (norm + 1e-6)
    if by < 1:
        for x in arrays:
            _training.scale(x, by)
    return arrays[0].dtype.type(norm)
