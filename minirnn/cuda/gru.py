"""The GRU on the GPU; :mod:`minirnn.functional.gru` has the equations and the arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..backend import Array, get_array_module
from ..functional.gru import GATES
from ..layout import Layout
from . import launch


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
    ctx = forward_together([(x, states, weights, mask)], layout)[0]
    return ctx if save else None


def forward_together(passes: Sequence[launch.Pass], layout: Layout) -> list[GRUContext]:
    """Do the same for one direction or both, (x, states, weights, mask) of each."""
    persistent = launch.persistent("gru", passes[0][1][0], layout, len(passes))
    contexts, arguments = [], []
    for x, (h,), (w_ih, w_hh, b_ih, b_hh), mask in passes:
        xp, N, H = get_array_module(x), layout.rows, h.shape[1]
        gates, q = xp.empty((N, 3 * H), x.dtype), xp.empty((N, H), x.dtype)
        xp.dot(x, w_ih.T, gates)
        contexts.append(GRUContext(x, h, gates, q, w_ih, w_hh, layout, mask))
        arguments.append((gates, q, h, w_hh, b_ih, b_hh, mask))
    if persistent is not None:
        persistent.run("gru_forward", arguments)
    else:
        for gates, q, h, *others in arguments:
            launch.forward_steps("gru_step_forward", (gates, q, h), h, *others, layout)
    return contexts


def backward(
    ctx: GRUContext,
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
    for ctx, dy, (dh,), _, trace in passes:
        _, h, gates, q, _, w_hh, layout, mask = ctx
        xp = get_array_module(h)
        da_rzn, da_rzq = xp.empty_like(gates), xp.empty_like(gates)
        trace_h = None if trace is None else trace[0]
        dy = launch.contiguous(dy)
        arguments.append((da_rzn, da_rzq, dh, dy, trace_h, gates, q, h, w_hh, mask))
    persistent = launch.persistent("gru", h, layout, len(passes))
    if persistent is not None:
        persistent.run("gru_backward", arguments)
    else:
        for one in arguments:
            _backward_steps(layout, *one)
    dxs = []
    for (ctx, _, _, dweights, _), (da_rzn, da_rzq, *_) in zip(passes, arguments, strict=True):
        launch.add_weight_gradients(dweights, da_rzn, da_rzq, ctx.x, ctx.h, ctx.mask, layout)
        dxs.append(da_rzn @ ctx.w_ih)
    return dxs


def _backward_steps(
    layout: Layout,
    da_rzn: Array,
    da_rzq: Array,
    dh: Array,
    dy: Array | None,
    trace_h: Array | None,
    gates: Array,
    q: Array,
    h: Array,
    w_hh: Array,
    mask: Array | None,
) -> None:
    xp = get_array_module(h)
    product = xp.zeros_like(dh)
    arrays = (da_rzn, da_rzq, dh, product, mask, dy, trace_h, gates, q, h)
    kernel = launch.Stepwise("gru_step_backward", h, layout, *arrays)
    da_rzqs, products = layout.split(da_rzq), layout.running(product)
    for t in reversed(range(layout.steps)):
        kernel.run(t)
        xp.dot(da_rzqs[t], w_hh, products[t])  # the kernel of the step before adds it
    dh += product if mask is None else product * mask


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
    return launch.by_gate(ctx.gates, GATES)
