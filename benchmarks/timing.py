"""Time two functions against each other in one process, and say on which machine.

A machine that others share is now faster and now slower, so a time says little and a ratio of times
taken a minute apart not much more. Here both sides run in turn, in random order, and every round gives
one ratio; reported are the median and the quartiles of these paired ratios.

Import this before NumPy or torch: it sets the number of BLAS threads, one unless OMP_NUM_THREADS says
otherwise, for both libraries.
"""

import datetime
import gc
import os
import platform
import random
import sys
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", "1"))
for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(THREADS)

import numpy as np  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(THREADS)
gc.freeze()  # what the imports left is not looked through again before each comparison

SHORTEST = 2e-3  # seconds of one timing, or one call if that takes longer
ROUNDS = 5, 2000  # fewest and most


@contextmanager
def on_cores(count):
    """Hold this process to so many cores, where that can be had: JAX takes two for one thread.

    Threads that run already stay where they are.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_cores)[-count:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


class Paired(NamedTuple):
    """What came out of a comparison; times in seconds for one call."""

    ours: float
    theirs: float
    low: float  # quartiles of the paired ratio theirs / ours
    ratio: float
    high: float
    rounds: int

    def per(self, calls):
        """Return the same with times for one of the `calls` that each call consists of."""
        return self._replace(ours=self.ours / calls, theirs=self.theirs / calls)

    def __str__(self):
        digits = 1 if self.high >= 10 else 2
        return f"{self.ratio:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


def compare(ours, theirs, budget, cold=False):
    """Time `ours` and `theirs`, functions without arguments, in turn for about `budget` seconds.

    Each timing repeats its function until it has lasted long enough for the clock. A short one follows an
    untimed call, so that each side finds the caches as it would leave them in a loop of its own. If `cold`,
    it does not, and each timing is of one call: each side finds the caches as the other has left them. The
    garbage collector runs before, not during the timings.
    """
    sides = (ours, theirs)
    once = [min(_seconds(side, 1) for _ in range(3)) for side in sides]  # the first ones warm up
    calls = [1 if cold else max(1, round(SHORTEST / max(t, 1e-9))) for t in once]
    rounds = int(budget / sum(t * n for t, n in zip(once, calls, strict=True)))
    rounds = min(max(rounds, ROUNDS[0]), ROUNDS[1])
    seconds = np.empty((rounds, 2))
    order = random.Random(0)
    gc.collect()
    gc.disable()
    try:
        for row in seconds:
            for k in order.sample((0, 1), 2):
                if once[k] < 5e-3 and not cold:
                    sides[k]()
                row[k] = _seconds(sides[k], calls[k])
    finally:
        gc.enable()
    medians = np.median(seconds, axis=0)
    quartiles = np.percentile(seconds[:, 1] / seconds[:, 0], [25, 50, 75])
    return Paired(*medians.tolist(), *quartiles.tolist(), rounds)


def _seconds(function, calls):
    start = perf_counter()
    for _ in range(calls):
        function()
    return (perf_counter() - start) / calls


def require_equal(name, ours, theirs, tolerance=1e-4):
    """Raise unless the arrays agree, to `tolerance` times the largest entry of `theirs`."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.shape != theirs.shape:
        raise AssertionError(f"{name}: shape {ours.shape} here, {theirs.shape} in torch")
    error, scale = np.abs(ours - theirs).max(), np.abs(theirs).max()
    if not error <= tolerance * scale:
        raise AssertionError(
            f"{name}: differs from torch's by {error:.1e}, its scale is {scale:.1e}"
        )


def seconds(t):
    """Write a time with three digits and a unit."""
    scale, unit = (1, "s") if t >= 1 else (1e3, "ms") if t >= 1e-3 else (1e6, "us")
    return f"{t * scale:.3g} {unit}"


def marked(result, floor):
    """Write a ratio with its quartiles, and the floor it is held to with a mark whether it is reached."""
    return f"{result}; {floor} {'✓' if result.ratio >= floor else '✗'}" if floor else str(result)


def table(header, rows):
    """Write a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def conditions():
    """Describe machine, versions and date as a Markdown list."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    packages = [
        f"Python {platform.python_version()}",
        f"minirnn {version('minirnn')}",
        f"NumPy {np.__version__} ({blas['name']} {blas['version']})",
        f"torch {torch.__version__}",
    ]
    return "\n".join(
        [
            f"- Date: {datetime.date.today()}",
            f"- CPU: {_cpu()}, {os.cpu_count()} cores, {THREADS} thread{'s' * (THREADS > 1)} used",
            f"- System: {platform.system()} {platform.release()}, {platform.machine()}",
            f"- Versions: {', '.join(packages)}",
        ]
    )


def _cpu():
    """Return the name of the processor; Linux has it in a file."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    fields = dict(
        (part.strip() for part in line.split(":", 1))
        for line in info.read_text().split("\n\n")[0].splitlines()
    )
    name = fields.get("model name", platform.machine())
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return name


def progress(*words):
    """Say on stderr what is under way; stdout has the tables."""
    print(*words, file=sys.stderr, flush=True)
