"""Linear, Embedding, Dropout and the losses against torch, and what bad input gets."""

import sys
import warnings

import numpy as np
import pytest
from helpers import check_gradients, close
from hypothesis import given, settings
from hypothesis import strategies as st

import minirnn


def tensors(torch, *arrays):
    return [torch.from_numpy(np.array(a)).requires_grad_(a.dtype.kind == "f") for a in arrays]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("leading", [(), (4,), (2, 3), (0,)])
def test_linear(bias, leading):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ours = minirnn.Linear(3, 5, bias, dtype=np.float64)
    theirs = torch.nn.Linear(3, 5, bias, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    x, dy = rng.standard_normal((*leading, 3)), rng.standard_normal((*leading, 5))
    (their_x,) = tensors(torch, x)
    y, ctx = ours.forward(x)
    expected = theirs(their_x)
    close(y, expected.detach())
    close(ours(x), y)
    expected.backward(torch.from_numpy(dy))
    close(ours.backward(ctx, dy), their_x.grad)
    close(ours.weight.grad, theirs.weight.grad)
    if bias:
        close(ours.bias.grad, theirs.bias.grad)


@pytest.mark.parametrize("features", [2, 200])  # in C, where that is built; and in NumPy
def test_what_is_too_small_for_a_linear_raises_nothing(features):
    layer = minirnn.Linear(features, 200, rng=0)
    x, dy = np.full((50, features), 1e-40, F4), np.full((50, 200), 1e-30, F4)
    with np.errstate(under="raise"):
        _, ctx = layer.forward(x)
        layer.backward(ctx, dy)


@pytest.mark.parametrize("num_embeddings", [7, 500])
@pytest.mark.parametrize("padding_idx", [None, 3, -1])
@pytest.mark.parametrize("shape", [(), (40,), (5, 6), (0,)])
def test_embedding(num_embeddings, padding_idx, shape):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ours = minirnn.Embedding(num_embeddings, 4, padding_idx, dtype=np.float64)
    theirs = torch.nn.Embedding(num_embeddings, 4, padding_idx, dtype=torch.float64)
    if padding_idx is not None:
        assert not ours.weight.data[padding_idx].any()
    ours.load_state_dict(theirs.state_dict())
    tokens = rng.integers(0, num_embeddings, shape)
    tokens = np.where(rng.random(shape) < 0.3, 3, tokens)
    y, ctx = ours.forward(tokens)
    expected = theirs(torch.from_numpy(tokens))
    close(y, expected.detach())
    dy = rng.standard_normal(y.shape)
    expected.backward(torch.from_numpy(dy))
    assert ours.backward(ctx, dy) is None
    close(ours.weight.grad, theirs.weight.grad)


def test_layers_that_act_per_step_take_packed_input():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 7, (3, 5))
    lengths = [2, 5, 3]
    packed = minirnn.pack_padded_sequence(tokens, lengths, True, False)
    model = minirnn.Sequential(
        minirnn.Embedding(7, 4, dtype=np.float64),
        minirnn.Dropout(0.4, rng=0),
        minirnn.Linear(4, 2, dtype=np.float64),
    )
    y, ctx = model.forward(packed)
    np.testing.assert_array_equal(y.batch_sizes, packed.batch_sizes)
    mask = ctx[1].saved[0].mask
    embedded = model[0].weight.data[packed.data]
    expected = (embedded * mask) @ model[2].weight.data.T + model[2].bias.data
    close(y.data, expected)
    dy = y.map(lambda rows: rng.standard_normal(rows.shape))
    model.backward(ctx, dy)
    dx = (dy.data @ model[2].weight.data) * mask
    expected = np.zeros((7, 4))
    np.add.at(expected, packed.data, dx)
    close(model[0].weight.grad, expected)
    with pytest.raises(TypeError, match="PackedSequence"):
        model.backward(ctx, dy.data)


def test_dropout():
    x = np.random.default_rng(0).standard_normal((200, 200))
    layer = minirnn.Dropout(0.3, rng=1)
    y, ctx = layer.forward(x)
    mask = y / x
    kept = mask != 0
    np.testing.assert_allclose(mask[kept], 1 / 0.7, rtol=1e-6)
    assert abs(kept.mean() - 0.7) < 0.01
    dy = np.random.default_rng(1).standard_normal(x.shape)
    close(layer.backward(ctx, dy), dy * np.where(kept, 1 / 0.7, 0), 1e-6)
    np.testing.assert_array_equal(minirnn.Dropout(0.3, rng=1)(x), y)
    minirnn.manual_seed(5)
    a = minirnn.Dropout(0.3)(x)
    minirnn.manual_seed(5)
    np.testing.assert_array_equal(minirnn.Dropout(0.3)(x), a)
    assert not minirnn.Dropout(1.0)(x).any()
    layer.eval()
    y, ctx = layer.forward(x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(layer.backward(ctx, dy), dy)


@st.composite
def classifications(draw):
    C, N = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    shape = draw(st.sampled_from([(C,), (N, C), (N, C, 3), (N, C, 2, 2)]))
    return {
        "shape": shape,
        "weighted": draw(st.booleans()),
        "ignore_index": draw(st.sampled_from([-100, -1, 0, 1])),
        "ignored": draw(st.booleans()),
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0])),
        "scale": draw(st.sampled_from([1.0, 1e3])),
        "seed": draw(st.integers(0, 1000)),
    }


@settings(max_examples=150, deadline=None)
@given(classifications())
def test_cross_entropy(case):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(case["seed"])
    shape = case["shape"]
    C = shape[min(1, len(shape) - 1)]
    logits = rng.standard_normal(shape) * case["scale"]
    targets = rng.integers(0, C, shape[:1] + shape[2:] if len(shape) > 1 else ())
    if case["ignored"]:
        targets = np.where(rng.random(targets.shape) < 0.4, case["ignore_index"], targets)
    weight = rng.uniform(0.5, 2, C) if case["weighted"] else None
    options = {k: case[k] for k in ("ignore_index", "reduction", "label_smoothing")}
    if case["reduction"] == "mean" and (targets == case["ignore_index"]).all():
        return  # see test_all_targets_ignored
    ours = minirnn.CrossEntropyLoss(weight, **options)
    theirs = torch.nn.CrossEntropyLoss(None if weight is None else torch.tensor(weight), **options)
    (their_logits,) = tensors(torch, logits)
    loss, ctx = ours.forward(logits, targets)
    expected = theirs(their_logits, torch.tensor(targets))
    close(loss, expected.detach())
    dloss = rng.standard_normal(np.shape(loss))
    dloss = dloss if case["reduction"] == "none" else float(dloss)
    expected.backward(torch.tensor(dloss, dtype=torch.float64))
    close(ours.backward(ctx, dloss), their_logits.grad)


def test_cross_entropy_without_torch():
    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((5, 4)), np.array([0, 3, -100, 1, 1])
    criterion = minirnn.CrossEntropyLoss(rng.uniform(0.5, 2, 4), label_smoothing=0.2)
    _, ctx = criterion.forward(logits, targets)
    pairs = [(logits, criterion.backward(ctx))]
    check_gradients(lambda: criterion(logits, targets), pairs, rng)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_all_targets_ignored(label_smoothing):
    criterion = minirnn.CrossEntropyLoss(label_smoothing=label_smoothing)
    with pytest.warns(RuntimeWarning, match="all targets are ignored"):
        loss, ctx = criterion.forward(np.ones((2, 3)), np.full(2, -100))
    assert np.isnan(loss)
    assert not criterion.backward(ctx).any()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_mse_and_bce(reduction, weighted):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, t = 20 * rng.standard_normal((4, 3)), rng.random((4, 3))
    w = {"weight": rng.random((4, 1)), "pos_weight": rng.uniform(1, 3, 3)} if weighted else {}
    their_w = {name: torch.from_numpy(v) for name, v in w.items()}
    pairs = [
        (minirnn.MSELoss(reduction), torch.nn.MSELoss(reduction=reduction)),
        (
            minirnn.BCEWithLogitsLoss(reduction=reduction, **w),
            torch.nn.BCEWithLogitsLoss(reduction=reduction, **their_w),
        ),
    ]
    for ours, theirs in pairs:
        (their_x,) = tensors(torch, x)
        loss, ctx = ours.forward(x, t)
        expected = theirs(their_x, torch.from_numpy(t))
        close(loss, expected.detach())
        dloss = rng.standard_normal(np.shape(loss)) if reduction == "none" else 0.7
        expected.backward(torch.tensor(dloss, dtype=torch.float64))
        close(ours.backward(ctx, dloss), their_x.grad)


def test_extreme_logits_do_not_overflow():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for z in (-1e4, 1e4):
            x = np.array([[z, 0.0]], np.float32)
            assert np.isfinite(minirnn.CrossEntropyLoss()(x, np.array([1])))
            assert np.isfinite(minirnn.BCEWithLogitsLoss()(x, np.ones_like(x)))


F4, F8 = np.float32, np.float64


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: minirnn.Linear(0, 2), ValueError, "in_features: expected a positive"),
        (lambda: minirnn.Linear(3, 2)(np.ones((2, 4), F4)), ValueError, r"\(\.\.\., 3\), got"),
        (lambda: minirnn.Linear(3, 2)(np.ones((2, 3), int)), TypeError, "floating-point"),
        (lambda: minirnn.Linear(3, 2)(np.ones((2, 3), F8)), TypeError, "expected dtype float32"),
        (lambda: minirnn.Linear(3, 2)([[1.0, 2.0, 3.0]]), TypeError, "got builtins.list"),
        (
            lambda: minirnn.Embedding(5, 2)(np.array([[0, 1], [7, 9]])),
            IndexError,
            r"7 at .*\(1, 0\)",
        ),
        (lambda: minirnn.Embedding(5, 2)(np.array([3, -1])), IndexError, "-1 at position 1"),
        (lambda: minirnn.Embedding(5, 2)(np.array([1.0])), TypeError, "integer array"),
        (lambda: minirnn.Embedding(5, 2, padding_idx=5), ValueError, "padding_idx"),
        (lambda: minirnn.Dropout(1.5), ValueError, "probability"),
        (lambda: minirnn.Dropout(0.5)(np.ones(3, int)), TypeError, "floating-point"),
        (
            lambda: minirnn.CrossEntropyLoss()(np.ones((2, 3)), np.array([0, 3])),
            IndexError,
            "3 at position 1",
        ),
        (
            lambda: minirnn.CrossEntropyLoss()(np.ones((2, 3)), np.array([-100, -5])),
            IndexError,
            "-5 at position 1",
        ),
        (
            lambda: minirnn.CrossEntropyLoss()(np.ones((2, 3)), np.array([0.0, 1.0])),
            TypeError,
            "integer array",
        ),
        (
            lambda: minirnn.CrossEntropyLoss()(np.ones((2, 3)), np.array([0, 1, 2])),
            ValueError,
            "target: expected shape",
        ),
        (lambda: minirnn.CrossEntropyLoss(reduction="avg"), ValueError, "reduction"),
        (
            lambda: minirnn.CrossEntropyLoss(np.ones(2))(np.ones((2, 3)), np.array([0, 1])),
            ValueError,
            "weight: expected shape",
        ),
        (lambda: minirnn.MSELoss()(np.ones(3), np.ones(2)), ValueError, "target: expected shape"),
        (
            lambda: minirnn.MSELoss()(np.ones(3), np.ones(3, F4)),
            TypeError,
            "target: expected dtype",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_bad_gradients():
    layer = minirnn.Linear(3, 2)
    y, ctx = layer.forward(np.ones((4, 3), F4))
    for dy, error in [
        (np.ones((4, 3), F4), ValueError),
        (np.ones((4, 2), F8), TypeError),
        (None, TypeError),
    ]:
        with pytest.raises(error, match="dy"):
            layer.backward(ctx, dy)
    assert not layer.weight.grad.any()
    with pytest.raises(ValueError, match="another Linear"):
        minirnn.Linear(3, 2).backward(ctx, y)
    with pytest.raises(ValueError, match="expected the context"):
        layer.backward((ctx,), y)
    criterion = minirnn.MSELoss(reduction="none")
    _, ctx = criterion.forward(np.ones(3), np.zeros(3))
    with pytest.raises(ValueError, match="dloss"):
        criterion.backward(ctx, np.ones(2))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int64, np.uint8])
def test_narrow_integers_do_not_wrap_around(dtype):
    table = minirnn.Embedding(70_000, 2)
    np.testing.assert_array_equal(table(np.array([100], dtype))[0], table.weight.data[100])
    if np.dtype(dtype).kind == "i":
        with pytest.raises(IndexError, match="got -1 at position 0"):
            table(np.array([-1], dtype))
        logits = np.random.default_rng(0).standard_normal((2, 300))
        criterion = minirnn.CrossEntropyLoss()
        expected = criterion(logits[:1], np.array([1]))
        close(criterion(logits, np.array([1, -100], dtype)), expected)


def test_a_single_index_out_of_range():
    with pytest.raises(IndexError, match="got 9 at position 0"):
        minirnn.Embedding(3, 2)(np.array(9))
    with pytest.raises(IndexError, match="got 9 at position 0"):
        minirnn.CrossEntropyLoss()(np.zeros(3), np.array(9))


def test_a_gradient_packed_in_another_way_is_refused():
    layer = minirnn.Linear(3, 2)
    x = minirnn.pack_padded_sequence(np.ones((2, 2, 3), np.float32), [2, 2])
    y, ctx = layer.forward(x)
    other = minirnn.PackedSequence(y.data, [2, 1, 1])
    with pytest.raises(ValueError, match=r"dy: expected batch_sizes \[2, 2\], got \[2, 1, 1\]"):
        layer.backward(ctx, other)
    turned = minirnn.PackedSequence(y.data, [2, 2], [1, 0])
    with pytest.raises(ValueError, match=r"dy: expected the sequences in the order \[0, 1\]"):
        layer.backward(ctx, turned)
    assert not layer.weight.grad.any()


@pytest.mark.parametrize("dtype", ["<i8", ">i8", ">i4", "<u2", ">u2", "i1"])
def test_tokens_of_any_integer_dtype(dtype):
    layer = minirnn.Embedding(4, 2, rng=0)
    assert (layer(np.array([3, 0], dtype)) == layer.weight.data[[3, 0]]).all()
    with pytest.raises(IndexError, match="got 4 at position 1"):
        layer(np.array([3, 4], dtype))


def test_arrays_from_a_file_are_arrays(tmp_path):
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(5, 3, 4))
    x[...] = np.random.default_rng(0).standard_normal(x.shape)
    rnn, linear = minirnn.GRU(4, 6, rng=0), minirnn.Linear(4, 2, rng=0)
    close(rnn(x)[0], rnn(np.array(x))[0], 0)
    close(linear(x), linear(np.array(x)), 0)


def test_packed_numbers_are_no_vector_to_a_linear_layer():
    packed = minirnn.pack_sequence([np.ones(2, np.float32), np.ones(1, np.float32)])
    with pytest.raises(ValueError, match=r"input: expected shape \(\.\.\., 3\), got \(3,\)"):
        minirnn.Linear(3, 2).forward(packed)


@pytest.mark.parametrize("loss", ["CrossEntropyLoss", "MSELoss", "BCEWithLogitsLoss"])
def test_a_context_keeps_no_more_of_the_input_than_the_maths_needs(loss):
    x = np.ones((4, 3))
    target = np.array([0, 1, 2, 0]) if loss == "CrossEntropyLoss" else np.zeros((4, 3))
    before = sys.getrefcount(x)
    _, ctx = getattr(minirnn, loss)().forward(x, target)
    assert sys.getrefcount(x) == before  # a copy, where the gradient is a function of it
    del ctx


@pytest.mark.parametrize("name", ["weight", "pos_weight"])
def test_bce_weights_must_fit_the_input(name):
    criterion = minirnn.BCEWithLogitsLoss(**{name: np.ones((2, 3))})
    with pytest.raises(ValueError, match=f"{name}: expected a shape that broadcasts"):
        criterion(np.ones(3), np.zeros(3))
    assert criterion(np.ones((2, 3)), np.zeros((2, 3))).shape == ()


@pytest.mark.parametrize("loss", [minirnn.MSELoss, minirnn.BCEWithLogitsLoss])
def test_losses_keep_the_dtype_and_refuse_what_is_no_gradient(loss):
    criterion = loss()
    _, ctx = criterion.forward(np.ones(3, np.float32), np.zeros(3, np.float32))
    assert criterion.backward(ctx, np.float64(0.5)).dtype == np.float32
    close(criterion.backward(ctx, 0.5), criterion.backward(ctx) / 2, 1e-6)
    with pytest.raises(TypeError, match="dloss"):
        criterion.backward(ctx, None)
    with pytest.raises(ValueError, match="input: expected at least one entry"):
        criterion(np.ones(0), np.ones(0))


def test_a_loss_takes_its_weights_along():
    x, t = np.random.default_rng(0).standard_normal((4, 3)), np.array([0, 1, 2, 1])
    criterion = minirnn.CrossEntropyLoss(np.array([1, 2, 3], np.float32)).to("float64")
    close(criterion(x, t), minirnn.CrossEntropyLoss(np.array([1.0, 2.0, 3.0]))(x, t))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vectors_that_there_are_already(dtype):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    table, tokens = rng.standard_normal((6, 3)).astype(dtype), np.array([[1, 5], [2, 1]])
    theirs = torch.nn.Embedding.from_pretrained(torch.tensor(table), False, padding_idx=-1)
    for vectors in (table, torch.tensor(table)):
        ours = minirnn.Embedding.from_pretrained(vectors, False, padding_idx=-1)
        assert (ours.num_embeddings, ours.embedding_dim, ours.padding_idx) == (6, 3, 5)
        y, ctx = ours.forward(tokens)
        expected = theirs(torch.tensor(tokens))
        np.testing.assert_array_equal(y, expected.detach())
        dy = rng.standard_normal(y.shape).astype(dtype)
        theirs.weight.grad = None
        expected.backward(torch.tensor(dy))
        ours.backward(ctx, dy)
        close(ours.weight.grad, theirs.weight.grad, 1e-6)
    assert ours.weight.dtype == dtype
    ours.weight.data[:] = 0
    assert (table != 0).all()


def test_given_vectors_are_frozen_unless_told_otherwise():
    minirnn.manual_seed(0)
    before = minirnn.get_rng_state()
    layer = minirnn.Embedding.from_pretrained(np.ones((3, 2)))
    assert minirnn.get_rng_state() == before
    _, ctx = layer.forward(np.array([1]))
    layer.backward(ctx, np.ones((1, 2)))
    minirnn.SGD(layer.parameters(), lr=1.0).step()
    assert (layer.weight.data == 1).all()
    layer = minirnn.Embedding.from_pretrained(np.ones((3, 2)), freeze=False)
    assert layer.weight.requires_grad
    for bad, error, message in [
        (np.ones(3), ValueError, "embeddings: expected shape"),
        (np.ones((3, 2), int), TypeError, "embeddings"),
        (np.ones((3, 2), np.float16), TypeError, "embeddings.*float32"),
        ([[1, 2]], TypeError, "embeddings"),
    ]:
        with pytest.raises(error, match=message):
            minirnn.Embedding.from_pretrained(bad)
    with pytest.raises(ValueError, match="padding_idx"):
        minirnn.Embedding.from_pretrained(np.ones((3, 2)), padding_idx=3)
    with pytest.raises(TypeError, match="freeze"):
        minirnn.Embedding.from_pretrained(np.ones((3, 2)), 2)


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-20, 1e3])
@pytest.mark.parametrize(
    "layer",
    [
        minirnn.RNNCell(3, 4, rng=0),
        minirnn.LSTMCell(3, 4, rng=0),
        minirnn.GRUCell(3, 4, rng=0),
        minirnn.Linear(3, 4, rng=0),
        minirnn.LayerNorm(3),
        minirnn.Dropout(0.5, rng=0),
        minirnn.ReLU(),
        minirnn.Tanh(),
        minirnn.Sigmoid(),
        minirnn.Softmax(-1),
        minirnn.LogSoftmax(-1),
    ],
    ids=repr,
)
def test_what_is_too_small_for_the_dtype_raises_nothing(layer, scale):
    x = (np.random.default_rng(0).standard_normal((5, 3)) * scale).astype(np.float32)
    # Made outside: NumPy 2.0 raises where a number is cast that is too small.
    gradients = np.array([1.0, 1e-20, 1e-38, 1e-44], np.float32)
    with np.errstate(all="raise"):
        y, ctx = layer.forward(x)
        for small in gradients:
            parts = y if isinstance(y, tuple) else (y,)
            dy = tuple(np.full(one.shape, small) for one in parts)
            layer.backward(ctx, dy if isinstance(y, tuple) else dy[0])
        layer(x)
        table = minirnn.Embedding(5, 3)
        _, ctx = table.forward(np.array([0, 1, 1, 1, 4]))
        table.backward(ctx, x)
