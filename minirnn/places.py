"""Which pair computes a recurrence where the arrays lie."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from .backend import Array


def pair_for(recurrence: Any, x: Array) -> Any:
    """Return the pair that computes `recurrence` where the array `x` lies.

    Parameters
    ----------
    recurrence : module or object
        A pair of :mod:`minirnn.functional`, or of a user's own making.
    x : array

    Returns
    -------
    module or object
        On the host `recurrence`; on the GPU its counterpart in :mod:`minirnn.cuda`, with the same
        functions. A pair that has none runs there as it is, through CuPy.
    """
    if isinstance(x, np.ndarray):
        return recurrence
    package, _, name = getattr(recurrence, "__name__", "").rpartition(".")
    return import_module(f"minirnn.cuda.{name}") if package == "minirnn.functional" else recurrence
