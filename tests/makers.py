"""The layers that many tests run through: the library's and one of a user's own."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import data

import minirnn

F8 = np.float64


class MinimalGated:
    """A recurrence of a user's own, the minimal gated unit (Zhou et al. 2016) with the GRU's q.

    f = sigmoid(W_if x_t + W_hf h_{t-1}), q = W_hn h_{t-1}, n = tanh(W_in x_t + f q), all with their
    biases; h_t = h_{t-1} + f (n - h_{t-1}).
    """

    GATES = ("f", "n")

    class Context(NamedTuple):
        x: Any
        h: Any
        weights: Any
        layout: Any
        mask: Any
        steps: list  # of (f, n, q)

    @staticmethod
    def equations(x, h, h_in, weights):
        w_ih, w_hh, b_ih, b_hh = weights
        from_x, from_h, H = x @ w_ih.T + b_ih, h_in @ w_hh.T + b_hh, h.shape[1]
        f = 1 / (1 + np.exp(-from_x[:, :H] - from_h[:, :H]))
        q = from_h[:, H:]
        n = np.tanh(from_x[:, H:] + f * q)
        return f, n, q, h + f * (n - h)

    @classmethod
    def forward(cls, x, states, weights, layout, mask=None, save=True):
        (h,), B = states, layout.batch_size
        mask = np.ones_like(h[:B]) if mask is None else mask
        ctx = cls.Context(x, h, weights, layout, mask, [])
        per_step = layout.split(x), *layout.transitions(h), layout.running(mask)
        for x_t, h_prev, h_t, mask_t in zip(*per_step, strict=True):
            *kept, h_t[...] = cls.equations(x_t, h_prev, h_prev * mask_t, weights)
            ctx.steps.append(kept)
        return ctx if save else None

    @staticmethod
    def backward(ctx, dy, dstates, dweights, trace=None):
        (w_ih, w_hh, *_), (dw_ih, dw_hh, db_ih, db_hh), layout = ctx.weights, dweights, ctx.layout
        dx = np.empty_like(ctx.x)
        per_step = (
            ctx.steps,
            *map(layout.split, (ctx.x, dx)),
            layout.transitions(ctx.h)[0],
            *map(layout.running, (dstates[0], ctx.mask)),
            layout.split(dy),
            layout.split(None if trace is None else trace[0]),
        )
        for (f, n, q), x_t, dx_t, h, dh, mask, dy_t, trace_t in reversed(
            list(zip(*per_step, strict=True))
        ):
            if dy_t is not None:
                dh += dy_t
            if trace_t is not None:
                trace_t[...] = dh
            da_n = dh * f * (1 - n**2)
            da_f = (dh * (n - h) + da_n * q) * f * (1 - f)
            da_x, da_h = np.concatenate((da_f, da_n), 1), np.concatenate((da_f, da_n * f), 1)
            dx_t[...] = da_x @ w_ih
            dh[...] = dh * (1 - f) + da_h @ w_hh * mask
            dw_ih += da_x.T @ x_t
            dw_hh += da_h.T @ (h * mask)
            db_ih += da_x.sum(0)
            db_hh += da_h.sum(0)
        return dx

    @classmethod
    def step(cls, x, states, weights, new):
        *_, new[0][...] = cls.equations(x, *states, *states, weights)

    @staticmethod
    def gates(ctx):
        f, n, _ = (np.concatenate(rows) for rows in zip(*ctx.steps, strict=True))
        return {"f": f, "n": n}


class MinimalGatedUnit(minirnn.Recurrent):
    recurrence = MinimalGated


LIBRARY = {
    "tanh": (minirnn.RNN, {}),
    "relu": (minirnn.RNN, {"nonlinearity": "relu"}),
    "lstm": (minirnn.LSTM, {}),
    "lstm_proj": (minirnn.LSTM, {"proj_size": 2}),
    "gru": (minirnn.GRU, {}),
    "gru_before": (minirnn.GRU, {"reset_after": False}),
}


def calm(cell):
    """Return a maker of layers with smaller gains: with those of one gradients explode over 40 steps."""

    def make(*args, **options):
        layer = cell(*args, **options)
        for name, p in layer.named_parameters():
            if name.startswith("gain"):
                p.data *= 0.3
        return layer

    return make


# A new cell is a pair and a subclass, and can all that the library's own can.
MAKERS = {
    **LIBRARY,
    "norm_lstm": (calm(minirnn.LayerNormLSTM), {}),
    "norm_gru": (calm(minirnn.LayerNormGRU), {}),
    "own": (MinimalGatedUnit, {}),
}


LENGTHS = [3, 40, 0, 17]


def packed_input(rng, features=3, lengths=LENGTHS):
    x = rng.standard_normal((len(lengths), max(lengths), features))
    return minirnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)


def arrays(state):
    return list(state) if isinstance(state, tuple) else [state]


def like_state(layer, draw, B):
    L = layer.num_layers * layer.num_directions
    values = [draw((L, B, size)) for size in layer._state_sizes]
    return values[0] if len(values) == 1 else tuple(values)


def named(**results):
    """Return the arrays of some results by name: of outputs in any form, states, and a layer's gradients."""
    arrays_by_name = {}
    for name, result in results.items():
        if isinstance(result, minirnn.Recurrent):
            arrays_by_name |= {f"d{p.name}": p.grad.copy() for p in result.parameters()}
        elif type(result) in (tuple, list):
            arrays_by_name |= {f"{name}[{k}]": data(one) for k, one in enumerate(result)}
        else:
            arrays_by_name[name] = data(result)
    return arrays_by_name


def parameters(rng, shapes=((3, 4), (5,), (2, 2, 2))):
    values = [rng.standard_normal(s) for s in shapes]
    return [minirnn.Parameter(v.copy()) for v in values], values


def two_groups():
    torch = pytest.importorskip("torch")
    ours = [minirnn.Parameter(np.ones(2)) for _ in range(2)]
    theirs = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    groups = ([{"params": [p], "lr": lr} for p, lr in zip(ps, (0.5, 0.2), strict=True)]
              for ps in (ours, theirs))  # fmt: skip
    mine, reference = groups
    optimizers = minirnn.SGD(mine), torch.optim.SGD(reference)
    optimizers[0].step()  # without a gradient; a schedule's step before it would warn
    return torch, *optimizers


class Model(minirnn.Module):
    """A model of a user's own, with a list of layers and a shared one."""

    def __init__(self):
        self.embedding = minirnn.Embedding(5, 4, dtype=np.float64)
        self.layers = [minirnn.Linear(4, 4, dtype=np.float64) for _ in range(2)]
        self.shared = self.layers[0]
        self.rnn = minirnn.RNN(4, 3, dtype=np.float64)

    def forward(self, tokens):
        x, ctx_0 = self.embedding.forward(tokens)
        x, ctx_1 = self.layers[0].forward(x)
        x, ctx_2 = self.layers[1].forward(x)
        x, ctx_3 = self.shared.forward(x)
        (output, _), ctx_4 = self.rnn.forward(x)
        self.contexts = (ctx_0, ctx_1, ctx_2, ctx_3, ctx_4)
        return output, self.contexts

    def backward(self, ctx, doutput):
        ctx_0, ctx_1, ctx_2, ctx_3, ctx_4 = ctx
        dx, _ = self.rnn.backward(ctx_4, doutput)
        dx = self.shared.backward(ctx_3, dx)
        dx = self.layers[1].backward(ctx_2, dx)
        dx = self.layers[0].backward(ctx_1, dx)
        self.embedding.backward(ctx_0, dx)


NAMES = [
    "embedding.weight",
    "layers.0.weight",
    "layers.0.bias",
    "layers.1.weight",
    "layers.1.bias",
    "rnn.weight_ih_l0",
    "rnn.weight_hh_l0",
    "rnn.bias_ih_l0",
    "rnn.bias_hh_l0",
]


class Scale(minirnn.Module):
    """A module of a user's own; `result` is what its forward makes of y and ctx."""

    def __init__(self, result=lambda y, ctx: (y, ctx)):
        self.result = result

    def forward(self, x):
        return self.result(2 * x, None)

    def backward(self, ctx, dy):
        return 2 * dy


class Holder(minirnn.Module):
    def __init__(self, value):
        self.held = value


def linear():
    return minirnn.Linear(2, 1, bias=False, rng=0)


def weight(*values, dtype=np.float32):
    return minirnn.Parameter(np.array(values, dtype))
