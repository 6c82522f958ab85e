"""What each technique of the recurrences is worth by itself, as a ratio: without it / with it.

    python benchmarks/techniques.py

docs/speed.md quotes the tables.
"""

import timing  # noqa: F401  # isort: skip (first: it sets the number of threads)
import argparse
from functools import partial
from itertools import pairwise

import numpy as np
from pairs import Pair
from timing import compare, conditions, seconds, table

from minirnn.functional import embedding, loss

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


def choices():
    """Yield ``(name, one way, the way taken)`` where the package takes one of two by a size or a type."""
    rng = np.random.default_rng(0)
    for V in (11, 64, 256):
        tokens, dy = rng.integers(0, V, 1280), arrays(rng, (1280, 32))[0]
        yield (
            f"an embedding's gradient, {V} rows: sorted / one-hot product",
            partial(embedding._sorted_sums, tokens, dy, V, None),
            partial(embedding._one_hot_sums, tokens, dy, V),
        )

    def cross_entropy(few, *args):
        loss._FEW_CLASSES, before = few, loss._FEW_CLASSES
        loss.cross_entropy_forward(*args)
        loss._FEW_CLASSES = before

    for N in (64, 1000):
        logits, targets = arrays(rng, (N, 10))[0], rng.integers(0, 10, N)
        yield (
            f"cross entropy of 10 classes, {N} rows: row by row / class by class",
            partial(cross_entropy, 0, logits, targets),
            partial(cross_entropy, 32, logits, targets),
        )
    x, w, out, row = arrays(rng, (1, 32), (4, 32, 32), (4, 1, 32), (1, 128))
    flat = w.reshape(128, 32).T
    w = w.transpose(0, 2, 1)
    yield (
        "a single row's gates, H 32: block by block / at once",
        lambda: np.matmul(x, w, out=out),
        lambda: x.dot(flat, row),
    )
    yield (
        "is it an array: isinstance of two classes / of one",
        lambda: isinstance(x, (np.ndarray, np.generic)),
        lambda: isinstance(x, np.ndarray),
    )


def bare_rnn(T, B, E, H):
    """Return a function that makes NumPy's calls of a tanh RNN's forward and backward, and only those.

    Every array and every view exists beforehand, nothing is checked, and each call overwrites what the one
    before has computed: no library can be faster with the same calls.
    """
    rng = np.random.default_rng(0)
    x, dy, w_ih, w_hh, bias = arrays(rng, (T * B, E), (T, B, H), (H, E), (H, H), (T * B, H))
    w_hh *= 0.5 / np.sqrt(H)
    h, dz, product, dh = (
        np.zeros(s, np.float32) for s in ((T + 1, B, H), (T, B, H), (B, H), (B, H))
    )
    z, dz_rows, h_prev = h[1:].reshape(-1, H), dz.reshape(-1, H), h[:-1].reshape(-1, H)
    dx, dw_ih, dw_hh, ones = (
        np.empty_like(x),
        np.empty_like(w_ih),
        np.empty_like(w_hh),
        np.ones(len(x), "f"),
    )
    w_ih_t, w_hh_t, dz_t, one = w_ih.T, w_hh.T.copy(), dz_rows.T, np.asarray(1, np.float32)
    forward = list(pairwise(h))
    backward = list(zip(dz, dy, strict=True))[::-1]

    def call():
        x.dot(w_ih_t, z)
        np.add(z, bias, z)
        for before, h_t in forward:
            before.dot(w_hh_t, product)
            np.add(h_t, product, h_t)
            np.tanh(h_t, h_t)
        np.multiply(z, z, dz_rows)
        np.subtract(one, dz_rows, dz_rows)
        for dz_step, dy_step in backward:
            np.add(dh, dy_step, dh)
            np.multiply(dz_step, dh, dz_step)
            dz_step.dot(w_hh, dh)
        dz_t.dot(x, dw_ih)
        dz_t.dot(h_prev, dw_hh)
        ones.dot(dz_rows)
        dz_rows.dot(w_ih, dx)

    return call


def bare_lstm(T, B, E, H):
    """Return a function that makes NumPy's calls of an LSTM, likewise.

    With equal lengths each step's gates can be computed where they are stored, which spares a copy.
    """
    rng = np.random.default_rng(0)
    x, dy, w_ih, w_hh, bias = arrays(
        rng, (T * B, E), (T, B, H), (4 * H, E), (4 * H, H), (T * B, 4 * H)
    )
    w_ih *= 0.5 / np.sqrt(E)  # gates that saturate would fill c with numbers next to zero
    w_hh *= 0.5 / np.sqrt(H)
    h, c, tanh_c, m_to_c, gates, by, dz, from_x, m, dh, dc = (
        np.zeros(s, np.float32)
        for s in (
            *[(T + 1, B, H)] * 2,
            *[(T, B, H)] * 2,
            *[(T, 4, B, H)] * 2,
            (T, B, 4, H),
            (T * B, 4 * H),
            *[(B, H)] * 3,
        )
    )
    w_x, w_h = w_ih.T.copy(), w_hh.reshape(4, H, H).transpose(0, 2, 1).copy()
    x_blocks = from_x.reshape(T, B, 4, H).swapaxes(1, 2)
    one, half = np.asarray(1, np.float32), np.asarray(0.5, np.float32)
    i, f, o, g = gates.swapaxes(0, 1)
    by_i, by_f, by_g, by_o = by.swapaxes(0, 1)
    dz_rows, h_prev, c_prev = dz.reshape(T * B, 4 * H), h[:-1].reshape(T * B, H), c[:-1]
    dx, dw_ih, dw_hh, ones = (*map(np.empty_like, (x, w_ih, w_hh)), np.ones(T * B, np.float32))
    blocks = [(z, z[:3], *z) for z in gates]
    forward = list(zip(pairwise(h), pairwise(c), blocks, x_blocks, tanh_c, strict=True))
    factors, dz_blocks = ([(a[:3], a[3]) for a in all_a] for all_a in (by, dz.swapaxes(1, 2)))
    dz_steps = dz.reshape(T, B, 4 * H)
    backward = list(zip(dy, m_to_c, factors, dz_blocks, f, dz_steps, strict=True))[::-1]

    def call():
        x.dot(w_x, from_x)
        np.add(from_x, bias, from_x)
        for (before, h_t), (c_before, c_t), gates_t, x_t, tanh_c_t in forward:
            z, sigmoids, i_t, f_t, o_t, g_t = gates_t
            np.matmul(before, w_h, out=z)
            np.add(z, x_t, z)
            np.tanh(z, z)
            np.multiply(sigmoids, half, sigmoids)
            np.add(sigmoids, half, sigmoids)
            np.multiply(f_t, c_before, c_t)
            np.multiply(i_t, g_t, m)
            np.add(c_t, m, c_t)
            np.tanh(c_t, tanh_c_t)
            np.multiply(o_t, tanh_c_t, h_t)
        for factor, s, other in ((by_i, i, g), (by_f, f, c_prev), (by_o, o, tanh_c)):
            np.subtract(one, s, factor)
            np.multiply(factor, s, factor)
            np.multiply(factor, other, factor)
        for factor, tanh, other in ((by_g, g, i), (m_to_c, tanh_c, o)):
            np.multiply(tanh, tanh, factor)
            np.subtract(one, factor, factor)
            np.multiply(factor, other, factor)
        for dy_t, m_to_c_t, (by_c_t, by_o_t), (dz_c_t, dz_o_t), f_t, dz_t in backward:
            np.add(dh, dy_t, dh)
            np.multiply(dh, m_to_c_t, m)
            np.add(dc, m, dc)
            np.multiply(dc, by_c_t, dz_c_t)
            np.multiply(dh, by_o_t, dz_o_t)
            np.multiply(dc, f_t, dc)
            dz_t.dot(w_hh, dh)
        dz_rows.T.dot(x, dw_ih)
        dz_rows.T.dot(h_prev, dw_hh)
        ones.dot(dz_rows)
        dz_rows.dot(w_ih, dx)

    return call


def bare(cell, calls_of, sizes, budget):
    """Return a table of what the library adds to NumPy's calls, and what torch takes beside them."""
    rows = []
    for size in sizes:
        ours, theirs = Pair(cell, *size).job("forward+backward")
        calls = calls_of(*size)
        result = compare(calls, ours, budget)
        shape = ", ".join(map(str, size))
        rows.append([shape, seconds(result.ours), result, compare(calls, theirs, budget)])
    return table(["T, B, I, H", "the calls alone", "minirnn / calls", "torch / calls"], rows)


def main(argv=None):
    """Print the tables."""
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
    results = [[name, compare(taken, other, args.budget)] for name, other, taken in choices()]
    print("", table(["the other way / the way taken", "ratio (quartiles)"], results), sep="\n")
    shapes = [(5, 16, 10, 16), (20, 32, 32, 32), (50, 32, 64, 64), (50, 64, 128, 128)]
    for cell, calls_of in (("RNN", bare_rnn), ("LSTM", bare_lstm)):
        print(
            f"\n{cell}, forward + backward:\n", bare(cell, calls_of, shapes, args.budget), sep="\n"
        )


if __name__ == "__main__":
    main()
