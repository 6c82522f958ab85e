"""The loops in C: the same numbers as in NumPy, and nothing read or written out of bounds."""

import json
import os
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
from helpers import close, data, spans

import minirnn
from minirnn import functional
from minirnn.layout import Layout
from minirnn.pairs import pair_for

built = pytest.mark.skipif(
    not minirnn.native_available(), reason="the loops in C were not built here"
)
CELLS = {
    "RNN": (minirnn.RNN, {}),
    "ReLU": (minirnn.RNN, {"nonlinearity": "relu"}),
    "GRU": (minirnn.GRU, {}),
    "LSTM": (minirnn.LSTM, {}),
}
# (I, H), lengths: hidden sizes that are no multiple of a vector's, or more than one block of a product,
# single steps and sequences, zero lengths.
SIZES = [
    (3, 16, [7] * 5),
    (10, 37, [9, 9, 5, 2, 1, 1, 1]),
    (5, 8, [4]),
    (2, 1, [3, 2, 0]),
    (6, 70, [1, 1, 1]),
    (4, 33, [12, 11, 6, 6, 3, 0, 0]),
    (3, 20, [1]),
    (3, 150, [3, 2, 1]),
]


@pytest.fixture(params=["plain", "avx2", "avx512"])
def loops(request):
    """The module in C, with each instruction set that the machine has."""
    loops = pytest.importorskip("minirnn.native._loops", reason="the loops in C were not built")
    sets = loops.instruction_sets()
    if request.param not in sets:
        pytest.skip(f"this machine has no {request.param}")
    loops.use(request.param)
    yield loops
    loops.use(sets[-1])


def run(layer, lengths, native, seed=0, **options):
    """Return all that a pass forward and back computes, with random states and gradients."""
    rng = np.random.default_rng(seed)
    dtype = layer.weight_ih_l0.data.dtype
    T, B, H = max(lengths), len(lengths), layer.hidden_size

    def draw(*shape):
        return rng.standard_normal(shape).astype(dtype)

    x = minirnn.pack_padded_sequence(draw(T, B, layer.input_size), lengths)
    L = layer.num_layers * layer.num_directions
    state = draw(L, B, layer.output_size)
    dstate = draw(L, B, layer.output_size)
    if isinstance(layer, minirnn.LSTM):
        state, dstate = (state, draw(L, B, H)), (dstate, draw(L, B, H))
    minirnn.set_native(native)
    layer._rng = np.random.default_rng(1)  # the same masks in every run
    layer.zero_grad()
    out, ctx = layer.forward(x, state, **options)
    dy = x.map(lambda rows: draw(len(rows), out[0].data.shape[1]))
    back = layer.backward(ctx, dy, dstate, **options)
    assert ("native" in ctx_pair(ctx)) == native
    arrays = list(flatten([out, back]))
    return arrays + [p.grad.copy() for p in layer.parameters()]


def ctx_pair(ctx):
    return ctx.saved.stack.passes[0].recurrence.__name__


def flatten(x):
    if isinstance(x, minirnn.PackedSequence):
        yield x.data
    elif isinstance(x, dict):
        for _, one in sorted(x.items()):
            yield from flatten(one)
    elif isinstance(x, tuple | list):
        for one in x:
            yield from flatten(one)
    else:
        yield x


@built
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"num_layers": 2, "bidirectional": True},
        {"recurrent_dropout": 0.4},
        {"checkpoint": True},
    ],
    ids=str,
)
def test_the_same_as_in_numpy(cell, size, options, loops):
    make, own = CELLS[cell]
    features, H, lengths = size
    layer = make(features, H, **own, **options, dtype=np.float64, rng=0)
    for rows, steps in [(1024, 64), (5, 2)]:
        with spans(rows, steps):
            for a, b in zip(run(layer, lengths, True), run(layer, lengths, False), strict=True):
                close(a, b, 1e-12)


@built
@pytest.mark.parametrize("most", [0, sys.maxsize], ids=["NumPy's products", "C's"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", SIZES)
def test_both_ways_to_the_weights_gradients(cell, size, most, loops, monkeypatch):
    make, own = CELLS[cell]
    features, H, lengths = size
    monkeypatch.setattr("minirnn.native.shared._MOST", most)
    layer = make(features, H, **own, dtype=np.float64, rng=0)
    for a, b in zip(run(layer, lengths, True), run(layer, lengths, False), strict=True):
        close(a, b, 1e-12)


# Features, hidden size, lengths: so large that rows, columns and what they are added up over come in several
# blocks, with what is left of each; rows of dz so long that C lays them side by side first.
LARGE = [
    (7, 150, [8] * 10 + [5] * 20 + [1] * 20),
    (150, 30, [40, 40, 40, 39, 39, *[20] * 9, 11]),
    (70, 9, [100] * 11),
]


@built
@pytest.mark.parametrize("size", LARGE, ids=str)
@pytest.mark.parametrize("rows", [64, 4096], ids=["spans", "one span"])
@pytest.mark.parametrize("cell", CELLS)
def test_products_of_all_sizes(size, rows, cell, loops, monkeypatch):
    make, own = CELLS[cell]
    features, H, lengths = size
    monkeypatch.setattr("minirnn.native.shared._MOST", sys.maxsize)
    for dtype, tolerance in [(np.float64, 1e-12), (np.float32, 1e-4)]:
        layer = make(features, H, **own, dtype=dtype, rng=0)
        with spans(rows, rows):
            for a, b in zip(run(layer, lengths, True), run(layer, lengths, False), strict=True):
                close(a, b, tolerance)


@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "4"}, 1),
        ({"MKL_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"}, 2),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OPENBLAS_NUM_THREADS": "many", "OMP_NUM_THREADS": "3"}, 3),
    ],
)
def test_large_products_go_to_several_threads_of_blas(variables, threads):
    program = (
        "import sys; from minirnn.threads import blas_threads; from minirnn.native import _loops, shared;"
        "print(blas_threads(), shared._MOST == sys.maxsize, len(_loops.instruction_sets()) > 1)"
    )
    others = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=others | variables, capture_output=True, text=True
    )
    if "_loops" in done.stderr:
        pytest.skip("the loops in C were not built here")
    said, all_in_c, vectors = done.stdout.split()
    assert int(said) == threads
    assert all_in_c == str(threads == 1 and vectors == "True")


@pytest.mark.parametrize("products", ["NumPy's", "C's"])
@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 1e-7), (np.float64, 1e-14)])
def test_sums_of_many_rows_keep_their_digits(dtype, most, products, loops):
    N, H = 4000, 3
    dz = np.random.default_rng(0).uniform(0.05, 0.15, (N, H)).astype(dtype)
    zeros = [
        np.zeros(shape, dtype) for shape in [(1, H), (H, H), (H, 2), (N, 2), (N, 2), (H, 2), (H, H)]
    ]
    db, states = np.zeros((2, H), dtype), np.ones((N + 1, H), dtype)
    dh, w_hh, *of_input = zeros
    # With a derivative of one, and nothing that comes back through time, dz is the gradient of the output.
    ends = (None, *of_input) if products == "C's" else (np.zeros((N, H), dtype), *[None] * 5)
    given = dh, dz, None, states, w_hh, None, *ends, *db
    loops.rnn_relu_backward(*given, np.ones(N, np.int64), 0, N, 0, 1, H)
    exact = dz.astype(np.longdouble).sum(0)
    assert (abs(db - exact) / exact).max() <= most


@built
@pytest.mark.parametrize("cell", CELLS)
def test_traces_are_those_of_numpy(cell):
    make, own = CELLS[cell]
    layer = make(
        4, 19, 2, **own, dtype=np.float64, rng=0, bidirectional=True, recurrent_dropout=0.3
    )
    lengths = [6, 4, 4, 1, 0]
    traced = run(layer, lengths, True, trace=True)
    for a, b in zip(traced, run(layer, lengths, False, trace=True), strict=True):
        close(a, b, 1e-12)


@built
@pytest.mark.parametrize("cell", CELLS)
def test_float32_to_rounding(cell, loops):
    make, own = CELLS[cell]
    layer = make(5, 45, **own, rng=0)
    lengths = [9, 8, 8, 3, 1, 1, 1, 1]
    for a, b in zip(run(layer, lengths, True), run(layer, lengths, False), strict=True):
        assert a.dtype == np.float32
        close(a, b, 2e-5)


@pytest.mark.parametrize("native", [pytest.param(True, marks=built), False])
@pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("size", [s for s in SIZES if min(s[2])])
def test_as_torch_computes_it(cell, size, native):
    torch = pytest.importorskip("torch")
    torch_rnn = torch.nn.utils.rnn
    features, H, lengths = size
    minirnn.set_native(native)
    layer = getattr(minirnn, cell)(features, H, 2, bidirectional=True, dtype=np.float64, rng=0)
    twin = getattr(torch.nn, cell)(features, H, 2, bidirectional=True).double()
    twin.load_state_dict({k: torch.from_numpy(v) for k, v in layer.state_dict().items()})
    rng = np.random.default_rng(0)
    x = rng.standard_normal((max(lengths), len(lengths), features))
    t = torch.from_numpy(x).requires_grad_()
    (y, _), ctx = layer.forward(minirnn.pack_padded_sequence(x, lengths))
    y_t, _ = twin(torch_rnn.pack_padded_sequence(t, lengths))
    dy = rng.standard_normal(y.data.shape)
    dx, _ = layer.backward(ctx, y.map(lambda _: dy))
    y_t.data.backward(torch.from_numpy(dy))
    close(y.data, y_t.data.detach().numpy())
    close(minirnn.pad_packed_sequence(dx)[0], t.grad.numpy())
    for name, p in twin.named_parameters():
        close(getattr(layer, name).grad, p.grad.numpy())


@built
def test_what_c_lacks_runs_in_numpy():
    lstm = minirnn.LSTM(4, 8, proj_size=3, dtype=np.float64, rng=0)
    for a, b in zip(run(lstm, [4, 2, 1], True), run(lstm, [4, 2, 1], False), strict=True):
        np.testing.assert_array_equal(a, b)
    minirnn.set_native(True)
    for x in (np.ones(2, np.longdouble), np.ones(2, ">f4"), np.ones(2, np.float16)):
        assert pair_for(functional.gru, x) is functional.gru
    own = object()
    assert pair_for(own, np.ones(2)) is own


@built
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_a_number_and_infinity_go_where_they_go_in_numpy(cell, value):
    make, own = CELLS[cell]
    layer = make(3, 21, **own, dtype=np.float64, rng=0)
    x = np.random.default_rng(0).standard_normal((5, 4, 3))
    x[2, 1, 0] = value
    results = []
    for native in (True, False):
        minirnn.set_native(native)
        layer.zero_grad()
        with np.errstate(invalid="ignore"):
            (y, _), ctx = layer.forward(x)
            dx, _ = layer.backward(ctx, np.ones_like(y))
        results.append([y, dx, *(p.grad.copy() for p in layer.parameters())])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    assert np.isfinite(results[0][0][:, 0]).all()


@built
@pytest.mark.parametrize("cell", CELLS)
def test_checkpoints_change_no_bit(cell):
    make, own = CELLS[cell]
    lengths = [40, 33, 20, 20, 7, 0]
    with spans(16, 4):
        plain, kept = (
            run(make(3, 18, **own, rng=0, checkpoint=checkpoint), lengths, True)
            for checkpoint in (False, True)
        )
    for a, b in zip(plain, kept, strict=True):
        np.testing.assert_array_equal(a, b)


@built
@pytest.mark.parametrize("cell", CELLS)
def test_threads_agree_with_one(cell, monkeypatch):
    monkeypatch.setattr("minirnn.bptt.execution._THREADED_PART", 1 << 18)
    make, own = CELLS[cell]
    layer = make(8, 64, **own, bidirectional=True, dtype=np.float64, rng=0)
    lengths = [6] * 30 + [3] * 20
    one = run(layer, lengths, True)
    minirnn.set_num_threads(4)
    try:
        several = run(layer, lengths, True)
        _, ctx = layer.forward(np.ones((6, 50, 8)))
        assert len(ctx.saved.stack.execution.parts) == 2
    finally:
        minirnn.set_num_threads(1)
    for a, b in zip(one, several, strict=True):
        close(a, b, 1e-11)


@built
def test_gradients_in_any_order_of_memory():
    layer = minirnn.LSTM(3, 9, dtype=np.float64, rng=0)
    x = np.random.default_rng(0).standard_normal((4, 5, 3))
    (y, _), ctx = layer.forward(x)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    one, _ = layer.backward(ctx, dy)
    two, _ = layer.backward(ctx, np.asfortranarray(dy))
    np.testing.assert_array_equal(one, two)
    frozen = dy.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(layer.backward(ctx, frozen)[0], one)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tanh_to_three_units_in_the_last_place(dtype, loops):
    smallest = np.finfo(dtype).smallest_subnormal
    x = np.concatenate(
        [
            np.geomspace(smallest, 1e3, 400_001, dtype=np.longdouble).astype(dtype),
            np.linspace(0, 25, 400_001).astype(dtype),
        ]
    )
    x = np.concatenate([x, -x])
    y = np.empty_like(x)
    loops.tanh(y, x)
    exact = np.tanh(x.astype(np.longdouble))
    assert np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant
    ulps = np.abs(y - exact) / np.spacing(np.abs(exact.astype(dtype)))
    assert ulps.max() < 3
    assert np.abs(y).max() == 1
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], dtype)
    y = np.empty_like(x)
    loops.tanh(y, x)
    np.testing.assert_array_equal(y, np.tanh(x))
    np.testing.assert_array_equal(np.signbit(y[3:]), [False, True])


def whole_batch(T, B, H):
    """Return what a loop takes after its arrays, for one span of so many steps."""
    sizes = np.full(T, B, np.int64)
    return {"sizes": sizes, "first": 0, "stop": T, "row": 0, "B": B, "H": H}


def lstm_arguments(T=3, B=4, H=5, features=6):
    """Return valid arguments of lstm_forward, by name, in their order."""
    N = T * B
    shapes = {
        "gates": (N, 4 * H), "h": (B + N, H), "c": (B + N, H), "w_hh": (4 * H, H),
        "b_ih": (4 * H,), "b_hh": (4 * H,), "mask": (B, H), "w_ih": (4 * H, features), "x": (N, features),
    }  # fmt: skip
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    return arrays | whole_batch(T, B, H)


def in_panels(loops, w):
    """Return the transpose of w as C packs it."""
    panels = np.empty(w.size + 128 // w.itemsize, w.dtype)
    loops.pack_transpose(panels, w, w.shape[1])
    return panels


BAD = {
    "too short": ("c", lambda a: a[:-1], ValueError),
    "too long": ("c", lambda a: np.zeros((len(a) + 1, a.shape[1])), ValueError),
    "no room": ("gates", lambda a: a[:-1], ValueError),
    "states that are too few": ("h", lambda a: a[:-1], ValueError),
    "no states": ("h", lambda a: a[:0], ValueError),
    "a step before the first": ("first", lambda a: -1, ValueError),
    "a step after the last": ("stop", lambda a: a + 1, ValueError),
    "a span that ends before it begins": ("first", lambda a: 4, ValueError),
    "a row before the first": ("row", lambda a: -1, ValueError),
    "a row that is not the span's": ("row", lambda a: 1, ValueError),
    "a huge row": ("row", lambda a: 2**61, ValueError),
    "a step that is no number": ("stop", lambda a: 1.5, TypeError),
    "another type": ("x", lambda a: a.astype(np.float32), TypeError),
    "integers": ("gates", lambda a: a.astype(np.int64), TypeError),
    "big-endian": ("gates", lambda a: a.astype(">f8"), TypeError),
    "not contiguous": ("h", lambda a: np.asfortranarray(a), ValueError),
    "not aligned": (
        "h",
        lambda a: (
            np.frombuffer(bytearray(a.nbytes + 1), np.int8)[1:].view(a.dtype).reshape(a.shape)
        ),
        (TypeError, ValueError),
    ),
    "no array": ("mask", lambda a: 3, TypeError),
    "a weight of fewer rows": ("w_hh", lambda a: a[:-1], ValueError),
    "a weight of more columns": ("w_hh", lambda a: np.zeros((len(a), 6)), ValueError),
    "panels without room": ("w_hh", lambda a: a.ravel(), ValueError),
    "panels with too much": ("w_hh", lambda a: np.zeros(a.size + 17), ValueError),
    "no weight": ("w_hh", lambda a: None, TypeError),
    "a weight of the input of fewer rows": ("w_ih", lambda a: a[:-1], ValueError),
    "a weight of the input without columns": ("w_ih", lambda a: a[:, :0].copy(), ValueError),
    "panels of the input without room": ("w_ih", lambda a: np.zeros(3), ValueError),
    "another input": ("x", lambda a: a[:, :-1].copy(), ValueError),
    "a weight of the input without one": ("x", lambda a: None, TypeError),
    "an input without a weight": ("w_ih", lambda a: None, TypeError),
    "one bias": ("b_hh", lambda a: None, TypeError),
    "the other bias": ("b_ih", lambda a: None, TypeError),
    "nothing": ("h", lambda a: None, TypeError),
    "sizes that grow": ("sizes", lambda a: np.array([3, 4, 5]), ValueError),
    "more than there are": ("sizes", lambda a: np.array([5, 4, 3]), ValueError),
    "negative sizes": ("sizes", lambda a: np.array([4, 4, -4]), ValueError),
    "small sizes": ("sizes", lambda a: a.astype(np.int32), TypeError),
    "no hidden size": ("H", lambda a: 0, ValueError),
    "a huge hidden size": ("H", lambda a: 2**62, ValueError),
    "another hidden size": ("H", lambda a: a - 1, ValueError),
    "a negative batch": ("B", lambda a: -1, ValueError),
    "a larger batch": ("B", lambda a: a + 1, ValueError),
    "a huge batch": ("B", lambda a: 2**61, ValueError),
}


@pytest.mark.parametrize("bad", BAD)
def test_c_refuses_what_does_not_fit(bad, loops):
    name, spoil, error = BAD[bad]
    arguments = lstm_arguments()
    loops.lstm_forward(*arguments.values())
    arguments[name] = spoil(arguments[name])
    before = {k: v.copy() for k, v in arguments.items() if isinstance(v, np.ndarray)}
    with pytest.raises(error):
        loops.lstm_forward(*arguments.values())
    for k, v in before.items():
        np.testing.assert_array_equal(arguments[k], v)


@pytest.mark.parametrize("name", list(lstm_arguments())[1:10])
def test_what_a_loop_writes_overlaps_nothing(name, loops):
    """Else the sizes would change after they were looked at."""
    arguments = lstm_arguments()
    spoiled = arguments[name]
    memory = np.zeros(arguments["gates"].size + spoiled.size - 1)  # so that they share one number
    arguments["gates"] = memory[: arguments["gates"].size]
    arguments[name] = memory[-spoiled.size :].view(spoiled.dtype).reshape(spoiled.shape)
    arguments[name][...] = spoiled
    before = memory.copy()
    with pytest.raises(ValueError, match=f"{name}: expected an array apart"):
        loops.lstm_forward(*arguments.values())
    np.testing.assert_array_equal(memory, before)
    arguments["gates"] = arguments["gates"].copy()
    loops.lstm_forward(*arguments.values())


def gru_arguments(T=3, B=4, H=5, features=6):
    """Return valid arguments of gru_backward, by name, in their order."""
    N = T * B
    shapes = {
        "dh": (B, H), "dy": (N, H), "trace": (N, H), "gates": (N, 3 * H), "q": (N, H), "h": (B + N, H),
        "w_hh": (3 * H, H), "mask": (B, H), "da": None, "w_ih": (3 * H, features), "x": (N, features),
        "dx": (N, features), "dw_ih": (3 * H, features), "dw_hh": (3 * H, H),
        "db_ih": (3 * H,), "db_hh": (3 * H,),
    }  # fmt: skip
    arrays = {name: shape and np.zeros(shape) for name, shape in shapes.items()}
    return arrays | whole_batch(T, B, H)


def gru_arguments_with_room(T=3, B=4, H=5):
    """The same where the products are left to NumPy, with room for what they take."""
    arguments = gru_arguments(T, B, H)
    others = dict.fromkeys(["w_ih", "x", "dx", "dw_ih", "dw_hh", "db_ih", "db_hh"])
    return arguments | others | {"da": np.zeros((T * B, 4 * H))}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (make, name)
        for make in (gru_arguments, gru_arguments_with_room)
        for name, value in list(make().items())[:16]
        if value is not None
    ],
)
@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda a: a[:-1], ValueError),
        (lambda a: np.zeros((len(a) + 1, *a.shape[1:])), ValueError),
        (lambda a: a.astype(np.float32), TypeError),
        (lambda a: np.zeros(0), ValueError),
        (lambda a: None, TypeError),
    ],
    ids=["too short", "too long", "another type", "empty", "nothing"],
)
def test_c_refuses_gradients_that_do_not_fit(make, name, spoil, error, loops):
    arguments = make()
    loops.gru_backward(*arguments.values())
    spoiled = spoil(arguments[name])
    left_out = spoiled is None and name in ("dy", "trace", "mask")
    to_spare = spoiled is not None and len(spoiled) == len(arguments[name]) + 1
    if left_out or (to_spare and name in ("da", "dh", "mask")):
        loops.gru_backward(*(arguments | {name: spoiled}).values())
        return
    arguments[name] = spoiled
    with pytest.raises((error, TypeError)):
        loops.gru_backward(*arguments.values())


def test_room_for_dz_is_for_those_who_multiply_it(loops):
    arguments, with_room = gru_arguments(), gru_arguments_with_room()
    for name, both in [("da", arguments), ("w_ih", with_room)]:
        other = with_room if both is arguments else arguments
        with pytest.raises(TypeError, match="w_ih: expected"):
            loops.gru_backward(*(both | {name: other[name]}).values())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_of_biases_are_of_the_rest_s_type_or_wider(dtype, loops):
    arguments = {
        k: v.astype(dtype) if isinstance(v, np.ndarray) and v.dtype.kind == "f" else v
        for k, v in gru_arguments().items()
    }
    names = "db_ih", "db_hh"
    arguments |= {name: np.zeros(len(arguments["w_hh"]), np.float64) for name in names}
    loops.gru_backward(*arguments.values())
    arguments |= {name: arguments[name].astype(np.float32) for name in names}
    if dtype == np.float32:
        loops.gru_backward(*arguments.values())
        return
    with pytest.raises(TypeError, match="db_ih: expected float64, got float32"):
        loops.gru_backward(*arguments.values())


def draw_step(cell, features, H, B, dtype, bias=True):
    """Return what a step of a cell takes: x, the states, the weights."""
    layer = CELLS[cell][0](features, H, bias=bias, dtype=dtype, rng=0)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((B, features)).astype(dtype)
    sizes = layer._state_sizes
    return x, [rng.standard_normal((B, n)).astype(dtype) for n in sizes], layer._values(0)


def steps_of_both(cell, x, states, weights):
    """Return the states after a step in C, and those in NumPy."""
    recurrence, found = CELLS[cell][0](1, 1).recurrence, []
    for pair in (in_c(recurrence), recurrence):
        found.append([np.full_like(s, 7) for s in states])
        with np.errstate(invalid="ignore"):
            pair.step(x, states, weights, found[-1], **CELLS[cell][1])
    return found


def in_c(recurrence):
    """Return the pair in C, whether it is switched on or not."""
    return import_module(recurrence.__name__.replace("functional", "native"))


# Features and hidden sizes with any rest beside vectors, and few, some and so many rows that C packs first.
@built
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", [(3, 16), (10, 37), (31, 8), (2, 1), (64, 70), (150, 33)])
@pytest.mark.parametrize("bias", [True, False], ids=["biases", "no biases"])
def test_a_step_is_that_of_numpy(cell, size, bias, loops):
    for dtype, ulps in [(np.float64, 1e-14), (np.float32, 4e-6)]:
        for B in (1, 2, 3, 4, 7, 12, 40):
            x, states, weights = draw_step(cell, *size, B, dtype, bias)
            native, numpy = steps_of_both(cell, x, states, weights)
            for a, b in zip(native, numpy, strict=True):
                close(a, b, ulps)


@built
@pytest.mark.parametrize("cell", CELLS)
def test_a_step_of_large_products_is_left_to_numpy(cell, monkeypatch):
    x, states, weights = draw_step(cell, 5, 60, 3, np.float32)
    monkeypatch.setattr("minirnn.native.shared._MOST", 3 * (weights[0].size + weights[1].size))
    native, numpy = steps_of_both(cell, x, states, weights)
    assert any((a != b).any() for a, b in zip(native, numpy, strict=True))
    monkeypatch.setattr("minirnn.native.shared._MOST", minirnn.native.shared._MOST - 1)
    for a, b in zip(*steps_of_both(cell, x, states, weights), strict=True):
        np.testing.assert_array_equal(a, b)
    tiny = np.full_like(x, 1e-38) / 100
    with np.errstate(under="raise"):  # where what is too small is zero, as everywhere
        in_c(CELLS[cell][0](1, 1).recurrence).step(
            tiny,
            states,
            weights,
            [np.empty_like(s) for s in states],
            **CELLS[cell][1],
        )


@built
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_step_takes_no_number_where_numpy_does(cell, value, loops):
    for place in ("x", "h"):
        for column in (0, 20):
            x, states, weights = draw_step(cell, 21, 23, 6, np.float64)
            (x if place == "x" else states[0])[2, column] = value
            native, numpy = steps_of_both(cell, x, states, weights)
            for a, b in zip(native, numpy, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
                assert np.isfinite(a[[0, 1, 3, 4, 5]]).all()


@built
@pytest.mark.parametrize("cell", CELLS)
def test_a_step_takes_arrays_in_any_order_of_memory(cell):
    x, states, weights = draw_step(cell, 5, 6, 4, np.float64)
    native, numpy = steps_of_both(
        cell, np.asfortranarray(x), [s[::-1].copy()[::-1] for s in states], weights
    )
    for a, b in zip(native, numpy, strict=True):
        close(a, b, 1e-14)


def step_arguments(B=4, H=5, features=6):
    """Return valid arguments of lstm_step, by name, in their order."""
    shapes = {
        "h_new": (B, H), "c_new": (B, H), "h": (B, H), "c": (B, H), "w_ih": (4 * H, features),
        "x": (B, features), "w_hh": (4 * H, H), "b_ih": (4 * H,), "b_hh": (4 * H,),
    }  # fmt: skip
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("B", [1, 4])  # as it lies; packed
@pytest.mark.parametrize("name", list(step_arguments()))
@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda a: a[:-1], ValueError),
        (lambda a: np.zeros((len(a) + 1, *a.shape[1:])), ValueError),
        (lambda a: a[..., :-1].copy(), ValueError),
        (lambda a: np.zeros((*a.shape[:-1], a.shape[-1] + 1)), ValueError),
        (lambda a: np.zeros((len(a), 0)), ValueError),
        (lambda a: np.zeros(a.size + 64 // a.itemsize), ValueError),
        (lambda a: a.astype(np.float32), TypeError),
        (lambda a: a.astype(">f8"), TypeError),
        (lambda a: np.repeat(a, 2, axis=-1)[..., ::2], ValueError),
        (lambda a: None, TypeError),
    ],
    ids=[
        "too short", "too long", "too narrow", "too wide", "empty", "panels", "another type",
        "big-endian", "not contiguous", "nothing",
    ],
)  # fmt: skip
def test_c_refuses_a_step_that_does_not_fit(name, B, spoil, error, loops):
    arguments = step_arguments(B)
    loops.lstm_step(*arguments.values())
    arguments[name] = spoil(arguments[name])
    before = {k: v.copy() for k, v in arguments.items() if v is not None}
    with pytest.raises((error, TypeError)):
        loops.lstm_step(*arguments.values())
    for k, v in before.items():
        np.testing.assert_array_equal(arguments[k], v)


@pytest.mark.parametrize("written", ["h_new", "c_new"])
@pytest.mark.parametrize("name", list(step_arguments()))
def test_what_a_step_writes_overlaps_nothing(written, name, loops):
    if name == written:
        return
    arguments = step_arguments()
    room = arguments[written].size
    memory = np.zeros(room + arguments[name].size - 1)  # so that they share one number
    for one, part in [(name, memory[room - 1 :]), (written, memory[:room])]:
        arguments[one] = part.reshape(arguments[one].shape)
    with pytest.raises(ValueError, match="expected an array apart"):
        loops.lstm_step(*arguments.values())
    assert not memory.any()
    arguments[written] = arguments[written].copy()
    loops.lstm_step(*arguments.values())


def test_c_refuses_a_step_of_fewer_arguments_and_takes_one_of_nobody(loops):
    arguments = step_arguments()
    with pytest.raises(TypeError, match="lstm_step: expected 9 arguments"):
        loops.lstm_step(*list(arguments.values())[:-1])
    with pytest.raises(TypeError, match="lstm_step: expected 9 arguments"):
        loops.lstm_step(*arguments.values(), 1)
    with pytest.raises(ValueError, match=r"h_new: expected shape \(B, H\)"):
        loops.lstm_step(*(arguments | {"h_new": np.zeros(20)}).values())
    arguments["c_new"].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        loops.lstm_step(*arguments.values())
    loops.lstm_step(*step_arguments(0).values())


def test_c_packs_a_matrix_and_takes_it_packed(loops):
    arguments = lstm_arguments()
    copies = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    copies |= {name: in_panels(loops, arguments[name]) for name in ("w_hh", "w_ih")}
    loops.lstm_forward(*arguments.values())
    loops.lstm_forward(*copies.values())
    for name in ("gates", "h", "c"):
        np.testing.assert_array_equal(arguments[name], copies[name])


@pytest.mark.parametrize(
    ("first", "stop", "row", "well"),
    [(0, 2, 0, True), (2, 3, 7, True), (1, 3, 4, True), (2, 3, 9, False), (1, 3, 7, False)],
)
def test_a_span_is_where_the_whole_is(first, stop, row, well, loops):
    arguments = lstm_arguments()
    arguments["sizes"] = np.array([4, 3, 2])
    for name in ("gates", "x"):
        arguments[name] = arguments[name][:9].copy()
    for name in ("h", "c"):
        arguments[name] = arguments[name][:13].copy()
    whole = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    spanned = arguments | {"first": first, "stop": stop, "row": row}
    if not well:
        with pytest.raises(ValueError, match="expected"):
            loops.lstm_forward(*spanned.values())
        return
    loops.lstm_forward(*whole.values())
    for steps, start in [
        ((0, first), 0),
        ((first, stop), row),
        ((stop, 3), row + sum([4, 3, 2][first:stop])),
    ]:
        loops.lstm_forward(
            *(arguments | {"first": steps[0], "stop": steps[1], "row": start}).values()
        )
    for name in ("gates", "h", "c"):
        np.testing.assert_allclose(arguments[name], whole[name], rtol=1e-12)


def test_c_refuses_too_few_arguments_and_arrays_not_to_be_written(loops):
    arguments = lstm_arguments()
    with pytest.raises(TypeError, match="15 arguments"):
        loops.lstm_forward(*list(arguments.values())[:-1])
    arguments["h"].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        loops.lstm_forward(*arguments.values())
    with pytest.raises(ValueError, match="as many numbers"):
        loops.tanh(np.empty(5), np.empty(6))
    for pack in (loops.pack, loops.pack_transpose):
        pack(np.empty(6 + 16), np.empty(6), 2)
        for room, columns in [(6, 2), (21, 2), (23, 2), (22, 0), (22, -1), (22, 4), (22, 2**62)]:
            with pytest.raises(ValueError, match="as many numbers"):
                pack(np.empty(room), np.empty(6), columns)
        with pytest.raises(ValueError, match="as many numbers"):  # and no loop over the columns
            pack(np.empty(16), np.empty(0), 2**62)
    with pytest.raises(ValueError, match="instruction set"):
        loops.use("mmx")


def test_set_native_says_what_it_takes(monkeypatch):
    with pytest.raises(TypeError, match=r"enabled: expected True or False, got 1"):
        minirnn.set_native(1)
    monkeypatch.setattr("minirnn.pairs.native_available", lambda: False)
    with pytest.raises(ImportError, match="C compiler"):
        minirnn.set_native(True)
    assert pair_for(functional.rnn, np.ones(2)) is functional.rnn


@pytest.mark.parametrize("wish", ["0", "1", "", "yes"])
def test_the_environment_decides(wish):
    code = (
        "import sys, numpy, minirnn; l = minirnn.GRU(2, 3); l(numpy.ones((2, 2, 2), numpy.float32));"
        "print('minirnn.native.gru' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"MINIRNN_NATIVE": wish, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    available = minirnn.native_available()
    if wish == "yes":
        assert "MINIRNN_NATIVE: expected 0 or 1, got 'yes'" in done.stderr
    elif wish == "1" and not available:
        assert "ImportError" in done.stderr
    else:
        assert done.stdout.strip() == str(available and wish != "0"), done.stderr


@built
def test_a_layout_without_rows():
    layout = Layout(np.empty(0, np.int64), 3)
    h = np.ones((3, 4))
    weights = np.ones((4, 2)), np.ones((4, 4)), None, None
    pair = pair_for(functional.rnn, h)
    ctx = pair.forward(np.empty((0, 2)), (h,), weights, layout)
    dw = [np.zeros_like(w) if w is not None else None for w in weights]
    dx = pair.backward(ctx, None, (h.copy(),), dw)
    assert data(dx).shape == (0, 2)
    assert not dw[0].any()


@pytest.mark.parametrize("native", [pytest.param(True, marks=built), False])
@pytest.mark.parametrize("cell", [*CELLS, "projected"])
@pytest.mark.parametrize("B", [1, 3])
def test_a_stepper_runs_as_the_whole_does(cell, native, B):
    make, own = CELLS.get(cell, (minirnn.LSTM, {"proj_size": 7}))
    minirnn.set_native(native)
    layer = make(4, 19, 2, **own, dtype=np.float64, rng=0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, B, 4))
    _, state = layer(rng.standard_normal((2, B, 4)))
    y, last = layer(x, state)
    stepper = layer.stepper(B, state)
    outputs = [stepper(x_t) for x_t in x]
    close(np.stack(outputs), y, 1e-12)
    for a, b in zip(flatten(stepper.state), flatten(last), strict=True):
        close(a, b, 1e-12)
    kept = stepper.state
    stepper.reset()
    for a, b in zip(flatten(stepper.state), flatten(state), strict=True):
        np.testing.assert_array_equal(a, b)
    layer.weight_hh_l0.data[...] = 0  # the stepper has its own
    np.testing.assert_array_equal(stepper(x[0]), outputs[0])
    for a, b in zip(flatten(kept), flatten(last), strict=True):
        close(a, b, 1e-12)
    if B == 1:
        close(stepper(x[1, 0]), outputs[1][0], 1e-12)
    wrong = {
        ValueError: [x[0, :, :3], np.ones((B + 1, 4)), np.ones(3), x],
        TypeError: [x[0].astype(np.float32), x[0].tolist()],
    }
    for error, inputs in wrong.items():
        for one in inputs:
            with pytest.raises(error, match="x_t"):
                stepper(one)


def test_what_a_stepper_refuses():
    with pytest.raises(ValueError, match="bidirectional"):
        minirnn.GRU(2, 3, bidirectional=True).stepper()
    with pytest.raises(ValueError, match="batch_size"):
        minirnn.GRU(2, 3).stepper(0)
    with pytest.raises(ValueError, match="state"):
        minirnn.GRU(2, 3).stepper(2, np.ones((1, 3, 3), np.float32))
    with pytest.raises(TypeError, match="state"):
        minirnn.GRU(2, 3).stepper(1, np.ones((1, 1, 3)))


@pytest.mark.parametrize("wish", ["0", "1"])
def test_the_command_reports_which_path_a_layer_takes(wish):
    if wish == "1" and not minirnn.native_available():
        pytest.skip("the loops in C were not built here")
    env = {"MINIRNN_NATIVE": wish, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "minirnn"]
    done = subprocess.run([*command, "--json"], env=env, capture_output=True, check=True, text=True)
    report = json.loads(done.stdout)
    room = "native" if wish == "1" else "functional"
    assert report["layers"]["GRU float32"] == f"minirnn.{room}.gru"
    assert report["layers"]["LSTM with proj_size"] == "minirnn.functional.lstm"
    assert (report["minirnn"], report["numpy"]) == (minirnn.__version__, np.__version__)
    assert (report["native"] is not None) == minirnn.native_available()
    text = subprocess.run(command, env=env, capture_output=True, check=True, text=True).stdout
    for name in report:
        assert name in text
    assert f"minirnn.{room}.rnn" in text


def infinite_through_a_dead_unit():
    """Return dx of a ReLU layer with a dead unit, whose output's gradient is infinite, and of NaN states."""
    layer = minirnn.RNN(1, 2, nonlinearity="relu", dtype=np.float64, rng=0)
    layer.bias_ih_l0.data[:] = -5, 5
    x = np.ones((2, 1, 1))
    (y, _), ctx = layer.forward(x)
    dy = np.zeros_like(y)
    dy[1, 0] = np.inf, 1
    dead, _ = layer.backward(ctx, dy)
    x[0] = np.nan
    (y, _), ctx = layer.forward(x)
    passed, _ = layer.backward(ctx, np.ones_like(y))
    return dead, passed


def nan_behind_a_mask(cell):
    """Return dx where the only sequence's NaN state is dropped before the recurrent product."""
    layer = getattr(minirnn, cell)(2, 3, dtype=np.float64, rng=0, recurrent_dropout=1.0)
    x = np.random.default_rng(1).standard_normal((3, 1, 2))
    state = np.full((1, 1, 3), np.nan)
    given = (state, np.zeros((1, 1, 3))) if cell == "LSTM" else state
    (y, _), ctx = layer.forward(x, given)
    dx, _ = layer.backward(ctx, np.ones_like(y))
    return y, dx


@built
def test_what_is_excluded_has_no_influence_in_c_as_in_numpy():
    found = []
    for enabled in (False, True):
        minirnn.set_native(enabled)
        found.append([*infinite_through_a_dead_unit()])
        for cell in ("RNN", "LSTM"):
            found[-1] += nan_behind_a_mask(cell)
    for numpy, native in zip(*found, strict=True):
        assert np.isfinite(numpy).all()
        np.testing.assert_allclose(native, numpy, rtol=1e-12)
