"""The CUDA kernels against the NumPy pairs in float64: on the emulation, and on a GPU where there is one.

On the emulation memory that a kernel leaves unwritten is NaN, and memory that it must not write is watched.
"""

import gc
import re
import weakref

import numpy as np
import pytest
import strict_cupy

from minirnn.cuda import launch, run
from minirnn.functional import gru, lstm, rnn
from minirnn.layout import Layout
from minirnn.pairs import pair_for

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

    def placed(self, place):
        """Return what goes into forward, and besides the context into backward; `place` makes the arrays."""

        def each(arrays):
            return [None if a is None else place(a) for a in arrays]

        rows = self.layout.rows
        unwritten = [np.full((rows, s.shape[1]), np.nan) for s in self.initial]
        states = [np.concatenate(both) for both in zip(self.initial, unwritten, strict=True)]
        x, dy, mask = each([self.x, self.dy, self.mask])
        trace = each(unwritten) if self.trace else None
        dstates = each(self.dlast)  # become those of the initial states
        dweights = each(None if w is None else w * 0.5 for w in self.weights)  # are added to
        return (x, each(states), each(self.weights), mask), (dy, dstates, dweights, trace)

    def answers(self, place=np.array, back=np.asarray):
        """Return all that forward and backward compute, by name."""
        (x, states, weights, mask), into_backward = self.placed(place)
        pair = pair_for(self.pair, x)
        ctx = pair.forward(x, states, weights, self.layout, mask=mask, **self.options)
        dx = pair.backward(ctx, *into_backward)
        return named(pair, ctx, dx, states, into_backward, back)

    def answers_with(self, reverse, place, back):
        """Return those of this problem and of `reverse`, from one run of both."""
        into_forward, into_backward = zip(*[p.placed(place) for p in (self, reverse)], strict=True)
        pair = pair_for(self.pair, into_forward[0][0])
        contexts = pair.forward_together(into_forward, self.layout, **self.options)
        dxs = pair.backward_together(
            [(c, *b) for c, b in zip(contexts, into_backward, strict=True)]
        )
        return [
            named(pair, ctx, dx, forward[1], backward, back)
            for ctx, dx, forward, backward in zip(
                contexts, dxs, into_forward, into_backward, strict=True
            )
        ]


def named(pair, ctx, dx, states, into_backward, back):
    """Return all that one pass computed, by name."""
    _, dstates, dweights, trace = into_backward
    found = {"dx": dx, **{f"gate {k}": v for k, v in pair.gates(ctx).items()}}
    groups = {"state": states, "dstate": dstates, "dw": dweights, "trace": trace or ()}
    for name, arrays in groups.items():
        found |= {f"{name} {k}": a for k, a in enumerate(arrays) if a is not None}
    return {name: back(a) for name, a in found.items()}


def worst(problem, xp, dtype, reverse=None):
    """Return the largest error of any answer, relative to the largest entry of that answer if above 1.

    With `reverse`, another problem of the same layout, of both run at once.
    """

    def place(a):
        return xp.asarray(a.astype(dtype))

    if reverse is None:
        return difference(problem.answers(place, xp.asnumpy), problem.answers(), dtype)
    both = problem.answers_with(reverse, place, xp.asnumpy)
    return max(
        difference(actual, p.answers(), dtype)
        for actual, p in zip(both, (problem, reverse), strict=True)
    )


def difference(actual, expected, dtype):
    assert actual.keys() == expected.keys()
    error = 0.0
    for name, e in expected.items():
        a = actual[name]
        assert a.dtype == dtype
        assert a.shape == e.shape, name
        apart = np.abs(a - e).max(initial=0.0)
        error = max(
            error, apart / max(1.0, np.abs(e).max(initial=0.0)) if apart == apart else np.inf
        )
    return error


def problems(cell, hidden, lengths, *, both=False, seed=0, **options):
    """Return a problem, and if it is to be run with another direction that one's."""
    found = [Problem(cell, hidden, lengths, seed=seed, **options)]
    return [*found, Problem(cell, hidden, lengths, seed=seed + 100, **options)] if both else found


def check(xp, cell, hidden, lengths, dtype=np.float32, tolerance=1e-5, **options):
    problem, *reverse = problems(cell, hidden, lengths, **options)
    error = worst(problem, xp, dtype, *reverse)
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
    check(xp, cell, 20, lengths, both=True)


OPTIONS = [{"mask": True}, {"trace": True}, {"dy": False, "trace": True}, {"bias": False}]


@pytest.mark.parametrize("cell", PAIRS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_options(xp, cell, options, dtype, both):
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    check(xp, cell, 20, RAGGED, dtype, tolerance, both=both, **options)


def non_finite(problem):
    """Put NaN and infinities where a mask excludes them, and where a ReLU hands them on or does not."""
    problem.mask[0], problem.mask[1, ::2] = 0, 0
    problem.initial[0][0] = np.nan
    if problem.pair is rnn:
        problem.initial[0][1], problem.dlast[0][1] = 0, np.inf
        problem.dy[:4] = np.inf
    return problem


@pytest.mark.parametrize("cell", [*PAIRS, "relu", "projected"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_excluded_has_no_influence(xp, cell, dtype):
    options = {"relu": {"nonlinearity": "relu"}, "projected": {"proj": 7}}.get(cell, {})
    name = {"relu": "rnn", "projected": "lstm"}.get(cell, cell)
    problem = non_finite(Problem(name, 20, RAGGED, mask=True, trace=True, **options))
    if cell == "lstm":
        problem.initial[1][0] = 0.5
    with np.errstate(invalid="ignore"):
        expected = problem.answers()
        actual = problem.answers(lambda a: xp.asarray(a.astype(dtype)), xp.asnumpy)
    assert any(np.isfinite(e).any() for e in expected.values())
    for key, e in expected.items():
        np.testing.assert_allclose(
            actual[key], e, rtol=1e-4, atol=1e-4, equal_nan=True, err_msg=key
        )


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("z", [-5, -10, -15, -18, -40, -80])
def test_a_closed_gate_has_all_its_digits(double, cell, z):
    problem = Problem(cell, 20, RAGGED)
    for w in problem.weights[:4]:
        w[...] = 0  # products would be rounded
    problem.weights[2][...] = z
    actual = problem.answers(lambda a: double.asarray(a.astype(np.float32)), double.asnumpy)
    for name in "ifo" if cell == "lstm" else "rz":
        np.testing.assert_allclose(actual[f"gate {name}"], 1 / (1 + np.exp(-z)), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relu(xp, dtype):
    for both in (False, True):
        check(xp, "rnn", 20, RAGGED, dtype, nonlinearity="relu", mask=True, trace=True, both=both)


@pytest.mark.parametrize("cell", PAIRS)
@pytest.mark.parametrize("lengths", [RAGGED, [3] * 4, [1], [0, 0]], ids=str)
def test_steps_of_float64(xp, cell, lengths):
    check(xp, cell, 19, lengths, np.float64, 1e-13)


@pytest.mark.parametrize(("cell", "hidden"), [("rnn", 193), ("lstm", 97), ("gru", 113)])
def test_steps_of_large_sizes(double, cell, hidden):
    check(double, cell, hidden, RAGGED)
    assert strict_cupy.COUNTS["launches"] == 2 * max(RAGGED)  # one a step, forward and backward


@pytest.mark.parametrize(
    ("cell", "proj", "kernels", "products", "others"),
    [("rnn", 0, 2, 2, 0), ("lstm", 0, 2, 2, 0), ("gru", 0, 2, 2, 0), ("lstm", 7, 2, 4, 1)],
)
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("equal", [False, True])
def test_a_step_is_one_product_and_one_kernel(
    double, cell, proj, kernels, products, others, mask, equal
):
    """Each way, masked or not; with a projection its product each way, dy's sum, and the mask's two."""

    def counts(steps):
        lengths = [steps] * 3 if equal else [steps, steps, 2]
        before = dict(strict_cupy.COUNTS)
        problem = Problem(cell, 20, lengths, proj=proj, mask=mask)
        problem.answers(lambda a: double.asarray(a), double.asnumpy)
        return {k: strict_cupy.COUNTS[k] - before[k] for k in before}

    short, long = counts(4), counts(9)
    a_step = {k: (long[k] - short[k]) / 5 for k in short}
    expected = {"launches": kernels, "products": products, "uploads": 0, "syncs": 0}
    expected["others"] = others + (4 if proj and mask else 0)
    assert a_step == expected


@pytest.mark.parametrize("cell", PAIRS)
@pytest.mark.parametrize("proj", [0, 7])
@pytest.mark.parametrize("dtype", [np.float16, np.complex64])
def test_other_dtypes_are_refused(double, cell, proj, dtype):
    """Before anything is computed: a kernel takes an address for what it expects there."""
    if proj and cell != "lstm":
        pytest.skip("only the LSTM has a projection")
    problem = Problem(cell, 5, RAGGED, proj=proj)
    (x, states, weights, mask), _ = problem.placed(lambda a: double.asarray(a.astype(dtype)))
    before = dict(strict_cupy.COUNTS)
    message = f"states: expected dtype float32 or float64 .*, got {np.dtype(dtype)}"
    pair = pair_for(problem.pair, x)
    with pytest.raises(TypeError, match=message):
        pair.forward(x, states, weights, problem.layout, mask=mask)
    with pytest.raises(TypeError, match=message):
        run.Stepwise("rnn_step_forward", states[0], problem.layout)
    assert before == strict_cupy.COUNTS


@pytest.mark.parametrize("cell", PAIRS)
def test_a_kernel_is_looked_up_once_a_pass(double, cell):
    def asked(steps):
        before = launch.function.cache_info()
        Problem(cell, 20, [steps, 2]).answers(double.asarray, double.asnumpy)
        now = launch.function.cache_info()
        return now.hits + now.misses - before.hits - before.misses

    assert asked(3) == asked(8) == 2


def test_places_are_made_once_a_batch(double):
    """Both ways and both directions share them, and they keep no batch alive."""
    problem, reverse = problems("gru", 20, RAGGED, both=True)
    problem.answers_with(reverse, double.asarray, double.asnumpy)
    places = problem.layout.once(run._places)
    problem.answers_with(reverse, double.asarray, double.asnumpy)
    assert problem.layout.once(run._places) is places
    assert [make for make, *_ in problem.layout._made].count(run._places) == 1
    layout = weakref.ref(problem.layout)
    del problem
    gc.collect()
    assert layout() is None


@pytest.mark.parametrize("options", [{}, {"mask": True, "trace": True}, {"dy": False}], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_projection(xp, options, dtype):
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    for both in (False, True):
        check(xp, "lstm", 20, RAGGED, dtype, tolerance, proj=7, both=both, **options)


@pytest.mark.parametrize("cell", PAIRS)
@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
def test_one_launch_runs_all_steps(double, cell, both, monkeypatch):
    """Of both directions too, in a shape for both."""
    right, directions = launch.shape, []
    monkeypatch.setattr(launch, "shape", lambda *a: directions.append(a[-1]) or right(*a))
    check(double, cell, 20, RAGGED, both=both)
    assert strict_cupy.COUNTS["launches"] == 2
    assert directions == [1 + both] * 2


@pytest.mark.parametrize(("cell", "hidden"), SIZES)
def test_both_directions_of_every_size(xp, cell, hidden):
    check(xp, cell, hidden, RAGGED, both=True, mask=True)


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
            # The rows of two directions fill the GPU as twice as many would.
            both, twice = (
                launch.shape(cell, hidden, *b) for b in [(batch, 132, 2), (2 * batch, 132)]
            )
            assert both.macros == twice.macros
            rows = dict(both.macros)["R"] * macros["GROUPS"]
            assert (both.blocks - 1) * rows < batch <= both.blocks * rows
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
            "dh[(size_t)row[r] * H + j] = dh_t[r]",
            "dh[(size_t)row[r] * H + j + 1] = dh_t[r]",
        ),
        "rows beyond the batch": ("if (own && row[r] < B) dh", "if (own) dh"),
        "lengths ignored": ("if (t < length[r]) {\n          z[r]", "{\n          z[r]"),
        "the gradient of ended sequences moves": ("if (t < length[r]) dh_t", "dh_t"),
        "padding left unwritten": (
            "if (writes) ((float*)(vectors + copy * BUFFER + r * STRIDE))[j] = masked(state",
            "if (own) ((float*)(vectors + copy * BUFFER + r * STRIDE))[j] = masked(state",
        ),
        "rows of the wrong step ahead": ("before[t + AHEAD + 2]", "before[t + AHEAD + 1]"),
        "rows of the wrong step back": (
            "next = (int)before[t - AHEAD]",
            "next = (int)before[t - AHEAD + 1]",
        ),
        "h_0 forgotten": ("state[r] = in ? h[(size_t)row[r] * H + j] : 0.f", "state[r] = 0.f"),
        "b_hh forgotten": ("b_ih[j] + b_hh[j]", "b_ih[j]"),
        "dy forgotten": ("dh_t[r] += dy_t[u][r];", ""),
        "mask forgotten on the way back": ("masked(product[r], keep[r])", "product[r]"),
        "tanh' of the wrong sign": ("1.f - h_t[u][r] * h_t[u][r]", "1.f + h_t[u][r] * h_t[u][r]"),
        "relu' at the wrong side": (
            "h_t[u][r] <= 0.f ? 0.f : dh_t[r]",
            "h_t[u][r] <= 0.f ? dh_t[r] : 0.f",
        ),
        "trace without dy": ("trace[at] = dh_t[r]", "trace[at] = dh_t[r] - dy_t[u][r]"),
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
        "g through a sigmoid": ("gate == 2 ? tanhf(a)", "gate == 3 ? tanhf(a)"),
        "f and i exchanged": (
            "cell[r] = fmaf(f, cell[r], i * g)",
            "cell[r] = fmaf(i, cell[r], f * g)",
        ),
        "cell of ended sequences moves": (
            "if (t < length[r]) {\n          cell",
            "{\n          cell",
        ),
        "c_t for c_{t-1}": ("dc_t * c_prev[u][r] * f", "dc_t * c_t[u][r] * f"),
        "dc not scaled by f": ("dcell[r] = dc_t * f;", "dcell[r] = dc_t;"),
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
        "r before the bias of q": ("fmaf(r, p, a[s])", "fmaf(r, p - b_h, a[s] + b_h)"),
        "z the other way round": ("fmaf(z, state[s] - n, n)", "fmaf(1.f - z, state[s] - n, n)"),
        "padding left as it was": ("if (3 * PADDED + thread < INPUTS) {", "if (false) {"),
        "the way past the gates forgotten": ("dstate[s] = dh_t * z;", "dstate[s] = 0.f;"),
        "the mask on the way past the gates": (
            "dstate[s] += masked(product[s], keep[s])",
            "dstate[s] = (product[s] + dstate[s]) * keep[s]",
        ),
        "da_n where dq belongs": (": gate == 2 ? da_n * r", ": gate == 2 ? da_n"),
        "da_z with h_t": (
            "h[(size_t)(next + row[s]) * H + j]",
            "h[(size_t)(begin + row[s]) * H + j]",
        ),
        "q not saved": ("q[(at - B) * H + j] = q_t;", ""),
        "da_r without q": ("da_n * q_t * r", "da_n * r"),
    },
    "steps.cu": {
        "rnn: h_0's rows": ("real z = h[at + (int64)B * H]", "real z = h[at]"),
        "rnn: dh without dy": (
            "  if (dy) dh_t += dy[at];\n  if (trace) trace[at] = dh_t;\n  const real h_t",
            "  if (trace) trace[at] = dh_t;\n  const real h_t",
        ),
        "rnn: states not masked": (
            "tanh(z);\n  h[at + (int64)B * H] = h_t;\n  if (mask) masked[e] = excluding(mask[e], h_t)",
            "tanh(z);\n  h[at + (int64)B * H] = h_t;\n  if (mask) masked[e] = h_t",
        ),
        "rnn: the mask on last states' gradients": (
            "dh_t = mask && b < later ? excluding(mask[e], dh[e]) : dh[e];\n  if (dy) dh_t += dy[at];\n  if",
            "dh_t = mask ? excluding(mask[e], dh[e]) : dh[e];\n  if (dy) dh_t += dy[at];\n  if",
        ),
        "rnn: no mask on the way back": (
            "dh_t = mask && b < later ? excluding(mask[e], dh[e]) : dh[e];\n  if (dy) dh_t += dy[at];\n  if",
            "dh_t = dh[e];\n  if (dy) dh_t += dy[at];\n  if",
        ),
        "lstm: c of another step": ("dc_t * c[(before + b) * H + j] * f", "dc_t * c[at] * f"),
        "lstm: one thread too many": ("if (e >= n * H) return;", "if (e > n * H) return;"),
        "lstm: states not masked": (
            "m[at] = m_t;\n  if (mask) masked[e] = excluding(mask[e], m_t)",
            "m[at] = m_t;\n  if (mask) masked[e] = m_t",
        ),
        "lstm: the mask on last states' gradients": (
            "mask && b < later ? excluding(mask[e], dh[e]) : dh[e];\n"
            "  if (dy) dh_t += dy[at];\n  const real tanh_c",
            "mask ? excluding(mask[e], dh[e]) : dh[e];\n  if (dy) dh_t += dy[at];\n  const real tanh_c",
        ),
        "lstm: dh without dy": (
            "  if (dy) dh_t += dy[at];\n  const real tanh_c",
            "  const real tanh_c",
        ),
        "gru: b_hn outside of r": (
            "n_t = tanh(a[2] + r * p[2])",
            "n_t = tanh(a[2] + r * (p[2] - b_hh[2 * H + j]) + b_hh[2 * H + j])",
        ),
        "gru: states not masked": (
            "(h[(before + b) * H + j] - n_t);\n  h[at + (int64)B * H] = h_t;\n"
            "  if (mask) masked[e] = excluding(mask[e], h_t)",
            "(h[(before + b) * H + j] - n_t);\n  h[at + (int64)B * H] = h_t;\n  if (mask) masked[e] = h_t",
        ),
        "gru: masked with the rows of all steps": (
            "- n_t);\n  h[at + (int64)B * H] = h_t;\n  if (mask) masked[e]",
            "- n_t);\n  h[at + (int64)B * H] = h_t;\n  if (mask) masked[at]",
        ),
        "gru: the product forgotten": (
            "dh[e] + (mask ? excluding(mask[e], product[e]) : product[e])",
            "dh[e]",
        ),
        "gru: the product not masked": (
            "mask ? excluding(mask[e], product[e]) : product[e]",
            "product[e]",
        ),
        "gru: the mask on the way past the gates": (
            "dh[e] = dh_t * z",
            "dh[e] = dh_t * z * mask[e]",
        ),
        "gru: dh without dy": (
            "  if (dy) dh_t += dy[at];\n  const real* const mine",
            "  const real* const mine",
        ),
        "gru: dq for da_n": ("da_rzn_t[2 * H] = da_n;", "da_rzn_t[2 * H] = da_n * r;"),
    },
}


def caught(double, cell, hidden, lengths, dtype, **options):
    problem, *reverse = problems(cell, hidden, lengths, **options)
    try:
        with np.errstate(all="ignore"):
            return worst(problem, double, dtype, *reverse) >= 1e-5
    except (strict_cupy.emu.KernelError, AssertionError):
        return True


def arrays_of(file):
    """Return (kernel, array) for all arrays that a cell's kernels take for the reverse direction."""
    kernels = re.findall(r"\n(\w+)\(([^)]*)\) \{", launch.source(file))
    return [(kernel, a) for kernel, text in kernels for a in re.findall(r"(\w+)_reverse\b", text)]


REVERSE = [(f"{cell}.cu", *pair) for cell in PAIRS for pair in arrays_of(f"{cell}.cu")]


@pytest.mark.parametrize(("file", "kernel", "array"), REVERSE)
def test_an_array_of_the_wrong_direction_is_caught(double, file, kernel, array, monkeypatch):
    """The reverse direction reads or writes one array of the other's."""
    original = launch.source.__wrapped__
    head, _, rest = original(file).partition(f"\n{kernel}(")
    right = f" {array} = {array}_reverse"
    assert right in rest
    broken = head + f"\n{kernel}(" + rest.replace(right, f" {array} = {array}", 1)
    monkeypatch.setattr(
        launch,
        "source",
        lambda *files: "\n".join(broken if f == file else original(f) for f in files),
    )
    cell = file.removesuffix(".cu")
    assert caught(double, cell, 5, [3, 2, 0], np.float32, both=True, mask=True, trace=True)


@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file in MUTANTS for name in MUTANTS[file]]
)
def test_a_broken_kernel_is_caught(double, file, name, monkeypatch):
    right, wrong = MUTANTS[file][name]
    source = launch.source.__wrapped__
    original = source(file)
    assert original.count(right) == 1 or name == "lstm: one thread too many", (file, name)
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
