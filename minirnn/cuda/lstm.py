"""The LSTM on the GPU; :mod:`minirnn.functional.lstm` has the equations and the arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, get_array_module
from ..packing import Layout
from . import launch

GATES = ("i", "f", "g", "o")


class LSTMContext(NamedTuple):
    """What BPTT through one layer has to remember: its input, its states and its gates.

    The gates lie as one product with W_ih leaves them; tanh(c) costs less to compute again than to load.
    """

    x: Array  # (N, I)
    h: Array  # (B + N, P): h_0 over all h_t
    c: Array  # (B + N, H): c_0 over all c_t
    gates: Array  # (N, 4H): i, f, g, o
    m: Array | None  # (N, H): o * tanh(c_t), if there is a projection
    w_ih: Array  # (4H, I)
    w_hh: Array  # (4H, P)
    w_hr: Array | None  # (P, H)
    layout: Layout
    mask: Array | None  # (B, P): recurrent dropout


def forward(
    x: Array,
    states: Sequence[Array],
    weights: Sequence[Any],
    layout: Layout,
    mask: Array | None = None,
    save: bool = True,
) -> LSTMContext | None:
    """Fill ``h[B:]`` and ``c[B:]``, the states at all steps, from ``h[:B]`` and ``c[:B]``."""
    h, c = states
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    xp = get_array_module(x)
    B, N, H = layout.batch_size, layout.rows, c.shape[1]
    gates = xp.empty((N, 4 * H), x.dtype)
    xp.dot(x, w_ih.T, gates)
    m = None if w_hr is None else xp.empty((N, H), x.dtype)
    persistent = launch.persistent("lstm", c, layout) if w_hr is None else None
    if persistent is not None:
        persistent.run("lstm_forward", gates, h, c, w_hh, b_ih, b_hh, mask)
    else:
        stepwise = launch.Stepwise(c, layout)
        product = xp.empty((B, 4 * H), x.dtype)
        out, first = (h, B) if m is None else (m, 0)  # where o * tanh(c_t) goes
        for t, n, rows, before in stepwise.steps:
            h_prev = h[before] if mask is None else h[before] * mask[:n]
            xp.dot(h_prev, w_hh.T, product[:n])
            out_row = np.int64(first + rows.start)
            stepwise.run("lstm_step_forward", t, gates, c, out, product, b_ih, b_hh, out_row)
            if m is not None and w_hr is not None:
                xp.dot(m[rows], w_hr.T, h[B + rows.start : B + rows.stop])
    return LSTMContext(x, h, c, gates, m, w_ih, w_hh, w_hr, layout, mask) if save else None


def backward(
    ctx: LSTMContext,
    dy: Array | None,
    dstates: Sequence[Array],
    dweights: Sequence[Any],
    trace: Sequence[Array] | None = None,
) -> Array:
    """Return dx; turn `dstates` into the initial states' gradients, and add to `dweights`."""
    x, h, c, gates, m, w_ih, w_hh, w_hr, layout, mask = ctx
    xp = get_array_module(x)
    dz = xp.empty_like(gates)
    dh, dc = dstates
    dy = launch.contiguous(dy)
    trace_h, trace_c = (None, None) if trace is None else trace
    *others, dw_hr = dweights
    persistent = launch.persistent("lstm", c, layout) if w_hr is None else None
    if persistent is not None:
        persistent.run("lstm_backward", dz, dh, dc, dy, trace_h, trace_c, gates, c, w_hh, mask)
    else:
        stepwise = launch.Stepwise(c, layout)
        dm, dm_y, dm_trace = dh, dy, trace_h  # of o * tanh(c_t), which is h_t itself
        if w_hr is not None:
            dm, dm_y, dm_trace = xp.empty_like(dc), None, None
            dhs = xp.empty((layout.rows, h.shape[1]), x.dtype)
        for t, n, rows, _ in reversed(stepwise.steps):
            if w_hr is not None:
                if dy is None:
                    dhs[rows] = dh[:n]
                else:
                    xp.add(dh[:n], dy[rows], out=dhs[rows])
                xp.dot(dhs[rows], w_hr, dm[:n])
            stepwise.run("lstm_step_backward", t, dz, dc, dm, dm_y, dm_trace, trace_c, gates, c)
            dh_t = dh[:n]
            xp.dot(dz[rows], w_hh, dh_t)
            if mask is not None:
                dh_t *= mask[:n]
        if w_hr is not None:
            dw_hr += dhs.T @ m
            if trace_h is not None:
                trace_h[...] = dhs
    launch.add_weight_gradients(others, dz, dz, x, h, mask, layout)
    return dz @ w_ih


def step(
    x: Array,
    states: Sequence[Array],
    weights: Sequence[Any],
    new: Sequence[Array],
) -> None:
    """Take one step and forget all but the state."""
    launch.one_step(forward, x, states, weights, new)


def gates(ctx: LSTMContext) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    blocks = ctx.gates.reshape(len(ctx.x), 4, ctx.gates.shape[1] // 4)
    return {name: blocks[:, k] for k, name in enumerate(GATES)}
