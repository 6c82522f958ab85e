"""Digits that add up: the model
=============================

The sum-mod task and its model: read a sequence of digits, say their sum mod 10.
"""

import numpy as np

import minirnn


class SumMod(minirnn.Module):
    """Embedding, recurrent layer, and a linear head on the last layer's last state."""

    def __init__(self, cell="rnn", max_number=9, embed_dim=10, hidden_dim=64, num_layers=1):
        layer = {"rnn": minirnn.RNN, "gru": minirnn.GRU, "lstm": minirnn.LSTM}[cell]
        self.embedding = minirnn.Embedding(max_number + 1, embed_dim)
        self.rnn = layer(embed_dim, hidden_dim, num_layers, init="orthogonal")
        self.head = minirnn.Linear(hidden_dim, max_number + 1)

    def forward(self, tokens):
        """Return the logits of a PackedSequence of digits."""
        x, ctx_x = self.embedding.forward(tokens)
        (_, state), ctx_h = self.rnn.forward(x)
        h_n = state[0] if isinstance(state, tuple) else state  # the LSTM's state is (h, c)
        logits, ctx_y = self.head.forward(h_n[-1])
        return logits, (ctx_x, ctx_h, ctx_y, h_n)

    def backward(self, ctx, dlogits):
        """Add all gradients; only the last layer's last state has reached the loss."""
        ctx_x, ctx_h, ctx_y, h_n = ctx
        dh_n = minirnn.get_array_module(h_n).zeros_like(h_n)
        dh_n[-1] = self.head.backward(ctx_y, dlogits)
        dstate = (dh_n, None) if isinstance(self.rnn, minirnn.LSTM) else dh_n
        dx, _ = self.rnn.backward(ctx_h, None, dstate)
        self.embedding.backward(ctx_x, dx)

    def onnx(self, graph, tokens):
        """Connect the layers as forward does, for ``minirnn.to_onnx``."""
        _, state = graph.layer(self.rnn, graph.layer(self.embedding, tokens))
        h_n = state[0] if isinstance(state, tuple) else state
        return graph.layer(self.head, graph.index(h_n, -1))


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
