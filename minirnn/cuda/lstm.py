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
    ctx = forward_together([(x, states, weights, mask)], layout)[0]
    return ctx if save else None


def forward_together(passes: Sequence[launch.Pass], layout: Layout) -> list[LSTMContext]:
    """Do the same for one direction or both, (x, states, weights, mask) of each."""
    contexts, arguments = [], []
    for x, (h, c), (w_ih, w_hh, b_ih, b_hh, w_hr), mask in passes:
        xp, N, H = get_array_module(x), layout.rows, c.shape[1]
        gates = xp.empty((N, 4 * H), x.dtype)
        xp.dot(x, w_ih.T, gates)
        m = None if w_hr is None else xp.empty((N, H), x.dtype)
        contexts.append(LSTMContext(x, h, c, gates, m, w_ih, w_hh, w_hr, layout, mask))
        arguments.append((gates, h, c, w_hh, b_ih, b_hh, mask))
    persistent = launch.persistent("lstm", c, layout, len(passes)) if w_hr is None else None
    if persistent is not None:
        persistent.run("lstm_forward", arguments)
    else:
        for ctx, (_, _, _, _, b_ih, b_hh, _) in zip(contexts, arguments, strict=True):
            _forward_steps(ctx, b_ih, b_hh)
    return contexts


def _forward_steps(ctx: LSTMContext, b_ih: Array | None, b_hh: Array | None) -> None:
    _, h, c, gates, m, _, w_hh, w_hr, layout, mask = ctx
    xp, B = get_array_module(h), layout.batch_size
    stepwise = launch.Stepwise(c, layout)
    product = xp.empty((B, len(w_hh)), h.dtype)
    out, first = (h, B) if m is None else (m, 0)  # where o * tanh(c_t) goes
    for t, n, rows, before in stepwise.steps:
        h_prev = h[before] if mask is None else h[before] * mask[:n]
        xp.dot(h_prev, w_hh.T, product[:n])
        out_row = np.int64(first + rows.start)
        stepwise.run("lstm_step_forward", t, gates, c, out, product, b_ih, b_hh, out_row)
        if m is not None and w_hr is not None:
            xp.dot(m[rows], w_hr.T, h[B + rows.start : B + rows.stop])


def backward(
    ctx: LSTMContext,
    dy: Array | None,
    dstates: Sequence[Array],
    dweights: Sequence[Any],
    trace: Sequence[Array] | None = None,
) -> Array:
    """Return dx; turn `dstates` into the initial states' gradients, and add to `dweights`."""
    return backward_together([(ctx, dy, dstates, dweights, trace)])[0]


def backward_together(passes: Sequence[launch.PassBack]) -> list[Array]:
    """Do the same for one direction or both, (ctx, dy, dstates, dweights, trace) of each."""
    arguments = []
    for ctx, dy, (dh, dc), _, trace in passes:
        _, _, c, gates, _, _, w_hh, w_hr, layout, mask = ctx
        dz = get_array_module(c).empty_like(gates)
        traces = (None, None) if trace is None else trace
        arguments.append((dz, dh, dc, launch.contiguous(dy), *traces, gates, c, w_hh, mask))
    persistent = launch.persistent("lstm", c, layout, len(passes)) if w_hr is None else None
    if persistent is not None:
        persistent.run("lstm_backward", arguments)
    else:
        for (ctx, _, _, dweights, _), one in zip(passes, arguments, strict=True):
            _backward_steps(ctx, dweights[-1], *one[:6])
    dxs = []
    for (ctx, _, _, dweights, _), (dz, *_) in zip(passes, arguments, strict=True):
        launch.add_weight_gradients(dweights[:4], dz, dz, ctx.x, ctx.h, ctx.mask, layout)
        dxs.append(dz @ ctx.w_ih)
    return dxs


def _backward_steps(
    ctx: LSTMContext,
    dw_hr: Array | None,
    dz: Array,
    dh: Array,
    dc: Array,
    dy: Array | None,
    trace_h: Array | None,
    trace_c: Array | None,
) -> None:
    _, h, c, gates, m, _, w_hh, w_hr, layout, mask = ctx
    xp = get_array_module(h)
    stepwise = launch.Stepwise(c, layout)
    dm, dm_y, dm_trace = dh, dy, trace_h  # of o * tanh(c_t), which is h_t itself
    if w_hr is not None:
        dm, dm_y, dm_trace = xp.empty_like(dc), None, None
        dhs = xp.empty((layout.rows, h.shape[1]), h.dtype)
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
