"""Threads for work that is independent: directions, and parts of a batch. Off unless asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from threading import Lock, get_ident
from typing import Generic, NamedTuple, TypeVar

from . import checks

T = TypeVar("T")


class _Pool(NamedTuple):
    """The threads beside the caller's."""

    workers: int
    executor: ThreadPoolExecutor


_threads = 1
_pool: _Pool | None = None
_door = Lock()


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

    Whatever is raised in a pass, an interrupt of the user included, is raised when no thread works on the
    pass any more. Where no threads are to be had, as while the interpreter exits, the work is done in turn.

    Parameters
    ----------
    threads : int
        1, as at first, or more.

    Raises
    ------
    ValueError
        If `threads` is no positive integer.
    """
    global _threads, _pool
    checks.positive(threads=threads)
    _threads, pool, _pool = threads, _pool, None
    if pool is not None:
        pool.executor.shutdown(wait=False)  # what it has been given is still done


def num_threads() -> int:
    """Return what :func:`set_num_threads` set."""
    return _threads


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Return what each of `calls` returns, or raise the first error, once nothing runs any more."""
    threads = _threads  # another thread may set it meanwhile
    if threads == 1 or len(calls) == 1:
        return [call() for call in calls]
    works = [_Work(call) for call in calls]
    try:
        _offer(works[1:], threads - 1)
        for work in works:
            work.run()  # the first, and what no other thread has begun
            if work.error is not None:
                break
    finally:
        _settle(works)
    return [work.result() for work in works]


class _Work(Generic[T]):
    """A call that one thread takes, whichever comes first; the others pass it by."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call, self._context = call, copy_context()  # np.errstate holds in every thread
        self._owner: dict[str, int] = {}
        self._finished, self._bell = False, Lock()
        self._bell.acquire()
        self.error: BaseException | None = None

    def take(self) -> bool:
        """Return whether the work is this thread's, for good."""
        # One operation, which no interrupt can cut in two.
        return self._owner.setdefault("thread", get_ident()) == get_ident()

    def run(self) -> None:
        """Do the work, if no other thread has it."""
        if not self.take():
            return
        try:
            self._value = self._context.run(self._call)
        except BaseException as error:
            self.error = error
        finally:
            self._finished = True
            self._bell.release()

    def settle(self) -> None:
        """Wait for the thread that has it; from now on none will begin it."""
        if not self.take():
            # An interrupt may take the bell's ring for itself, and an Event cannot bear one: hence the flag.
            while not self._finished:
                self._bell.acquire(timeout=0.05)

    def result(self) -> T:
        """Return what the call returned, or raise what it raised."""
        if self.error is not None:
            raise self.error
        return self._value


def _offer(works: Sequence[_Work[T]], workers: int) -> None:
    """Hand `works` to the pool, as far as it takes them."""
    global _pool
    # Not waiting: the thread inside may be this one, below a signal handler that runs a layer too.
    if not _door.acquire(blocking=False):
        return
    try:
        if _pool is None or _pool.workers != workers:
            stale, _pool = _pool, _Pool(workers, ThreadPoolExecutor(workers, "minirnn"))
            if stale is not None:
                stale.executor.shutdown(wait=False)
        executor = _pool.executor
        # It refuses once the interpreter exits, or when another thread has just replaced it.
        with suppress(RuntimeError):
            for work in works:
                executor.submit(work.run)
    finally:
        _door.release()


def _settle(works: Sequence[_Work[T]]) -> None:
    """Leave no work running, however often this is interrupted."""
    interrupt: BaseException | None = None
    for work in works:
        while True:
            try:
                work.settle()
                break
            except BaseException as error:
                interrupt = error
    if interrupt is not None:
        raise interrupt


def _forget() -> None:
    """Start anew in a child process, which has none of its parent's threads, but its locks as they were."""
    global _pool, _door
    _pool, _door = None, Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
