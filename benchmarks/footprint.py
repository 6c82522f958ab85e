"""What a library weighs: peak memory of forward + backward, pages of it, time to import, size on disk.

Each measurement runs in a fresh interpreter, which holds one of the libraries only.
"""

import importlib.metadata
import importlib.util
import json
import statistics
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path


def peak_memory(library, cell, T, B, H, **options):
    """Return the peak of forward + backward, in arrays of (T, B, H), results included, inputs not.

    With `read_only` minirnn's input cannot be written to. The first figure is the growth of the process's
    resident memory, which Linux alone tells, else None; the second, for minirnn, is what NumPy allocated
    (torch does not say that of itself).
    """
    result = _in_a_process_of_its_own("memory", library, cell, T, B, H, options)
    return [None if size is None else size / (4 * T * B * H) for size in result]


def alone(library, cell, T, B, H):
    """Return the median time of forward + backward in a process that has done nothing else, in seconds.

    And how many pages of memory it gets from the system in each call.
    """
    return _in_a_process_of_its_own("time", library, cell, T, B, H, {})


def _in_a_process_of_its_own(what, *arguments):
    return json.loads(_python(Path(__file__), json.dumps([what, *arguments])))


def _measure(what, library, cell, T, B, H, options):
    steps = _minirnn_steps if library == "minirnn" else _torch_steps
    run = steps(cell, T, B, H, **options)
    return _time(run, T) if what == "time" else _memory(run, library, T)


def _time(run, T, calls=40):
    for _ in range(5):
        run(T)
    before, times = _pages(), []
    for _ in range(calls):
        start = time.perf_counter()
        run(T)
        times.append(time.perf_counter() - start)
    return statistics.median(times), (_pages() - before) / calls


def _pages():
    import resource  # where there is none, as on Windows, the other measurements need none

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _memory(run, library, T):
    run(2)  # what is loaded and allocated once and for all
    resident = _resident_growth(run, T)
    if library == "torch":
        return resident, None
    tracemalloc.start()
    run(T)
    return resident, tracemalloc.get_traced_memory()[1]


def _resident_growth(run, T):
    """Return by how many bytes the resident memory grows at most during a run, or None."""
    if sys.platform != "linux":
        return None
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = _status("VmRSS")
    run(T)
    return _status("VmHWM") - before


def _status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _minirnn_steps(cell, T, B, H, read_only=False, **options):
    import numpy as np

    import minirnn

    layer = getattr(minirnn, cell)(H, H, **options)
    rng = np.random.default_rng(0)
    # Each with memory of its own: a view is copied if what it is a view of can be written to.
    x, dy = (rng.standard_normal((T, B, H), np.float32) for _ in range(2))
    x.flags.writeable = not read_only

    def run(steps):
        (output, state), ctx = layer.forward(x[:steps])
        return output, state, layer.backward(ctx, dy[:steps])

    return run


def _torch_steps(cell, T, B, H):
    import torch

    torch.set_num_threads(1)
    layer = getattr(torch.nn, cell)(H, H)
    x, dy = torch.randn(2, T, B, H)

    def run(steps):
        leaf = x[:steps].requires_grad_()
        output, state = layer(leaf)
        output.backward(dy[:steps])
        return output, state, leaf.grad

    return run


def import_times(modules, repeats):
    """Return the median time in seconds to import each module, measured in turn."""
    times = {module: [] for module in modules}
    for _ in range(repeats):
        for module in modules:
            code = f"import time; t = time.perf_counter(); import {module}"
            times[module].append(float(_python("-c", f"{code}; print(time.perf_counter() - t)")))
    return {module: statistics.median(t) for module, t in times.items()}


def installed_bytes(package):
    """Return what an installed package takes on disk, without the packages it needs."""
    if package == "minirnn":  # an editable install lists only a pointer to the source
        paths = Path(importlib.util.find_spec("minirnn").origin).parent.rglob("*")
    else:
        paths = (Path(file.locate()) for file in importlib.metadata.files(package))
    return sum(p.stat().st_size for p in paths if p.suffix != ".pyc" and p.is_file())


def _python(*arguments):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    print(json.dumps(_measure(*json.loads(sys.argv[1]))))
