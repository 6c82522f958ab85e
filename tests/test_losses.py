"""Losses where the textbook formula fails: tails, excluded entries, millions of entries, soft targets."""

import warnings

import numpy as np
import pytest
from helpers import close

import minirnn

BAD = [np.nan, np.inf, -np.inf]
CLASSES, HALVES = np.array([0, 1, 2, 1]), np.full((4, 3), 0.5)
WHOLE = {
    "CrossEntropyLoss": (lambda r: minirnn.CrossEntropyLoss(reduction=r), CLASSES),
    "smoothed": (lambda r: minirnn.CrossEntropyLoss(reduction=r, label_smoothing=0.2), CLASSES),
    "soft": (lambda r: minirnn.CrossEntropyLoss(reduction=r), np.eye(4, 3)),
    "NLLLoss": (lambda r: minirnn.NLLLoss(reduction=r), CLASSES),
    "MSELoss": (minirnn.MSELoss, HALVES),
    "BCEWithLogitsLoss": (lambda r: minirnn.BCEWithLogitsLoss(reduction=r), HALVES),
    "BCELoss": (lambda r: minirnn.BCELoss(reduction=r), HALVES),
}


def loss_and_gradient(criterion, input, target, dloss=1.0):
    loss, ctx = criterion.forward(input, target)
    return loss, criterion.backward(ctx, dloss)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("z", [-80.0, -40.0, -18.0, -15.0, -10.0, -1.0, 0.5, 12.0, 20.0])
def test_bce_keeps_its_tails(dtype, z):
    tolerance = 1e-6 if dtype is np.float32 else 1e-14
    for y, sign in ((0, 1), (1, -1)):
        loss, dz = loss_and_gradient(
            minirnn.BCEWithLogitsLoss(), np.full(3, sign * z, dtype), np.full(3, y, dtype)
        )
        if z < 0:
            expected = np.log1p(np.exp(z)), np.exp(z) / (1 + np.exp(z)) * sign / 3
        else:
            expected = z + np.log1p(np.exp(-z)), sign / (1 + np.exp(-z)) / 3
        np.testing.assert_allclose(loss, expected[0], rtol=tolerance)
        np.testing.assert_allclose(dz, np.full(3, expected[1]), rtol=tolerance)
        assert loss.dtype == dz.dtype == dtype


@pytest.mark.parametrize("C", [2, 5, 40])
@pytest.mark.parametrize("lead", [10.0, 18.0, 40.0])
def test_cross_entropy_keeps_its_tails(C, lead):
    logits = np.zeros((2, C), np.float32)
    logits[0, 1] = logits[1, 0] = lead
    rest = (C - 1) * np.exp(-lead)
    soft = np.eye(C, dtype=np.float32)[[1, 0]]
    for target in (np.array([1, 0]), soft):
        loss, d = loss_and_gradient(minirnn.CrossEntropyLoss(), logits, target)
        np.testing.assert_allclose(loss, np.log1p(rest), rtol=1e-6)
        np.testing.assert_allclose(d[[0, 1], [1, 0]], -rest / (1 + rest) / 2, rtol=1e-6)
        np.testing.assert_allclose(d[0, 0], np.exp(-lead) / (1 + rest) / 2, rtol=1e-6)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("C", [3, 40])
@pytest.mark.parametrize("weighted", [False, True])
def test_ignored_rows_have_no_influence(bad, reduction, smoothing, C, weighted):
    rng = np.random.default_rng(0)
    weight = rng.random(C) if weighted else None
    criterion = minirnn.CrossEntropyLoss(weight, 7 + C, reduction, smoothing)
    logits, target = rng.standard_normal((6, C)), rng.integers(0, C, 6)
    target[[1, 4]] = 7 + C
    dloss = rng.standard_normal(6) if reduction == "none" else 1.7
    expected = loss_and_gradient(criterion, logits, target, dloss)
    assert np.isfinite(expected[0]).all()
    assert not expected[1][[1, 4]].any()
    logits[1], logits[4, 0] = bad, bad
    if reduction == "none":
        dloss[1] = bad
    for a, b in zip(loss_and_gradient(criterion, logits, target, dloss), expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("C", [3, 40])
def test_cross_entropy_in_float32_stays_there(reduction, smoothing, weighted, C):
    rng = np.random.default_rng(0)
    logits, target = rng.standard_normal((6, C)), rng.integers(0, C, 6)
    target[2] = -100
    weight = rng.random(C)

    def in_precision(dtype):
        criterion = minirnn.CrossEntropyLoss(
            weight.astype(dtype) if weighted else None, -100, reduction, smoothing
        )
        dloss = np.linspace(1, 2, 6, dtype=dtype) if reduction == "none" else 1.5
        return loss_and_gradient(criterion, logits.astype(dtype), target, dloss)

    for a, b in zip(in_precision(np.float32), in_precision(np.float64), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_classes_of_weight_zero_have_no_influence(bad, reduction):
    rng = np.random.default_rng(0)
    weight = np.array([1.0, 0.0, 2.0])
    criterion = minirnn.CrossEntropyLoss(weight, reduction=reduction)
    logits, target = rng.standard_normal((5, 3)), np.array([0, 1, 2, 1, 0])
    dloss = rng.standard_normal(5) if reduction == "none" else 1.0
    expected = loss_and_gradient(criterion, logits, target, dloss)
    logits[1] = bad
    if reduction == "none":
        dloss[1] = bad
    for a, b in zip(loss_and_gradient(criterion, logits, target, dloss), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_smoothing_and_soft_targets_weigh_by_zero_may_be_impossible():
    logits = np.array([[0.0, 1.0, -np.inf]])
    weight = np.array([1.0, 1.0, 0.0])
    log_p = np.array([0.0, 1.0]) - np.log(1 + np.e)
    loss, d = loss_and_gradient(
        minirnn.CrossEntropyLoss(weight, label_smoothing=0.3), logits, np.array([0])
    )
    close(loss, -(0.7 * log_p[0] + 0.1 * log_p.sum()))
    assert np.isfinite(d).all()
    loss, d = loss_and_gradient(minirnn.CrossEntropyLoss(), logits, np.array([[0.5, 0.5, 0.0]]))
    close(loss, -0.5 * log_p.sum())
    close(d, [[*(np.exp(log_p) - 0.5), 0]])


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_bce_entries_of_weight_zero_have_no_influence(bad, reduction):
    rng = np.random.default_rng(0)
    z, t = rng.standard_normal((4, 3)), rng.random((4, 3))
    dloss = rng.standard_normal((4, 3)) if reduction == "none" else 1.0
    weight = np.ones((4, 3))
    weight[1, 2] = 0
    criterion = minirnn.BCEWithLogitsLoss(weight, reduction)
    expected = loss_and_gradient(criterion, z, t, dloss)
    z[1, 2] = t[1, 2] = bad
    if reduction == "none":
        dloss[1, 2] = bad
    for a, b in zip(loss_and_gradient(criterion, z, t, dloss), expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_without_any_share_of_a_class_have_no_influence(bad, reduction, weighted):
    """Soft targets name no class that is ignored: of padding they are zero, or of a class without weight."""
    rng = np.random.default_rng(0)
    logits, target = rng.standard_normal((5, 3)), rng.random((5, 3))
    target[1] = [0, 0.5, 0] if weighted else 0
    criterion = minirnn.CrossEntropyLoss(np.array([1.0, 0, 2]) if weighted else None, -1, reduction)
    dloss = rng.standard_normal(5) if reduction == "none" else 1.0
    expected = loss_and_gradient(criterion, logits, target, dloss)
    assert not expected[1][1].any()
    logits[1] = bad
    if reduction == "none":
        dloss[1] = bad
    with warnings.catch_warnings(action="error"):
        found = loss_and_gradient(criterion, logits, target, dloss)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bad", BAD)
def test_probabilities_of_weight_zero_have_no_influence_on_a_gradient(bad):
    p, t, dloss = np.full((2, 2), 0.3), np.ones((2, 2)), np.ones((2, 2))
    criterion = minirnn.BCELoss(np.array([1.0, 0.0]), "none")
    expected = loss_and_gradient(criterion, p, t, dloss)
    p[:, 1] = t[:, 1] = dloss[:, 1] = bad
    for a, b in zip(loss_and_gradient(criterion, p, t, dloss), expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", WHOLE)
def test_a_loss_that_counts_for_nothing_has_no_gradient(name, dtype, bad):
    """Of ``(losses * mask).sum()`` backward is given the mask; of a loss that is switched off, 0."""
    make, target = WHOLE[name]
    target = target.astype(dtype) if target.dtype.kind == "f" else target
    x = np.full((4, 3), 0.3, dtype)
    mask = np.ones((4,) if name == "soft" else target.shape, dtype)
    mask[2] = 0
    expected = loss_and_gradient(make("none"), x, target, mask)[1]
    assert expected.any()
    for broken in "input", "target":
        y, q = x.copy(), target.copy()
        if broken == "target":
            if target.dtype.kind != "f":
                continue
            q[2] = bad
        elif name != "BCELoss":  # which takes probabilities only
            y[2] = bad
        np.testing.assert_array_equal(loss_and_gradient(make("none"), y, q, mask)[1], expected)
        for reduction in "mean", "sum":
            assert not loss_and_gradient(make(reduction), y, q, 0)[1].any()


def test_bce_of_a_certain_and_right_answer_is_zero():
    z, t = np.array([np.inf, -np.inf]), np.array([1.0, 0.0])
    for pos_weight in (None, np.array([0.0, 1.0])):
        loss, d = loss_and_gradient(minirnn.BCEWithLogitsLoss(pos_weight=pos_weight), z, t)
        assert loss == 0
        assert not d.any()
    # Without weight, the positive class costs nothing, however wrong the answer is.
    criterion = minirnn.BCEWithLogitsLoss(pos_weight=np.zeros(1))
    loss, d = loss_and_gradient(criterion, np.array([-np.inf, 0.0]), np.array([1.0, 0.0]))
    close(loss, np.log(2) / 2)
    close(d, [0, 0.25])


def test_sums_of_millions_of_float32():
    n = 3_000_001
    x = np.full((1, n), 0.1, np.float32).T  # and in an order that NumPy does not sum pairwise
    zero = np.zeros_like(x)
    square = float(np.float32(0.1) * np.float32(0.1))
    np.testing.assert_allclose(minirnn.MSELoss()(x, zero), square, rtol=1e-6)
    np.testing.assert_allclose(minirnn.MSELoss("sum")(x, zero), n * square, rtol=1e-6)
    np.testing.assert_allclose(minirnn.BCEWithLogitsLoss()(zero, zero), np.log(2), rtol=1e-6)
    big = np.full((2_000, 2_000), 0.1, np.float32)
    big.T[0, 0] = 0.1
    np.testing.assert_allclose(
        minirnn.MSELoss("sum")(big[:, ::3], big[:, ::3] * 0), 2_000 * 667 * square, rtol=1e-6
    )


def test_a_sum_counts_what_is_small_beside_its_largest_term():
    x = np.array(
        [4096, 1, 1, 1], np.float32
    )  # in float32 the sum of squares would not notice a one
    assert minirnn.MSELoss("sum")(x, np.zeros(4, np.float32)) == 2**24 + 4


def test_a_mean_over_more_rows_than_float32_can_count():
    n = 2**24 + 4096
    logits = np.zeros((n, 1), np.float32)
    logits[::2] = 1
    target = np.zeros(n, np.int8)
    target[0] = -1
    criterion = minirnn.CrossEntropyLoss(np.array([0.1], np.float32), ignore_index=-1)
    _, ctx = criterion.forward(logits, target)
    np.testing.assert_allclose(
        ctx.saved[0].denominator, (n - 1) * float(np.float32(0.1)), rtol=1e-9
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 4, 3), (2, 4, 3, 2)])
def test_soft_targets(reduction, smoothing, weighted, shape):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    weight = rng.random(4) if weighted else None
    x, q = rng.standard_normal(shape), rng.random(shape)
    their_x = torch.from_numpy(x.copy()).requires_grad_()
    theirs = torch.nn.CrossEntropyLoss(
        None if weight is None else torch.from_numpy(weight),
        reduction=reduction,
        label_smoothing=smoothing,
    )(their_x, torch.from_numpy(q))
    criterion = minirnn.CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing)
    loss, ctx = criterion.forward(x, q)
    close(loss, theirs.detach())
    dloss = np.asarray(rng.standard_normal(loss.shape))
    theirs.backward(torch.from_numpy(dloss))
    close(criterion.backward(ctx, dloss), their_x.grad)
    close(criterion(x, q), loss)


def test_harmless_underflow_does_not_raise():
    x = np.array([[-200.0, 0.0], [0.0, 3e-30]], np.float32)
    y = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)
    with np.errstate(all="raise"):
        for criterion, target in [
            (minirnn.CrossEntropyLoss(), np.array([1, 0])),
            (minirnn.CrossEntropyLoss(label_smoothing=0.1), np.array([1, -100])),
            (minirnn.CrossEntropyLoss(), y),
            (minirnn.BCEWithLogitsLoss(), y),
            (minirnn.BCEWithLogitsLoss(pos_weight=np.float32([1e-30])), y),
            (minirnn.MSELoss(), x + np.float32(1e-30)),
        ]:
            loss, d = loss_and_gradient(criterion, x, target, 1e-30)
            assert np.isfinite(loss)
            assert np.isfinite(d).all()


LOSSES = {
    "mse": (minirnn.MSELoss(), np.ones((3, 2))),
    "bce": (minirnn.BCEWithLogitsLoss(), np.ones((3, 2))),
    "cross entropy": (minirnn.CrossEntropyLoss(), np.array([0, 1, 0])),
    "soft": (minirnn.CrossEntropyLoss(), np.ones((3, 2))),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (np.asmatrix, "plain array, got matrix"),
        (np.ma.masked_array, "plain array, got MaskedArray"),
        (lambda x: x.astype(x.dtype.newbyteorder(">")), "native byte order"),
        (lambda x: x.astype(np.float16), r"float32.*got dtype float16.*astype|integer array"),
        (lambda x: x.astype(np.longdouble), r"float32.*longdouble|float32.*float128|integer array"),
    ],
)
def test_arrays_that_compute_otherwise_are_refused(loss, convert, message):
    criterion, target = LOSSES[loss]
    x = np.ones((3, 2))
    with pytest.raises(TypeError, match=r"input: .*(" + message + ")"):
        criterion.forward(convert(x), target)
    if target.dtype.kind == "f" or convert in (np.asmatrix, np.ma.masked_array):
        with pytest.raises(TypeError, match="target: "):
            criterion.forward(x, convert(target))
    if convert not in (np.asmatrix, np.ma.masked_array):
        return
    for weighted in (
        lambda: minirnn.CrossEntropyLoss(convert(np.ones(2))),
        lambda: minirnn.BCEWithLogitsLoss(convert(np.ones(2))),
        lambda: minirnn.BCEWithLogitsLoss(pos_weight=convert(np.ones(2))),
    ):
        with pytest.raises(TypeError, match="weight: expected a plain array"):
            weighted()


def test_logits_with_classes_last():
    with pytest.raises(ValueError, match=r"classes.*axis 1.*reshape\(-1, C\)"):
        minirnn.CrossEntropyLoss()(np.zeros((5, 3, 7)), np.zeros((5, 3), int))


@pytest.mark.parametrize("ignore_index", [1.5, None, "1", True])
def test_ignore_index_is_an_integer(ignore_index):
    with pytest.raises(TypeError, match="ignore_index: expected an integer"):
        minirnn.CrossEntropyLoss(ignore_index=ignore_index)


@pytest.mark.parametrize("num_embeddings", [6, 100])
@pytest.mark.parametrize("bad", BAD)
def test_embedding_rows_get_what_is_theirs(num_embeddings, bad):
    rng = np.random.default_rng(0)
    layer = minirnn.Embedding(num_embeddings, 2, padding_idx=5, dtype=np.float64)
    tokens = np.array([1, 5, 3, 1, 5, 4])
    dy = rng.standard_normal((6, 2))
    _, ctx = layer.forward(tokens)
    layer.backward(ctx, dy)
    expected = np.array(layer.weight.grad)
    layer.zero_grad()
    dy[1], dy[4] = bad, -bad
    layer.backward(ctx, dy)
    close(layer.weight.grad, expected)
    layer.zero_grad()
    dy[2, 0] = bad
    layer.backward(ctx, dy)
    expected[3, 0] = bad
    np.testing.assert_allclose(layer.weight.grad, expected, rtol=1e-12)


def test_a_row_that_is_looked_up_very_often():
    layer = minirnn.Embedding(100, 1)
    tokens = np.tile([3, 7], 500_000)
    _, ctx = layer.forward(tokens)
    layer.backward(ctx, np.full((1_000_000, 1), 0.1, np.float32))
    np.testing.assert_allclose(layer.weight.grad[[3, 7]], 50_000, atol=0.1)
