"""Threads for work that is independent: directions, and parts of a batch. Off unless asked for."""

from __future__ import annotations

import _thread
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from queue import SimpleQueue
from threading import Lock, get_ident
from typing import Any, Generic, TypeVar

from . import changes, checks

T = TypeVar("T")


class _Pool:
    """The threads beside the caller's; each works off the queue until it finds None there.

    The standard library's pool is not for this: an interrupt while it starts a thread makes the process hang
    when it ends, and while it ends it takes no work. Nor is a lock, for which a signal handler that runs a
    layer would wait for ever: whoever finds no pool makes one, and the one that nobody has any more ends.
    """

    def __init__(self, workers: int) -> None:
        self.workers, self.started, self.queue = workers, 0, SimpleQueue[Any]()

    def take(self, works: Sequence[_Work[Any]]) -> None:
        """Take `works`, and start threads as long as there are more works than threads."""
        with suppress(RuntimeError):  # no threads are to be had while the interpreter exits
            while self.started < min(len(works), self.workers):
                self.started += 1
                _thread.start_new_thread(_serve, (self.queue,))
        for work in works:
            self.queue.put(work)

    def __del__(self) -> None:
        for _ in range(self.started):  # after what they have been given
            self.queue.put(None)


def _serve(queue: SimpleQueue[Any]) -> None:
    while (work := queue.get()) is not None:
        work.run()
        # Its arrays are the caller's, who need not wait for the next work to be rid of them.
        del work


_threads = 1
_pool: _Pool | None = None


def set_num_threads(threads: int) -> None:
    """Let layers run in several threads, on the CPU, where there is enough for them to do.

    The directions of a bidirectional layer run side by side, and threads beyond that share the batch. The
    loops in C need no interpreter for a whole pass: with them each direction gets at least three million
    multiplications in all of its recurrent products, each part of a batch eight, that is with ``hidden_size``
    64 and 50 steps 41 sequences of an RNN, 14 of a GRU, 11 of an LSTM. NumPy lets go of the interpreter for
    each product and elementwise function by itself; without the loops in C threads pay from ``hidden_size``
    128 on, and share the batch as long as each gets about a million multiplications in a step's recurrent
    product.

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

    See Also
    --------
    set_native : The loops in C.

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> gru = minirnn.GRU(4, 128, bidirectional=True)
    >>> x = np.ones((5, 3, 4), np.float32)
    >>> alone, _ = gru(x)
    >>> minirnn.set_num_threads(2)
    >>> bool((gru(x)[0] == alone).all())
    True
    >>> minirnn.set_num_threads(1)
    """
    global _threads, _pool
    checks.positive(threads=threads)
    _threads, _pool = int(threads), None
    changes.happened()


def num_threads() -> int:
    """Return what :func:`set_num_threads` set."""
    return _threads


# What says how many threads BLAS takes, the first that is set before the others.
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def blas_threads() -> int:
    """Return how many threads BLAS may take: as the environment says, or one for each processor."""
    for name in BLAS_THREADS:
        said = os.environ.get(name, "")
        if said.isdecimal():
            return int(said)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Return what each of `calls` returns, or raise the first error, once nothing runs any more."""
    threads = _threads  # another thread may set it meanwhile
    if threads == 1 or len(calls) == 1:
        return [call() for call in calls]
    works = [_Work(call) for call in calls]
    # Twice, since an interrupt may come between one finally and the wait in it.
    try:
        try:
            _offer(works[1:], threads - 1)
            # The first, and from the other end what no other thread has begun.
            for work in (works[0], *reversed(works[1:])):
                work.run()
                if work.error is not None:
                    break
        finally:
            _settle(works)
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
    """Hand `works` to the pool; what no thread there takes the caller does."""
    global _pool
    pool = _pool
    if pool is None or pool.workers != workers:
        pool = _pool = _Pool(workers)
    pool.take(works)


def _settle(works: Sequence[_Work[T]]) -> None:
    """Leave no work running, however often this is interrupted."""
    try:
        for work in works:
            work.settle()
    except BaseException:
        _settle(works)
        raise


def _forget() -> None:
    """Start anew in a child process, which has none of its parent's threads."""
    if _pool is not None:
        _pool.workers = _pool.started = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
