"""The GRU on the GPU; :mod:`minirnn.functional.gru` has the equations and the arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..backend import Array, get_array_module
from ..packing import Layout
from . import launch

GATES = ("r", "z", "n")


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
    (h,) = states
    w_ih, w_hh, b_ih, b_hh = weights
    xp = get_array_module(x)
    B, N, H = layout.batch_size, layout.rows, h.shape[1]
    gates = xp.empty((N, 3 * H), x.dtype)
    xp.dot(x, w_ih.T, gates)
    q = xp.empty((N, H), x.dtype)
    persistent = launch.persistent("gru", h, layout)
    if persistent is not None:
        persistent.run("gru_forward", gates, q, h, w_hh, b_ih, b_hh, mask)
    else:
        stepwise = launch.Stepwise(h, layout)
        product = xp.empty((B, 3 * H), x.dtype)
        for t, n, _, before in stepwise.steps:
            h_prev = h[before] if mask is None else h[before] * mask[:n]
            xp.dot(h_prev, w_hh.T, product[:n])
            stepwise.run("gru_step_forward", t, gates, q, h, product, b_ih, b_hh)
    return GRUContext(x, h, gates, q, w_ih, w_hh, layout, mask) if save else None


def backward(
    ctx: GRUContext,
    dy: Array | None,
    dstates: Sequence[Array],
    dweights: Sequence[Any],
    trace: Sequence[Array] | None = None,
) -> Array:
    """Return dx; turn `dstates` into the initial states' gradients, and add to `dweights`."""
    x, h, gates, q, w_ih, w_hh, layout, mask = ctx
    xp = get_array_module(x)
    d_input, d_hidden = xp.empty_like(gates), xp.empty_like(gates)
    (dh,) = dstates
    dy = launch.contiguous(dy)
    trace_h = None if trace is None else trace[0]
    persistent = launch.persistent("gru", h, layout)
    if persistent is not None:
        persistent.run("gru_backward", d_input, d_hidden, dh, dy, trace_h, gates, q, h, w_hh, mask)
    else:
        stepwise = launch.Stepwise(h, layout)
        product = xp.empty_like(dh)
        for t, n, rows, _ in reversed(stepwise.steps):
            stepwise.run("gru_step_backward", t, d_input, d_hidden, dh, dy, trace_h, gates, q, h)
            dh_in = product[:n]
            xp.dot(d_hidden[rows], w_hh, dh_in)
            if mask is not None:
                dh_in *= mask[:n]
            dh_t = dh[:n]
            dh_t += dh_in
    launch.add_weight_gradients(dweights, d_input, d_hidden, x, h, mask, layout)
    return d_input @ w_ih


def step(
    x: Array,
    states: Sequence[Array],
    weights: Sequence[Any],
    new: Sequence[Array],
) -> None:
    """Take one step and forget all but the state."""
    launch.one_step(forward, x, states, weights, new)


def gates(ctx: GRUContext) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    blocks = ctx.gates.reshape(len(ctx.x), 3, ctx.gates.shape[1] // 3)
    return {name: blocks[:, k] for k, name in enumerate(GATES)}
