"""The Elman recurrence, its loop in C; :mod:`minirnn.functional.rnn` has equations and arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backend import Array
from ..functional.rnn import GATES, STATES, RNNContext, gates, step, weight_shapes
from ..functional.shared import add_bias_gradient
from ..layout import Layout
from . import _loops
from .shared import bias_sum, mask_of, panels, read, runs, sizes_of, write_back

__all__ = [
    "GATES",
    "STATES",
    "RNNContext",
    "backward",
    "forward",
    "gates",
    "step",
    "stepper",
    "weight_shapes",
]

_FORWARD = {"tanh": _loops.rnn_tanh_forward, "relu": _loops.rnn_relu_forward}
_BACKWARD = {"tanh": _loops.rnn_tanh_backward, "relu": _loops.rnn_relu_backward}


def forward(
    x: Array,
    states: Sequence[Array],
    weights: Sequence[Any],
    layout: Layout,
    nonlinearity: str = "tanh",
    mask: Array | None = None,
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
    _FORWARD[nonlinearity](h, panels(w_hh), b, read(mask), room, sizes_of(layout), B, H)
    write_back(states, own)
    return RNNContext(x, states[0], w_ih, w_hh, layout, nonlinearity, mask) if save else None


def backward(
    ctx: RNNContext,
    dy: Array | None,
    dstates: Sequence[Array],
    dweights: Sequence[Any],
    trace: Sequence[Array] | None = None,
) -> Array:
    """Return the gradient of the input; add up those of the weights."""
    x, h, w_ih, w_hh, layout, nonlinearity, mask = ctx
    H, h, w, dy = len(w_hh), read(h), read(w_hh), read(dy)
    dx, room = np.empty(x.shape, x.dtype), np.empty((layout.batch_size, H), x.dtype)
    dw_ih, dw_hh, *dbs = dweights
    memory, loop = np.empty((layout.span_rows, H), x.dtype), _BACKWARD[nonlinearity]
    own, traces = [read(d) for d in dstates], [read(t) for t in trace or ()]
    (dh,) = own
    for span, run in zip(reversed(layout.spans), reversed(runs(layout)), strict=True):
        rows, n = run.rows, run.entering
        y, dy_s = h[layout.batch_size :][rows], None if dy is None else dy[rows]
        dz, trace_s = memory[: len(y)], traces[0][rows] if traces else None
        mask_s = mask_of(mask, n)
        loop(dz, dh[:n], dy_s, trace_s, y, w, mask_s, room[:n], *run.batch(H))
        h_prev = layout.previous_rows(h, span)
        if mask is not None:
            h_prev = h_prev * layout.of_sequence(mask, span)
        dz.dot(w_ih, dx[rows])
        dw_ih += dz.T.dot(x[rows])
        dw_hh += dz.T.dot(h_prev)
        add_bias_gradient(dbs, dz)
    write_back(dstates, own)
    write_back(trace or (), traces)
    return dx


def stepper(
    weights: Sequence[Any], states: Sequence[Array], nonlinearity: str = "tanh"
) -> Callable[[Array], Array]:
    """Return a function that takes a step; see :func:`minirnn.functional.recurrence.stepper_of`."""
    w_ih, w_hh, b_ih, b_hh = weights
    _, B, H = states[0].shape
    h, room, sizes = states[0].reshape(2 * B, H), np.empty((B, H), w_hh.dtype), np.array([B])
    w, b, w_x, h_t, loop = (
        panels(w_hh),
        bias_sum(b_ih, b_hh, w_hh),
        w_ih.T,
        h[B:],
        _FORWARD[nonlinearity],
    )

    def step(x: Array) -> Array:
        x.dot(w_x, h_t)
        loop(h, w, b, None, room, sizes, B, H)
        return h_t

    return step
