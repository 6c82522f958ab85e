"""Gradients of every sample against a loop over samples."""

import numpy as np
import pytest
from diagnosed import LAYERS, LENGTHS, packed
from helpers import close, thread_everything

import minirnn
from minirnn import diagnostics as see


def gradients_of(model, forward, upstream):
    """Return all parameters' gradients of one forward and backward, by name."""
    model.zero_grad()
    _, ctx = model.forward(*forward)
    model.backward(ctx, *upstream)
    return {name: p.grad.copy() for name, p in model.named_parameters()}


def by_loop(model, one_sample, samples):
    """Return each sample's gradients from a backward pass of its own, and their norms."""
    each = [gradients_of(model, *one_sample(b)) for b in range(samples)]
    norms = [np.sqrt(sum((g**2).sum() for g in one.values())) for one in each]
    return {name: np.array([one[name] for one in each]) for name in each[0]}, np.array(norms)


def agree(model, forward, upstream, one_sample, samples, **options):
    """Compare per-sample norms and gradients, and the sum that backward leaves, with the loop."""
    expected, norms = by_loop(model, one_sample, samples)
    total = gradients_of(model, forward, upstream)
    model.zero_grad()
    _, ctx = model.forward(*forward)
    actual = see.per_sample_gradient_norms(model, ctx, *upstream, **options)
    assert actual.dtype == np.float64
    close(actual, norms, 1e-10)
    for name, p in model.named_parameters():
        close(p.grad, total[name], 1e-12)
    each = see.per_sample_gradients(model, ctx, *upstream, **options)
    assert each.keys() == expected.keys()
    for name in each:
        close(each[name], expected[name], 1e-10)
    assert "backward" not in vars(model)


VARIANTS = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu", "bias": False}),
    ("GRU", {}),
    ("GRU", {"bias": False}),
    ("GRU", {"reset_after": False}),
    ("LSTM", {}),
    ("LSTM", {"proj_size": 2}),
]


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("form", ["padded", "batch_first", "packed", "checkpoint"])
def test_per_sample_norms_of_recurrent_layers(rng, kind, options, bidirectional, form):
    layer = LAYERS[kind](
        3,
        4,
        num_layers=2,
        bidirectional=bidirectional,
        batch_first=form == "batch_first",
        checkpoint=form == "checkpoint",
        dtype=np.float64,
        rng=0,
        **options,
    )
    ragged = form in ("packed", "checkpoint")
    x = packed(rng, 3) if ragged else rng.standard_normal((5, 5, 3))
    y, state = layer(x)
    dy = y.map(lambda a: rng.standard_normal(a.shape)) if ragged else rng.standard_normal(y.shape)
    state = state if kind == "LSTM" else (state,)
    h_0 = tuple(rng.standard_normal(s.shape) for s in state)
    dh_n = tuple(rng.standard_normal(s.shape) for s in state)

    def whole(parts):
        return parts if kind == "LSTM" else parts[0]

    def cut(a, b):
        if ragged:
            return minirnn.unpack_sequence(a)[b][:, None]
        return a[b : b + 1] if form == "batch_first" else a[:, b : b + 1]

    def one_sample(b):
        alone = [whole(tuple(s[:, b : b + 1] for s in parts)) for parts in (h_0, dh_n)]
        return (cut(x, b), alone[0]), (cut(dy, b), alone[1])

    agree(layer, (x, whole(h_0)), (dy, whole(dh_n)), one_sample, 5)


class Tagger(minirnn.Module):
    """A model whose head reads every step, and whose embedding is used twice."""

    def __init__(self, batch_first=False):
        wide = {"dtype": np.float64, "rng": 0}
        self.embedding = minirnn.Embedding(6, 3, padding_idx=5, **wide)
        self.gru = minirnn.GRU(3, 4, bidirectional=True, batch_first=batch_first, **wide)
        self.head = minirnn.Linear(8, 2, **wide)

    def forward(self, tokens, others):
        x, ctx_x = self.embedding.forward(tokens)
        z, ctx_z = self.embedding.forward(others)
        x = x.map(lambda a: a + z.data) if isinstance(x, minirnn.PackedSequence) else x + z
        (y, _), ctx_y = self.gru.forward(x)
        logits, ctx_h = self.head.forward(y)
        return logits, (ctx_x, ctx_z, ctx_y, ctx_h)

    def backward(self, ctx, dlogits):
        ctx_x, ctx_z, ctx_y, ctx_h = ctx
        dx, _ = self.gru.backward(ctx_y, self.head.backward(ctx_h, dlogits))
        self.embedding.backward(ctx_z, dx)
        self.embedding.backward(ctx_x, dx)


@pytest.mark.parametrize("form", ["padded", "batch_first", "packed"])
def test_per_sample_norms_of_a_model_that_uses_a_table_twice(rng, form):
    model, ragged = Tagger(form == "batch_first"), form == "packed"
    tokens, others = rng.integers(0, 6, (2, 5, 5))
    if ragged:
        tokens, others = (
            minirnn.pack_padded_sequence(t, LENGTHS, enforce_sorted=False) for t in (tokens, others)
        )
    y = model(tokens, others)
    dy = y.map(lambda a: rng.standard_normal(a.shape)) if ragged else rng.standard_normal(y.shape)

    def cut(a, b):
        if ragged:
            return minirnn.unpack_sequence(a)[b][:, None]
        return a[b : b + 1] if form == "batch_first" else a[:, b : b + 1]

    def one_sample(b):
        return (cut(tokens, b), cut(others, b)), (cut(dy, b),)

    agree(model, (tokens, others), (dy,), one_sample, 5)


class Tied(minirnn.Module):
    """An embedding and a head of one weight."""

    def __init__(self):
        self.embedding = minirnn.Embedding(6, 3, dtype=np.float64, rng=0)
        self.head = minirnn.Linear(3, 6, bias=False, dtype=np.float64)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        x, ctx_x = self.embedding.forward(tokens)
        y, ctx_y = self.head.forward(x)
        return y, (ctx_x, ctx_y)

    def backward(self, ctx, dy):
        self.embedding.backward(ctx[0], self.head.backward(ctx[1], dy))


def test_per_sample_norms_of_tied_weights_and_of_single_rows(rng):
    tokens, dy = rng.integers(0, 6, 4), rng.standard_normal((4, 6))
    agree(Tied(), (tokens,), (dy,), lambda b: ((tokens[b : b + 1],), (dy[b : b + 1],)), 4)


def test_per_sample_norms_of_many_steps_and_of_threads(rng, monkeypatch):
    layer = minirnn.LSTM(3, 4, dtype=np.float64, rng=0)
    x = packed(rng, 3, (12, 9, 0, 10))  # so long that the gradients are smaller than Gram matrices
    (y, _), ctx = layer.forward(x)
    expected = see.per_sample_gradient_norms(layer, ctx, y)
    monkeypatch.setattr(see.samples, "_ENTRIES", 1)
    close(see.per_sample_gradient_norms(layer, ctx, y), expected, 1e-12)
    thread_everything(monkeypatch)
    minirnn.set_num_threads(2)
    try:
        _, ctx = layer.forward(x)
        close(see.per_sample_gradient_norms(layer, ctx, y), expected, 1e-12)
    finally:
        minirnn.set_num_threads(1)


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_per_sample_norms_in_float32_are_those_in_float64(rng, kind, options):
    layer = LAYERS[kind](16, 32, dtype=np.float64, rng=0, **options)
    x = packed(rng, 16, (30, 20, 0, 7))
    found = []
    for dtype in (np.float64, np.float32):
        (y, _), ctx = layer.to(dtype).forward(x.map(lambda a, dtype=dtype: a.astype(dtype)))
        found.append(see.per_sample_gradient_norms(layer, ctx, y))
        assert found[-1].dtype == np.float64
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
def test_per_sample_norms_do_not_depend_on_the_pieces(rng, monkeypatch, kind, options):
    layer = LAYERS[kind](3, 4, dtype=np.float64, rng=0, **options)
    (y, _), ctx = layer.forward(packed(rng, 3))
    expected = see.per_sample_gradient_norms(layer, ctx, y)
    monkeypatch.setattr(see.samples, "_CACHED", 50)
    close(see.per_sample_gradient_norms(layer, ctx, y), expected, 1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        minirnn.RNN(3, 4, recurrent_dropout=0.5, dtype=np.float64, rng=0),
        minirnn.GRU(3, 4, recurrent_dropout=0.5, dtype=np.float64, rng=0),
        minirnn.GRU(3, 4, recurrent_dropout=0.5, reset_after=False, dtype=np.float64, rng=0),
        minirnn.LSTM(3, 4, recurrent_dropout=0.5, dtype=np.float64, rng=0),
    ],
    ids=["RNN", "GRU", "GRU before", "LSTM"],
)
def test_per_sample_gradients_with_recurrent_dropout_add_up_to_the_batchs(rng, layer):
    (y, _), ctx = layer.forward(packed(rng, 3))
    layer.zero_grad()
    each = see.per_sample_gradients(layer, ctx, y)
    for name, p in layer.named_parameters():
        close(each[name].sum(0), p.grad, 1e-12)
    norms = see.per_sample_gradient_norms(layer, ctx, y)
    close(norms, np.sqrt(sum((g.reshape(5, -1) ** 2).sum(1) for g in each.values())), 1e-12)


class Looped(minirnn.Module):
    """A loop over a cell, whose gradient lies in memory that is written over at every step."""

    def __init__(self, cell):
        self.cell = cell

    def forward(self, x):
        states, ctxs = None, []
        for x_t in x:
            states, ctx = self.cell.forward(x_t, states)
            ctxs.append(ctx)
        return states, ctxs

    def backward(self, ctxs, dh):
        pair = isinstance(dh, tuple)
        running = [a.copy() for a in (dh if pair else (dh,))]
        for ctx in reversed(ctxs):
            _, new = self.cell.backward(ctx, tuple(running) if pair else running[0])
            for a, b in zip(running, new if pair else (new,), strict=True):
                a[...] = b


CELLS = [
    (minirnn.RNNCell, {}),
    (minirnn.RNNCell, {"nonlinearity": "relu", "bias": False}),
    (minirnn.GRUCell, {}),
    (minirnn.GRUCell, {"reset_after": False}),
    (minirnn.LSTMCell, {}),
]


@pytest.mark.parametrize(("cell", "options"), CELLS)
@pytest.mark.parametrize("steps", [1, 4])
def test_per_sample_norms_of_cells_in_a_loop(rng, cell, options, steps):
    model = Looped(cell(3, 4, dtype=np.float64, rng=0, **options))
    x, pair = rng.standard_normal((steps, 5, 3)), cell is minirnn.LSTMCell
    dh = rng.standard_normal((2, 5, 4))

    def upstream(part):
        return (tuple(dh[:, part]) if pair else dh[0, part],)

    def one_sample(b):
        return (x[:, b : b + 1],), upstream(slice(b, b + 1))

    agree(model, (x,), upstream(slice(None)), one_sample, 5)
    _, ctx = model.forward(x[:, 0])
    (alone,) = upstream(0)
    norms = see.per_sample_gradient_norms(model, ctx, alone)
    _, ctx = model.forward(x)
    close(norms, see.per_sample_gradient_norms(model, ctx, *upstream(slice(None)))[:1], 1e-12)


@pytest.mark.parametrize("form", ["rows", "padded", "batch_first", "packed"])
@pytest.mark.parametrize(
    "norm",
    [
        minirnn.LayerNorm(6, dtype=np.float64),
        minirnn.LayerNorm((3, 2), dtype=np.float64),
        minirnn.LayerNorm(6, bias=False, dtype=np.float64),
    ],
    ids=["vector", "matrix", "no bias"],
)
def test_per_sample_norms_of_a_layer_norm(rng, norm, form):
    row = norm.normalized_shape
    if form == "packed":
        x = packed(rng, 6).map(lambda a: a.reshape(-1, *row))
        dy = x.map(lambda a: rng.standard_normal(a.shape))
    else:
        x, dy = rng.standard_normal((2, *((5,) if form == "rows" else (5, 5)), *row))

    def cut(a, b):
        if form == "packed":
            return minirnn.unpack_sequence(a)[b][:, None]
        return a[:, b : b + 1] if form == "padded" else a[b : b + 1]

    def one_sample(b):
        return (cut(x, b),), (cut(dy, b),)

    agree(norm, (x,), (dy,), one_sample, 5, batch_first=form == "batch_first")


class Scale(minirnn.Module):
    """A layer of one's own."""

    def __init__(self):
        self.scale = minirnn.Parameter(np.ones(1))

    def forward(self, x):
        return x * self.scale.data, x

    def backward(self, ctx, dy):
        self.scale.grad += (ctx * dy).sum()
        return dy * self.scale.data


def test_per_sample_norms_refuse_what_they_do_not_know(rng):
    cell = Scale()
    h, ctx = cell.forward(rng.standard_normal((2, 3)))
    with pytest.raises(TypeError, match="cells, got some in Scale"):
        see.per_sample_gradient_norms(cell, ctx, h)
    assert "backward" not in vars(cell)
    model = Tagger()
    tokens = rng.integers(0, 6, (5, 2))
    y, ctx = model.forward(tokens, tokens)
    with pytest.raises(ValueError, match="number of samples"):
        see.per_sample_gradient_norms(model, ctx, y, batch_first=True)
