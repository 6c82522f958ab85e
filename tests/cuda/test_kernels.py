"""The CUDA kernels against the NumPy pairs in float64: on the emulation, and on a GPU where there is one.

On the emulation memory that a kernel leaves unwritten is NaN, and memory that it must not write is watched.
"""

import numpy as np
import pytest
import strict_cupy

from minirnn.cuda import launch, pair_for
from minirnn.functional import gru, lstm, rnn
from minirnn.packing import Layout

PAIRS = {"rnn": rnn, "lstm": lstm, "gru": gru}
RAGGED = [6, 5, 5, 2, 0]


def layout_of(lengths):
    steps = np.arange(max(lengths))
    return Layout((np.asarray(lengths)[:, None] > steps).sum(0), len(lengths))


class Problem:
    """One layer's arrays, in float64 with values that float32 holds, and the pair's answers."""

    def __init__(self, cell, hidden, lengths, *, features=3, proj=0, seed=0, **options):
        self.pair, self.layout, self.options = PAIRS[cell], layout_of(lengths), options
        rng = np.random.default_rng([seed, hidden, *lengths])
        gates, size = len(self.pair.GATES), proj or hidden
        B, N = self.layout.batch_size, self.layout.rows

        def draw(*shape, scale=1.0):
            return (scale * rng.standard_normal(shape)).astype(np.float32).astype(np.float64)

        bias = options.pop("bias", True)
        self.weights = [
            draw(gates * hidden, features),
            draw(gates * hidden, size, scale=hidden**-0.5),
            draw(gates * hidden, scale=0.3) if bias else None,
            draw(gates * hidden, scale=0.3) if bias else None,
        ]
        sizes = [size]
        if cell == "lstm":
            self.weights.append(draw(proj, hidden, scale=hidden**-0.5) if proj else None)
            sizes.append(hidden)
        self.x, self.initial = draw(N, features), [draw(B, s) for s in sizes]
        self.dy = draw(N, size) if options.pop("dy", True) else None
        self.dlast = [draw(B, s) for s in sizes]
        self.mask = draw(B, size) if options.pop("mask", False) else None
        self.trace = options.pop("trace", False)

    def answers(self, place=np.array, back=np.asarray):
        """Return all that forward and backward compute, by name, with arrays made by `place`."""
        given = {
            k: None if v is None else place(v)
            for k, v in vars(self).items()
            if k in ("x", "dy", "mask")
        }
        rows = self.layout.rows
        states = [
            place(np.concatenate([s, np.full((rows, s.shape[1]), np.nan)])) for s in self.initial
        ]
        weights = tuple(None if w is None else place(w) for w in self.weights)
        pair = pair_for(self.pair, given["x"])
        ctx = pair.forward(
            given["x"], tuple(states), weights, self.layout, mask=given["mask"], **self.options
        )
        trace = None
        if self.trace:
            trace = tuple(place(np.full((rows, s.shape[1]), np.nan)) for s in self.dlast)
        dstates = [place(d) for d in self.dlast]  # become those of the initial states
        dweights = [None if w is None else place(w * 0.5) for w in self.weights]  # are added to
        dx = pair.backward(ctx, given["dy"], dstates, dweights, trace)
        found = {"dx": dx, **{f"gate {k}": v for k, v in pair.gates(ctx).items()}}
        groups = {"state": states, "dstate": dstates, "dw": dweights, "trace": trace or ()}
        for name, arrays in groups.items():
            found |= {f"{name} {k}": a for k, a in enumerate(arrays) if a is not None}
        return {name: back(a) for name, a in found.items()}


def worst(problem, xp, dtype):
    """Return the largest error of any answer, relative to the largest entry of that answer if above 1."""
    expected = problem.answers()
    actual = problem.answers(lambda a: xp.asarray(a.astype(dtype)), xp.asnumpy)
    assert actual.keys() == expected.keys()
    error = 0.0
    for name, e in expected.items():
        a = actual[name]
        assert a.dtype == dtype
        assert a.shape == e.shape, name
        difference = np.abs(a - e).max(initial=0.0)
        error = max(
            error,
            difference / max(1.0, np.abs(e).max(initial=0.0))
            if difference == difference
            else np.inf,
        )
    return error


def check(xp, cell, hidden, lengths, dtype=np.float32, tolerance=1e-5, **options):
    error = worst(Problem(cell, hidden, lengths, **options), xp, dtype)
    assert error < tolerance, (cell, hidden, lengths, options, error)


SIZES = [("rnn", 1), ("rnn", 16), ("rnn", 33), ("rnn", 131), ("rnn", 192)]
SIZES += [("lstm", 1), ("lstm", 33), ("lstm", 96), ("gru", 1), ("gru", 33), ("gru", 112)]


@pytest.mark.parametrize(("cell", "hidden"), SIZES)
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_persistent_kernels(xp, cell, hidden, seed, monkeypatch):
    monkeypatch.setattr(strict_cupy.RawModule, "seed", seed)
    check(xp, cell, hidden, RAGGED, seed=seed)
    if hidden < 100 or seed == 0:
        check(xp, cell, hidden, [1], seed=seed)
    if hidden == 33:
        check(xp, cell, hidden, [9, 9, 9, 4, 4, 3, 2, 1, 1], seed=seed)


@pytest.mark.parametrize("cell", PAIRS)
@pytest.mark.parametrize(
    "lengths", [[5] * 4, [4], [1, 1, 1, 0], [0, 0], [3, 0, 0, 0, 0, 0]], ids=str
)
def test_persistent_kernels_lengths(xp, cell, lengths):
    check(xp, cell, 20, lengths)


OPTIONS = [{"mask": True}, {"trace": True}, {"dy": False, "trace": True}, {"bias": False}]


@pytest.mark.parametrize("cell", PAIRS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_options(xp, cell, options, dtype):
    check(xp, cell, 20, RAGGED, dtype, 1e-5 if dtype == np.float32 else 1e-13, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relu(xp, dtype):
    check(xp, "rnn", 20, RAGGED, dtype, nonlinearity="relu", mask=True, trace=True)


@pytest.mark.parametrize("cell", PAIRS)
@pytest.mark.parametrize("lengths", [RAGGED, [3] * 4, [1], [0, 0]], ids=str)
def test_steps_of_float64(xp, cell, lengths):
    check(xp, cell, 19, lengths, np.float64, 1e-13)


@pytest.mark.parametrize(("cell", "hidden"), [("rnn", 193), ("lstm", 97), ("gru", 113)])
def test_steps_of_large_sizes(double, cell, hidden):
    check(double, cell, hidden, RAGGED)
    assert strict_cupy.COUNTS["launches"] == 2 * max(RAGGED)  # one a step, forward and backward


@pytest.mark.parametrize("options", [{}, {"mask": True, "trace": True}, {"dy": False}], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_projection(xp, options, dtype):
    check(xp, "lstm", 20, RAGGED, dtype, 1e-5 if dtype == np.float32 else 1e-13, proj=7, **options)


@pytest.mark.parametrize("cell", PAIRS)
def test_one_launch_runs_all_steps(double, cell):
    check(double, cell, 20, RAGGED)
    assert strict_cupy.COUNTS["launches"] == 2


@pytest.mark.parametrize("cell", PAIRS)
def test_strided_gradients_are_copied(xp, cell):
    """What comes from outside may be a view; a kernel would read past its gaps."""
    problem = Problem(cell, 20, RAGGED)

    def place(a):
        if a is None or a.ndim < 2 or a is not problem.dy:
            return xp.asarray(a.astype(np.float32))
        return xp.asarray(np.repeat(a, 2, 1).astype(np.float32))[:, ::2]

    expected, actual = problem.answers(), problem.answers(place, xp.asnumpy)
    for name, e in expected.items():
        np.testing.assert_allclose(actual[name], e, atol=1e-5 * max(1, np.abs(e).max()), rtol=0)


@pytest.mark.parametrize("cell", PAIRS)
def test_every_size_has_a_launch_that_fits(cell):
    for hidden in range(1, launch.LARGEST[cell] + 1):
        for batch in (1, 5, 64, 300, 1000):
            shape = launch.shape(cell, hidden, batch, 132)
            macros = dict(shape.macros)
            rows = macros["R"] * macros["GROUPS"]
            assert shape.threads % 32 == 0
            assert 32 <= shape.threads <= 1024
            assert shape.shared <= 48 << 10
            assert (shape.blocks - 1) * rows < batch <= shape.blocks * rows
            gates = {"rnn": 1, "lstm": 4, "gru": 3}[cell]
            assert (
                gates * hidden**2 * macros["GROUPS"] <= 40_000
            )  # of a multiprocessor's 65,536 registers
    assert launch.shape(cell, launch.LARGEST[cell] + 1, 1, 132) is None


@pytest.mark.parametrize("cell", PAIRS)
def test_too_little_shared_memory_is_caught(double, cell, monkeypatch):
    right = launch.shape
    monkeypatch.setattr(
        launch, "shape", lambda *a: right(*a)._replace(shared=right(*a).shared // 2)
    )
    with pytest.raises(strict_cupy.emu.KernelError, match="shared memory"):
        check(double, cell, 20, RAGGED)


# -- kernels that are wrong on purpose: each has to be caught -----------------------------------

BARRIER = "      __syncthreads();\n    }\n  }\n}"
MUTANTS = {
    "rnn.cu": {
        "no barrier before the loop": ("  __syncthreads();\n  int copy = 0;", "  int copy = 0;"),
        "no barrier in the forward loop": (
            BARRIER,
            BARRIER.replace("      __syncthreads();\n", ""),
        ),
        "no barrier in the backward loop": (
            "      __syncthreads();\n      multiply",
            "      multiply",
        ),
        "one copy of the states": (
            "copy ^= 1;\n#pragma unroll\n      for (int r = 0; r < R; r++) {",
            "for (int r = 0; r < R; r++) {",
        ),
        "one copy of dz": (
            "copy ^= 1;\n#pragma unroll\n      for (int r = 0; r < R; r++)\n",
            "for (int r = 0; r < R; r++)\n",
        ),
        "divergent barrier": (
            "  __syncthreads();\n  int copy = 0;",
            "  if (thread < 7) {\n    __syncthreads();\n  } else\n    __syncthreads();\n  int copy = 0;",
        ),
        "some threads miss the barrier": (
            "      __syncthreads();\n      multiply",
            "      if (own) __syncthreads();\n      multiply",
        ),
        "W not transposed": ("w_hh[k * H + tile + m]", "w_hh[(tile + m) * H + k]"),
        "store behind the row": (
            "dh[(size_t)row[r] * H + j] = total[r]",
            "dh[(size_t)row[r] * H + j + 1] = total[r]",
        ),
        "rows beyond the batch": ("if (own && row[r] < B) dh", "if (own) dh"),
        "lengths ignored": ("if (t < length[r]) {\n          z[r]", "{\n          z[r]"),
        "the gradient of ended sequences moves": ("if (t < length[r]) total", "total"),
        "padding left unwritten": (
            "if (writes) ((float*)(vectors + copy * BUFFER + r * STRIDE))[j] = state",
            "if (own) ((float*)(vectors + copy * BUFFER + r * STRIDE))[j] = state",
        ),
        "rows of the wrong step ahead": ("before[t + AHEAD + 2]", "before[t + AHEAD + 1]"),
        "rows of the wrong step back": (
            "next = (int)before[t - AHEAD]",
            "next = (int)before[t - AHEAD + 1]",
        ),
        "h_0 forgotten": ("state[r] = in ? h[(size_t)row[r] * H + j] : 0.f", "state[r] = 0.f"),
        "b_hh forgotten": ("b_ih[j] + b_hh[j]", "b_ih[j]"),
        "dy forgotten": ("total[r] += g[u][r];", ""),
        "mask forgotten on the way back": ("product[r] * keep[r]", "product[r]"),
        "tanh' of the wrong sign": ("1.f - y[u][r] * y[u][r]", "1.f + y[u][r] * y[u][r]"),
        "relu' at the wrong side": ("y[u][r] > 0.f ? 1.f : 0.f", "y[u][r] > 0.f ? 0.f : 1.f"),
        "trace without dy": ("trace[at] = total[r]", "trace[at] = total[r] - g[u][r]"),
    },
    "tile.h": {
        "half of the exchange missing": (
            "a += __shfl_xor_sync(0xffffffffu, upper ? sum[r][0] : sum[r][2], 2);",
            "",
        ),
        "wrong half exchanged": ("odd ? a : b, 1)", "odd ? b : a, 1)"),
        "lanes not added up": (
            "for (int mask = 4; mask < LANES; mask <<= 1) own +=",
            "if (0) own += 0 * LANES; int mask = 1; if (0) own +=",
        ),
        "quads not in turn": ("(i / 4 * LANES + lane) * 4", "(lane * LANES + i / 4) * 4"),
    },
    "lstm.cu": {
        "no barrier in the forward loop": (
            BARRIER,
            BARRIER.replace("      __syncthreads();\n", ""),
        ),
        "one copy of dz": (
            "copy ^= 1;\n#pragma unroll\n      for (int r = 0; r < R; r++)\n",
            "for (int r = 0; r < R; r++)\n",
        ),
        "g through a sigmoid": ("gate == 2 ? 1.f : .5f", "gate == 3 ? 1.f : .5f"),
        "f and i exchanged": (
            "cell[r] = fmaf(f, cell[r], i * g)",
            "cell[r] = fmaf(i, cell[r], f * g)",
        ),
        "cell of ended sequences moves": (
            "if (t < length[r]) {\n          cell",
            "{\n          cell",
        ),
        "c_t for c_{t-1}": ("s * previous[u][r] * f", "s * cell[u][r] * f"),
        "dc not scaled by f": ("dcell[r] = s * f;", "dcell[r] = s;"),
        "c_n's gradient forgotten": (
            "dcell[r] = in ? dc[(size_t)row[r] * H + j] : 0.f",
            "dcell[r] = 0.f",
        ),
        "W not transposed": (
            "w_hh[(n / PADDED * H + k) * H + tile + m]",
            "w_hh[(n / PADDED * H + tile + m) * H + k]",
        ),
        "gates of another row": (
            "gates[(at - B) * (4 * H) + column] = value",
            "gates[at * (4 * H) + column] = value",
        ),
        "previous cell of a step too late": (
            "next = (int)before[t - 1];",
            "next = (int)before[t];",
        ),
    },
    "gru.cu": {
        "no barrier in the backward loop": (
            "      __syncthreads();\n      multiply",
            "      multiply",
        ),
        "r before the bias of q": ("fmaf(r, hidden, a[s])", "fmaf(r, hidden - b_h, a[s] + b_h)"),
        "z the other way round": ("fmaf(z, state[s] - n, n)", "fmaf(1.f - z, state[s] - n, n)"),
        "padding left as it was": ("if (3 * PADDED + thread < INPUTS) {", "if (false) {"),
        "the way past the gates forgotten": ("dstate[s] = total * z;", "dstate[s] = 0.f;"),
        "the mask on the way past the gates": (
            "fmaf(product[s], keep[s], dstate[s])",
            "(product[s] + dstate[s]) * keep[s]",
        ),
        "da_n where dq belongs": (": gate == 2 ? da_n * r", ": gate == 2 ? da_n"),
        "dz with h_t": (
            "h[(size_t)(next + row[s]) * H + j]",
            "h[(size_t)(begin + row[s]) * H + j]",
        ),
        "q not saved": ("q[(at - B) * H + j] = q_t;", ""),
        "da_r without q": ("da_n * q_t * r", "da_n * r"),
    },
    "steps.cu": {
        "rnn: h_0's rows": ("real z = h[at + (int64)B * H]", "real z = h[at]"),
        "rnn: dh without dy": (
            "total = dh[e] + (dy ? dy[at] : real(0));\n  if (trace) trace[at] = total;\n  dz",
            "total = dh[e];\n  if (trace) trace[at] = total;\n  dz",
        ),
        "lstm: c of another step": ("s * c[(before + b) * H + j] * f", "s * c[at] * f"),
        "lstm: one thread too many": ("if (e >= size) return;", "if (e > size) return;"),
        "gru: b_hn outside of r": (
            "n = tanh(a[2] + r * p[2])",
            "n = tanh(a[2] + r * (p[2] - b_hh[2 * H + j]) + b_hh[2 * H + j])",
        ),
        "gru: dq for da_n": ("di[2 * H] = da_n;", "di[2 * H] = da_n * r;"),
    },
}


def caught(double, cell, hidden, lengths, dtype, **options):
    try:
        with np.errstate(all="ignore"):
            return worst(Problem(cell, hidden, lengths, **options), double, dtype) >= 1e-5
    except (strict_cupy.emu.KernelError, AssertionError):
        return True


@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file in MUTANTS for name in MUTANTS[file]]
)
def test_a_broken_kernel_is_caught(double, file, name, monkeypatch):
    right, wrong = MUTANTS[file][name]
    source = launch.source.__wrapped__
    original = source(file)
    assert original.count(right) == 1 or file == "steps.cu", (file, name, original.count(right))
    monkeypatch.setattr(
        launch,
        "source",
        lambda *files: "\n".join(
            source(f).replace(right, wrong) if f == file else source(f) for f in files
        ),
    )
    dtype = np.float64 if file == "steps.cu" else np.float32
    cells = {"tile.h": ["rnn"], "steps.cu": [name.partition(":")[0]]}.get(
        file, [file.removesuffix(".cu")]
    )
    hidden = 131 if file == "tile.h" else 33
    for seed in (0, 1, 7, 8):
        monkeypatch.setattr(strict_cupy.RawModule, "seed", seed)
        for cell in cells:
            relu = {"nonlinearity": "relu"} if "relu" in name else {}
            if caught(double, cell, hidden, RAGGED, dtype, mask=True, trace=True, **relu):
                return
    pytest.fail(f"{file}: {name}: not caught")
