"""minirnn against PyTorch and JAX on the CPU: all measurements, as one Markdown page.

    python benchmarks/speed.py                        print the page
    python benchmarks/speed.py --write                write it, with plots, to benchmarks/results
    python benchmarks/speed.py --quick                small sizes and little time
    python benchmarks/speed.py --only floors          one section
    OMP_NUM_THREADS=2 python benchmarks/speed.py      with two BLAS threads on both sides

Needs torch and, to write plots, matplotlib; compares with JAX and onnxruntime too if they are installed
(`pip install 'minirnn[bench]'`).
Before anything is timed, outputs, states and all gradients are
compared with torch's; a ratio above 1 says that minirnn is faster. Sizes are T, B, I, H.
"""

import timing  # noqa: F401  # isort: skip (first: it sets the number of threads)
import argparse
import importlib.util
from functools import cache
from pathlib import Path
from time import perf_counter

import footprint
import plots
import sum_mod
import torch
from pairs import CELLS, JOBS, Pair, filled_lengths, uniform_lengths
from streaming import Streams
from timing import THREADS, compare, conditions, marked, on_cores, progress, seconds, table

import minirnn
from minirnn.atomic import atomic_write

# The sizes that most rows are measured at.
SIZES = [
    (5, 16, 10, 16), (5, 64, 10, 32), (20, 32, 32, 32), (50, 32, 64, 64), (50, 64, 128, 128),
    (100, 32, 256, 256), (100, 64, 512, 512), (50, 64, 1024, 1024), (1000, 1, 32, 32),
    (1000, 1, 256, 256),
]  # fmt: skip

# Ratios of forward + backward that minirnn is held to.
FLOOR_SIZES = [
    (5, 16, 10, 16), (20, 32, 32, 32), (50, 32, 64, 64), (50, 64, 128, 128), (100, 32, 256, 256),
    (50, 64, 512, 512), (1000, 1, 32, 32), (1000, 1, 256, 256),
]  # fmt: skip
FLOORS = {
    ("RNN", "dense"): (9, 6.5, 3, 1.6, 1.4, 1.15, 100, 5),
    ("RNN", "packed"): (11, 11, 6, 2.6, 2.1, 1.45),
    ("GRU", "dense"): (13, 6, 3, 1.4, 1.25, 1.1, 120, 5),
    ("GRU", "packed"): (14, 9.5, 5.5, 2, 2.2, 1.5),
    ("LSTM", "dense"): (6.5, 1.6, 1.15, 0.95, 1.05, 0.95, 2.8, 1),
    ("LSTM", "packed"): (13, 8.5, 5, 2, 2, 1.6),
}
MEMORY_LIMITS = {"RNN": 2.3, "LSTM": 8.4, "GRU": 8}
RESULTS = Path(__file__).parent / "results"


class Bench:
    """The sections of the page, each a method that measures and returns Markdown.

    Parameters
    ----------
    budget : float
        Seconds for each row.
    quick : bool
        Measure the smaller sizes only.
    """

    def __init__(self, budget, quick):
        self.budget, self.quick = budget, quick

    def few(self, values, number=1):
        """Return all values, or the first ones if the run is to be quick."""
        return values[:number] if self.quick else values

    @cache  # noqa: B019 (one Bench a run)
    def measure(self, cell, form, size, job="forward+backward", bidirectional=False):
        """Compare a layer with torch's; `form` is "dense" or "packed"."""
        lengths = uniform_lengths(*size[:2]) if form == "packed" else None
        pair = Pair(cell, *size, lengths, bidirectional)
        pair.check()
        result = compare(*pair.job(job), self.budget)
        progress(cell, form, *size, job, "bidirectional" * bidirectional, result)
        return result

    def floors(self):
        """Forward + backward, held to its floors."""
        sizes = self.few(FLOOR_SIZES, 2)
        rows = []
        for (cell, form), floors in FLOORS.items():
            cells = [
                marked(self.measure(cell, form, size), floor)
                for size, floor in zip(sizes, floors, strict=False)
            ]
            rows.append([f"{cell} {form}", *cells, *[""] * (len(sizes) - len(cells))])
        header = ["T, B, I, H", *(", ".join(map(str, size)) for size in sizes)]
        return (
            "torch's time / minirnn's: median (quartiles); floor and whether the median reaches it. "
            "Packed lengths are uniform in 1..T and sorted. The weights' gradients are added into "
            "`.grad` on both sides, and dx is computed.\n\n" + table(header, rows)
        )

    def peers(self):
        """Other ways: JAX, and this library's own in NumPy alone."""
        jax = None
        if importlib.util.find_spec("jax") is not None:
            import jax_peer as jax
        sizes, tables = self.few(FLOOR_SIZES), []
        sides = {"NumPy alone / minirnn": in_numpy, "JAX / minirnn": jax}
        for title, side in sides.items():
            if side is None:
                tables.append(f"{title}: JAX is not installed: pip install 'minirnn[bench]'")
                continue
            rows = []
            for cell, form in FLOORS:
                row = [f"{cell} {form}"]
                for size in sizes:
                    if form == "packed" and size[1] == 1:
                        row.append("")
                        continue
                    lengths = uniform_lengths(*size[:2]) if form == "packed" else None
                    pair = Pair(cell, *size, lengths)
                    if side is jax:
                        other = jax.Peer(pair, cell, *size, lengths).forward_backward
                    else:
                        other = in_numpy(pair.forward_backward)
                    result = compare(pair.forward_backward, other, self.budget)
                    progress(title, cell, form, *size, result)
                    row.append(str(result))
                rows.append(row)
            header = ["T, B, I, H", *(", ".join(map(str, size)) for size in sizes)]
            tables.append(f"{title}:\n\n{table(header, rows)}")
        return (
            "Forward + backward. In JAX a packed batch is a padded one with a mask; each shape is compiled "
            "beforehand. minirnn runs as it is installed: with the loops in C if "
            "`minirnn.native_available()`, which is what NumPy alone is compared with.\n\n"
            + "\n\n".join(tables)
        )

    def layers(self, form, bidirectional=False):
        sizes = [size for size in SIZES if form == "dense" or size[1] > 1]
        if bidirectional:
            sizes = [size for size in sizes if size[3] in (32, 128, 512) and size[0] >= 20]
        rows = []
        for cell in CELLS:
            for size in self.few(sizes):
                row = [cell, ", ".join(map(str, size))]
                for job in JOBS:
                    result = self.measure(cell, form, size, job, bidirectional)
                    row += [f"{seconds(result.theirs)} / {seconds(result.ours)}", str(result)]
                rows.append(row)
        header = ["", "T, B, I, H"]
        for job in JOBS:
            header += [f"{job}: torch / minirnn", "ratio"]
        return table(header, rows)

    def dense(self):
        """Equal lengths."""
        return "Times are medians of one call.\n\n" + self.layers("dense")

    def packed(self):
        """Packed batches, lengths uniform in 1..T."""
        return "Torch packed against minirnn packed.\n\n" + self.layers("packed")

    def bidirectional(self):
        """Both directions."""
        parts = [
            f"{form.capitalize()}:\n\n{self.layers(form, True)}" for form in ("dense", "packed")
        ]
        return "\n\n".join(parts)

    def threads(self):
        """Two threads, for two directions or for two halves of the batch."""
        rows = []
        for cell in CELLS:
            for directions in (1, 2):
                for size in self.few(
                    [(50, 32, 32, 32), (50, 64, 64, 64), (50, 64, 128, 128), (100, 32, 256, 256),
                     (50, 64, 512, 512)]
                ):  # fmt: skip
                    pair = Pair(cell, *size, None, directions == 2)
                    one, torch_one = (several(job) for job in pair.job("forward+backward"))
                    two, torch_two = in_threads(one), in_torch_threads(torch_one)
                    row = [cell, directions, ", ".join(map(str, size))]
                    for ours, theirs in ((two, one), (two, torch_two)):
                        result = compare(ours, theirs, self.budget)
                        progress("threads", cell, directions, *size, result)
                        row.append(str(result))
                    rows.append(row)
        header = ["", "directions", "T, B, I, H", "one thread / two", "torch, two / two"]
        return (
            "Dense, forward + backward, `minirnn.set_num_threads(2)`: a thread for each direction, or for "
            "each half of the batch.\n\n" + table(header, rows)
        )

    def padding(self):
        """Packed against padded."""
        fills = self.few([20, 40, 60, 80, 90, 100], 2)
        sizes = [(50, 64, H, H) for H in (16, 32, 64, 128, 256, 512)]
        rows = []
        for cell in CELLS:
            for size in self.few(sizes):
                padded = Pair(cell, *size)
                row = [cell, size[3]]
                for fill in fills:
                    packed = Pair(cell, *size, filled_lengths(*size[:2], fill / 100))
                    packed.check()
                    result = compare(packed.forward_backward, padded.forward_backward, self.budget)
                    progress("padding", cell, *size, f"{fill} %", result)
                    row.append(f"**{result}**" if result.high < 1 else f"{result}")
                rows.append(row)
        return (
            "minirnn's time for the padded batch (T 50, B 64, I = H) / minirnn's for the packed one, "
            "forward + backward, by the share of the batch that is not padding. "
            "Bold: padding wins, in three quarters of the rounds at least.\n\n"
            + table(["", "H", *(f"{fill} %" for fill in fills)], rows)
        )

    def training(self):
        """Training on sum-mod, loop and step."""
        return sum_mod.report(self.budget * 3, *([("",)] if self.quick else []))

    def streaming(self):
        """One step at a time, B = 1."""
        rows = []
        for cell in CELLS:
            for H in self.few([32, 64, 256]):
                streams = Streams(cell, H)
                for name, ours in (
                    ("layer.stepper()", streams.stepper),
                    ("layer.step", streams.step),
                ):
                    theirs, onnx = streams.compare(ours, self.budget)
                    progress("streaming", cell, H, name, theirs, onnx or "")
                    row = [
                        cell,
                        H,
                        f"`{name}`",
                        seconds(theirs.ours),
                        seconds(theirs.theirs),
                        theirs,
                    ]
                    row += [seconds(onnx.theirs) if onnx else "not installed", onnx or ""]
                    rows.append(row)
        header = ["", "I = H", "", "minirnn", "torch cell", "torch / minirnn"]
        header += ["onnxruntime", "onnxruntime / minirnn"]
        return "Time of one step at inference.\n\n" + table(header, rows)

    def memory(self):
        """Peak memory."""
        T, B, H = (64, 64, 128) if self.quick else (500, 64, 256)
        rows = []
        for cell in self.few(CELLS):
            resident, traced = footprint.peak_memory("minirnn", cell, T, B, H)
            _, unshared = footprint.peak_memory("minirnn", cell, T, B, H, read_only=True)
            _, checkpointed = footprint.peak_memory("minirnn", cell, T, B, H, checkpoint=True)
            torch_resident, _ = footprint.peak_memory("torch", cell, T, B, H)
            limit = MEMORY_LIMITS[cell]
            mark = f"{traced:.2f}; {limit} {'✓' if traced <= limit else '✗'}"
            sizes = [
                "" if x is None else f"{x:.2f}"
                for x in (unshared, checkpointed, resident, torch_resident)
            ]
            rows.append([cell, mark, *sizes])
            progress("memory", *rows[-1])
        header = ["", "minirnn: allocated; limit", "minirnn, input read-only: allocated"]
        header += ["minirnn, `checkpoint=True`: allocated"]
        header += ["minirnn: resident", "torch: resident"]
        return (
            f"Forward + backward at T {T}, B {B}, I = H = {H}, in arrays of (T, B, H); results "
            "included, inputs not. Allocated: the peak that tracemalloc sees. Resident: growth of the "
            "process's peak, which can be had of torch too.\n\n" + table(header, rows)
        )

    def alone(self):
        """Each library by itself."""
        rows = []
        for cell in self.few(CELLS):
            for T, B, _, H in self.few(FLOOR_SIZES[1:5]):
                times = {x: footprint.alone(x, cell, T, B, H) for x in ("torch", "minirnn")}
                said = [f"{seconds(t)}, {pages:.0f}" for t, pages in times.values()]
                ratio = times["torch"][0] / times["minirnn"][0]
                rows.append([cell, f"{T}, {B}, {H}, {H}", *said, f"{ratio:.2f}"])
                progress("alone", *rows[-1])
        header = ["", "T, B, I, H", "torch: time, pages", "minirnn: time, pages", "ratio"]
        return (
            "Forward + backward over equal lengths, each library in a new process, one after the other: "
            "median time of a call, and how many pages of memory it gets anew from the system, which clears "
            "each.\n\n" + table(header, rows)
        )

    def install(self):
        """Import time and size."""
        times = footprint.import_times(["numpy", "minirnn", "torch"], 1 if self.quick else 11)
        rows = [
            [name, seconds(t), f"{footprint.installed_bytes(name) / 1e6:.3g} MB"]
            for name, t in times.items()
        ]
        return (
            "A fresh interpreter's first import, files in the cache; minirnn's time includes NumPy's. "
            "Sizes are of the package alone, without what it needs.\n\n"
            + table(["", "import", "on disk"], rows)
        )

    def sweeps(self):
        """Return what to draw and tabulate of time against T, B and H."""
        T, B, H = [10, 100, 1000, 10_000], [1, 4, 16, 64, 256], [16, 32, 64, 128, 256, 512]
        sizes = {
            "T": ("B 16, I = H = 64", self.few([(t, 16, 64, 64) for t in T], 2), 0),
            "B": ("T 50, I = H = 64", self.few([(50, b, 64, 64) for b in B], 2), 1),
            "H": ("T 50, B 64, I = H", self.few([(50, 64, h, h) for h in H], 2), 3),
        }
        return {
            name: (
                fixed,
                [(c, size[axis], self.measure(c, "dense", size)) for c in CELLS for size in points],
            )
            for name, (fixed, points, axis) in sizes.items()
        }

    def scaling(self):
        """Time against T, B and H."""
        sweeps = self.sweeps()
        _, points = sweeps["T"]
        rows = [
            [c, f"{T:,}", seconds(r.ours / (16 * T)), seconds(r.theirs / (16 * T)), r]
            for c, T, r in points
        ]
        parts = [
            "Forward + backward, time for one step and row, at B 16, I = H = 64:\n\n"
            + table(["", "T", "minirnn", "torch", "torch / minirnn"], rows)
        ]
        for name in ("B", "H"):
            fixed, points = sweeps[name]
            rows = [[c, v, seconds(r.ours), seconds(r.theirs), r] for c, v, r in points]
            header = ["", name, "minirnn", "torch", "torch / minirnn"]
            parts.append(f"Forward + backward at {fixed}:\n\n{table(header, rows)}")
        return "\n\n".join(parts)

    def ratios(self):
        """Return what to draw of the ratio against H."""
        sizes = [size for size in self.few(FLOOR_SIZES, 2) if size[1] > 1]
        return {
            (cell, form): [
                (size[3], self.measure(cell, form, size), floor)
                for size, floor in zip(sizes, floors, strict=False)
            ]
            for (cell, form), floors in FLOORS.items()
        }

    def plot(self, folder):
        """Draw the pictures; what they show has been measured for the page."""
        plots.ratios(self.ratios(), folder / "cpu-ratio.png")
        plots.scaling(self.sweeps(), folder / "cpu-scaling.png")


def in_numpy(function):
    """Return `function` without the loops in C."""

    def call():
        minirnn.set_native(False)
        try:
            return function()
        finally:
            minirnn.set_native(minirnn.native_available())

    return call


def several(function, seconds=0.02):
    """Return what calls `function` as often as it takes to last so long: threads are started once for all."""
    function()
    start = perf_counter()
    function()
    calls = 1 + int(seconds / (perf_counter() - start))

    def call():
        for _ in range(calls):
            function()

    return call


def in_threads(function):
    """Return `function` with two threads."""

    def call():
        minirnn.set_num_threads(2)
        try:
            return function()
        finally:
            minirnn.set_num_threads(1)

    return call


def in_torch_threads(function):
    """Return `function` with two of torch's threads."""

    def call():
        torch.set_num_threads(2)
        try:
            return function()
        finally:
            torch.set_num_threads(1)

    return call


SECTIONS = (
    "floors", "peers", "training", "dense", "packed", "padding", "bidirectional", "threads", "streaming",
    "memory", "alone", "install", "scaling",
)  # fmt: skip
PICTURES = {
    "floors": "![Ratio against H](cpu-ratio.png)",
    "scaling": "![Time against T, B and H](cpu-scaling.png)",
}


def main(argv=None):
    """Measure and print, or write, the page."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--quick", action="store_true", help="small sizes, 0.1 s a row")
    p.add_argument("--only", choices=SECTIONS, help="measure one section and print it")
    p.add_argument("--budget", type=float, help="seconds for each row (default 2)")
    p.add_argument("--write", action="store_true", help=f"write to {RESULTS}")
    p.add_argument("--results", type=Path, help="write to this folder")
    args = p.parse_args(argv)
    if args.write and (args.quick or args.only):
        p.error("--write: the committed page is of a whole run; use --results FOLDER")
    folder = args.results or (RESULTS if args.write else None)
    if folder and args.only:
        p.error("--only: prints its section; no folder is written")
    if folder and importlib.util.find_spec("matplotlib") is None:
        p.error("writing results draws plots, which needs matplotlib: pip install 'minirnn[plot]'")
    budget = args.budget if args.budget is not None else (0.1 if args.quick else 2.0)

    bench = Bench(budget, args.quick)
    parts = ["# minirnn against PyTorch on the CPU", conditions()]
    for name in [args.only] if args.only else SECTIONS:
        section = getattr(bench, name)
        parts.append(f"## {section.__doc__.splitlines()[0].rstrip('.')}")
        with on_cores(2 if name == "threads" else THREADS):
            parts.append(section())
        if folder and name in PICTURES:
            parts.append(PICTURES[name])
    page = "\n\n".join(parts) + "\n"
    if folder is None:
        print(page)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "cpu.md") as file:
        file.write(page.encode())
    bench.plot(folder)
    progress(f"written to {folder}")


if __name__ == "__main__":
    main()
