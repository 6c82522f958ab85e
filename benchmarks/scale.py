"""What data parallelism costs and gains: measured on two ranks, then computed for up to a thousand.

    mpiexec -n 2 python benchmarks/scale.py --out docs

Measured, one BLAS thread a rank: one Allreduce against the size of the gradient, a step against the rows of
its batch, and steps of two ranks with half a batch each against steps of one rank with all of it, in turn.
From these the time of a step on p ranks: one that shares its batch out, and a ring's Allreduce,

    T(p) = a + b rows / p + 2 (p - 1) (alpha + beta bytes / p).

`--alpha` and `--beta` put a network's latency and time a byte in the place of those measured, which are
those of ranks on one machine.
"""

import argparse
import json
import os
from pathlib import Path
from statistics import median
from time import perf_counter

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402

import minirnn  # noqa: E402
from minirnn.atomic import atomic_write  # noqa: E402
from minirnn.parallel import (  # noqa: E402
    average_gradients,
    broadcast,
    check_in_step,
    shard,
    world,
)

STEPS, BATCH = 50, 128  # of a step's sequences, where the batch is given
NUMBERS = (1, 100, 1_000, 10_000, 100_000, 1_000_000)
SIZES = (128, 256, 512)
PARAMETERS = (10**4, 10**5, 10**6, 10**7, 10**8)
RANKS = np.unique(np.geomspace(1, 1000, 60).round().astype(int))


class Model(minirnn.Module):
    """A GRU over floats and a head on its last state."""

    def __init__(self, hidden_size):
        self.rnn = minirnn.GRU(hidden_size, hidden_size, rng=0)
        self.head = minirnn.Linear(hidden_size, 10, rng=0)

    def forward(self, x):
        """Return the logits of packed sequences."""
        (_, h_n), ctx_h = self.rnn.forward(x)
        logits, ctx_y = self.head.forward(h_n[-1])
        return logits, (ctx_h, ctx_y)

    def backward(self, ctx, dlogits):
        """Add all gradients."""
        ctx_h, ctx_y = ctx
        self.rnn.backward(ctx_h, None, self.head.backward(ctx_y, dlogits)[None])


class Run:
    """A model, its optimiser, and steps of it."""

    def __init__(self, hidden_size, comm):
        self.model, self.comm = Model(hidden_size), comm
        self.model.flatten_parameters()
        broadcast(self.model, comm)
        self.optimizer = minirnn.Adam(self.model.parameters(), 1e-3)
        self.criterion = minirnn.CrossEntropyLoss()

    def step(self, part, average):
        """Take one step, with the average over the ranks or alone."""
        x, targets = part
        self.optimizer.zero_grad()
        logits, ctx = self.model.forward(x)
        _, ctx_l = self.criterion.forward(logits, targets)
        self.model.backward(ctx, self.criterion.backward(ctx_l))
        if average:
            average_gradients(self.model, self.comm, weight=len(targets))
        self.optimizer.step()


def batch_of(sequences, hidden_size):
    """Return packed sequences of STEPS steps, and their targets."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((STEPS, sequences, hidden_size)).astype(np.float32)
    packed = minirnn.pack_padded_sequence(x, [STEPS] * sequences)
    return packed, rng.integers(0, 10, sequences)


def timed(comm, function):
    """Return how long `function` took for the slowest rank; all begin together."""
    comm.Barrier()
    start = perf_counter()
    function()
    return max(comm.allgather(perf_counter() - start))


def allreduces(comm, repeats):
    """Return the median seconds of one Allreduce for each count of float32."""
    found = {}
    for count in NUMBERS:
        sent, received = np.ones(count, np.float32), np.empty(count, np.float32)
        calls = max(1, min(200, 10**6 // count))

        def many(sent=sent, received=received, calls=calls):
            for _ in range(calls):
                comm.Allreduce(sent, received)

        many()
        found[count] = median(timed(comm, many) / calls for _ in range(repeats))
    return found


def throughput(comm, hidden_size, repeats):
    """Return medians of: all ranks' step, one rank's alone, their paired ratio, and the average alone."""
    run = Run(hidden_size, comm)
    batch = batch_of(BATCH, hidden_size)
    part = shard(batch, comm.Get_rank(), comm.Get_size())
    alone = Run(hidden_size, comm)
    together, single, averaging, ratio = [], [], [], []

    def one():
        if comm.Get_rank() == 0:
            alone.step(batch, average=False)

    for k in range(repeats + 2):
        both = timed(comm, lambda: run.step(part, average=True))
        whole = timed(comm, one)
        sums = timed(comm, lambda: average_gradients(run.model, comm, weight=1))
        if k >= 2:  # the first ones warm up
            together.append(both)
            single.append(whole)
            averaging.append(sums)
            ratio.append(whole / both)
    check_in_step(run.model, comm)
    size = sum(p.size for p in run.model.parameters())
    return {
        "hidden_size": hidden_size,
        "parameters": size,
        "together": median(together),
        "alone": median(single),
        "gain": np.percentile(ratio, [25, 50, 75]).tolist(),
        "average": median(averaging),
    }


def work(comm, hidden_size, repeats):
    """Return a and b of one rank's time of a step, a + b rows, from small and large batches."""
    run, rows, seconds = Run(hidden_size, comm), [], []
    for sequences in (1, 4, 16, 64, 128):
        batch = batch_of(sequences, hidden_size)

        def one(batch=batch):
            if comm.Get_rank() == 0:
                run.step(batch, average=False)

        timed(comm, one)
        rows.append(sequences * STEPS)
        seconds.append(median(timed(comm, one) for _ in range(repeats)))
    return line(rows, seconds)


def line(x, y):
    """Return a and b of y = a + b x, neither negative, by the least relative errors.

    By absolute ones the small x, which tell a, would not count.
    """
    x, y = np.array(x, float), np.array(y, float)
    a, b = np.linalg.lstsq(np.stack([1 / y, x / y], axis=1), np.ones(len(x)), rcond=None)[0]
    return max(float(a), 0.0), max(float(b), 0.0)


def fit(found):
    """Return alpha and beta of two ranks' Allreduces: 2 (alpha + beta bytes / 2)."""
    a, beta = line([4 * count for count in found], list(found.values()))
    return a / 2, beta


def simulated(a, b, alpha, beta, rows, ranks, parameters):
    """Return seconds of a step on each number of ranks, with `rows` in its batch altogether.

    A row's work is proportional to the parameters; `b` is that of one parameter.
    """
    travel = 2 * (ranks - 1) * (alpha + beta * 4 * parameters / ranks)
    return a + b * parameters * rows / ranks + travel


def draw(path, a, b, alpha, beta):
    """Draw how much faster p ranks are, for one batch that is shared out and for one that grows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4.2), layout="constrained", sharey=True)
    colours = pyplot.get_cmap("viridis")(np.linspace(0, 0.9, len(PARAMETERS)))
    rows = 1024 * STEPS
    for parameters, colour in zip(PARAMETERS, colours, strict=True):
        one = simulated(a, b, alpha, beta, rows, np.array([1]), parameters)
        shared = one / simulated(a, b, alpha, beta, rows, RANKS, parameters)
        small = BATCH * STEPS
        alone = simulated(a, b, alpha, beta, small, np.array([1]), parameters)
        growing = RANKS * alone / simulated(a, b, alpha, beta, small * RANKS, RANKS, parameters)
        label = f"$10^{{{len(str(parameters)) - 1}}}$ parameters"
        axes[0].plot(RANKS, shared, color=colour, label=label)
        axes[1].plot(RANKS, growing, color=colour)
    axes[0].set_title(f"a batch of 1,024 sequences of {STEPS} steps, shared out")
    axes[1].set_title(f"{BATCH} sequences of {STEPS} steps for each rank")
    for axis in axes:
        axis.plot(RANKS, RANKS, ":", color="gray", label="p times")
        axis.set(xscale="log", yscale="log", xlabel="ranks p")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("rows a second, times those of one rank")
    axes[0].legend(frameon=False, fontsize="small")
    with atomic_write(path) as file:
        figure.savefig(file, dpi=110, format="png")


def main(argv=None):
    """Measure on the ranks that there are; rank 0 prints, writes and draws."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--repeats", type=int, default=40)
    p.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="hidden sizes")
    p.add_argument("--out", type=Path, help="folder for scale.json and scale.png")
    p.add_argument("--alpha", type=float, help="a message's latency in seconds, for the picture")
    p.add_argument("--beta", type=float, help="seconds a byte, for the picture")
    args = p.parse_args(argv)
    with world() as comm:
        if comm.Get_size() != 2:
            raise SystemExit(f"expected mpiexec -n 2, got {comm.Get_size()} ranks")
        found = allreduces(comm, args.repeats)
        runs = [throughput(comm, H, args.repeats) for H in args.sizes]
        a, b = work(comm, args.sizes[0], args.repeats)
        if comm.Get_rank():
            return
        b /= runs[0]["parameters"]
        alpha, beta = fit(found)
        report(found, runs, a, b, alpha, beta)
        if args.out:
            values = {
                "allreduce": found,
                "runs": runs,
                "a": a,
                "b": b,
                "alpha": alpha,
                "beta": beta,
            }
            with atomic_write(args.out / "scale.json") as file:
                file.write(json.dumps(values, indent=1).encode() + b"\n")
            draw(args.out / "scale.png", a, b, args.alpha or alpha, args.beta or beta)


def report(found, runs, a, b, alpha, beta):
    """Print what was measured."""
    print("| float32 in one Allreduce | time |\n| --- | --- |")
    for count, seconds in found.items():
        print(f"| {count:,} | {seconds * 1e6:.1f} us |")
    print("\n| H | parameters | one rank | two ranks | gain | averaging, share of a step |")
    print("| --- | --- | --- | --- | --- | --- |")
    for r in runs:
        low, middle, high = r["gain"]
        print(
            f"| {r['hidden_size']} | {r['parameters']:,} | {r['alone'] * 1e3:.1f} ms "
            f"| {r['together'] * 1e3:.1f} ms | {middle:.2f} ({low:.2f}-{high:.2f}) "
            f"| {r['average'] * 1e6:.0f} us, {r['average'] / r['together']:.1%} |"
        )
    print(
        f"\nalpha {alpha * 1e6:.2f} us, 1 / beta {1e-9 / beta:.2f} GB/s; a step {a * 1e3:.2f} ms "
        f"and {b * 1e12:.2f} ps a row and parameter"
    )


if __name__ == "__main__":
    main()
