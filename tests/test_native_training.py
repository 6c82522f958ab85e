"""What a step of training computes in C: what NumPy computes, and nothing read or written out of bounds."""

import importlib
import mmap
import sys

import numpy as np
import pytest
from helpers import close
from makers import weight

import minirnn
from minirnn import functional, pairs
from minirnn.functional import adam, embedding, indices, linear, loss, norm, order
from minirnn.layout import layout_of
from minirnn.pairs import pair_for

in_c = pytest.importorskip("minirnn.native._training", reason="the loops in C were not built")
native = {
    pair: importlib.import_module(pair.__name__.replace("functional", "native"))
    for pair in (adam, embedding, linear, loss, norm, indices, order)
}
TYPES = [np.float32, np.float64]
INTEGERS = [np.int8, np.uint8, np.int32, np.int64, np.longlong, np.uint64]


@pytest.fixture(autouse=True)
def _in_c():
    minirnn.set_native(True)


def test_each_has_its_counterpart():
    for pair, counterpart in native.items():
        array = np.empty(0, np.int64 if pair in (indices, order) else np.float32)
        assert pair_for(pair, array) is counterpart
    minirnn.set_native(False)
    assert pair_for(functional.adam, np.empty(0)) is adam


def test_c_is_available_if_all_of_it_was_built(monkeypatch):
    """An installation from before a pull has some of it."""
    monkeypatch.setitem(sys.modules, "minirnn.native._training", None)
    pairs.native_available.cache_clear()
    assert not minirnn.native_available()
    pairs.native_available.cache_clear()


# ---- Adam -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("size", [0, 1, 7, 1000])
def test_adam_steps_to_the_same_bits(dtype, amsgrad, size):
    rng = np.random.default_rng(0)
    bad = np.array([np.nan, np.inf, -np.inf, 1e30, -1e-38, 0.0])
    ours, theirs = ([np.ones(size, dtype), *np.zeros((3 + amsgrad, size), dtype)] for _ in "ab")
    for t in range(1, 6):
        grad = rng.standard_normal(size).astype(dtype)
        if t == 3:
            grad[: len(bad)] = bad[:size]
        args = t, 0.1, (0.9, 0.999), 1e-8
        with np.errstate(all="ignore"):
            adam.update(ours[0], grad, ours[1:], *args)
        with np.errstate(all="raise"):
            native[adam].update(theirs[0], grad, theirs[1:], *args)
        for a, b in zip(ours[:-1], theirs[:-1], strict=True):  # not the scratch space
            np.testing.assert_array_equal(a, b)
    assert np.isfinite(theirs[0][len(bad) :]).all()
    assert (theirs[0] != 1).all()


@pytest.mark.parametrize("kind", [minirnn.Adam, minirnn.AdamW])
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1, "maximize": True, "amsgrad": True}])
def test_an_optimizer_steps_to_the_same_bits(kind, options):
    after = []
    for switched in (True, False):
        minirnn.set_native(switched)
        p, q = weight(1.0, 2.0, 3.0), weight(4.0, 5.0)
        optimizer = kind([p, q], lr=0.1, **options)
        for t in range(5):
            p.grad[:], q.grad[:] = [1, t, -3], [0, 1e-3]
            optimizer.step()
        after.append([p.data, q.data, *optimizer.state_dict()["state"]])
    for a, b in zip(*after, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- the cross entropy ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (16, 10), (5, 300), (70, 33)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_cross_entropy_as_in_numpy(dtype, shape, reduction):
    rng = np.random.default_rng(0)
    logits = (4 * rng.standard_normal(shape)).astype(dtype)
    logits[0, 0] = 40
    targets = rng.integers(0, shape[1], shape[0])
    (value, ctx), (expected, numpys) = (
        pair.cross_entropy_forward(logits, targets, reduction=reduction)
        for pair in (native[loss], loss)
    )
    assert value.dtype == expected.dtype == ctx.slope.dtype == dtype
    tolerance = 4 * np.finfo(dtype).eps
    close(value, expected, tolerance)
    np.testing.assert_allclose(ctx.slope, numpys.slope, rtol=4 * tolerance, atol=0)
    assert ctx[1:] == numpys[1:]
    again, none = native[loss].cross_entropy_forward(
        logits, targets, reduction=reduction, save=False
    )
    assert none is None
    np.testing.assert_array_equal(again, value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_logits_that_are_not_finite_go_where_they_go_in_numpy(bad, place):
    logits = np.arange(12.0).reshape(3, 4)
    logits[1, place] = bad
    targets = np.array([3, 1, 0])
    with np.errstate(all="raise"):
        value, ctx = native[loss].cross_entropy_forward(logits, targets)
    with np.errstate(all="ignore"):
        expected, numpys = loss.cross_entropy_forward(logits, targets)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(ctx.slope, numpys.slope, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("kind", INTEGERS)
def test_classes_and_logits_of_any_kind_and_order_of_memory(kind):
    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((10, 6)).T, np.arange(12, dtype=kind)[::2] % 9
    criterion = minirnn.CrossEntropyLoss()
    value, ctx = criterion.forward(logits, targets)
    minirnn.set_native(False)
    expected, numpys = criterion.forward(logits.copy(), targets.copy())
    close(value, expected)
    close(criterion.backward(ctx), criterion.backward(numpys))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dloss", [1.0, 0.25, 1e-60, 0.0, 2, np.float64(3)])
def test_the_gradient_of_a_loss_as_in_numpy(dtype, reduction, dloss):
    logits, targets = np.arange(12, dtype=dtype).reshape(3, 4), np.array([3, 1, 0])
    logits[0, 0] = np.inf if dloss == 0 else 0
    criterion, given = minirnn.CrossEntropyLoss(reduction=reduction), []
    with np.errstate(all="ignore"):
        _, ctx = loss.cross_entropy_forward(logits, targets, reduction=reduction)
    for switched in (True, False):
        minirnn.set_native(switched)
        with np.errstate(all="raise"):
            given.append(criterion._back(ctx, criterion._incoming(dloss, logits, ())))
    assert given[0].dtype == dtype
    np.testing.assert_array_equal(*given)


def test_a_loss_beyond_the_dtype_is_infinite():
    logits = np.array([[3e38, -3e38]] * 2, np.float32)
    value, _ = native[loss].cross_entropy_forward(logits, np.array([1, 1]), reduction="sum")
    assert value == np.inf


# ---- the embedding ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("padding_idx", [None, 0, 4])
@pytest.mark.parametrize("rows", [0, 1, 50, embedding.RUN + 1])
def test_the_gradient_of_a_table_as_in_numpy(dtype, padding_idx, rows):
    rng = np.random.default_rng(0)
    tokens, dy = rng.integers(0, 5, rows), rng.standard_normal((rows, 3)).astype(dtype)
    ctx = embedding.EmbeddingContext(tokens, 5, padding_idx)
    ours, theirs = np.ones((2, 5, 3), dtype)
    embedding.backward(ctx, dy, ours)
    native[embedding].backward(ctx, dy, theirs)
    np.testing.assert_allclose(theirs, ours, rtol=1e3 * np.finfo(dtype).eps)
    if padding_idx is not None:
        assert (theirs[padding_idx] == 1).all()


def test_what_is_not_finite_reaches_its_own_row_of_the_table():
    ctx = embedding.EmbeddingContext(np.array([0, 1, 2, 1]), 4, 2)
    dy = np.array([[1.0], [np.nan], [np.inf], [2.0]])
    table = np.zeros((4, 1))
    native[embedding].backward(ctx, dy, table)
    np.testing.assert_array_equal(table, [[1], [np.nan], [0], [0]])


# ---- the affine map ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(0, 3, 2), (1, 1, 1), (16, 16, 10), (5, 17, 3), (90, 10, 10)])
def test_the_affine_map_as_in_numpy(dtype, bias, shape):
    (n, wide, out), rng = shape, np.random.default_rng(0)
    shapes = (n, wide), (out, wide), (n, out), out
    x, w, dy, b = (rng.standard_normal(s).astype(dtype) for s in shapes)
    found = []
    for pair in (linear, native[linear]):
        grads = np.ones((out, wide), dtype), np.ones(out, dtype) if bias else None
        with np.errstate(all="raise"):
            y, ctx = pair.forward(x, w, b if bias else None)
            dx = pair.backward(ctx, dy, *grads)
        assert pair.forward(x, w, save=False)[1] is None
        found.append([y, dx, *grads[: 1 + bias]])
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype == dtype
        close(b, a, 20 * np.finfo(dtype).eps)


def test_a_bias_gradient_of_many_rows_keeps_its_digits():
    """Added up in float32, one after the other, it would lose the last one."""
    dy = np.random.default_rng(0).uniform(0.05, 0.15, (8000, 1)).astype(np.float32)
    x, weight = np.ones((8000, 3), np.float32), np.ones((1, 3), np.float32)
    dweight, db = np.zeros((1, 3), np.float32), np.zeros(1, np.float32)
    pair = native[linear]
    pair.backward(pair.forward(x, weight)[1], dy, dweight, db)
    np.testing.assert_allclose(db, dy.sum(dtype=np.float64), rtol=1e-7)
    np.testing.assert_allclose(dweight, dy.sum(dtype=np.float64), rtol=2e-6)


def test_an_affine_map_in_any_order_of_memory():
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((3, 5)).T[::-1], rng.standard_normal((4, 5)).T
    layer, found = minirnn.Linear(3, 4, dtype=np.float64), []
    for switched in (True, False):
        minirnn.set_native(switched)
        layer.zero_grad()
        y, ctx = layer.forward(x)
        found.append([y, layer.backward(ctx, dy), layer.weight.grad.copy(), layer.bias.grad.copy()])
    for a, b in zip(*found, strict=True):
        close(a, b)


@pytest.mark.parametrize("make", [minirnn.Linear, minirnn.RNN, minirnn.LSTM, minirnn.GRU])
def test_weights_that_were_not_aligned(make):
    layer, found = make(3, 4), []
    for name, p in layer.named_parameters():
        skewed = np.zeros(p.data.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(p.shape)
        skewed[...] = p.data
        assert not skewed.flags.aligned
        setattr(layer, name, minirnn.Parameter(skewed))
    x = np.ones((5, 2, 3), np.float32)
    for switched in (True, False):
        minirnn.set_native(switched)
        if make is minirnn.Linear:
            y, ctx = layer.forward(x)
            found.append([y, layer.backward(ctx, y)])
            continue
        (y, _), ctx = layer.forward(x)
        found.append([y, layer.backward(ctx, y)[0], layer.step(x[0])[0]])
    for a, b in zip(*found, strict=True):
        close(a, b, 1e-6)
    minirnn.set_native(True)
    last = list(layer.parameters())[-1]
    before = last.data.copy()
    last.grad = np.ones_like(before)
    minirnn.Adam([last], lr=0.5).step()
    close(last.data, before - 0.5, 1e-6)


def test_what_is_not_finite_or_too_small_goes_where_it_goes_in_numpy():
    x, w = np.array([[np.inf, 1.0], [1e-200, 0.0]]), np.array([[1e-200, 0.0]])
    found = []
    for pair in (linear, native[linear]):
        dw, db = np.zeros((1, 2)), np.zeros(1)
        with np.errstate(invalid="ignore"):
            y, ctx = pair.forward(x, w)
            found.append([y, pair.backward(ctx, np.array([[np.nan], [1e-200]]), dw, db), dw, db])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- norms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("sizes", [(1,), (0, 7), (8, 9, 100), (5000, 5000)])
@pytest.mark.parametrize("scale", [1e-160, 1e-44, 1e-25, 1.0, 1e25, 3e38, 0.0, np.inf, np.nan])
def test_a_norm_as_in_numpy(dtype, sizes, scale):
    rng = np.random.default_rng(0)
    arrays = [(scale * rng.uniform(0.5, 1, n)).astype(dtype) for n in sizes]
    total = np.sqrt((np.concatenate(arrays).astype(np.longdouble) ** 2).sum())
    scaled = []
    for pair in (norm, native[norm]):
        with np.errstate(all="raise"):
            found = pair.of([x for x in arrays if x.size], 2)
            scaled.append([x.copy() for x in arrays])
            before = pair.limit(scaled[-1], found, 2.0)
        np.testing.assert_allclose(found, total, rtol=1e3 * np.finfo(dtype).eps)
        assert before.dtype == dtype
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(before, dtype(found))
    for a, b in zip(*scaled, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5)


# ---- indices and orders -----------------------------------------------------------------------


@pytest.mark.parametrize("last", [-(2**63), -1, 0, 4, 5, 2**63 - 1])
def test_whether_indices_are_within(last):
    index = np.array([0, 3, last])
    assert native[indices].within(index, 5) == indices.within(index, 5) == (0 <= last < 5)
    assert native[indices].within(index[::-1], 5) == (0 <= last < 5)


@pytest.mark.parametrize(
    "lengths", [[3, 1, 2, 3, 0, 1], [0], [0, 0], [1], [4, 4, 2, 0], [1, 2, 3], [2, 2]], ids=str
)
@pytest.mark.parametrize("apart", [100, None])
def test_the_order_of_a_packed_batch_as_in_numpy(lengths, apart):
    lengths = np.array(lengths)
    sizes = order.batch_sizes(lengths, 9)
    np.testing.assert_array_equal(native[order].batch_sizes(lengths, 9), sizes)
    layout = layout_of(sizes, len(lengths))
    first = None if apart is None else np.arange(len(lengths)) * apart
    for a, b in zip(
        native[order].arrange(lengths, first, 7, layout, True),
        order.arrange(lengths, first, 7, layout, True),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    descending = sorted(lengths, reverse=True) == lengths.tolist()
    for pair in (native[order], order):
        assert (pair.arrange(lengths, first, 7, layout, False) is not None) == descending


@pytest.mark.parametrize("length", [-1, 4, 2**62, -(2**63)])
def test_no_order_of_lengths_that_are_none(length):
    for pair in (native[order], order):
        assert pair.batch_sizes(np.array([3, length, 1]), 3) is None


# ---- what is refused --------------------------------------------------------------------------

F, G = np.ones(6), np.ones(6, np.float32)
I6, I3, I2 = np.zeros(6, np.int64), np.zeros(3, np.int64), np.zeros(2, np.int64)
FIXED = np.ones(6)
FIXED.flags.writeable = False
SKEWED = np.zeros(8 * 6 + 1, np.uint8)[1:].view(float)
TWO, FOUR, SEVEN = np.ones(2), np.ones(4), np.ones(7)
BACK = (F, F + 1, TWO, FOUR, F + 2, F + 3, 3)
RATES = (0.1, 0.9, 0.999, 1e-8, 1)
REFUSED = {
    "adam: too few": (in_c.adam, (F, F, F, F, None), TypeError, "10 arguments"),
    "adam: types": (
        in_c.adam,
        (F, G, F, F, None, *RATES),
        TypeError,
        "grad: expected float64, got float32",
    ),
    "adam: sizes": (
        in_c.adam,
        (F, F, F, F[:5], None, *RATES),
        ValueError,
        "exp_avg_sq: expected 6",
    ),
    "adam: largest": (in_c.adam, (F, F, F, F, F[:5], *RATES), ValueError, "max_exp_avg_sq"),
    "adam: none": (in_c.adam, (F, None, F, F, None, *RATES), TypeError, "None"),
    "adam: no number": (in_c.adam, (F, F, F, F, None, *"abcde"), TypeError, "real number"),
    "adam: fixed": (in_c.adam, (FIXED, F, F, F, None, *RATES), ValueError, "read-only"),
    "adam: integers": (
        in_c.adam,
        (I6, I6, I6, I6, None, *RATES),
        TypeError,
        "float32 or float64, got int64",
    ),
    "adam: strided": (in_c.adam, (F[::2], F, F, F, None, *RATES), ValueError, "contiguous"),
    "adam: skewed": (
        in_c.adam,
        (SKEWED, F, F, F, None, *RATES),
        (TypeError, ValueError),
        "aligned",
    ),
    "entropy: too few": (in_c.cross_entropy, (F, F, I3), TypeError, "4 arguments"),
    "entropy: sizes": (in_c.cross_entropy, (F, F[:5], I3, 1), ValueError, "logits: expected 6"),
    "entropy: rows": (in_c.cross_entropy, (F, F, np.zeros(4, int), 1), ValueError, "slope"),
    "entropy: class": (in_c.cross_entropy, (F, F, I3 + 2, 1), ValueError, "targets: .* below 2"),
    "entropy: negative": (in_c.cross_entropy, (F, F, I3 - 1, 1), ValueError, "targets"),
    "entropy: no rows": (in_c.cross_entropy, (F, F, I3[:0], 1), ValueError, "slope"),
    "entropy: types": (in_c.cross_entropy, (F, F, I3.astype("i4"), 1), TypeError, "got i"),
    "entropy: number": (in_c.cross_entropy, (F, F, I3, "1"), TypeError, "real number"),
    "rows: too few": (in_c.add_rows, (F, F, I3), TypeError, "4 arguments"),
    "rows: token": (in_c.add_rows, (F, F, I3 + 3, -1), ValueError, "tokens: .* below 3"),
    "rows: sizes": (in_c.add_rows, (F, F[:5], I3, -1), ValueError, "rows"),
    "rows: none": (in_c.add_rows, (F, F, I3[:0], -1), ValueError, "rows"),
    "rows: no token": (in_c.add_rows, (F, F, I3, None), TypeError, "integer"),
    "linear: too few": (in_c.linear, (FOUR, F, F, TWO), TypeError, "5 arguments"),
    "linear: y": (in_c.linear, (F, F, F, TWO, 3), ValueError, "y: expected 4"),
    "linear: x": (in_c.linear, (FOUR, SEVEN, F, TWO, 3), ValueError, "x: expected 6"),
    "linear: weight": (in_c.linear, (FOUR, F, SEVEN, TWO, 3), ValueError, "weight: expected 6"),
    "linear: bias": (in_c.linear, (FOUR, F, F, FOUR, 3), ValueError, "bias: expected 2"),
    "linear: none": (in_c.linear, (FOUR, F, F, TWO, 0), ValueError, "y: expected 0"),
    "linear: types": (
        in_c.linear,
        (FOUR, F, G, TWO, 3),
        TypeError,
        "weight: .*expected float64, got float32",
    ),
    "linear: no number": (in_c.linear, (FOUR, F, F, TWO, "3"), TypeError, "integer"),
    "back: too few": (in_c.linear_backward, BACK[:6], TypeError, "7 arguments"),
    **{
        f"back: {name}": (
            in_c.linear_backward,
            (*BACK[:k], SEVEN, *BACK[k + 1 :]),
            ValueError,
            f"{name}: expected",
        )
        for k, name in enumerate(("dx", "dweight", "dbias", "dy", "x", "weight"))
    },
    "back: none": (in_c.linear_backward, (*BACK[:6], 0), ValueError, "dx: expected 0"),
    "back: types": (in_c.linear_backward, (F, G, *BACK[2:]), TypeError, "dweight: .*got f"),
    "back: no number": (in_c.linear_backward, (*BACK[:6], None), TypeError, "integer"),
    "squares: too few": (in_c.squares, (), TypeError, "1 arguments"),
    "squares: types": (in_c.squares, (I3,), TypeError, "expected float32 or float64, got int64"),
    "scale: too few": (in_c.scale, (F,), TypeError, "2 arguments"),
    "scale: no number": (in_c.scale, (F, "1"), TypeError, "real number"),
    "scale: fixed": (in_c.scale, (FIXED, 1.0), ValueError, "read-only"),
    "within: too few": (in_c.within, (I3,), TypeError, "2 arguments"),
    "within: types": (in_c.within, (F, 3), TypeError, "expected int64, got float64"),
    "within: no limit": (in_c.within, (I3, None), TypeError, "integer"),
    "sizes: too few": (in_c.batch_sizes, (I3,), TypeError, "2 arguments"),
    "sizes: types": (in_c.batch_sizes, (I3, F), TypeError, "lengths"),
    "order: too few": (in_c.arrange, (I3, I3, I3, I3), TypeError, "6 arguments"),
    "order: rows": (in_c.arrange, (I3, I3, I2, I3 + 1, I3, 1), ValueError, "rows: expected 3"),
    "order: negative": (in_c.arrange, (I3, I3, I3, I3 - 1, I3, 1), ValueError, "rows"),
    "order: one negative": (
        in_c.arrange,
        (I3, I3, I3, np.array([3, 1, -1]), I3, 1),
        ValueError,
        "rows",
    ),
    "order: huge": (in_c.arrange, (I3, I3, I3, I3 + 2**62, I3, 1), ValueError, "rows"),
    "order: order": (in_c.arrange, (I2, I3, I3, I3 + 1, I3, 1), ValueError, "order: expected 3"),
    "order: inverse": (in_c.arrange, (I3, I2, I3, I3 + 1, I3, 1), ValueError, "inverse"),
    "order: first": (in_c.arrange, (I3, I3, I3, I3 + 1, I2, 1), ValueError, "first"),
    "order: stride": (in_c.arrange, (I3, I3, I3, I3 + 1, I3, 0.5), TypeError, "integer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_c_refuses_what_does_not_fit(name):
    function, arguments, error, message = REFUSED[name]
    arguments = [x.copy() if isinstance(x, np.ndarray) and x.flags.carray else x for x in arguments]
    before = [np.copy(x) for x in arguments if isinstance(x, np.ndarray)]
    with pytest.raises(error, match=message):
        function(*arguments)
    now = [x for x in arguments if isinstance(x, np.ndarray)]
    assert all((a == b).all() for a, b in zip(before, now, strict=True))


def test_numbers_of_a_type_that_is_not_numpy_s_own():
    """Its character may be any: this one's is that of the end of a string."""
    multiarray = pytest.importorskip("numpy._core._multiarray_umath")
    if not hasattr(multiarray, "_get_sfloat_dtype"):
        pytest.skip("this NumPy has no such type to test with")
    with pytest.raises(TypeError, match="x: expected float32 or float64"):
        in_c.squares(np.zeros(3).view(multiarray._get_sfloat_dtype()(1.0)))


@pytest.mark.skipif(sys.platform != "linux" or sys.maxsize < 2**32, reason="no room for them")
def test_numbers_too_many_to_be_counted():
    """Rows by features are 2^64 here, of which 64 bits know nothing."""
    try:  # pages that are never looked at
        memory = mmap.mmap(-1, 2**34, mmap.MAP_PRIVATE, mmap.PROT_READ)
    except OSError as error:
        pytest.skip(f"no room for them: {error}")
    many, none = np.frombuffer(memory, np.float32), np.empty(0, np.float32)
    with pytest.raises(ValueError, match="y: expected"):
        in_c.linear(none, many, many, None, 1)


OVERLAPPING = {
    "adam": (in_c.adam, [*np.ones((4, 6)), None, *RATES], [0, 1, 2, 3]),
    "entropy": (in_c.cross_entropy, [F, F, I3, 1], [0, 1, 2]),
    "rows": (in_c.add_rows, [F, F, I3, -1], [0, 1, 2]),
    "linear": (in_c.linear, [FOUR, F, F, TWO, 3], [0, 1, 2, 3]),
    "back": (in_c.linear_backward, [*BACK], [0, 1, 2, 3, 4, 5]),
    "sizes": (in_c.batch_sizes, [I3, I3 + 1], [0, 1]),
    "order": (in_c.arrange, [I3, I3, I3, I3 + 1, I3, 1], [0, 1, 2, 3, 4]),
}


@pytest.mark.parametrize("name", OVERLAPPING)
def test_what_is_written_overlaps_nothing(name):
    """Else integers would change after they were looked at."""
    function, arguments, arrays = OVERLAPPING[name]
    function(*[np.copy(x) if isinstance(x, np.ndarray) else x for x in arguments])
    for k in arrays[1:]:
        spoiled = [np.copy(x) if isinstance(x, np.ndarray) else x for x in arguments]
        spoiled[k] = spoiled[0].ravel().view(spoiled[k].dtype)[: spoiled[k].size]
        before = spoiled[0].copy()
        with pytest.raises(ValueError, match="apart"):
            function(*spoiled)
        np.testing.assert_array_equal(spoiled[0], before)


def test_rows_of_a_batch_wrap_around_where_they_are_too_many():
    (order, inverse), rows = np.zeros((2, 1), np.int64), np.zeros(3, np.int64)
    in_c.arrange(order, inverse, rows, np.array([3]), np.array([0]), 2**62)
    assert rows.tolist() == [0, 2**62, -(2**63)]
