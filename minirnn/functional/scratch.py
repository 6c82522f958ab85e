"""Memory that is written to and forgotten: it is kept, and the next step or pass asks the system for none."""

from __future__ import annotations

import math
import threading
from typing import Any

from ..backend import Array, get_array_module

# A thread keeps so many arrays, of so many bytes in all: of a middling LSTM what the factors of a span take.
_BYTES = 4 << 20
_ARRAYS = 16


class _Store:
    """Arrays that are used again and again, by shape, dtype and place."""

    def __init__(self) -> None:
        self.arrays: dict[tuple[Any, ...], list[Array]] = {}
        self.bytes = 0
        self.count = 0


class _Scratch(threading.local):
    """Those of a thread."""

    def __init__(self) -> None:
        self.store = _Store()


_scratch = _Scratch()


def scratch(shape: tuple[int, ...], like: Array) -> Array:
    """Return an array of the dtype and place of `like`; :func:`put_back` it when its use is over.

    So that a step of a stream allocates nothing but its result. It is taken out of its place meanwhile: a
    signal handler that interrupts the step and takes one of its own gets other memory.
    """
    store = _scratch.store
    try:
        array = store.arrays[shape, like.dtype, type(like)].pop()
    except (KeyError, IndexError):
        return get_array_module(like).empty(shape, like.dtype)
    store.bytes -= array.nbytes
    store.count -= 1
    return array


def put_back(*arrays: Array) -> None:
    """Put arrays of :func:`scratch` back for the next call, as far as there is room for them."""
    store = _scratch.store
    for array in arrays:
        size = array.nbytes
        if size > _BYTES:
            continue
        if store.count >= _ARRAYS or store.bytes + size > _BYTES:
            store = _scratch.store = _Store()
        store.arrays.setdefault((array.shape, array.dtype, type(array)), []).append(array)
        store.bytes += size
        store.count += 1


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
