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
from .shared import back_through, cuts, of_input, packed_once, panels, part, read

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
    (h,), (w_ih, w_hh, *biases) = states, weights
    x, mask, H, loop = read(x), read(mask), len(w_hh), _FORWARD[nonlinearity]
    w, w_x = packed_once(w_hh, layout), packed_once(w_ih, layout)
    for cut in cuts(layout):
        rows, h_t = cut.span.rows, h[cut.states]
        given = of_input(x[rows], w_ih, w_x, h_t[cut.entering :])
        loop(h_t, w, *biases, mask, *given, cut.sizes, cut.entering, H)
    return RNNContext(x, h, w_ih, w_hh, layout, nonlinearity, mask) if save else None


def backward(
    ctx: RNNContext, dy: Array | None, dstates: States, dweights: Weights, trace: Traces = None
) -> Array:
    """Return the gradient of the input; add up those of the weights."""
    x, h, _, w_hh, layout, nonlinearity, mask = ctx
    (dh,), (trace_h,), dy = dstates, trace or (None,), read(dy)
    dx, dz_all = np.empty_like(x), np.empty((layout.span_rows, len(w_hh)), x.dtype)
    w, loop = packed_once(w_hh, layout, _loops.pack), _BACKWARD[nonlinearity]
    for cut in reversed(cuts(layout)):
        rows = cut.span.rows
        dz = dz_all[: rows.stop - rows.start]
        given = dz, dh, part(dy, rows), part(trace_h, rows), h[cut.states], w, mask
        back_through(loop, given, ctx, cut, dx, dweights, shared)
    return dx


def stepper(
    weights: Weights, states: States, nonlinearity: str = "tanh"
) -> Callable[[Array], Array]:
    """Return a function that takes a step; see :func:`minirnn.functional.recurrence.stepper_of`."""
    w_ih, w_hh, *biases = weights
    _, B, H = states[0].shape
    h, sizes = states[0].reshape(2 * B, H), np.array([B], np.int64)
    w, w_x, h_t, loop = panels(w_hh), panels(w_ih), h[B:], _FORWARD[nonlinearity]

    def step(x: Array) -> Array:
        loop(h, w, *biases, None, w_x, read(x), sizes, B, H)
        return h_t

    return step
