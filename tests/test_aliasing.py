"""Whoever changes an array between forward and backward changes no gradient, or is told."""

import tracemalloc

import numpy as np
import pytest
from makers import F8

import minirnn
from minirnn.checks import unshared

RECURRENT = [minirnn.RNN, minirnn.LSTM, minirnn.GRU]
OPTIONS = [
    {},
    {"bidirectional": True},
    {"batch_first": True},
    {"num_layers": 2, "dropout": 0.3, "recurrent_dropout": 0.2},
]
rng = np.random.default_rng(0)
X, Y, CLASSES = rng.standard_normal((5, 3)), rng.random((5, 3)), np.array([0, 1, 2, 1, 0])
CASES = {
    "Linear": (lambda: minirnn.Linear(3, 4, dtype=F8, rng=0), X),
    "Linear of 3 axes": (lambda: minirnn.Linear(3, 4, dtype=F8, rng=0), X.reshape(1, 5, 3)),
    "Embedding": (lambda: minirnn.Embedding(7, 3, dtype=F8, rng=0), CLASSES),
    "Embedding of many": (lambda: minirnn.Embedding(70, 3, dtype=F8, rng=0), CLASSES[None]),
    "LayerNorm": (lambda: minirnn.LayerNorm(3, dtype=F8), X),
    **{name: (getattr(minirnn, name), X) for name in ("ReLU", "Tanh", "Sigmoid")},
    "Dropout": (lambda: minirnn.Dropout(0.5, rng=0), X),
    "Dropout of nothing": (lambda: minirnn.Dropout(0.0), X),
    "CrossEntropyLoss": (minirnn.CrossEntropyLoss, X, CLASSES),
    "with weights": (lambda: minirnn.CrossEntropyLoss(np.array([1.0, 2, 3])), X, CLASSES),
    "of distributions": (minirnn.CrossEntropyLoss, X, Y),
    "smoothed": (lambda: minirnn.CrossEntropyLoss(label_smoothing=0.1), X, Y),
    "NLLLoss": (minirnn.NLLLoss, -Y, CLASSES),
    "MSELoss": (minirnn.MSELoss, X, Y),
    "BCEWithLogitsLoss": (minirnn.BCEWithLogitsLoss, X, Y),
    "with a weight": (lambda: minirnn.BCEWithLogitsLoss(np.ones(3)), X, Y),
}
for cell in RECURRENT:
    for options in OPTIONS:

        def make(cell=cell, options=options):
            return cell(3, 4, dtype=F8, rng=0, **options)

        states = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
        x = rng.standard_normal((2, 5, 3) if options.get("batch_first") else (5, 2, 3))
        h = rng.standard_normal((states, 2, 4))
        h_0 = (h, h + 1) if cell is minirnn.LSTM else h
        CASES |= {
            f"{cell.__name__} {options}": (make, x, h_0),
            f"{cell.__name__} {options} packed": (make, minirnn.pack_sequence([X, X[:3]])),
            f"{cell.__name__} {options} unbatched": (make, X),
        }
for cell in (minirnn.RNNCell, minirnn.LSTMCell, minirnn.GRUCell):
    h = rng.standard_normal((5, 4))
    CASES[cell.__name__] = (
        lambda cell=cell: cell(3, 4, dtype=F8, rng=0),
        X,
        (h, h + 1) if cell is minirnn.LSTMCell else h,
    )


def arrays_in(value):
    if isinstance(value, minirnn.PackedSequence):
        return [value.data]
    if isinstance(value, tuple | list):
        return [x for one in value for x in arrays_in(one)]
    return [value] if isinstance(value, np.ndarray) else []


def copied(value):
    if isinstance(value, minirnn.PackedSequence):
        return value._with(value.data.copy())
    if isinstance(value, tuple):
        return tuple(copied(one) for one in value)
    return value.copy()


def gradient_like(value):
    if isinstance(value, minirnn.PackedSequence):
        return value._with(np.cos(value.data))
    if isinstance(value, tuple):
        return tuple(gradient_like(one) for one in value)
    return np.cos(value) if np.ndim(value) else 1.0


def spoil(value):
    for x in arrays_in(value):
        if x.flags.writeable:
            x[...] = np.flip(x).copy()


def gradients(layer, given, spoilt):
    """Return all gradients of a pass; `spoilt` says what is changed in place before they are looked at."""
    given = [copied(one) for one in given]
    y, ctx = layer.forward(*given)
    dy = gradient_like(y)
    if "input" in spoilt:
        spoil(given)
    if "output" in spoilt:
        spoil(y)
    parts = dy if isinstance(layer, minirnn.Recurrent) else (dy,)
    found = arrays_in(layer.backward(ctx, *parts))
    if "gradient" in spoilt:
        spoil(dy)
    return [*found, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("spoilt", ["input", "output", "gradient"])
@pytest.mark.parametrize("case", CASES)
def test_what_changes_after_the_call_changes_no_gradient(case, spoilt):
    make, *given = CASES[case]
    expected = gradients(make(), given, "")
    for before, after in zip(expected, gradients(make(), given, spoilt), strict=True):
        np.testing.assert_array_equal(after, before)


def frozen_views(value):
    """Return the same as views that cannot be written to, of arrays that can."""
    if isinstance(value, minirnn.PackedSequence):
        return value._with(frozen_views(value.data))
    if isinstance(value, tuple):
        return tuple(frozen_views(one) for one in value)
    return np.broadcast_to(value, value.shape)


@pytest.mark.parametrize("case", CASES)
def test_what_changes_behind_a_read_only_view_changes_no_gradient(case):
    make, *given = CASES[case]
    expected, found = [], []
    for spoilt, result in ((False, expected), (True, found)):
        layer, written = make(), [copied(one) for one in given]
        y, ctx = layer.forward(*map(frozen_views, written))
        dy = gradient_like(y)
        if spoilt:
            spoil(written)
        parts = dy if isinstance(layer, minirnn.Recurrent) else (dy,)
        result += arrays_in(layer.backward(ctx, *parts)) + [p.grad for p in layer.parameters()]
    for before, after in zip(expected, found, strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("cell", RECURRENT)
def test_a_layer_with_checkpoints_notices_a_change_behind_a_read_only_view(cell):
    layer, x = cell(3, 4, checkpoint=True, rng=0), np.ones((5, 2, 3), np.float32)
    (y, _), ctx = layer.forward(np.broadcast_to(x, x.shape))
    x[2] = 9
    with pytest.raises(ValueError, match="input: expected as it was in forward"):
        layer.backward(ctx, gradient_like(y))


def mapped(path):
    np.save(path / "x.npy", np.ones((5, 3)))
    return np.load(path / "x.npy", mmap_mode="r")


def marked(x):
    x.flags.writeable = False
    return x


def of_the_last_window(x):
    *_, last = minirnn.truncated_bptt(minirnn.RNN(3, 3, dtype=F8), x, 2)
    return last.output


def of_another(x):
    (y, _), _ = minirnn.GRU(3, 3, 2, bidirectional=True, dtype=F8).forward(x)
    return y


PACKED = minirnn.pack_sequence([X, X[:3]])
MEMORY = {
    "an array": (lambda path: X, True),
    "a view": (lambda path: X[1:], True),
    "a frozen view": (lambda path: frozen_views(X[1:]), True),
    "a frozen view of strides": (
        lambda path: np.lib.stride_tricks.sliding_window_view(X, 2, axis=0),
        True,
    ),
    "a mapped file": (mapped, True),
    "a view of a mapped file": (lambda path: mapped(path)[1:].view(np.ndarray), True),
    "bytearray": (lambda path: marked(np.frombuffer(bytearray(X.tobytes()))), True),
    "bytes": (lambda path: np.frombuffer(X.tobytes()), False),
    "a marked array": (lambda path: marked(X.copy()), False),
    "a view of a marked array": (lambda path: marked(X.copy())[1:].T, False),
    "a layer's output": (lambda path: of_another(X[:, None]), False),
    "packed": (lambda path: of_another(PACKED).data, False),
    "an unbatched row": (lambda path: of_another(X)[-1], False),
    "an activation": (lambda path: minirnn.Tanh().forward(X)[0][:2], False),
    "one direction": (lambda path: minirnn.LSTM(3, 3, dtype=F8).forward(X)[0][0], False),
    "with checkpoints": (
        lambda path: minirnn.RNN(3, 3, dtype=F8, checkpoint=True).forward(X)[0][0],
        False,
    ),
    "of a window": (lambda path: of_the_last_window(X), False),
}


@pytest.mark.parametrize("memory", MEMORY)
def test_what_nobody_can_write_to_is_not_copied_and_all_else_is(memory, tmp_path):
    make, written = MEMORY[memory]
    x = make(tmp_path)
    kept = unshared(x)
    assert np.shares_memory(kept, x) is not written
    np.testing.assert_array_equal(kept, x)


# -- where no copy is kept ---------------------------------------------------------------------------------

CHANGES = {
    "scaled": lambda x: np.multiply(x, 1.01, out=x),
    "negated": lambda x: np.negative(x, out=x),
    "a row": lambda x: x[-1].fill(0.5),
    "an entry": lambda x: np.copyto(x[2:3, ..., 1], 3.0),
    "turned round": lambda x: np.copyto(x, x[::-1].copy()),
    "rows exchanged": lambda x: np.copyto(x[:2], x[1::-1].copy()),
    "not a number": lambda x: x[1].fill(np.nan),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("form", ["padded", "batch_first", "unbatched", "packed"])
@pytest.mark.parametrize("cell", RECURRENT)
def test_a_layer_with_checkpoints_notices_a_changed_input(cell, form, change):
    layer = cell(3, 4, checkpoint=True, batch_first=form == "batch_first", rng=0)
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    given = {
        "padded": x,
        "batch_first": x,
        "unbatched": x[:, 0].copy(),
        "packed": minirnn.pack_sequence([x[:, 0], x[:4, 1]]),
    }[form]
    (y, _), ctx = layer.forward(given)
    dy = gradient_like(y)
    CHANGES[change](given.data if form == "packed" else given)
    if form == "batch_first":
        layer.backward(ctx, dy)  # its rows are copies in another order
        return
    with pytest.raises(ValueError, match=r"input: expected as it was in forward, got it changed"):
        layer.backward(ctx, dy)
    assert not any(p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize("cell", RECURRENT)
def test_a_layer_with_checkpoints_bears_what_is_not_finite(cell):
    layer = cell(3, 4, checkpoint=True, rng=0)
    x = np.full((5, 2, 3), 1e30, np.float32)
    x[1], x[2] = np.nan, np.inf
    with np.errstate(all="ignore"):
        (y, _), ctx = layer.forward(x)
        layer.backward(ctx, np.ones_like(y))


def test_an_input_in_another_order_is_not_copied_twice():
    layer = minirnn.RNN(100, 1, batch_first=True, rng=0)
    x = np.zeros((40, 50, 100), np.float32)
    tracemalloc.start()
    _, ctx = layer.forward(x)
    _, held = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1.5 * x.nbytes
    assert ctx is not None
