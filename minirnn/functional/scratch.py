"""Memory that is written to and forgotten: it is kept, and the next step or pass asks the system for none."""

from __future__ import annotations

import math
import threading
from typing import Any

from ..backend import Array, get_array_module

# A thread keeps so many arrays, of so many bytes in all: of a middling LSTM what the factors of a span take.
_BYTES = 4 << 20
_ARRAYS = 16


class _Scratch(threading.local):
    """Arrays that a thread uses again and again, by shape, dtype and place."""

    def __init__(self) -> None:
        self.arrays: dict[tuple[Any, ...], list[Array]] = {}
        self.bytes = 0
        self.count = 0


_scratch = _Scratch()


def scratch(shape: tuple[int, ...], like: Array) -> Array:
    """Return an array of the dtype and place of `like`; :func:`put_back` it when its use is over.

    So that a step of a stream allocates nothing but its result. It is taken out of its place meanwhile: a
    signal handler that interrupts the step and takes one of its own gets other memory.
    """
    try:
        array = _scratch.arrays[shape, like.dtype, type(like)].pop()
    except (KeyError, IndexError):
        return get_array_module(like).empty(shape, like.dtype)
    _scratch.bytes -= array.nbytes
    _scratch.count -= 1
    return array


def put_back(*arrays: Array) -> None:
    """Put arrays of :func:`scratch` back for the next call, as far as there is room for them."""
    for array in arrays:
        if array.nbytes > _BYTES:
            continue
        if _scratch.count >= _ARRAYS or _scratch.bytes + array.nbytes > _BYTES:
            _scratch.__init__()  # type: ignore[misc]
        _scratch.arrays.setdefault((array.shape, array.dtype, type(array)), []).append(array)
        _scratch.bytes += array.nbytes
        _scratch.count += 1


# From so many bytes on the system takes memory back when it is free, and hands it out again page by page.
_PAGES = 1 << 16


def workspace(shape: tuple[int, ...], like: Array) -> Array:
    """Return an array to write to during a pass, if it is large from :func:`scratch`."""
    size = math.prod(shape) * like.itemsize
    if size < _PAGES:
        return get_array_module(like).empty(shape, like.dtype)
    return scratch(shape, like)


def put_back_workspace(*arrays: Array) -> None:
    """Put arrays of :func:`workspace` back for the next pass, if that is worthwhile."""
    for array in arrays:
        if array.nbytes >= _PAGES:
            put_back(array)
