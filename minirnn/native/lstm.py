"""The LSTM with its loop in C; :mod:`minirnn.functional.lstm` has the equations and the arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..backend import Array, quiet
from ..functional import lstm, shared
from ..functional.gates import by_gate
from ..functional.lstm import GATES, STATES, step, weight_shapes
from ..functional.recurrence import Mask, States, Traces, Weights, stepper_of
from ..layout import Layout
from . import _loops
from .shared import back_through, cuts, of_input, packed_once, panels, part, read

__all__ = ["GATES", "STATES", "backward", "forward", "gates", "step", "stepper", "weight_shapes"]

_in_numpy, _back_in_numpy = quiet(lstm.forward), quiet(lstm.backward)


class LSTMContext(NamedTuple):
    """What BPTT through one layer has to remember: its input, its states and its gates."""

    x: Array  # (N, I)
    h: Array  # (B + N, H): h_0 over all h_t
    c: Array  # (B + N, H): c_0 over all c_t
    gates: Array  # (N, 4H): i, f, g, o
    tanh_c: Array  # (N, H)
    w_ih: Array  # (4H, I)
    w_hh: Array  # (4H, H)
    layout: Layout
    mask: Array | None  # (B, H): recurrent dropout


def forward(
    x: Array, states: States, weights: Weights, layout: Layout, mask: Mask = None, save: bool = True
) -> LSTMContext | lstm.LSTMContext | None:
    """Fill ``h[B:]`` and ``c[B:]``, the states at all steps, from ``h[:B]`` and ``c[:B]``."""
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    if w_hr is not None:
        return _in_numpy(x, states, weights, layout, mask, save)
    (h, c), x, mask, H = states, read(x), read(mask), w_hh.shape[1]
    rows = layout.rows if save else layout.span_rows
    z_all, tanh_c_all = np.empty((rows, 4 * H), x.dtype), np.empty((rows, H), x.dtype)
    w, w_x = packed_once(w_hh, layout), packed_once(w_ih, layout)
    for cut in cuts(layout):
        these, last = cut.span.rows, (cut.sizes, cut.entering, H)
        here = these if save else slice(these.stop - these.start)
        z, tanh_c = z_all[here], tanh_c_all[here]
        given = of_input(x[these], w_ih, w_x, z)
        _loops.lstm_forward(
            z, h[cut.states], c[cut.states], tanh_c, w, b_ih, b_hh, mask, *given, *last
        )
    if not save:
        return None
    return LSTMContext(x, h, c, z_all, tanh_c_all, w_ih, w_hh, layout, mask)


def backward(
    ctx: LSTMContext | lstm.LSTMContext,
    dy: Array | None,
    dstates: States,
    dweights: Weights,
    trace: Traces = None,
) -> Array:
    """Return the gradient of the input; add up those of the weights."""
    if isinstance(ctx, lstm.LSTMContext):
        return _back_in_numpy(ctx, dy, dstates, dweights, trace)
    x, h, c, gates, tanh_c, _, w_hh, layout, mask = ctx
    (dh, dc), (trace_h, trace_c), dy = dstates, trace or (None, None), read(dy)
    dx, dz_all = np.empty_like(x), np.empty((layout.span_rows, len(w_hh)), x.dtype)
    w = packed_once(w_hh, layout, _loops.pack)
    for cut in reversed(cuts(layout)):
        rows, before = cut.span.rows, cut.states
        dz = dz_all[: rows.stop - rows.start]
        given = dz, dh, dc, part(dy, rows), part(trace_h, rows), part(trace_c, rows)
        saved = gates[rows], h[before], c[before], tanh_c[rows], w, mask
        back_through(_loops.lstm_backward, given + saved, ctx, cut, dx, dweights, shared)
    return dx


def gates(ctx: LSTMContext | lstm.LSTMContext) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    if isinstance(ctx, lstm.LSTMContext):
        return lstm.gates(ctx)
    return by_gate(ctx.gates, GATES)


def stepper(weights: Weights, states: States) -> Callable[[Array], Array]:
    """Return a function that takes a step; see :func:`minirnn.functional.recurrence.stepper_of`."""
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    if w_hr is not None:
        return stepper_of(lstm, weights, states, {})
    _, B, H = states[0].shape
    h, c = (s.reshape(2 * B, H) for s in states)
    z, tanh_c = np.empty((B, 4 * H), w_hh.dtype), np.empty((B, H), w_hh.dtype)
    w, w_x, h_t, sizes = panels(w_hh), panels(w_ih), h[B:], np.array([B], np.int64)

    def step(x: Array) -> Array:
        _loops.lstm_forward(z, h, c, tanh_c, w, b_ih, b_hh, None, w_x, read(x), sizes, B, H)
        return h_t

    return step
