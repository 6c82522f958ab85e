"""What was tried on a tanh RNN that is to add longer sequences than it has seen: a lesson each.

A lesson is what ``train`` of examples/sum_mod does in one step, and all that a try may change.
"""

from typing import Any

import numpy as np
from training import SumMod

# Beside `training`, which knows where the example is.
from lessons import AfterEach, AtTheEnd  # isort: skip

import minirnn


class CarriedAtTheEnd(AtTheEnd):
    """Truncated BPTT and nothing else: the sum is asked for at the end of each piece, right or wrong."""

    def __init__(self, model: SumMod, criterion: Any, args: Any) -> None:
        super().__init__(model, criterion, args)
        self.args = args

    def __call__(self, step: int, tokens: Any, sums: np.ndarray) -> Any:
        """Add the gradients; return the loss, the logits and the sums."""
        state, before = None, 0
        if step > self.args.total_steps // 4:
            rng = np.random.default_rng((self.args.seed, step))
            state, before = self.carried.into(rng, len(sums))
        sums = (sums + before) % 10
        logits, ctx = self.model.forward(tokens, state)
        loss, ctx_l = self.criterion.forward(logits, sums)
        self.model.backward(ctx, self.criterion.backward(ctx_l))
        self.carried.out_of(ctx.state, logits, sums)
        self.carried.right[:] = True
        return loss, logits, sums


class Try(AtTheEnd):
    """The plain lesson, with what a try needs."""

    def __init__(self, model: SumMod, criterion: Any, args: Any) -> None:
        super().__init__(model, criterion, args)
        self.strength, self.w_hh = args.strength, model.rnn.weight_hh_l0
        self.rng = np.random.default_rng((args.seed, 1))

    def noise(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return Gaussian noise as strong as the try."""
        return self.strength * self.rng.standard_normal(shape, np.float32)


class WeightNoise(Try):
    """Other noise on W_hh at every step."""

    def __call__(self, step: int, tokens: Any, sums: np.ndarray) -> Any:
        """Add the gradients; return the loss, the logits and the sums."""
        without = self.w_hh.data.copy()
        self.w_hh.data += self.noise(without.shape)
        result = super().__call__(step, tokens, sums)
        self.w_hh.data = without
        return result


class AbsoluteWeights(Try):
    """L1: the sum of the absolute values of W_hh is part of the loss."""

    def __call__(self, step: int, tokens: Any, sums: np.ndarray) -> Any:
        """Add the gradients; return the loss, the logits and the sums."""
        result = super().__call__(step, tokens, sums)
        self.w_hh.grad += self.strength * np.sign(self.w_hh.data)
        return result


class SmallJacobians(Try):
    r"""The mean of :math:`\|J_t\|_F^2` is part of the loss, :math:`J_t = \mathrm{diag}(1 - h_t^2) W_{hh}`.

    Its gradient needs no second derivative by hand: that with respect to h_t enters with `doutput`, through
    time, and that with respect to W_hh is added.
    """

    def __call__(self, step: int, tokens: Any, sums: np.ndarray) -> Any:
        """Add the gradients; return the loss, the logits and the sums."""
        logits, ctx = self.model.forward(tokens)
        loss, ctx_l = self.criterion.forward(logits, sums)
        h, w = ctx.output.data, self.w_hh.data
        slope, each = 1 - h * h, self.strength / len(ctx.output.data)
        self.w_hh.grad += 2 * each * (slope * slope).sum(0)[:, None] * w
        doutput = ctx.output.map(lambda h: -4 * each * h * slope * (w * w).sum(1))
        self.model.backward(ctx, self.criterion.backward(ctx_l), doutput)
        return loss, logits, sums


class DrawnStart(Try):
    """Sequences start from ten learned states, one for each sum so far, and from what lies around them."""

    def __init__(self, model: SumMod, criterion: Any, args: Any) -> None:
        super().__init__(model, criterion, args)
        model.start = minirnn.Embedding(10, model.rnn.hidden_size)

    def __call__(self, step: int, tokens: Any, sums: np.ndarray) -> Any:
        """Add the gradients; return the loss, the logits and the sums."""
        before = self.rng.integers(0, 10, len(sums))
        learned, ctx_s = self.model.start.forward(before)
        h_0 = np.tanh(learned)
        sums = (sums + before) % 10
        logits, ctx = self.model.forward(tokens, (h_0 + self.noise(h_0.shape))[None])
        loss, ctx_l = self.criterion.forward(logits, sums)
        (dh_0,) = self.model.backward(ctx, self.criterion.backward(ctx_l))
        self.model.start.backward(ctx_s, dh_0 * (1 - h_0 * h_0))
        return loss, logits, sums


class IdentityStart(Try):
    """W_hh starts as the identity: the state goes on as it is until something is learned."""

    def __init__(self, model: SumMod, criterion: Any, args: Any) -> None:
        super().__init__(model, criterion, args)
        self.w_hh.data = np.eye(len(self.w_hh.data), dtype=np.float32)


LESSONS: dict[str, Any] = {
    "plain": AtTheEnd,
    "weight noise": WeightNoise,
    "L1": AbsoluteWeights,
    "small Jacobians": SmallJacobians,
    "drawn start": DrawnStart,
    "identity start": IdentityStart,
    "asked after each": AfterEach,
    "gathered": AfterEach,
    "gathered, longer": AfterEach,
    "carried": CarriedAtTheEnd,
    "carried, asked after each": AfterEach,
    "carried, gathered": AfterEach,
}


def by_hand() -> tuple[SumMod, np.ndarray]:
    """Return a network whose weights are written down, and the state from which it starts.

    Each of its 100 units stands for a sum so far and a digit that comes to it: it is on if the units of all
    pairs with that sum say so, and if the digit is there. The head adds the two.
    """
    pairs = np.arange(100)
    so_far, digit = pairs // 10, pairs % 10
    total = (so_far + digit) % 10
    model, strong = SumMod(hidden_dim=100), 10.0
    model.embedding.weight.data = np.eye(10, dtype=np.float32)
    rnn = model.rnn
    rnn.weight_hh_l0.data = (strong * (so_far[:, None] == total)).astype(np.float32)
    rnn.weight_ih_l0.data = (2 * strong * (digit[:, None] == np.arange(10))).astype(np.float32)
    rnn.bias_ih_l0.data = np.full(100, strong * (9 - 2), np.float32)
    rnn.bias_hh_l0.data = np.zeros(100, np.float32)
    model.head.weight.data = (total == np.arange(10)[:, None]).astype(np.float32)
    model.head.bias.data = np.zeros(10, np.float32)
    return model.eval(), np.where(pairs == 0, 1, -1).astype(np.float32)
