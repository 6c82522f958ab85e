"""The LSTM with its loop in C; :mod:`minirnn.functional.lstm` has the equations and the arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..functional import lstm
from ..functional.lstm import GATES, STATES, step, weight_shapes
from ..functional.recurrence import stepper_of
from ..functional.shared import add_bias_gradient
from ..layout import Layout
from . import _loops
from .shared import bias_sum, mask_of, panels, read, runs, write_back

__all__ = [
    "GATES",
    "STATES",
    "LSTMContext",
    "backward",
    "forward",
    "gates",
    "step",
    "stepper",
    "weight_shapes",
]


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
    x: Array,
    states: Sequence[Array],
    weights: Sequence[Any],
    layout: Layout,
    mask: Array | None = None,
    save: bool = True,
) -> LSTMContext | lstm.LSTMContext | None:
    """Fill ``h[B:]`` and ``c[B:]``, the states at all steps, from ``h[:B]`` and ``c[:B]``."""
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    if w_hr is not None:
        return lstm.forward(x, states, weights, layout, mask, save)
    B, H, b = layout.batch_size, w_hh.shape[1], bias_sum(b_ih, b_hh, w_hh)
    rows = layout.rows if save else layout.span_rows
    z, tanh_c = np.empty((rows, 4 * H), x.dtype), np.empty((rows, H), x.dtype)
    w, w_x, room = panels(w_hh), w_ih.T, np.empty((B, H), x.dtype)
    own = [read(s) for s in states]
    h, c = own
    for run in runs(layout):
        n, span = run.entering, run.states
        here = run.rows if save else slice(run.rows.stop - run.rows.start)
        x[run.rows].dot(w_x, z[here])
        arrays = z[here], h[span], c[span], tanh_c[here], w, b, mask_of(mask, n), room[:n]
        _loops.lstm_forward(*arrays, *run.batch(H))
    write_back(states, own)
    if not save:
        return None
    return LSTMContext(x, states[0], states[1], z, tanh_c, w_ih, w_hh, layout, mask)


def backward(
    ctx: LSTMContext | lstm.LSTMContext,
    dy: Array | None,
    dstates: Sequence[Array],
    dweights: Sequence[Any],
    trace: Sequence[Array] | None = None,
) -> Array:
    """Return the gradient of the input; add up those of the weights."""
    if isinstance(ctx, lstm.LSTMContext):
        return lstm.backward(ctx, dy, dstates, dweights, trace)
    x, h, c, z, tanh_c, w_ih, w_hh, layout, mask = ctx
    H, c, w, dy = w_hh.shape[1], read(c), read(w_hh), read(dy)
    dx, room = np.empty(x.shape, x.dtype), np.empty((layout.batch_size, H), x.dtype)
    dw_ih, dw_hh, *dbs, _ = dweights
    memory = np.empty((layout.span_rows, 4 * H), x.dtype)
    own, traces = [read(d) for d in dstates], [read(t) for t in trace or ()]
    dh, dc = own
    for span, run in zip(reversed(layout.spans), reversed(runs(layout)), strict=True):
        rows, n = run.rows, run.entering
        dz = memory[: rows.stop - rows.start]
        given = [None if a is None else a[rows] for a in (dy, *(traces or (None, None)))]
        saved = z[rows], c[run.states], tanh_c[rows], w, mask_of(mask, n), room[:n]
        _loops.lstm_backward(dz, dh[:n], dc[:n], *given, *saved, *run.batch(H))
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


def gates(ctx: LSTMContext | lstm.LSTMContext) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    if isinstance(ctx, lstm.LSTMContext):
        return lstm.gates(ctx)
    return dict(zip(GATES, np.split(ctx.gates, 4, axis=1), strict=True))


def stepper(weights: Sequence[Any], states: Sequence[Array]) -> Callable[[Array], Array]:
    """Return a function that takes a step; see :func:`minirnn.functional.recurrence.stepper_of`."""
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    if w_hr is not None:
        return stepper_of(lstm, weights, states, {})
    _, B, H = states[0].shape
    h, c = (s.reshape(2 * B, H) for s in states)
    z, (tanh_c, room) = np.empty((B, 4 * H), w_hh.dtype), np.empty((2, B, H), w_hh.dtype)
    w, b, w_x, h_t, sizes = panels(w_hh), bias_sum(b_ih, b_hh, w_hh), w_ih.T, h[B:], np.array([B])

    def step(x: Array) -> Array:
        x.dot(w_x, z)
        _loops.lstm_forward(z, h, c, tanh_c, w, b, None, room, sizes, B, H)
        return h_t

    return step
