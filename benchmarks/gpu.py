"""minirnn on a GPU, against torch.nn.RNN, LSTM and GRU on cuDNN: one command runs tests and measurements.

    python benchmarks/gpu.py                 tests, then all sizes, within ten minutes
    python benchmarks/gpu.py --dry           no GPU: tiny sizes on the tests' stand-in for CuPy and on
                                             torch's CPU kernels, to see that this script works

Needs CuPy, torch with CUDA, and pytest. Writes ``benchmarks/results/gpu-<device>.json`` and ``.md``.

Both libraries get the same weights and the same input, and before they are timed their outputs, last states
and gradients are compared. Times are between two events on the device, medians over repetitions in
which the candidates take turns; each packs its batch anew within its time, as in training. Both run with
TF32 in their products and without; torch's default is with, minirnn's without, and its persistent kernels
know no TF32.

It ends with an error if the libraries differ, or if something was left out: for want of time, or of the GPU's
memory. What was measured until then is written all the same.
"""

import argparse
import datetime
import gc
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "sum_mod")]

import minirnn  # noqa: E402 (this checkout's)
from minirnn import layout  # noqa: E402
from minirnn.atomic import atomic_write  # noqa: E402

CELLS = ("RNN", "LSTM", "GRU")
CANDIDATES = ("ours", "ours_tf32", "torch_tf32", "torch_fp32")
# What the two libraries may differ by, relative to the largest entry, over 500 steps with TF32 off.
TOLERANCE = 1e-3


def arguments(argv=None):
    """Read the flags."""
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument(
        "--budget", type=float, default=570, help="seconds for all of it; the rest is left out"
    )
    p.add_argument("--repeats", type=int, default=11, help="timed runs of each candidate")
    p.add_argument(
        "--no-tests", action="store_true", help="measure without running the GPU tests first"
    )
    p.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    p.add_argument("--dry", action="store_true", help="no GPU, tiny sizes, no figures kept")
    return p.parse_args(argv)


class Machine:
    """The GPU as CuPy and as torch see it; in a dry run, the stand-in and the CPU."""

    def __init__(self, dry):
        self.dry = dry
        if dry:
            sys.path.insert(0, str(ROOT / "tests" / "cuda"))
            import strict_cupy

            sys.modules["cupy"] = strict_cupy.make()
        import cupy

        self.xp, self.device = cupy, "cpu" if dry else "cuda"
        self.out_of_memory = (cupy.cuda.memory.OutOfMemoryError, torch.cuda.OutOfMemoryError)

    def describe(self):
        """Return the device's name and all versions that matter."""
        found = {
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            "python": platform.python_version(),
            "minirnn": minirnn.__version__,
            "cupy": self.xp.__version__,
            "torch": torch.__version__,
        }
        if self.dry:
            return {"device": "dry run, no GPU", **found}
        runtime = self.xp.cuda.runtime
        return {
            "device": torch.cuda.get_device_name(),
            "driver": runtime.driverGetVersion(),
            "cuda": runtime.runtimeGetVersion(),
            "cudnn": torch.backends.cudnn.version(),
            **found,
        }

    def synchronize(self):
        """Wait for the device."""
        self.xp.cuda.Device().synchronize()
        if not self.dry:
            torch.cuda.synchronize()

    def free(self):
        """Give back the memory that the libraries keep for themselves: the one's is the other's want."""
        gc.collect()
        if not self.dry:
            self.xp.get_default_memory_pool().free_all_blocks()
            torch.cuda.empty_cache()

    def milliseconds(self, run):
        """Return how long `run` keeps the device, from an idle one to its last kernel."""
        self.synchronize()
        # Both libraries use the default stream, so one kind of event serves both.
        start, end = self.xp.cuda.Event(), self.xp.cuda.Event()
        start.record()
        run()
        end.record()
        end.synchronize()
        return self.xp.cuda.get_elapsed_time(start, end)

    def medians(self, candidates, repeats, warm=2):
        """Return the median time of each named function; they take turns."""
        for run in candidates.values():
            for _ in range(warm):
                run()
        times = {name: [] for name in candidates}
        for _ in range(repeats):
            for name, run in candidates.items():
                times[name].append(self.milliseconds(run))
        return {name: statistics.median(values) for name, values in times.items()}


def configurations(dry):
    """Return (cell, H, B, T, lengths) of all runs, the middle of the table first."""
    if dry:
        return [(cell, 5, 3, 4, lengths) for cell in CELLS for lengths in ("mixed", "equal")]
    found = [
        (cell, H, B, T, lengths)
        for T in (50, 500)
        for B in (64, 16, 256)
        for H in (64, 128, 32, 256, 16, 96, 192, 512, 1024)
        for cell in CELLS
        for lengths in ("mixed", "equal")
    ]
    return sorted(found, key=lambda c: (c[1] == 1024, c[2] != 64))


def worst(pairs):
    """Return the largest difference of two arrays, relative to the largest entry; NaN if there is one."""
    return float(np.max([np.abs(a - b).max() / np.abs(b).max() for a, b in pairs]))


class Problem:
    """One layer with the same weights and input in both libraries."""

    def __init__(self, machine, cell, H, B, T, lengths):
        self.machine, self.equal = machine, lengths == "equal"
        rng = np.random.default_rng([H, B, T])
        drawn = rng.integers(max(1, T // 4), T + 1, B)
        drawn[0] = T
        n = np.full(B, T) if self.equal else -np.sort(-drawn)
        sizes = (n[:, None] > np.arange(T)).sum(0)
        rows = rng.standard_normal((int(sizes.sum()), H), np.float32)
        drows = rng.standard_normal(rows.shape, np.float32)

        torch.manual_seed(0)
        reference = getattr(torch.nn, cell)(H, H)
        xp = machine.xp
        self.layer = getattr(minirnn, cell)(H, H).to("cupy")
        self.layer.load_state_dict(reference.state_dict())
        self.layer.flatten_parameters()
        self.torch_layer = reference.to(machine.device)
        self.x, self.dy = xp.asarray(rows), xp.asarray(drows)
        self.torch_x = torch.from_numpy(rows).to(machine.device).requires_grad_()
        self.torch_dy = torch.from_numpy(drows).to(machine.device)
        self.shape, self.sizes, self.torch_sizes = (T, B, H), sizes, torch.from_numpy(sizes)

    def input(self):
        """Return minirnn's input: a new batch, of which nothing is known from the last one."""
        layout.kept.clear()  # lengths in training come again far less often
        if self.equal:
            return self.x.reshape(self.shape)
        return minirnn.PackedSequence(self.x, self.sizes)

    def torch_input(self):
        """Return torch's input, made from the rows that collect its gradient."""
        if self.equal:
            return self.torch_x.view(self.shape)
        return torch.nn.utils.rnn.PackedSequence(self.torch_x, self.torch_sizes)

    def torch_rows(self, output):
        """Return the rows of torch's output."""
        return output.reshape(-1, self.shape[2]) if self.equal else output.data

    def ours(self, backward, tf32):
        """Run minirnn; return the output, the last states and the input's gradient."""
        minirnn.set_tf32(tf32)
        x = self.input()
        if not backward:
            return *self.layer(x), None
        (y, state), ctx = self.layer.forward(x)
        dy = self.dy.reshape(self.shape) if self.equal else x.map(lambda _: self.dy)
        return y, state, self.layer.backward(ctx, dy)[0]

    def torch(self, backward, tf32):
        """Run torch likewise; the output by rows."""
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        # In training cuDNN saves what backward needs, even where nothing records a gradient.
        self.torch_layer.train(backward)
        if not backward:
            with torch.no_grad():
                y, state = self.torch_layer(self.torch_input())
            return self.torch_rows(y), state, None
        self.torch_x.grad = None
        y, state = self.torch_layer(self.torch_input())
        y = self.torch_rows(y)
        y.backward(self.torch_dy)
        return y, state, self.torch_x.grad

    def difference(self):
        """Return the largest difference of outputs, last states and gradients, as `worst` has it."""
        self.layer.zero_grad()
        self.torch_layer.zero_grad()
        y, state, dx = self.ours(True, False)
        torch_y, torch_state, torch_dx = self.torch(True, False)
        if not self.equal:
            y, dx = y.data, dx.data
        if not isinstance(state, tuple):
            state, torch_state = (state,), (torch_state,)
        pairs = [(y.reshape(torch_y.shape), torch_y), (dx.reshape(torch_dx.shape), torch_dx)]
        pairs += zip(state, torch_state, strict=True)
        pairs += [
            (getattr(self.layer, name).grad, getattr(self.torch_layer, name).grad)
            for name in ("weight_ih_l0", "weight_hh_l0")
        ]
        return worst((minirnn.asnumpy(a), b.detach().cpu().numpy()) for a, b in pairs)

    def candidates(self, backward):
        """Return what is to be timed, by name."""
        return {
            "ours": lambda: self.ours(backward, False),
            "ours_tf32": lambda: self.ours(backward, True),
            "torch_tf32": lambda: self.torch(backward, True),
            "torch_fp32": lambda: self.torch(backward, False),
        }


def measure(machine, configuration, repeats):
    """Return the rows of the table for one configuration: forward, and forward + backward."""
    problem = Problem(machine, *configuration)
    names = dict(zip(("cell", "H", "B", "T", "lengths"), configuration, strict=True))
    names["difference"] = problem.difference()
    return [
        {**names, "pass": name, **machine.medians(problem.candidates(backward), repeats)}
        for name, backward in (("forward", False), ("forward+backward", True))
    ]


def sum_mod(machine, repeats):
    """Return the time of one step of the sum-mod example, drawing and optimiser included."""
    from model import SumMod, batches, place

    minirnn.set_backend("cupy")
    batch, hidden, steps = (6, 8, 2) if machine.dry else (256, 64, 100)
    model = SumMod("rnn", hidden_dim=hidden)
    model.flatten_parameters()
    criterion, parameters = minirnn.CrossEntropyLoss(), list(model.parameters())
    optimizer = minirnn.Adam(parameters, 5e-3)
    data = batches(np.random.default_rng(0), batch, xp=place(model))
    torch_data = batches(np.random.default_rng(0), batch)

    def ours():
        for _ in range(steps):
            tokens, sums = next(data)
            logits, ctx = model.forward(tokens)
            _, ctx_loss = criterion.forward(logits, sums)
            optimizer.zero_grad()
            model.backward(ctx, criterion.backward(ctx_loss))
            minirnn.clip_grad_norm_(parameters, 0.5)
            optimizer.step()

    device, rnn = machine.device, torch.nn.utils.rnn
    layers = torch.nn.ModuleList(
        [torch.nn.Embedding(10, 10), torch.nn.RNN(10, hidden), torch.nn.Linear(hidden, 10)]
    ).to(device)
    embedding, recurrent, head = layers
    torch_optimizer = torch.optim.Adam(layers.parameters(), 5e-3)

    def theirs():
        torch.backends.cudnn.allow_tf32 = True
        for _ in range(steps):
            tokens, sums = next(torch_data)
            rows = embedding(torch.from_numpy(tokens.data).to(device))
            packed = rnn.PackedSequence(rows, torch.tensor(tokens.batch_sizes))
            logits = head(recurrent(packed)[1][-1])
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(sums).to(device))
            torch_optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(layers.parameters(), 0.5)
            torch_optimizer.step()

    times = machine.medians({"ours": ours, "torch_tf32": theirs}, repeats, warm=1)
    minirnn.set_backend("numpy")
    return {"B": batch, "H": hidden, **{k: v / steps for k, v in times.items()}}


def run_tests(dry, timeout):
    """Run the GPU tests, and return pytest's last line; end here if they fail."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "tests/cuda"]
    # What another version of NumPy or CuPy deprecates is for development to stop at, not for measuring.
    command += ["-o", "filterwarnings=default"]
    # The emulation proves nothing new on a GPU; in a dry run there is nothing but it.
    command += ["-k", "test_relu" if dry else "gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    print(done.stdout[-3000:], flush=True)
    summary = re.sub(r"=+", "", done.stdout.strip().splitlines()[-1]).strip()
    if done.returncode:
        raise SystemExit(
            f"the GPU tests fail, nothing is measured: {summary}\n{done.stderr[-2000:]}"
        )
    if not dry and "passed" not in summary:
        raise SystemExit(f"no GPU test ran: {summary}")
    return summary


def markdown(report):
    """Return the report as a page of Markdown."""
    machine = report["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in machine.items() if k not in ("device", "date"))
    columns = ["cell", "H", "B", "T", "lengths", "pass", "minirnn", "minirnn TF32", "torch TF32"]
    columns += ["torch float32", "default / default", "TF32 / TF32", "float32 / float32"]
    lines = [
        f"# minirnn on {machine['device']}, {machine['date']}",
        "",
        f"{versions}. GPU tests: {report['tests']}.",
        "",
        "Medians in ms; the ratios are torch's time by minirnn's, so above 1 minirnn is faster. TF32 is "
        "torch's default, float32 minirnn's.",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    keys = ("cell", "lengths", "pass", "T", "B", "H")
    for row in sorted(report["rows"], key=lambda r: [r[k] for k in keys]):
        names = " | ".join(str(row[k]) for k in ("cell", "H", "B", "T", "lengths", "pass"))
        times = " | ".join(f"{row[k]:.3f}" for k in CANDIDATES)
        pairs = [("torch_tf32", "ours"), ("torch_tf32", "ours_tf32"), ("torch_fp32", "ours")]
        ratios = " | ".join(f"{row[theirs] / row[ours]:.2f}" for theirs, ours in pairs)
        lines.append(f"| {names} | {times} | {ratios} |")
    if s := report["sum_mod"]:
        lines += [
            "",
            f"A training step of the sum-mod example (tanh, B = {s['B']}, H = {s['H']}; its batch is drawn "
            f"on the host): minirnn {s['ours']:.3f} ms, torch {s['torch_tf32']:.3f} ms, "
            f"ratio {s['torch_tf32'] / s['ours']:.2f}.",
        ]
    if wrong := [r for r in report["rows"] if not r["difference"] < TOLERANCE]:
        lines += [
            "",
            f"WRONG: in {len(wrong)} rows minirnn and torch differ by more than {TOLERANCE:.0e}.",
        ]
    if report["left_out"]:
        lines += ["", "INCOMPLETE. Left out:", ""]
        lines += [f"- {one['what']}: {one['why']}" for one in report["left_out"]]
    return "\n".join(lines) + "\n"


def main(argv=None):
    """Test, measure, and write the results."""
    start = time.perf_counter()
    args = arguments(argv)

    def left():
        return args.budget - (time.perf_counter() - start)

    tests = "not run" if args.no_tests else run_tests(args.dry, max(left(), 60))
    machine = Machine(args.dry)
    repeats = 2 if args.dry else args.repeats
    report = {
        "machine": machine.describe(),
        "tests": tests,
        "repeats": repeats,
        "sum_mod": None,
        "rows": [],
        "left_out": [],
    }
    slug = re.sub(r"[^a-z0-9]+", "-", report["machine"]["device"].lower()).strip("-")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if args.dry else args.out
        folder.mkdir(parents=True, exist_ok=True)

        def stage(what, run):
            """Return what `run` measures, or None if it is left out."""
            found, why = None, None
            if left() < 10:
                why = "out of time"
            else:
                try:
                    found = run()
                except machine.out_of_memory as error:
                    why = f"out of memory: {str(error).partition(chr(10))[0]}"
                machine.free()
            if why:
                report["left_out"].append({"what": what, "why": why})
            return found

        def write():
            # After each stage: a run that is cut short has not run for nothing.
            for kind, text in (
                ("json", json.dumps(report, indent=1) + "\n"),
                ("md", markdown(report)),
            ):
                with atomic_write(folder / f"gpu-{slug}.{kind}") as file:
                    file.write(text.encode())

        write()
        report["sum_mod"] = stage("sum-mod", lambda: sum_mod(machine, repeats))
        write()
        for c in configurations(args.dry):
            cell, H, B, T, lengths = c
            what = f"{cell}, H = {H}, B = {B}, T = {T}, {lengths} lengths"
            report["rows"] += stage(what, lambda c=c: measure(machine, c, repeats)) or []
            write()
        page = (folder / f"gpu-{slug}.md").read_text()
    if args.dry:
        # The times of a pretended GPU are none.
        lines = page.count("\n| ") - 1
        print(f"dry run: tests: {tests}; {lines} lines in the table, nothing kept")
    else:
        print(page)
    if not all(row["difference"] < TOLERANCE for row in report["rows"]):
        raise SystemExit("minirnn and torch differ: see the table")
    if report["left_out"]:
        raise SystemExit(f"incomplete: {len(report['left_out'])} measurements were left out")


if __name__ == "__main__":
    main()
