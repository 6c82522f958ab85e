"""Everything once on the host and once on the device, by the same code, and compared."""

import copy
from functools import partial
from pathlib import Path

import numpy as np
from strict_cupy import waiting_for_nothing

import minirnn
from minirnn import PackedSequence

HERE = Path(__file__).parent


LAYERS = {"RNN": minirnn.RNN, "LSTM": minirnn.LSTM, "GRU": minirnn.GRU}
BEFORE = {
    "GRU before": partial(minirnn.GRU, reset_after=False)
}  # it has no kernels, and runs anyway


def moved(xp, tree):
    """Return nested arrays and packed sequences with all data on the device."""
    if isinstance(tree, PackedSequence):
        return tree.map(xp.asarray)
    if isinstance(tree, tuple | list):
        return type(tree)(moved(xp, x) for x in tree)
    return xp.asarray(tree) if isinstance(tree, np.ndarray) else tree


def flat(tree):
    """Return all arrays in nested tuples, dicts and packed sequences, in order, on the host."""
    if tree is None:
        return []
    if isinstance(tree, PackedSequence):
        return [minirnn.asnumpy(tree.data)]
    if isinstance(tree, dict):
        return [a for x in tree.values() for a in flat(x)]
    if isinstance(tree, tuple | list):
        return [a for x in tree for a in flat(x)]
    return [minirnn.asnumpy(tree)]


def same(actual, expected, tolerance=1e-5):
    actual, expected = flat(actual), flat(expected)
    assert len(actual) == len(expected) > 0
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        assert a.shape == e.shape
        scale = max(1.0, np.abs(np.nan_to_num(e)).max(initial=0.0)) if e.dtype.kind == "f" else 1
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * scale)


def on_both(xp, module, run, *arrays, tolerance=1e-5):
    """Compare ``run(module, *arrays)``, and the gradients it leaves, on the host and on the device."""
    twin = copy.deepcopy(module).to("cupy")
    expected = run(module, *arrays)
    uploaded = moved(xp, arrays)
    with waiting_for_nothing(xp):
        actual = run(twin, *uploaded)
    same(actual, expected, tolerance)
    for p, q in zip(twin.parameters(), module.parameters(), strict=True):
        assert isinstance(p.grad, xp.ndarray)
        same([p.data, p.grad], [q.data, q.grad], tolerance)


def floats(rng, *shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype)


def packed(rng, features, dtype=np.float32, lengths=(2, 5, 0, 3, 5)):
    sequences = [floats(rng, n, features, dtype=dtype) for n in lengths]
    return minirnn.pack_sequence(sequences, enforce_sorted=False)


def initial(rng, layer, B):
    L = layer.num_layers * layer.num_directions
    states = tuple(floats(rng, L, B, s, dtype=layer.weight_ih_l0.dtype) for s in layer._state_sizes)
    return states if len(states) == 2 else states[0]


def recur(layer, x, state, dy, dstate):
    layer._rng = np.random.default_rng(5)
    (y, last), ctx = layer.forward(x, state)
    found = [y, last, layer.backward(ctx, dy, dstate)]
    (y, last), ctx = layer.forward(x)
    return [*found, y, last, layer.backward(ctx, None, dstate), layer.eval()(x)]


class Model(minirnn.Module):
    def __init__(self, cell, **options):
        self.embedding = minirnn.Embedding(11, 6, padding_idx=10, rng=1)
        self.rnn = LAYERS[cell](6, 9, 2, dropout=0.2, bidirectional=True, rng=2, **options)
        self.head = minirnn.Linear(9, 10, rng=3)

    def forward(self, tokens):
        x, ctx_x = self.embedding.forward(tokens)
        (_, state), ctx_h = self.rnn.forward(x)
        h_n = state[0] if isinstance(state, tuple) else state
        logits, ctx_y = self.head.forward(h_n[-1])
        return logits, (ctx_x, ctx_h, ctx_y, h_n)

    def backward(self, ctx, dlogits):
        ctx_x, ctx_h, ctx_y, h_n = ctx
        dh_n = minirnn.get_array_module(h_n).zeros_like(h_n)
        dh_n[-1] = self.head.backward(ctx_y, dlogits)
        dx, _ = self.rnn.backward(
            ctx_h, None, (dh_n, None) if isinstance(self.rnn, minirnn.LSTM) else dh_n
        )
        self.embedding.backward(ctx_x, dx)


def training(model, batches):
    """Yield the loss of every step."""
    model.flatten_parameters()
    criterion, parameters = minirnn.CrossEntropyLoss(), list(model.parameters())
    optimizer = minirnn.AdamW(parameters, 0.05)
    schedule = minirnn.LinearLR(optimizer)
    for tokens, targets in batches:
        logits, ctx = model.forward(tokens)
        loss, ctx_loss = criterion.forward(logits, targets)
        optimizer.zero_grad()
        model.backward(ctx, criterion.backward(ctx_loss))
        minirnn.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        schedule.step()
        yield loss


def batches_of(rng, steps):
    for _ in range(steps):
        sequences = [rng.integers(0, 11, n) for n in (5, 3, 1, 4)]
        yield minirnn.pack_sequence(sequences, enforce_sorted=False), rng.integers(0, 10, 4)
