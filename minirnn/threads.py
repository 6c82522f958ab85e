"""Threads for work that is independent: the two directions of a layer. Off unless asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from . import checks

T = TypeVar("T")

_threads = 1


def set_num_threads(threads: int) -> None:
    """Let a bidirectional layer with ``hidden_size >= 128`` run its directions in two threads.

    NumPy lets go of the interpreter during products and elementwise functions, and from that size on
    there is enough of them for a second thread to pay. Each direction computes what it would compute
    alone, so no bit of any result changes. Give BLAS one thread (``OPENBLAS_NUM_THREADS=1``), or the two
    compete for the cores. On the GPU nothing changes.

    Parameters
    ----------
    threads : int
        1, as at first, or more; beyond the two directions further threads have nothing to do.

    Raises
    ------
    ValueError
        If `threads` is no positive integer.
    """
    global _threads
    checks.positive(threads=threads)
    _threads = threads


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="minirnn")


def together(tasks: Sequence[Callable[[], T]], worthwhile: bool) -> list[T]:
    """Return the tasks' results; if threads are on and it is worthwhile, computed side by side."""
    if _threads == 1 or len(tasks) == 1 or not worthwhile:
        return [task() for task in tasks]
    others = [_pool().submit(task) for task in tasks[1:]]
    first = tasks[0]()
    return [first, *(other.result() for other in others)]
