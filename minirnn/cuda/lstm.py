"""The LSTM on the GPU; :mod:`minirnn.functional.lstm` has the equations and the arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..backend import Array, get_array_module
from ..functional.lstm import GATES
from ..layout import Layout
from . import launch


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
    (_, (_, c), (*_, w_hr), _), *_ = passes
    persistent = launch.persistent("lstm", c, layout, len(passes), projected=w_hr is not None)
    contexts, arguments = [], []
    for x, (h, c), (w_ih, w_hh, b_ih, b_hh, w_hr), mask in passes:
        xp, N, H = get_array_module(x), layout.rows, c.shape[1]
        gates = xp.empty((N, 4 * H), x.dtype)
        xp.dot(x, w_ih.T, gates)
        m = None if w_hr is None else xp.empty((N, H), x.dtype)
        contexts.append(LSTMContext(x, h, c, gates, m, w_ih, w_hh, w_hr, layout, mask))
        arguments.append((gates, h, c, w_hh, b_ih, b_hh, mask))
    if persistent is not None:
        persistent.run("lstm_forward", arguments)
    else:
        for ctx, (_, _, _, _, b_ih, b_hh, _) in zip(contexts, arguments, strict=True):
            _forward_steps(ctx, b_ih, b_hh)
    return contexts


def _forward_steps(ctx: LSTMContext, b_ih: Array | None, b_hh: Array | None) -> None:
    _, h, c, gates, m, _, w_hh, w_hr, layout, mask = ctx
    xp, B, name = get_array_module(h), layout.batch_size, "lstm_step_forward"
    if m is None or w_hr is None:
        arrays = (gates, c, h[B:])
        launch.forward_steps(name, arrays, h, w_hh, b_ih, b_hh, mask, layout)
        return
    masked = None if mask is None else h[:B] * mask  # what enters the next step's product
    product, w, w_m = xp.empty((B, len(w_hh)), h.dtype), w_hh.T, w_hr.T
    # What the kernel fills, o * tanh(c_t), is yet to be projected, and masked after that.
    kernel = launch.Stepwise(name, c, layout, gates, c, m, None, None, product, b_ih, b_hh)
    entering = layout.transitions(h)[0] if masked is None else layout.running(masked)
    ms, hs = layout.split(m), layout.split(h[B:])
    for t, (h_in, product_t) in enumerate(zip(entering, layout.running(product), strict=True)):
        xp.dot(h_in, w, product_t)
        kernel.run(t)
        xp.dot(ms[t], w_m, hs[t])
        if mask is not None and masked is not None:
            n = len(hs[t])
            xp.multiply(hs[t], mask[:n], out=masked[:n])


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
    persistent = launch.persistent("lstm", c, layout, len(passes), projected=w_hr is not None)
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
    dzs, dhs = layout.split(dz), layout.running(dh)
    dm, others = dh, (mask, dy, trace_h)  # m_t = o * tanh(c_t) is h_t itself
    if w_hr is not None:
        dm, others = xp.empty_like(dc), (None, None, None)
        dms, dh_rows = layout.running(dm), xp.empty((layout.rows, h.shape[1]), h.dtype)
        dh_steps, dys = layout.split(dh_rows), None if dy is None else layout.split(dy)
    kernel = launch.Stepwise(
        "lstm_step_backward", c, layout, dz, dc, dm, *others, trace_c, gates, c
    )
    for t in reversed(range(layout.steps)):
        if w_hr is not None:
            if dys is None:
                dh_steps[t][...] = dhs[t]
            else:
                xp.add(dhs[t], dys[t], out=dh_steps[t])
            xp.dot(dh_steps[t], w_hr, dms[t])
        kernel.run(t)
        xp.dot(dzs[t], w_hh, dhs[t])
        # Without a projection the kernel of the step before does it; after the last nobody does.
        if mask is not None and (t == 0 or w_hr is not None):
            dhs[t] *= mask[: len(dhs[t])]
    if w_hr is not None:
        dw_hr += dh_rows.T @ m
        if trace_h is not None:
            trace_h[...] = dh_rows


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
    return launch.by_gate(ctx.gates, GATES)
