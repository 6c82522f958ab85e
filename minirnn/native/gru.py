"""The GRU with its loop in C; :mod:`minirnn.functional.gru` has the equations and the arguments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..backend import Array
from ..functional.gates import by_gate
from ..functional.gru import GATES, STATES, GRURows, add_gradients, step, weight_shapes
from ..functional.recurrence import Mask, States, Traces, Weights
from ..layout import Layout
from . import _loops
from .shared import bias_sum, panels, read, runs, runs_back, write_back

__all__ = ["GATES", "STATES", "backward", "forward", "gates", "step", "stepper", "weight_shapes"]


def forward(
    x: Array, states: States, weights: Weights, layout: Layout, mask: Mask = None, save: bool = True
) -> GRURows | None:
    """Fill ``h[B:]``, the states at all steps, from ``h[:B]``, the initial ones."""
    w_ih, w_hh, b_ih, b_hh = weights
    B, H = layout.batch_size, w_hh.shape[1]
    rows = layout.rows if save else layout.span_rows
    a, q = np.empty((rows, 3 * H), x.dtype), np.empty((rows, H), x.dtype)
    w, w_x, p = panels(w_hh), w_ih.T, np.empty((B, 3 * H), x.dtype)
    b = _biases(b_ih, b_hh, w_hh)
    own = [read(s) for s in states]
    (h,) = own
    for run in runs(layout, mask, np.empty((B, H), x.dtype)):
        these = run.span.rows
        here = these if save else slice(these.stop - these.start)
        x[these].dot(w_x, a[here])
        mask_t, room, *batch = run.last
        product = p[: len(room)]
        _loops.gru_forward(a[here], q[here], h[run.states], w, b, mask_t, room, product, *batch)
    write_back(states, own)
    return GRURows(x, states[0], a, q, w_ih, w_hh, layout, mask) if save else None


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
    H, h, w_hh = ctx.w_hh.shape[1], read(ctx.h), ctx.w_hh
    dx, w_qrz = np.empty(ctx.x.shape, ctx.x.dtype), np.concatenate([w_hh[2 * H :], w_hh[: 2 * H]])
    for run, da, first in runs_back(ctx, 4 * H, H, dy, dstates, trace):
        rows = run.span.rows
        saved = ctx.gates[rows], ctx.q[rows], h[run.states]
        _loops.gru_backward(*first, *saved, w_qrz, *run.last)
        add_gradients(ctx, run.span, da, dx, dweights)
    return dx


def gates(ctx: GRURows) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    return by_gate(ctx.gates, GATES)


def stepper(weights: Weights, states: States) -> Callable[[Array], Array]:
    """Return a function that takes a step; see :func:`minirnn.functional.recurrence.stepper_of`."""
    w_ih, w_hh, b_ih, b_hh = weights
    _, B, H = states[0].shape
    h, (q, room) = states[0].reshape(2 * B, H), np.empty((2, B, H), w_hh.dtype)
    a, p = np.empty((2, B, 3 * H), w_hh.dtype)
    w, b, w_x, h_t, sizes = (
        panels(w_hh),
        _biases(b_ih, b_hh, w_hh),
        w_ih.T,
        h[B:],
        np.array([B], np.int64),
    )

    def step(x: Array) -> Array:
        x.dot(w_x, a)
        _loops.gru_forward(a, q, h, w, b, None, room, p, sizes, B, H)
        return h_t

    return step
