"""The GRU with its loop in C; :mod:`minirnn.functional.gru` has the equations and the arguments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..backend import Array
from ..functional import gru
from ..functional.gates import by_gate
from ..functional.gru import (
    GATES,
    STATES,
    GRURows,
    step,
    weight_shapes,
)
from ..functional.recurrence import Mask, States, Traces, Weights
from ..layout import Layout
from . import _loops
from .shared import add_gradients, bias_sum, cuts, input_product, panels, part, read, room_for

__all__ = ["GATES", "STATES", "backward", "forward", "gates", "step", "stepper", "weight_shapes"]


def forward(
    x: Array, states: States, weights: Weights, layout: Layout, mask: Mask = None, save: bool = True
) -> GRURows | None:
    """Fill ``h[B:]``, the states at all steps, from ``h[:B]``, the initial ones."""
    (h,), (w_ih, w_hh, b_ih, b_hh) = states, weights
    x, mask, B, H = read(x), read(mask), layout.batch_size, w_hh.shape[1]
    rows = layout.rows if save else layout.span_rows
    a_all, q_all = np.empty((rows, 3 * H), x.dtype), np.empty((rows, H), x.dtype)
    w, product, p, room = (
        panels(w_hh),
        input_product(w_ih),
        np.empty((B, 3 * H), x.dtype),
        room_for(mask),
    )
    b = _biases(b_ih, b_hh, w_hh)
    for cut in cuts(layout):
        these = cut.span.rows
        here = these if save else slice(these.stop - these.start)
        a, q, last = a_all[here], q_all[here], (cut.sizes, cut.entering, H)
        product(x[these], a)
        _loops.gru_forward(a, q, h[cut.states], w, b, mask, room, p, *last)
    return GRURows(x, h, a_all, q_all, w_ih, w_hh, layout, mask) if save else None


def _biases(b_ih: Array | None, b_hh: Array | None, w_hh: Array) -> Array:
    """Return those of r and z, added, and those of n: b_in and b_hn."""
    if b_ih is None or b_hh is None:
        return np.zeros(4 * w_hh.shape[1], w_hh.dtype)
    rz = slice(2 * w_hh.shape[1])
    return np.concatenate([bias_sum(b_ih, b_hh, w_hh)[rz], b_ih[rz.stop :], b_hh[rz.stop :]])


def backward(
    ctx: GRURows, dy: Array | None, dstates: States, dweights: Weights, trace: Traces = None
) -> Array:
    """Return the gradient of the input; add up those of the weights."""
    x, h, gates, q, _, w_hh, layout, mask = ctx
    (dh,), (trace_h,) = dstates, trace or (None,)
    H, dy, room = w_hh.shape[1], read(dy), room_for(mask)
    w_qrz = panels(np.concatenate([w_hh[2 * H :], w_hh[: 2 * H]]), _loops.pack)
    dx, da_all = np.empty_like(x), np.empty((layout.span_rows, 4 * H), x.dtype)
    for cut in reversed(cuts(layout)):
        rows, last = cut.span.rows, (cut.sizes, cut.entering, H)
        da, h_t = da_all[: rows.stop - rows.start], h[cut.states]
        given = part(dy, rows), part(trace_h, rows)
        _loops.gru_backward(da, dh, *given, gates[rows], q[rows], h_t, w_qrz, mask, room, *last)
        add_gradients(ctx, cut, da, dx, dweights, _loops.gru_gradients, gru)
    return dx


def gates(ctx: GRURows) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    return by_gate(ctx.gates, GATES)


def stepper(weights: Weights, states: States) -> Callable[[Array], Array]:
    """Return a function that takes a step; see :func:`minirnn.functional.recurrence.stepper_of`."""
    w_ih, w_hh, b_ih, b_hh = weights
    _, B, H = states[0].shape
    h, q = states[0].reshape(2 * B, H), np.empty((B, H), w_hh.dtype)
    a, p = np.empty((2, B, 3 * H), w_hh.dtype)
    w, b, product, h_t, sizes = (
        panels(w_hh),
        _biases(b_ih, b_hh, w_hh),
        input_product(w_ih),
        h[B:],
        np.array([B], np.int64),
    )

    def step(x: Array) -> Array:
        product(read(x), a)
        _loops.gru_forward(a, q, h, w, b, None, None, p, sizes, B, H)
        return h_t

    return step
