"""Digits that add up: the model
=============================

The sum-mod task and its model: read a sequence of digits, say their sum mod 10.
"""

from typing import Any, NamedTuple

import numpy as np

import minirnn


class SumMod(minirnn.Module):
    """Embedding, recurrent layer, and a linear head on the last layer's last state."""

    def __init__(self, cell="rnn", max_number=9, embed_dim=10, hidden_dim=64, num_layers=1):
        layer = {"rnn": minirnn.RNN, "gru": minirnn.GRU, "lstm": minirnn.LSTM}[cell]
        self.embedding = minirnn.Embedding(max_number + 1, embed_dim)
        self.rnn = layer(embed_dim, hidden_dim, num_layers, init="orthogonal")
        self.head = minirnn.Linear(hidden_dim, max_number + 1)

    def forward(self, tokens, state=None, each=False):
        """Return the logits of a PackedSequence of digits, or packed those after `each` digit."""
        x, ctx_x = self.embedding.forward(tokens)
        (output, state), ctx_h = self.rnn.forward(x, state)
        logits, ctx_y = self.head.forward(output if each else h_of(state)[-1])
        return logits, Context(ctx_x, ctx_h, ctx_y, output, state)

    def backward(self, ctx, dlogits, doutput=None):
        """Add all gradients and return that of the initial state.

        `doutput`, packed, is what else has reached the states after each digit.
        """
        dread = self.head.backward(ctx.head, dlogits)
        if isinstance(dread, minirnn.PackedSequence):
            doutput, dstate = dread.map(lambda d: d if doutput is None else d + doutput.data), None
        else:  # only the last layer's last state has reached the loss
            h_n = h_of(ctx.state)
            dh_n = minirnn.get_array_module(h_n).zeros(h_n.shape, h_n.dtype)
            dh_n[-1] = dread
            dstate = (dh_n, None) if isinstance(ctx.state, tuple) else dh_n
        dx, dstate = self.rnn.backward(ctx.rnn, doutput, dstate)
        self.embedding.backward(ctx.embedding, dx)
        return dstate

    def onnx(self, graph, tokens):
        """Connect the layers as forward does, for ``minirnn.to_onnx``."""
        _, state = graph.layer(self.rnn, graph.layer(self.embedding, tokens))
        return graph.layer(self.head, graph.index(h_of(state), -1))


class Context(NamedTuple):
    """What :meth:`SumMod.backward` needs, and where a batch has ended."""

    embedding: Any
    rnn: Any
    head: Any
    output: minirnn.PackedSequence
    state: Any


def h_of(state):
    """Return h of a final state, which is the pair (h, c) for the LSTM."""
    return state[0] if isinstance(state, tuple) else state


def drawn(rng, batch_size, min_seq_len=2, max_seq_len=5, max_number=9, ahead=32, xp=np):
    """Yield padded batches of digit sequences, their lengths and their sums mod ``max_number + 1``.

    Sequences are independent, so nothing is lost by drawing them in the order of their lengths. One batch
    takes about as long to draw as many, so `ahead` of them are drawn at once. They lie where `xp` computes.
    """
    while True:
        lengths = np.sort(rng.integers(min_seq_len, max_seq_len + 1, (ahead, batch_size)))[:, ::-1]
        digits = rng.integers(0, max_number + 1, (ahead, max_seq_len, batch_size))
        running = np.arange(max_seq_len)[:, None] < lengths[:, None]
        sums = digits.sum(1, where=running) % (max_number + 1)
        yield from zip(xp.asarray(digits), lengths, xp.asarray(sums), strict=True)


def batches(*args, **options):
    """Yield packed batches of digit sequences and their sums, made of what :func:`drawn` draws."""
    for digits, lengths, sums in drawn(*args, **options):
        yield minirnn.pack_padded_sequence(digits, lengths), sums


def place(model):
    """Return the array module of the model's weights: CuPy, if MINIRNN_BACKEND says so."""
    return minirnn.get_array_module(model.head.weight.data)


def accuracy(model, min_seq_len, max_seq_len, max_number=9, sequences=10_000, seed=2**31):
    """Return the share of right answers on a fixed set of fresh sequences."""
    rng = np.random.default_rng(seed)
    lengths = (min_seq_len, max_seq_len, max_number)
    tokens, sums = next(batches(rng, sequences, *lengths, ahead=1, xp=place(model)))
    return float((model(tokens).argmax(1) == sums).mean())


# sphinx_gallery_thumbnail_path = "pictures/sum_mod.png"
