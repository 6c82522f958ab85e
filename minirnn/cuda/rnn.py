"""The Elman recurrence on the GPU; :mod:`minirnn.functional.rnn` has the equations and the arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, get_array_module
from ..layout import Layout
from . import launch


class RNNContext(NamedTuple):
    """What BPTT through one layer has to remember: its input and its states."""

    x: Array  # (N, I), a row per step of a sequence
    h: Array  # (B + N, H): h_0 over all h_t
    w_ih: Array  # (H, I)
    w_hh: Array  # (H, H)
    layout: Layout
    relu: np.int32
    mask: Array | None  # (B, H): recurrent dropout


def forward(
    x: Array,
    states: Sequence[Array],
    weights: Sequence[Any],
    layout: Layout,
    nonlinearity: str = "tanh",
    mask: Array | None = None,
    save: bool = True,
) -> RNNContext | None:
    """Fill ``h[B:]``, the states at all steps, from ``h[:B]``, the initial ones."""
    ctx = forward_together([(x, states, weights, mask)], layout, nonlinearity)[0]
    return ctx if save else None


def forward_together(
    passes: Sequence[launch.Pass], layout: Layout, nonlinearity: str = "tanh"
) -> list[RNNContext]:
    """Do the same for one direction or both, (x, states, weights, mask) of each."""
    relu = np.int32(nonlinearity == "relu")
    persistent = launch.persistent("rnn", passes[0][1][0], layout, len(passes))
    contexts, arguments = [], []
    for x, (h,), (w_ih, w_hh, b_ih, b_hh), mask in passes:
        # Each step's part becomes its h_t in its place.
        get_array_module(x).dot(x, w_ih.T, h[layout.batch_size :])
        contexts.append(RNNContext(x, h, w_ih, w_hh, layout, relu, mask))
        arguments.append((h, w_hh, b_ih, b_hh, mask))
    if persistent is not None:
        persistent.run("rnn_forward", arguments, relu)
    else:
        for h, *others in arguments:
            launch.forward_steps("rnn_step_forward", (h,), h, *others, layout, relu)
    return contexts


def backward(
    ctx: RNNContext,
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
        x, h, _, w_hh, layout, relu, mask = ctx
        dz = get_array_module(x).empty((layout.rows, h.shape[1]), x.dtype)
        trace_h = None if trace is None else trace[0]
        arguments.append((dz, dh, launch.contiguous(dy), trace_h, h, w_hh, mask))
    persistent = launch.persistent("rnn", h, layout, len(passes))
    if persistent is not None:
        persistent.run("rnn_backward", arguments, relu)
    else:
        for one in arguments:
            _backward_steps(layout, relu, *one)
    dxs = []
    for (ctx, _, _, dweights, _), (dz, *_) in zip(passes, arguments, strict=True):
        launch.add_weight_gradients(dweights, dz, dz, ctx.x, ctx.h, ctx.mask, layout)
        dxs.append(dz @ ctx.w_ih)
    return dxs


def _backward_steps(
    layout: Layout,
    relu: np.int32,
    dz: Array,
    dh: Array,
    dy: Array | None,
    trace_h: Array | None,
    h: Array,
    w_hh: Array,
    mask: Array | None,
) -> None:
    xp = get_array_module(h)
    kernel = launch.Stepwise("rnn_step_backward", h, layout, dz, dh, mask, dy, trace_h, h, relu)
    dzs, dhs = layout.split(dz), layout.running(dh)
    for t in reversed(range(layout.steps)):
        kernel.run(t)
        xp.dot(dzs[t], w_hh, dhs[t])  # the kernel of the step before applies the mask
    if mask is not None and dhs:
        dhs[0] *= mask[: len(dhs[0])]


def step(
    x: Array,
    states: Sequence[Array],
    weights: Sequence[Any],
    new: Sequence[Array],
    nonlinearity: str = "tanh",
) -> None:
    """Take one step and forget all but the state."""
    launch.one_step(forward, x, states, weights, new, nonlinearity=nonlinearity)


def gates(ctx: RNNContext) -> dict[str, Array]:
    """Return the gates' values by name: none here."""
    return {}
