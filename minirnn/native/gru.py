"""The GRU with its loop in C; :mod:`minirnn.functional.gru` has the equations and the arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..functional.gru import GATES, STATES, step, weight_shapes
from ..functional.shared import column_sums
from ..layout import Layout
from . import _loops
from .shared import bias_sum, mask_of, panels, read, runs, write_back

__all__ = [
    "GATES",
    "STATES",
    "GRUContext",
    "backward",
    "forward",
    "gates",
    "step",
    "stepper",
    "weight_shapes",
]


class GRUContext(NamedTuple):
    """What BPTT through one layer has to remember: its input, its states and its gates."""

    x: Array  # (N, I)
    h: Array  # (B + N, H): h_0 over all h_t
    gates: Array  # (N, 3H): r, z, n
    q: Array  # (N, H)
    w_ih: Array  # (3H, I)
    w_hh: Array  # (3H, H)
    layout: Layout
    mask: Array | None  # (B, H): recurrent dropout


def forward(
    x: Array,
    states: Sequence[Array],
    weights: Sequence[Any],
    layout: Layout,
    mask: Array | None = None,
    save: bool = True,
) -> GRUContext | None:
    """Fill ``h[B:]``, the states at all steps, from ``h[:B]``, the initial ones."""
    w_ih, w_hh, b_ih, b_hh = weights
    B, H = layout.batch_size, w_hh.shape[1]
    rows = layout.rows if save else layout.span_rows
    a, q = np.empty((rows, 3 * H), x.dtype), np.empty((rows, H), x.dtype)
    w, w_x, p = panels(w_hh), w_ih.T, np.empty((B, 3 * H), x.dtype)
    b, room = _biases(b_ih, b_hh, w_hh), np.empty((B, H), x.dtype)
    own = [read(s) for s in states]
    (h,) = own
    for run in runs(layout):
        n = run.entering
        here = run.rows if save else slice(run.rows.stop - run.rows.start)
        x[run.rows].dot(w_x, a[here])
        arrays = a[here], q[here], h[run.states], w, b, mask_of(mask, n), room[:n], p[:n]
        _loops.gru_forward(*arrays, *run.batch(H))
    write_back(states, own)
    return GRUContext(x, states[0], a, q, w_ih, w_hh, layout, mask) if save else None


def _biases(b_ih: Array | None, b_hh: Array | None, w_hh: Array) -> Array:
    """Return those of r and z, added, and those of n: b_in and b_hn."""
    if b_ih is None or b_hh is None:
        return np.zeros(4 * w_hh.shape[1], w_hh.dtype)
    rz = slice(2 * w_hh.shape[1])
    return np.concatenate([bias_sum(b_ih, b_hh, w_hh)[rz], b_ih[rz.stop :], b_hh[rz.stop :]])


def backward(
    ctx: GRUContext,
    dy: Array | None,
    dstates: Sequence[Array],
    dweights: Sequence[Any],
    trace: Sequence[Array] | None = None,
) -> Array:
    """Return the gradient of the input; add up those of the weights."""
    x, h, a, q, w_ih, w_hh, layout, mask = ctx
    H, h, dy = w_hh.shape[1], read(h), read(dy)
    dx, room = np.empty(x.shape, x.dtype), np.empty((layout.batch_size, H), x.dtype)
    dw_ih, dw_hh, db_ih, db_hh = dweights
    # With the blocks of da in the order q, r, z, n the products with W_hh (q, r, z) and with W_ih
    # (r, z, n) read one block each.
    w_qrz = np.concatenate([w_hh[2 * H :], w_hh[: 2 * H]])
    memory = np.empty((layout.span_rows, 4 * H), x.dtype)
    own, traces = [read(d) for d in dstates], [read(t) for t in trace or ()]
    (dh,) = own
    for span, run in zip(reversed(layout.spans), reversed(runs(layout)), strict=True):
        rows, n = run.rows, run.entering
        da = memory[: rows.stop - rows.start]
        given = [None if g is None else g[rows] for g in (dy, *(traces or (None,)))]
        saved = a[rows], q[rows], h[run.states], w_qrz, mask_of(mask, n), room[:n]
        _loops.gru_backward(da, dh[:n], *given, *saved, *run.batch(H))
        da_qrz, da_rzn = da[:, : 3 * H], da[:, H:]
        h_prev = layout.previous_rows(h, span)
        if mask is not None:
            h_prev = h_prev * layout.of_sequence(mask, span)
        np.matmul(da_rzn, w_ih, out=dx[rows])
        # Here and above matmul: ndarray.dot would first copy these columns.
        dw_ih += da_rzn.T @ x[rows]
        dw_qrz = da_qrz.T @ h_prev
        dw_hh[2 * H :] += dw_qrz[:H]
        dw_hh[: 2 * H] += dw_qrz[H:]
        if db_ih is not None and db_hh is not None:
            db = column_sums(da)
            db_ih += db[H:]
            db_hh[: 2 * H] += db[H : 3 * H]
            db_hh[2 * H :] += db[:H]
    write_back(dstates, own)
    write_back(trace or (), traces)
    return dx


def gates(ctx: GRUContext) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    return dict(zip(GATES, np.split(ctx.gates, 3, axis=1), strict=True))


def stepper(weights: Sequence[Any], states: Sequence[Array]) -> Callable[[Array], Array]:
    """Return a function that takes a step; see :func:`minirnn.functional.recurrence.stepper_of`."""
    w_ih, w_hh, b_ih, b_hh = weights
    _, B, H = states[0].shape
    h, (q, room) = states[0].reshape(2 * B, H), np.empty((2, B, H), w_hh.dtype)
    a, p = np.empty((2, B, 3 * H), w_hh.dtype)
    w, b, w_x, h_t, sizes = panels(w_hh), _biases(b_ih, b_hh, w_hh), w_ih.T, h[B:], np.array([B])

    def step(x: Array) -> Array:
        x.dot(w_x, a)
        _loops.gru_forward(a, q, h, w, b, None, room, p, sizes, B, H)
        return h_t

    return step
