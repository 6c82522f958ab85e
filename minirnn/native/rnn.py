"""The Elman recurrence, its loop in C; :mod:`minirnn.functional.rnn` has equations and arguments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..backend import Array
from ..functional import shared
from ..functional.recurrence import Mask, States, Traces, Weights
from ..functional.rnn import GATES, STATES, RNNContext, gates, step, weight_shapes
from ..layout import Layout
from . import _loops
from .shared import (
    add_gradients,
    bias_sum,
    cuts,
    input_product,
    panels,
    part,
    read,
    room_for,
    sizes_of,
)

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
    (h,), (w_ih, w_hh, b_ih, b_hh) = states, weights
    x, mask, B, H = read(x), read(mask), layout.batch_size, len(w_hh)
    z = h[B:]  # z_t becomes h_t in its place
    product = input_product(w_ih)
    for span in layout.spans:
        product(x[span.rows], z[span.rows])
    w, b = panels(w_hh), bias_sum(b_ih, b_hh, w_hh)
    _FORWARD[nonlinearity](h, w, b, mask, room_for(mask), layout.once(sizes_of), B, H)
    return RNNContext(x, h, w_ih, w_hh, layout, nonlinearity, mask) if save else None


def backward(
    ctx: RNNContext, dy: Array | None, dstates: States, dweights: Weights, trace: Traces = None
) -> Array:
    """Return the gradient of the input; add up those of the weights."""
    x, h, _, w_hh, layout, nonlinearity, mask = ctx
    (dh,), (trace_h,) = dstates, trace or (None,)
    y, H, dy, room = h[layout.batch_size :], len(w_hh), read(dy), room_for(mask)
    dx, dz_all = np.empty_like(x), np.empty((layout.span_rows, H), x.dtype)
    w, loop = panels(w_hh, _loops.pack), _BACKWARD[nonlinearity]
    for cut in reversed(cuts(layout)):
        rows, last = cut.span.rows, (cut.sizes, cut.entering, H)
        dz = dz_all[: rows.stop - rows.start]
        given = part(dy, rows), part(trace_h, rows)
        loop(dz, dh, *given, y[rows], w, mask, room, *last)
        add_gradients(ctx, cut, dz, dx, dweights, _loops.rnn_gradients, shared)
    return dx


def stepper(
    weights: Weights, states: States, nonlinearity: str = "tanh"
) -> Callable[[Array], Array]:
    """Return a function that takes a step; see :func:`minirnn.functional.recurrence.stepper_of`."""
    w_ih, w_hh, b_ih, b_hh = weights
    _, B, H = states[0].shape
    h, sizes = states[0].reshape(2 * B, H), np.array([B], np.int64)
    w, b, product, h_t = panels(w_hh), bias_sum(b_ih, b_hh, w_hh), input_product(w_ih), h[B:]
    loop = _FORWARD[nonlinearity]

    def step(x: Array) -> Array:
        product(read(x), h_t)
        loop(h, w, b, None, None, sizes, B, H)
        return h_t

    return step
