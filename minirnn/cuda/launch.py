"""Compiling the kernels, and the shapes of their launches: no arrays here."""

from __future__ import annotations

from functools import cache
from importlib import resources
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

# What C calls the dtypes that there are kernels for.
REAL = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}

# The largest hidden size whose recurrent matrix fits the registers of a multiprocessor.
LARGEST = {"rnn": 192, "lstm": 96, "gru": 112}


class Shape(NamedTuple):
    """How a persistent kernel is compiled and launched.

    Attributes
    ----------
    macros : tuple of (str, value)
        See ``tile.h``.
    blocks, threads : int
        `blocks` are those of one direction.
    shared : int
        Bytes of shared memory.
    """

    macros: tuple[tuple[str, Any], ...]
    blocks: int
    threads: int
    shared: int


def shape(
    cell: str, hidden_size: int, batch_size: int, multiprocessors: int, directions: int = 1
) -> Shape | None:
    """Return the shape of a persistent kernel's launch, or None if the size does not fit.

    Few sequences a group spread the batch over the whole GPU; many share the reading of shared
    memory. So a group gets more than one only when the GPU is full.

    Parameters
    ----------
    cell : {"rnn", "lstm", "gru"}
    hidden_size, batch_size, multiprocessors : int
    directions : {1, 2}
        How many share the launch, and so the GPU.
    """
    if hidden_size > LARGEST[cell]:
        return None
    macros: dict[str, Any] = {"H": hidden_size, "AHEAD": 4}
    if cell == "rnn":
        split = 4 if hidden_size <= 128 else 8
        padded = -(-hidden_size // (4 * split)) * 4 * split
        group, vector = padded // 4 * split, padded
        macros["SPLIT"] = split
        most = 4 if hidden_size <= 128 else 2
    else:
        padded = -(-hidden_size // 16) * 16
        group, vector = 4 * padded, 4 * padded
        # Close to the limit registers are short: fewer sequences, and shorter looks ahead.
        most = 4 if hidden_size <= 64 else 2 if hidden_size <= 96 else 1
        if hidden_size > 64:
            macros["AHEAD"] = 3 if hidden_size <= 96 else 2
    groups = 2 if group % 32 else 1  # whole warps
    rows = -(-batch_size * directions // (multiprocessors * groups))
    sequences = min(most, 1 if rows <= 2 else 2 if rows <= 4 else 4)
    macros |= {"R": sequences, "GROUPS": groups}
    return Shape(
        macros=tuple(sorted(macros.items())),
        blocks=-(-batch_size // (sequences * groups)),
        threads=group * groups,
        shared=2 * groups * sequences * vector * 4,
    )


@cache
def source(*names: str) -> str:
    """Return the text of CUDA source files of this package, one after the other."""
    folder = resources.files(__package__)
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


@cache
def _module(xp: ModuleType, names: tuple[str, ...], macros: tuple[tuple[str, Any], ...]) -> Any:
    options = ("-std=c++17", *(f"-D{name}={value}" for name, value in macros))
    return xp.RawModule(code=source(*names), options=options)


@cache
def function(
    xp: ModuleType, names: tuple[str, ...], macros: tuple[tuple[str, Any], ...], kernel: str
) -> Any:
    """Return a kernel of these files, compiled with these macros."""
    return _module(xp, names, macros).get_function(kernel)


@cache
def multiprocessors(xp: ModuleType, device: int) -> int:
    """Return how many multiprocessors the GPU has."""
    return int(xp.cuda.Device(device).attributes["MultiProcessorCount"])
