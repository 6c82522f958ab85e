"""The GRU on the GPU; :mod:`minirnn.functional.gru` has the equations and the arguments."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..backend import Array, get_array_module
from ..functional.gates import by_gate
from ..functional.gru import GATES, GRURows, add_products
from ..functional.recurrence import Weights
from ..functional.shared import add_bias_gradient, masked
from ..layout import Layout, Span
from . import run

__all__ = ["backward", "backward_together", "forward", "forward_together", "gates", "step"]


def forward_together(passes: Sequence[run.Pass], layout: Layout) -> list[GRURows]:
    """Run one direction or both forward, (x, states, weights, mask) of each."""
    kernels = run.persistent("gru", passes[0][1][0], layout, len(passes))
    contexts, arguments = [], []
    for x, (h,), (w_ih, w_hh, b_ih, b_hh), mask in passes:
        xp, N, H = get_array_module(x), layout.rows, h.shape[1]
        gates, q = xp.empty((N, 3 * H), x.dtype), xp.empty((N, H), x.dtype)
        xp.dot(x, w_ih.T, gates)
        contexts.append(GRURows(x, h, gates, q, w_ih, w_hh, layout, mask))
        arguments.append((gates, q, h, w_hh, b_ih, b_hh, mask))

    def one_by_one(gates: Array, q: Array, h: Array, *others: Array) -> None:
        run.forward_steps("gru_step_forward", (gates, q, h), h, *others, layout)

    run.over_steps(kernels, "gru_forward", arguments, one_by_one)
    return contexts


def backward_together(passes: Sequence[run.PassBack]) -> list[Array]:
    """Run one direction or both back, (ctx, dy, dstates, dweights, trace) of each."""
    arguments = []
    for ctx, dy, (dh,), _, trace in passes:
        xp, trace_h = get_array_module(ctx.h), None if trace is None else trace[0]
        da_rzn, da_rzq = xp.empty_like(ctx.gates), xp.empty_like(ctx.gates)
        saved = ctx.gates, ctx.q, ctx.h, ctx.w_hh, ctx.mask
        arguments.append((da_rzn, da_rzq, dh, run.contiguous(dy), trace_h, *saved))
    kernels = run.persistent("gru", ctx.h, ctx.layout, len(passes))
    run.over_steps(kernels, "gru_backward", arguments, partial(_backward_steps, ctx.layout))
    return run.end_backward(passes, [one[:2] for one in arguments], _add_gradients)


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
    kernel = run.Stepwise("gru_step_backward", h, layout, *arrays)
    da_rzqs, products = layout.split(da_rzq), layout.running(product)
    for t in reversed(range(layout.steps)):
        kernel.run(t)
        xp.dot(da_rzqs[t], w_hh, products[t])  # the kernel of the step before adds it
    dh += product if mask is None else masked(product, mask)


def _add_gradients(
    ctx: GRURows, span: Span, das: tuple[Array, Array], dx: Array, dweights: Weights
) -> None:
    """End the backward pass: the kernels leave what W_ih's and W_hh's products are for apart."""
    dw_ih, dw_hh, db_ih, db_hh = dweights
    dw_hh += add_products(ctx, span, *das, dx, dw_ih)
    for db, da in zip((db_ih, db_hh), das, strict=True):
        add_bias_gradient([db], da)


def gates(ctx: GRURows) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    return by_gate(ctx.gates, GATES)


forward, backward, step = run.of_one(forward_together, backward_together)
