"""The Elman recurrence on the GPU; :mod:`minirnn.functional.rnn` has the equations and the arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, get_array_module
from ..packing import Layout
from . import launch

GATES = ("h",)


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
    (h,) = states
    w_ih, w_hh, b_ih, b_hh = weights
    xp = get_array_module(x)
    B, H = layout.batch_size, h.shape[1]
    relu = np.int32(nonlinearity == "relu")
    xp.dot(x, w_ih.T, h[B:])  # each step's part becomes its h_t in its place
    persistent = launch.persistent("rnn", h, layout)
    if persistent is not None:
        persistent.run("rnn_forward", h, w_hh, b_ih, b_hh, mask, relu)
    else:
        stepwise = launch.Stepwise(h, layout)
        product = xp.empty((B, H), x.dtype)
        for t, n, _, before in stepwise.steps:
            h_prev = h[before] if mask is None else h[before] * mask[:n]
            xp.dot(h_prev, w_hh.T, product[:n])
            stepwise.run("rnn_step_forward", t, h, product, b_ih, b_hh, relu)
    return RNNContext(x, h, w_ih, w_hh, layout, relu, mask) if save else None


def backward(
    ctx: RNNContext,
    dy: Array | None,
    dstates: Sequence[Array],
    dweights: Sequence[Any],
    trace: Sequence[Array] | None = None,
) -> Array:
    """Return dx; turn `dstates` into the initial states' gradients, and add to `dweights`."""
    x, h, w_ih, w_hh, layout, relu, mask = ctx
    xp = get_array_module(x)
    dz = xp.empty((layout.rows, h.shape[1]), x.dtype)
    (dh,) = dstates
    dy = launch.contiguous(dy)
    trace_h = None if trace is None else trace[0]
    persistent = launch.persistent("rnn", h, layout)
    if persistent is not None:
        persistent.run("rnn_backward", dz, dh, dy, trace_h, h, w_hh, mask, relu)
    else:
        stepwise = launch.Stepwise(h, layout)
        for t, n, rows, _ in reversed(stepwise.steps):
            stepwise.run("rnn_step_backward", t, dz, dh, dy, trace_h, h, relu)
            dh_t = dh[:n]
            xp.dot(dz[rows], w_hh, dh_t)
            if mask is not None:
                dh_t *= mask[:n]
    launch.add_weight_gradients(dweights, dz, dz, x, h, mask, layout)
    return dz @ w_ih


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
