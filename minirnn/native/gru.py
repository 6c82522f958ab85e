"""The GRU with its loop in C; :mod:`minirnn.functional.gru` has the equations and the arguments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..backend import Array, quiet
from ..functional import gru
from ..functional.gates import by_gate
from ..functional.gru import GATES, STATES, GRURows, weight_shapes
from ..functional.recurrence import Mask, States, Traces, Weights
from ..layout import Layout
from . import _loops
from .shared import (
    back_through,
    cuts,
    input_once,
    of_input,
    one_step,
    packed_once,
    panels,
    read,
    releases_gil,
    step_in_c,
)

__all__ = [
    "GATES", "STATES", "backward", "forward", "gates", "releases_gil", "step", "stepper", "weight_shapes",
]  # fmt: skip

_step_in_numpy = quiet(gru.step)


def forward(
    x: Array, states: States, weights: Weights, layout: Layout, mask: Mask = None, save: bool = True
) -> GRURows | None:
    """Fill ``h[B:]``, the states at all steps, from ``h[:B]``, the initial ones."""
    (h,), (w_ih, w_hh, *biases) = states, weights
    x, mask, H = read(x), read(mask), w_hh.shape[1]
    rows = layout.rows if save else layout.span_rows
    a, q = np.empty((rows, 3 * H), x.dtype), np.empty((rows, H), x.dtype)
    w, w_x = packed_once(w_hh, layout), input_once(w_ih, layout)
    for span, place in cuts(layout):
        x_w = of_input(x, w_ih, w_x, span, a, span.rows.start if save else 0)
        _loops.gru_forward(a, q, h, w, *biases, mask, *x_w, *place, H)
    return GRURows(x, h, a, q, w_ih, w_hh, layout, mask) if save else None


def backward(
    ctx: GRURows, dy: Array | None, dstates: States, dweights: Weights, trace: Traces = None
) -> Array:
    """Return the gradient of the input; add up those of the weights."""
    (dh,), (trace_h,), H = dstates, trace or (None,), ctx.h.shape[1]
    given = dh, read(dy), trace_h, ctx.gates, ctx.q, ctx.h
    return back_through(
        _loops.gru_backward, given, ctx, 4 * H, dweights, gru.add_gradients, _pack_qrz
    )


def _pack_qrz(panels: Array, w_hh: Array, columns: int) -> None:
    """Pack W_hh with the rows of q, which are those of n, before those of r and z: as C does itself."""
    _loops.pack(panels, np.roll(w_hh, columns, axis=0), columns)


def gates(ctx: GRURows) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    return by_gate(ctx.gates, GATES)


def step(x: Array, states: States, weights: Weights, new: States) -> None:
    """Take one step."""
    (h,), (h_new,), (w_ih, w_hh, *biases) = states, new, weights
    if not step_in_c(x, w_ih, w_hh):
        _step_in_numpy(x, states, weights, new)
        return
    _loops.gru_step(h_new, read(h), w_ih, read(x), w_hh, *biases)


def stepper(weights: Weights, states: States) -> Callable[[Array], Array]:
    """Return a function that takes a step; see :func:`minirnn.functional.recurrence.stepper_of`."""
    w_ih, w_hh, *biases = weights
    _, B, H = states[0].shape
    h, q = states[0].reshape(2 * B, H), np.empty((B, H), w_hh.dtype)
    a, w, w_x = np.empty((B, 3 * H), w_hh.dtype), panels(w_hh), panels(w_ih)
    h_t, place = h[B:], one_step(B, H)

    def step(x: Array) -> Array:
        _loops.gru_forward(a, q, h, w, *biases, None, w_x, read(x), *place)
        return h_t

    return step
