"""The same layers and the same training step in JAX, compiled as a whole.

A layer is ``lax.scan`` over the steps, its input's product before it, forward and pull-back in one ``jit``;
a packed batch is a padded one with a mask, since JAX has no packing. NumPy arrays go in, as a user's batches
come, and the result is waited for. The weights' gradients are donated and added to, as on both other sides.
"""

import os
from functools import partial
from time import perf_counter

# One thread, as everywhere here.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from timing import require_equal

NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
UNROLLS = (1, 5)  # the faster is the one that is compared


def rnn(states, a, w, b_hh):
    """Take a step of a tanh RNN; `a` is the input's part of it, biases included."""
    return (jnp.tanh(a + states[0] @ w),)


def gru(states, a, w, b_hh):
    """Take a step of a GRU; of its biases b_hn is not in `a`."""
    (h,) = states
    H = h.shape[1]
    p = h @ w
    gates = jax.nn.sigmoid(a[:, : 2 * H] + p[:, : 2 * H])
    r, z = gates[:, :H], gates[:, H:]
    n = jnp.tanh(a[:, 2 * H :] + r * (p[:, 2 * H :] + b_hh[2 * H :]))
    return (n + z * (h - n),)


def lstm(states, a, w, b_hh):
    """Take a step of an LSTM."""
    h, c = states
    i, f, g, o = jnp.split(a + h @ w, 4, 1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


STEPS = {"RNN": rnn, "GRU": gru, "LSTM": lstm}


def run_layer(cell, weights, x, mask, unroll):
    """Return the outputs (T, B, H) of a layer, and its last states."""
    w_ih, w_hh, b_ih, b_hh = weights
    H = w_hh.shape[1]
    b = b_ih + (b_hh.at[2 * H :].set(0) if cell == "GRU" else b_hh)
    a = x @ w_ih.T + b
    zero = jnp.zeros((x.shape[1], H), x.dtype)

    def step(states, at):
        a_t, running = at
        after = STEPS[cell](states, a_t, w_hh.T, b_hh)
        if mask is not None:
            after = tuple(
                jnp.where(running[:, None], new, old)
                for new, old in zip(after, states, strict=True)
            )
        return after, after[0]

    states = (zero, zero) if cell == "LSTM" else (zero,)
    states, y = jax.lax.scan(step, states, (a, mask), unroll=unroll)
    return y, states


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(6,))
def forward_backward(cell, unroll, weights, x, mask, dy, gradients):
    """Return outputs, states and dx, and the weights' gradients added to `gradients`."""
    (y, states), pull = jax.vjp(lambda w, x: run_layer(cell, w, x, mask, unroll), weights, x)
    if mask is not None:
        dy = dy * mask[:, :, None]
    dweights, dx = pull((dy, tuple(map(jnp.zeros_like, states))))
    return y, states, dx, jax.tree.map(jnp.add, gradients, dweights)


class Peer:
    """A :class:`pairs.Pair`'s layer in JAX.

    Parameters
    ----------
    pair : Pair
    cell : {"RNN", "GRU", "LSTM"}
    T, B, I, H : int
    lengths : array of shape (B,), optional
    """

    def __init__(self, pair, cell, T, B, I, H, lengths=None):  # noqa: E741
        rng = np.random.default_rng(0)  # as the pair draws
        self.x = rng.standard_normal((T, B, I), np.float32)
        self.dy = rng.standard_normal((T, B, H), np.float32)
        self.mask = None if lengths is None else np.arange(T)[:, None] < lengths
        self.pair, self.cell = pair, cell
        self.weights = tuple(jnp.asarray(getattr(pair.layer, name).data) for name in NAMES)
        self.unroll = UNROLLS[0]
        self.check()
        self.unroll = min(UNROLLS, key=self._seconds)

    def forward_backward(self):
        """Return outputs, states and dx; the weights' gradients are added up."""
        *results, self.gradients = forward_backward(
            self.cell, self.unroll, self.weights, self.x, self.mask, self.dy, self.gradients
        )
        jax.block_until_ready((results, self.gradients))
        return results

    def check(self):
        """Raise unless the weights' gradients agree with minirnn's."""
        self.gradients = jax.tree.map(jnp.zeros_like, self.weights)
        self.pair.layer.zero_grad()
        self.pair.forward_backward()
        self.forward_backward()
        for name, gradient in zip(NAMES, self.gradients, strict=True):
            require_equal(name, gradient, getattr(self.pair.layer, name).grad, 3e-4)

    def _seconds(self, unroll):
        self.unroll = unroll
        self.forward_backward()  # compiles

        def once():
            start = perf_counter()
            self.forward_backward()
            return perf_counter() - start

        return min(once() for _ in range(5))


class SumMod:
    """The whole training step of :class:`sum_mod.Training` in one jit, its state donated.

    Parameters
    ----------
    state_dict : mapping
        The model's weights to start from, by torch's names.
    layers : int
    clip : float
    lr : function of the step
    """

    def __init__(self, state_dict, layers, clip, lr):
        weights = {name: jnp.asarray(np.array(value)) for name, value in state_dict.items()}
        parameters = {
            "embedding": weights["embedding.weight"],
            "head": (weights["head.weight"], weights["head.bias"]),
            "rnn": [
                tuple(
                    weights[f"rnn.{kind}_l{k}"]
                    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                )
                for k in range(layers)
            ],
        }
        zeros = jax.tree.map(jnp.zeros_like, parameters)
        self.state = parameters, zeros, jax.tree.map(jnp.zeros_like, parameters), jnp.float32(0)
        self._step = _training_step(clip, lr)

    def step(self, digits, lengths, sums):
        """Take a step and return the loss, which has not been waited for."""
        self.state, loss = self._step(self.state, digits, lengths, sums)
        return loss


def _loss(parameters, digits, lengths, sums):
    x = parameters["embedding"][digits]
    mask = jnp.arange(len(digits))[:, None] < lengths
    for weights in parameters["rnn"]:
        x, _ = run_layer("RNN", weights, x, mask, 1)
    w, b = parameters["head"]
    log_p = jax.nn.log_softmax(x[-1] @ w.T + b)  # masked: a state stays after its sequence's end
    return -jnp.take_along_axis(log_p, sums[:, None], 1).mean()


def _training_step(clip, lr):
    b1, b2 = 0.9, 0.999

    @partial(jax.jit, donate_argnums=(0,))
    def step(state, digits, lengths, sums):
        parameters, m, v, t = state
        loss, g = jax.value_and_grad(_loss)(parameters, digits, lengths, sums)
        g["embedding"] = g["embedding"].at[-1].set(0)  # the row of the padding
        if clip is not None:
            norm = jnp.sqrt(sum(jnp.vdot(x, x) for x in jax.tree.leaves(g)))
            g = jax.tree.map(lambda x: x * jnp.minimum(1.0, clip / (norm + 1e-6)), g)
        t += 1
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, g)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, g)
        c1, c2, rate = 1 - b1**t, 1 - b2**t, lr(t)
        parameters = jax.tree.map(
            lambda p, m, v: p - rate * (m / c1) / (jnp.sqrt(v / c2) + 1e-8), parameters, m, v
        )
        return (parameters, m, v, t), loss

    return step
