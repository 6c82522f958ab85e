"""Layers and losses on the device, the strict stand-in or a GPU, against the host."""

import numpy as np
import pytest
from both import floats, on_both, packed

import minirnn


@pytest.mark.parametrize("form", ["array", "packed"])
def test_linear(xp, rng, form):
    x = floats(rng, 2, 3, 4) if form == "array" else packed(rng, 4)
    dy = floats(rng, 2, 3, 5) if form == "array" else packed(rng, 5)

    def run(layer, x, dy):
        y, ctx = layer.forward(x)
        return y, layer.backward(ctx, dy), layer(x)

    on_both(xp, minirnn.Linear(4, 5), run, x, dy)


@pytest.mark.parametrize("rows", [7, 100])
@pytest.mark.parametrize("padding_idx", [None, 3])
def test_embedding(xp, rng, rows, padding_idx):
    def run(layer, tokens, dy):
        y, ctx = layer.forward(tokens)
        return y, layer.backward(ctx, dy)

    layer = minirnn.Embedding(rows, 5, padding_idx)
    on_both(xp, layer, run, rng.integers(0, rows, (4, 3)), floats(rng, 4, 3, 5))
    tokens = minirnn.pack_sequence([rng.integers(0, rows, n) for n in (4, 2)])
    on_both(xp, layer, run, tokens, tokens.map(lambda t: floats(rng, len(t), 5)))


def test_dropout(xp, rng):
    def run(layer, x, dy):
        layer._rng = np.random.default_rng(3)
        y, ctx = layer.forward(x)
        out = (y, layer.backward(ctx, dy))
        y, ctx = layer.eval().forward(x)
        return *out, y, layer.backward(ctx, dy)

    on_both(xp, minirnn.Dropout(0.4), run, floats(rng, 6, 5), floats(rng, 6, 5))
    on_both(xp, minirnn.Dropout(0.4), run, packed(rng, 3), packed(rng, 3))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(xp, rng, reduction, weighted, smoothing):
    weight = np.abs(floats(rng, 4)) if weighted else None
    targets = rng.integers(0, 4, 6)
    targets[2] = -100

    def run(criterion, logits, targets, weight, dloss):
        criterion.weight = weight
        loss, ctx = criterion.forward(logits, targets)
        return loss, criterion.backward(ctx, dloss)

    criterion = minirnn.CrossEntropyLoss(None, -100, reduction, smoothing)
    dloss = floats(rng, 6) if reduction == "none" else 0.5
    on_both(xp, criterion, run, floats(rng, 6, 4), targets, weight, dloss)
    images = rng.integers(0, 4, (6, 2, 3)), floats(rng, 6, 2, 3) if reduction == "none" else 2.0
    on_both(xp, criterion, run, floats(rng, 6, 4, 2, 3), images[0], weight, images[1])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_other_losses(xp, rng, reduction):
    def run(criterion, x, target, dloss):
        loss, ctx = criterion.forward(x, target)
        return loss, criterion.backward(ctx, dloss)

    x, target = floats(rng, 5, 3), rng.random((5, 3), np.float32)
    dloss = floats(rng, 5, 3) if reduction == "none" else 0.5
    on_both(xp, minirnn.MSELoss(reduction), run, x, target, dloss)

    def weighted(criterion, weight, *rest):
        criterion.weight = criterion.pos_weight = weight
        return run(criterion, *rest)

    on_both(xp, minirnn.BCEWithLogitsLoss(reduction=reduction), run, x, target, dloss)
    weight = np.abs(floats(rng, 3))
    on_both(xp, minirnn.BCEWithLogitsLoss(reduction=reduction), weighted, weight, x, target, dloss)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_of_probabilities(xp, rng, reduction):
    def run(criterion, x, target, dloss):
        loss, ctx = criterion.forward(x, target)
        return loss, criterion.backward(ctx, dloss)

    p, target = rng.random((5, 3), np.float32), rng.random((5, 3), np.float32)
    p[0] = 0, 1, 1
    dloss = floats(rng, 5, 3) if reduction == "none" else 0.5
    # The weights of a loss move with it.
    criterion = minirnn.BCELoss(np.abs(floats(rng, 3)), reduction)
    on_both(xp, criterion, run, p, target, dloss)
    classes = rng.integers(0, 3, 5)
    classes[2] = -100
    dloss = floats(rng, 5) if reduction == "none" else 0.5
    criterion = minirnn.NLLLoss(np.abs(floats(rng, 3)), reduction=reduction)
    on_both(xp, criterion, run, np.log(np.abs(floats(rng, 5, 3))), classes, dloss)


@pytest.mark.parametrize("name", ["ReLU", "Tanh", "Sigmoid", "Softmax", "LogSoftmax"])
def test_activations(xp, rng, name):
    def run(layer, x, dy):
        y, ctx = layer.forward(x)
        return y, layer.backward(ctx, dy)

    layer = getattr(minirnn, name)()
    on_both(xp, layer, run, floats(rng, 4, 5), floats(rng, 4, 5))
    on_both(xp, layer, run, packed(rng, 3), packed(rng, 3))


def test_given_vectors_stay_where_they_are(xp):
    table = xp.asarray(np.ones((3, 2), np.float32))
    layer = minirnn.Embedding.from_pretrained(table, padding_idx=0)
    assert type(layer.weight.data) is type(table)
    assert layer.weight.data is not table


def test_the_state_of_a_loss(xp):
    criterion = minirnn.NLLLoss(np.ones(3)).to("cupy")
    assert type(criterion.weight) is xp.ndarray
    criterion.load_state_dict({"weight": np.array([1.0, 2.0, 3.0])})
    assert type(criterion.weight) is xp.ndarray
    assert minirnn.asnumpy(criterion.state_dict()["weight"]).tolist() == [1, 2, 3]
