"""The LSTM on the GPU; :mod:`minirnn.functional.lstm` has the equations and the arguments."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from ..backend import Array, get_array_module
from ..functional.gates import by_gate
from ..functional.lstm import GATES
from ..functional.recurrence import Weights
from ..functional.shared import add_gradients, masked
from ..layout import Layout
from . import run

__all__ = ["backward", "backward_together", "forward", "forward_together", "gates", "step"]


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


def forward_together(passes: Sequence[run.Pass], layout: Layout) -> list[LSTMContext]:
    """Run one direction or both forward, (x, states, weights, mask) of each."""
    (_, (_, c), (*_, w_hr), _), *_ = passes
    kernels = run.persistent("lstm", c, layout, len(passes), projected=w_hr is not None)
    contexts, arguments = [], []
    for x, (h, c), (w_ih, w_hh, b_ih, b_hh, w_hr), mask in passes:
        xp, N, H = get_array_module(x), layout.rows, c.shape[1]
        gates = xp.empty((N, 4 * H), x.dtype)
        xp.dot(x, w_ih.T, gates)
        m = None if w_hr is None else xp.empty((N, H), x.dtype)
        contexts.append(LSTMContext(x, h, c, gates, m, w_ih, w_hh, w_hr, layout, mask))
        arguments.append((gates, h, c, w_hh, b_ih, b_hh, mask))
    if w_hr is None:
        run.over_steps(kernels, "lstm_forward", arguments, partial(_forward_steps, layout))
    else:
        for ctx, (_, _, weights, _) in zip(contexts, passes, strict=True):
            _forward_steps_projected(ctx, weights)
    return contexts


def _forward_steps(layout: Layout, gates: Array, h: Array, c: Array, *others: Array) -> None:
    arrays = gates, c, h[layout.batch_size :]
    run.forward_steps("lstm_step_forward", arrays, h, *others, layout)


def _forward_steps_projected(ctx: LSTMContext, weights: Weights) -> None:
    _, h, c, gates, m, _, _, _, layout, mask = ctx
    _, w_hh, b_ih, b_hh, w_hr = weights
    xp, B = get_array_module(h), layout.batch_size
    h_in = None if mask is None else masked(h[:B], mask)  # what enters the next step's product
    product = xp.empty((B, len(w_hh)), h.dtype)
    dropped: Any = None if mask is None else mask == 0
    # What the kernel fills, o * tanh(c_t), is yet to be projected, and masked after that.
    arrays = gates, c, m, None, None, product, b_ih, b_hh
    kernel = run.Stepwise("lstm_step_forward", c, layout, *arrays)
    ms, hs = layout.split(m), layout.split(h[B:])
    for t, (h_in_t, product_t) in enumerate(run.steps_in(h, h_in, product, layout)):
        xp.dot(h_in_t, w_hh.T, product_t)
        kernel.run(t)
        xp.dot(ms[t], w_hr.T, hs[t])
        if mask is not None and h_in is not None:
            n = len(hs[t])
            xp.multiply(hs[t], mask[:n], out=h_in[:n])
            xp.copyto(h_in[:n], 0, where=dropped[:n])


def backward_together(passes: Sequence[run.PassBack]) -> list[Array]:
    """Run one direction or both back, (ctx, dy, dstates, dweights, trace) of each."""
    arguments = []
    for ctx, dy, (dh, dc), _, trace in passes:
        dz, traces = get_array_module(ctx.c).empty_like(ctx.gates), trace or (None, None)
        saved = ctx.gates, ctx.c, ctx.w_hh, ctx.mask
        arguments.append((dz, dh, dc, run.contiguous(dy), *traces, *saved))
    layout, projected = ctx.layout, ctx.w_hr is not None
    kernels = run.persistent("lstm", ctx.c, layout, len(passes), projected)
    if projected:
        for (ctx, _, _, dweights, _), one in zip(passes, arguments, strict=True):
            _backward_steps_projected(ctx, dweights[4], *one[:6])
    else:
        run.over_steps(kernels, "lstm_backward", arguments, partial(_backward_steps, layout))
    return run.end_backward(passes, [dz for dz, *_ in arguments], add_gradients)


def _backward_steps(
    layout: Layout,
    dz: Array,
    dh: Array,
    dc: Array,
    dy: Array | None,
    trace_h: Array | None,
    trace_c: Array | None,
    gates: Array,
    c: Array,
    w_hh: Array,
    mask: Array | None,
) -> None:
    arrays = dz, dc, dh, mask, dy, trace_h, trace_c, gates, c  # h_t is o * tanh(c_t) itself
    kernel = run.Stepwise("lstm_step_backward", c, layout, *arrays)
    run.backward_steps(kernel, dz, dh, w_hh, mask, layout)


def _backward_steps_projected(
    ctx: LSTMContext,
    dw_hr: Array,
    dz: Array,
    dh: Array,
    dc: Array,
    dy: Array | None,
    trace_h: Array | None,
    trace_c: Array | None,
) -> None:
    _, h, c, gates, m, _, w_hh, w_hr, layout, mask = ctx
    xp = get_array_module(h)
    dm, all_dh = xp.empty_like(dc), xp.empty((layout.rows, h.shape[1]), h.dtype)
    dropped: Any = None if mask is None else mask == 0
    # The kernel gets the gradient of o * tanh(c_t) whole: no mask, dy or trace of h is its business.
    arrays = dz, dc, dm, None, None, None, trace_c, gates, c
    kernel = run.Stepwise("lstm_step_backward", c, layout, *arrays)
    dzs, all_dhs = layout.split(dz), layout.split(all_dh)
    dms, dhs = layout.running(dm), layout.running(dh)
    dys = None if dy is None else layout.split(dy)
    for t in reversed(range(layout.steps)):
        if dys is None:
            all_dhs[t][...] = dhs[t]
        else:
            xp.add(dhs[t], dys[t], out=all_dhs[t])
        xp.dot(all_dhs[t], w_hr, dms[t])
        kernel.run(t)
        xp.dot(dzs[t], w_hh, dhs[t])
        if mask is not None:
            n = len(dhs[t])
            dhs[t] *= mask[:n]
            xp.copyto(dhs[t], 0, where=dropped[:n])
    dw_hr += all_dh.T @ m
    if trace_h is not None:
        trace_h[...] = all_dh


def gates(ctx: LSTMContext) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    return by_gate(ctx.gates, GATES)


forward, backward, step = run.of_one(forward_together, backward_together)
