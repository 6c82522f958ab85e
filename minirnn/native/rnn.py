"""The Elman recurrence, its loop in C; :mod:`minirnn.functional.rnn` has equations and arguments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..backend import Array
from ..functional.recurrence import Mask, States, Traces, Weights
from ..functional.rnn import GATES, STATES, RNNContext, gates, step, weight_shapes
from ..functional.shared import add_gradients
from ..layout import Layout
from . import _loops
from .shared import bias_sum, panels, read, runs_back, sizes_of, write_back

__all__ = ["GATES", "STATES", "backward", "forward", "gates", "step", "stepper", "weight_shapes"]

_FORWARD = {"tanh": _loops.rnn_tanh_forward, "relu": _loops.rnn_relu_forward}
_BACKWARD = {"tanh": _loops.rnn_tanh_backward, "relu": _loops.rnn_relu_backward}


def forward(
    x: Array,
    states: States,
    weights: Weights,
    layout: Layout,
    nonlinearity: str = "tanh",
    mask: Mask = None,
    save: bool = True,
) -> RNNContext | None:
    """Fill ``h[B:]``, the states at all steps, from ``h[:B]``, the initial ones."""
    w_ih, w_hh, b_ih, b_hh = weights
    B, H, b = layout.batch_size, len(w_hh), bias_sum(b_ih, b_hh, w_hh)
    own = [read(s) for s in states]
    (h,) = own
    z = h[B:]  # z_t becomes h_t in its place
    for span in layout.spans:
        x[span.rows].dot(w_ih.T, z[span.rows])
    room = np.empty((B, H), x.dtype)
    _FORWARD[nonlinearity](h, panels(w_hh), b, read(mask), room, layout.once(sizes_of), B, H)
    write_back(states, own)
    return RNNContext(x, states[0], w_ih, w_hh, layout, nonlinearity, mask) if save else None


def backward(
    ctx: RNNContext, dy: Array | None, dstates: States, dweights: Weights, trace: Traces = None
) -> Array:
    """Return the gradient of the input; add up those of the weights."""
    H, w, y = len(ctx.w_hh), read(ctx.w_hh), read(ctx.h)[ctx.layout.batch_size :]
    dx, loop = np.empty(ctx.x.shape, ctx.x.dtype), _BACKWARD[ctx.nonlinearity]
    for run, dz, first in runs_back(ctx, H, H, dy, dstates, trace):
        loop(*first, y[run.span.rows], w, *run.last)
        add_gradients(ctx, run.span, dz, dx, dweights)
    return dx


def stepper(
    weights: Weights, states: States, nonlinearity: str = "tanh"
) -> Callable[[Array], Array]:
    """Return a function that takes a step; see :func:`minirnn.functional.recurrence.stepper_of`."""
    w_ih, w_hh, b_ih, b_hh = weights
    _, B, H = states[0].shape
    h, room, sizes = (
        states[0].reshape(2 * B, H),
        np.empty((B, H), w_hh.dtype),
        np.array([B], np.int64),
    )
    w, b, w_x, h_t = panels(w_hh), bias_sum(b_ih, b_hh, w_hh), w_ih.T, h[B:]
    loop = _FORWARD[nonlinearity]

    def step(x: Array) -> Array:
        x.dot(w_x, h_t)
        loop(h, w, b, None, room, sizes, B, H)
        return h_t

    return step
