r"""The norm of several arrays as one long vector, :math:`(\sum_i |x_i|^p)^{1/p}`, and a limit to it.

No power of an entry may overflow, and none be lost that counts. What is not finite the norm tells, and what
is too small to be squared nobody misses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache, reduce
from typing import Any

import numpy as np

from ..backend import Array, get_array_module, reads_values

_silent = np.errstate(over="ignore", invalid="ignore", under="ignore")


@_silent
def of(arrays: Sequence[Array], p: float) -> Any:
    """Return the p-norm of all entries together: a number, on the GPU a scalar array."""
    xp = get_array_module(arrays[0])
    if p == 2:
        squares = _total(xp.vdot(x, x) for x in arrays)
        if xp is not np and not reads_values(arrays[0]):
            return xp.sqrt(squares)
        total = math.sqrt(squares)
        # Between these limits neither has a square overflowed, nor one been lost that counts.
        if max(smallest(x.dtype) for x in arrays) < total < math.inf:
            return total if xp is np else xp.sqrt(squares)
    norm = _by_largest(xp, arrays, p)
    return float(norm) if xp is np else norm


def _by_largest(xp: Any, arrays: Sequence[Array], p: float) -> Array:
    """Return it where no power may overflow and none be lost that counts."""
    # Two reductions, where abs would first write an array.
    largest = abs(reduce(xp.maximum, (xp.maximum(x.max(), -x.min()) for x in arrays)))  # not -0
    if math.isinf(p):
        return largest
    sound = xp.isfinite(largest) & (largest > 0)
    by = xp.where(sound, largest, 1).astype(largest.dtype)
    powers = _total((abs(x / by) ** p).sum(dtype=np.float64) for x in arrays)
    return xp.where(sound, largest.astype(np.float64) * powers ** (1 / p), largest)


@cache
def smallest(dtype: np.dtype[Any]) -> float:
    """Return the norm from which on squares that are lost are too small to count in it."""
    return 2**20 * math.sqrt(np.finfo(dtype).tiny)


def _total(terms: Iterable[Array]) -> Array:
    return reduce(lambda a, b: a + b, terms)


@_silent
def limit(arrays: Sequence[Array], norm: Any, most: float) -> Array:
    """Scale all arrays, whose norm this is, to one of `most` if it is more; return it in their dtype."""
    xp, by = get_array_module(arrays[0]), most / (norm + 1e-6)
    if xp is not np:
        by = xp.minimum(by, 1)
        for x in arrays:
            x *= by.astype(x.dtype)
        return norm.astype(arrays[0].dtype)
    if not by >= 1:  # a NaN goes on into the arrays
        for x in arrays:
            x *= by
    return arrays[0].dtype.type(norm)
