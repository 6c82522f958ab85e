"""A recurrent layer twice, here and in torch: same weights, same input, same cotangent."""

import numpy as np
import torch
from timing import require_equal

import minirnn

CELLS = ("RNN", "GRU", "LSTM")
JOBS = ("forward+backward", "forward", "inference")


def uniform_lengths(T, B):
    """Draw lengths uniform in 1..T, the longest T, in descending order."""
    lengths = np.random.default_rng(0).integers(1, T + 1, B)
    lengths[0] = T
    return -np.sort(-lengths)


def filled_lengths(T, B, fill):
    """Return spread lengths that fill the share `fill` of a (T, B) batch, in descending order."""
    quantiles = 1 - (np.arange(B) + 0.5) / B
    lengths = np.ceil(T * quantiles ** (1 / fill - 1)).astype(int)  # the mean of u^a is 1 / (1 + a)
    lengths[0] = T
    return lengths


class Pair:
    """The two layers; each job is a method that does it here and one that does it in torch.

    Parameters
    ----------
    cell : {"RNN", "GRU", "LSTM"}
    T, B, I, H : int
    lengths : array of shape (B,), descending, optional
        The batch is packed; (T, B, I) without.
    bidirectional : bool
    """

    def __init__(self, cell, T, B, I, H, lengths=None, bidirectional=False):  # noqa: E741
        torch.manual_seed(0)
        self.torch_layer = getattr(torch.nn, cell)(I, H, bidirectional=bidirectional)
        self.layer = getattr(minirnn, cell)(I, H, bidirectional=bidirectional)
        self.layer.load_state_dict(self.torch_layer.state_dict())
        rng = np.random.default_rng(0)
        x = rng.standard_normal((T, B, I), np.float32)
        dy = rng.standard_normal((T, B, (1 + bidirectional) * H), np.float32)
        if lengths is None:
            self.x, self.dy = x, dy
            self.torch_x = torch.from_numpy(x).requires_grad_()
            self.torch_dy = torch.from_numpy(dy)
        else:
            self.x = minirnn.pack_padded_sequence(x, lengths)
            self.dy = minirnn.pack_padded_sequence(dy, lengths)
            rows = torch.from_numpy(self.x.data).requires_grad_()
            self.torch_x = torch.nn.utils.rnn.PackedSequence(rows, torch.tensor(self.x.batch_sizes))
            self.torch_dy = torch.from_numpy(self.dy.data)
        self.torch_leaf = self.torch_x if lengths is None else self.torch_x.data

    def job(self, name):
        """Return the two functions of one of `JOBS`."""
        method = name.replace("+", "_")
        return getattr(self, method), getattr(self, "torch_" + method)

    def forward(self):
        return self.layer.forward(self.x)

    def torch_forward(self):
        return self.torch_layer(self.torch_x)

    def forward_backward(self):
        (output, state), ctx = self.layer.forward(self.x)
        dx, _ = self.layer.backward(ctx, self.dy)  # adds into the weights' gradients, as torch does
        return output, state, dx

    def torch_forward_backward(self):
        self.torch_leaf.grad = None
        output, state = self.torch_layer(self.torch_x)
        _rows(output).backward(self.torch_dy)
        return output, state, self.torch_leaf.grad

    def inference(self):
        return self.layer(self.x)

    @torch.inference_mode()
    def torch_inference(self):
        return self.torch_layer(self.torch_x)

    def check(self):
        """Raise unless output, states and all gradients agree."""
        self.layer.zero_grad()
        self.torch_layer.zero_grad()
        output, state, dx = self.forward_backward()
        torch_output, torch_state, torch_dx = self.torch_forward_backward()
        require_equal("output", _rows(output), _rows(torch_output).detach())
        require_equal("inference", _rows(self.inference()[0]), _rows(torch_output).detach())
        for ours, theirs in zip(_states(state), _states(torch_state), strict=True):
            require_equal("state", ours, theirs.detach())
        require_equal("dx", _rows(dx), torch_dx)
        for name, parameter in self.torch_layer.named_parameters():
            require_equal(name, getattr(self.layer, name).grad, parameter.grad)


def _rows(x):
    return x.data if hasattr(x, "batch_sizes") else x


def _states(state):
    return state if isinstance(state, tuple) else (state,)
