"""What each technique of the recurrences is worth by itself, as a ratio: without it / with it.

    python benchmarks/techniques.py

docs/speed.md quotes the table.
"""

import timing  # noqa: F401  # isort: skip (first: it sets the number of threads)
import argparse

import numpy as np
from timing import compare, conditions, seconds, table

STEPS = 20


def arrays(rng, *shapes):
    """Return arrays of the shapes, filled at random."""
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def techniques(B, H):
    """Yield ``(name, without, with)`` at a batch size and a hidden size."""
    rng = np.random.default_rng(0)
    x, dz = arrays(rng, (STEPS * B, H), (STEPS * B, H))
    h, w, z, out = arrays(rng, (B, H), (H, H), (B, H), (B, H))
    rows, blocks, other = arrays(rng, (B, 4 * H), (4, B, H), (4, B, H))
    stored = np.empty((4, STEPS * B, H), np.float32)
    step = stored[:, B : 2 * B]
    w_t, w_gates = np.ascontiguousarray(w.T), arrays(rng, (4, H, H))[0]
    w_all = np.ascontiguousarray(w_gates.transpose(1, 0, 2)).reshape(H, 4 * H)
    half, half_array = 0.5, np.asarray(0.5, np.float32)
    ones = np.ones(STEPS * B, np.float32)

    yield (
        "input product: a step at a time / all rows at once",
        lambda: [x[t : t + B].dot(w_t) for t in range(0, len(x), B)],
        lambda: x.dot(w_t),
    )
    yield (
        "weight gradient: a step at a time / all rows at once",
        lambda: sum(dz[t : t + B].T.dot(x[t : t + B]) for t in range(0, len(x), B)),
        lambda: dz.T.dot(x),
    )
    yield (
        "step's product: np.matmul / ndarray.dot",
        lambda: np.matmul(h, w, out),
        lambda: h.dot(w, out),
    )
    yield (
        "W_hh transposed in every step / once",
        lambda: h.dot(np.ascontiguousarray(w.T), out),
        lambda: h.dot(w_t, out),
    )
    yield (
        "sigmoids: 1 / (1 + exp(-z)) / by tanh",
        lambda: 1 / (1 + np.exp(-blocks)),
        lambda: np.tanh(blocks * half_array) * half_array + half_array,
    )

    def in_columns():
        h.dot(w_all, rows)
        np.tanh(rows, rows)
        sigmoids = rows[:, : 3 * H]
        sigmoids *= half_array
        sigmoids += half_array
        np.multiply(rows[:, :H], rows[:, 3 * H :], out)

    def in_blocks():
        np.matmul(h, w_gates, out=blocks)
        np.tanh(blocks, blocks)
        sigmoids = blocks[:3]
        sigmoids *= half_array
        sigmoids += half_array
        np.multiply(blocks[0], blocks[3], out)

    yield "four gates: side by side in columns / in blocks", in_columns, in_blocks

    def in_place():
        np.add(step, other, step)
        np.tanh(step, step)
        np.multiply(step[:3], half_array, step[:3])

    def copied_out():
        np.add(blocks, other, blocks)
        np.tanh(blocks, blocks)
        np.multiply(blocks[:3], half_array, blocks[:3])
        step[...] = blocks

    yield "gates: computed where they are stored / in one block, then copied", in_place, copied_out
    yield (
        "bias gradient: sum(0) / ones @ dz",
        lambda: dz.sum(0),
        lambda: ones.dot(dz),
    )
    yield (
        "temporary arrays / in place",
        lambda: np.tanh(z + h),
        lambda: np.tanh(np.add(z, h, out), out),
    )
    yield (
        "Python's 0.5 / an array of no dimensions",
        lambda: np.multiply(z, half, out),
        (lambda: np.multiply(z, half_array, out)),
    )


def main(argv=None):
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--budget", type=float, default=0.5, help="seconds for each entry (default 0.5)")
    args = p.parse_args(argv)
    sizes = [(16, 16), (32, 64), (64, 256)]
    names: dict[str, list[str]] = {}
    for size in sizes:
        for name, without, with_it in techniques(*size):
            result = compare(with_it, without, args.budget)
            text = f"{result} ({seconds(result.ours)})"
            names.setdefault(name, []).append(text)
    header = ["without / with: ratio (quartiles) (time with)", *(f"B {B}, H {H}" for B, H in sizes)]
    print(conditions(), table(header, [[n, *r] for n, r in names.items()]), sep="\n\n")


if __name__ == "__main__":
    main()
