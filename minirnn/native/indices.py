"""Whether integers are in range, in C; :mod:`minirnn.functional.indices` in NumPy."""

from __future__ import annotations

from ..backend import Array
from . import _training
from .shared import read


def within(index: Array, limit: int) -> bool:
    """Tell whether all integers lie in ``[0, limit)``."""
    return _training.within(read(index), limit)
