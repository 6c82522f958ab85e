"""Threads for work that is independent: directions, and parts of a batch. Off unless asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from . import checks

T = TypeVar("T")

_threads = 1


def set_num_threads(threads: int) -> None:
    """Let layers with ``hidden_size >= 128`` run in several threads, on the CPU.

    The directions of a bidirectional layer run side by side. Threads beyond that share the batch, as long as
    each gets about a million multiplications in a step's recurrent product: with ``hidden_size`` 128, 64
    sequences of an RNN, 22 of a GRU, 16 of an LSTM; with 256 a quarter of that. NumPy lets go of the
    interpreter during products and elementwise functions; from these sizes on there is enough of them for
    a second thread to pay.

    With a thread for each direction no bit of any result changes. Where threads share a batch, weight
    gradients are sums of the parts' and agree with one thread's to rounding; results are a function of
    the number of threads. Sharing copies each layer's input and output once. Give BLAS one thread
    (``OPENBLAS_NUM_THREADS=1``), or the two compete for the cores.

    Parameters
    ----------
    threads : int
        1, as at first, or more.

    Raises
    ------
    ValueError
        If `threads` is no positive integer.
    """
    global _threads
    checks.positive(threads=threads)
    _threads = threads


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="minirnn")


if hasattr(os, "register_at_fork"):
    # A child process has the pool's object, and none of its threads.
    os.register_at_fork(after_in_child=_pool.cache_clear)


def num_threads() -> int:
    """Return what :func:`set_num_threads` set."""
    return _threads


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Return what each of `calls` returns; the caller's thread takes the first."""
    if _threads == 1 or len(calls) == 1:
        return [call() for call in calls]
    others = [_pool(_threads - 1).submit(call) for call in calls[1:]]
    first = calls[0]()
    return [first, *(other.result() for other in others)]
