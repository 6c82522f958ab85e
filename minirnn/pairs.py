"""Which pair of functions computes where the arrays lie."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from . import changes
from .backend import Array


def pair_for(recurrence: Any, x: Array) -> Any:
    """Return the pair that computes `recurrence`, or what else it is of, where the array `x` lies.

    Parameters
    ----------
    recurrence : module or object
        One of :mod:`minirnn.functional`, or of a user's own making.
    x : array

    Returns
    -------
    module or object
        Its counterpart with the same functions: on the GPU in :mod:`minirnn.cuda`, on the host in
        :mod:`minirnn.native`, if that was built, is not switched off and knows the dtype. Else
        `recurrence` itself; a pair without counterparts runs on the GPU through CuPy.
    """
    if type(x) is np.ndarray and _native and x.dtype in _NATIVE_TYPES and native_available():
        place = "native"
    elif isinstance(x, np.ndarray):
        return recurrence
    else:
        place = "cuda"
    return _counterpart(place, getattr(recurrence, "__name__", "")) or recurrence


@cache
def _counterpart(place: str, recurrence: str) -> Any:
    package, _, name = recurrence.rpartition(".")
    if package != "minirnn.functional" or not find_spec(f"minirnn.{place}.{name}"):
        return None
    return import_module(f"minirnn.{place}.{name}")


@cache
def native_available() -> bool:
    """Tell whether the loops in C were built, all of them, when minirnn was installed, and can be loaded.

    Returns
    -------
    bool
        Whether they are there, used or not.

    See Also
    --------
    set_native : Switch them.

    Examples
    --------
    >>> set_native(native_available())  # in C if that can be, as it is at first
    """
    try:
        for module in ("_loops", "_training"):
            import_module(f"minirnn.native.{module}")
    except ImportError:
        return False
    return True


def set_native(enabled: bool) -> None:
    """Let recurrent layers on the CPU run loops over time and single steps in C, or in NumPy as one reads it.

    So do packing, the gradient of an embedding, a Linear and a cross entropy of few rows, the norm of few
    gradients, and Adam's step. In C where it is available, unless the environment variable ``MINIRNN_NATIVE``
    is 0. What C lacks (a projection, recurrences of your own) runs in NumPy by itself; results agree to
    rounding.

    Parameters
    ----------
    enabled : bool
        On or off.

    Raises
    ------
    ImportError
        If C is asked for, and the loops were not built.
    TypeError
        If `enabled` is no bool.

    See Also
    --------
    native_available : Whether they were built.

    Examples
    --------
    >>> set_native(False)
    >>> set_native(native_available())
    """
    global _native
    if not isinstance(enabled, bool):
        raise TypeError(f"enabled: expected True or False, got {enabled!r}")
    if enabled and not native_available():
        raise ImportError(
            "the loops in C were not built: install minirnn again where there is a C compiler, "
            "`pip install -v` shows what it says"
        )
    _native = enabled
    changes.happened()


# Of numbers, and of the integers that C reads as lengths and indices.
_NATIVE_TYPES = {np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64)}
_wish = os.environ.get("MINIRNN_NATIVE", "")
if _wish not in ("", "0", "1"):
    raise ValueError(f"MINIRNN_NATIVE: expected 0 or 1, got {_wish!r}")
_native = _wish != "0"
if _wish == "1":
    set_native(True)
