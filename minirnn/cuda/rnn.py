"""The Elman recurrence on the GPU; :mod:`minirnn.functional.rnn` has the equations and the arguments."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..backend import Array, get_array_module
from ..functional.rnn import RNNContext, gates
from ..functional.shared import add_gradients
from ..layout import Layout
from . import run

__all__ = ["backward", "backward_together", "forward", "forward_together", "gates", "step"]


def forward_together(
    passes: Sequence[run.Pass], layout: Layout, nonlinearity: str = "tanh"
) -> list[RNNContext]:
    """Run one direction or both forward, (x, states, weights, mask) of each."""
    kernels = run.persistent("rnn", passes[0][1][0], layout, len(passes))
    contexts, arguments = [], []
    for x, (h,), (w_ih, w_hh, b_ih, b_hh), mask in passes:
        # Each step's part becomes its h_t in its place.
        get_array_module(x).dot(x, w_ih.T, h[layout.batch_size :])
        contexts.append(RNNContext(x, h, w_ih, w_hh, layout, nonlinearity, mask))
        arguments.append((h, w_hh, b_ih, b_hh, mask))

    def one_by_one(h: Array, w_hh: Array, b_ih: Any, b_hh: Any, mask: Any, relu: Any) -> None:
        run.forward_steps("rnn_step_forward", (h,), h, w_hh, b_ih, b_hh, mask, layout, relu)

    run.over_steps(kernels, "rnn_forward", arguments, one_by_one, _relu(nonlinearity))
    return contexts


def backward_together(passes: Sequence[run.PassBack]) -> list[Array]:
    """Run one direction or both back, (ctx, dy, dstates, dweights, trace) of each."""
    arguments = []
    for ctx, dy, (dh,), _, trace in passes:
        dz = get_array_module(ctx.x).empty((ctx.layout.rows, ctx.h.shape[1]), ctx.x.dtype)
        trace_h = None if trace is None else trace[0]
        arguments.append((dz, dh, run.contiguous(dy), trace_h, ctx.h, ctx.w_hh, ctx.mask))
    layout, relu = ctx.layout, _relu(ctx.nonlinearity)
    kernels = run.persistent("rnn", ctx.h, layout, len(passes))
    run.over_steps(kernels, "rnn_backward", arguments, partial(_backward_steps, layout), relu)
    return run.end_backward(passes, [dz for dz, *_ in arguments], add_gradients)


def _backward_steps(
    layout: Layout,
    dz: Array,
    dh: Array,
    dy: Array | None,
    trace_h: Array | None,
    h: Array,
    w_hh: Array,
    mask: Array | None,
    relu: np.int32,
) -> None:
    arrays = dz, dh, mask, dy, trace_h, h, relu
    kernel = run.Stepwise("rnn_step_backward", h, layout, *arrays)
    run.backward_steps(kernel, dz, dh, w_hh, mask, layout)


def _relu(nonlinearity: str) -> np.int32:
    return np.int32(nonlinearity == "relu")


forward, backward, step = run.of_one(forward_together, backward_together)
