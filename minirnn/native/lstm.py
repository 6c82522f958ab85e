"""The LSTM with its loop in C; :mod:`minirnn.functional.lstm` has the equations and the arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..backend import Array, quiet
from ..functional import lstm, shared
from ..functional.gates import by_gate
from ..functional.lstm import GATES, STATES, weight_shapes
from ..functional.recurrence import Mask, States, Traces, Weights, stepper_of
from ..layout import Layout
from . import _loops
from .shared import (
    back_through,
    cuts,
    input_once,
    of_input,
    one_step,
    packed_once,
    panels,
    read,
    releases_gil,
    step_in_c,
)

__all__ = [
    "GATES", "STATES", "backward", "forward", "gates", "releases_gil", "step", "stepper", "weight_shapes",
]  # fmt: skip

_in_numpy, _back_in_numpy = quiet(lstm.forward), quiet(lstm.backward)
_step_in_numpy = quiet(lstm.step)


class LSTMContext(NamedTuple):
    """What BPTT through one layer has to remember: its input, its states and its gates."""

    x: Array  # (N, I)
    h: Array  # (B + N, H): h_0 over all h_t
    c: Array  # (B + N, H): c_0 over all c_t
    gates: Array  # (N, 4H): i, f, g, o
    w_ih: Array  # (4H, I)
    w_hh: Array  # (4H, H)
    layout: Layout
    mask: Array | None  # (B, H): recurrent dropout


def forward(
    x: Array, states: States, weights: Weights, layout: Layout, mask: Mask = None, save: bool = True
) -> LSTMContext | lstm.LSTMContext | None:
    """Fill ``h[B:]`` and ``c[B:]``, the states at all steps, from ``h[:B]`` and ``c[:B]``."""
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    if w_hr is not None:
        return _in_numpy(x, states, weights, layout, mask, save)
    (h, c), x, mask, H = states, read(x), read(mask), w_hh.shape[1]
    rows = layout.rows if save else layout.span_rows
    z = np.empty((rows, 4 * H), x.dtype)
    w, w_x = packed_once(w_hh, layout), input_once(w_ih, layout)
    for span, place in cuts(layout):
        x_w = of_input(x, w_ih, w_x, span, z, span.rows.start if save else 0)
        _loops.lstm_forward(z, h, c, w, b_ih, b_hh, mask, *x_w, *place, H)
    return LSTMContext(x, h, c, z, w_ih, w_hh, layout, mask) if save else None


def backward(
    ctx: LSTMContext | lstm.LSTMContext,
    dy: Array | None,
    dstates: States,
    dweights: Weights,
    trace: Traces = None,
) -> Array:
    """Return the gradient of the input; add up those of the weights."""
    if isinstance(ctx, lstm.LSTMContext):
        return _back_in_numpy(ctx, dy, dstates, dweights, trace)
    (dh, dc), (trace_h, trace_c) = dstates, trace or (None, None)
    given = dh, dc, read(dy), trace_h, trace_c, ctx.gates, ctx.h, ctx.c
    return back_through(
        _loops.lstm_backward, given, ctx, len(ctx.w_hh), dweights, shared.add_gradients
    )


def gates(ctx: LSTMContext | lstm.LSTMContext) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    if isinstance(ctx, lstm.LSTMContext):
        return lstm.gates(ctx)
    return by_gate(ctx.gates, GATES)


def step(x: Array, states: States, weights: Weights, new: States) -> None:
    """Take one step."""
    (h, c), (h_new, c_new), (w_ih, w_hh, b_ih, b_hh, w_hr) = states, new, weights
    if w_hr is not None or not step_in_c(x, w_ih, w_hh):
        _step_in_numpy(x, states, weights, new)
        return
    _loops.lstm_step(h_new, c_new, read(h), read(c), w_ih, read(x), w_hh, b_ih, b_hh)


def stepper(weights: Weights, states: States) -> Callable[[Array], Array]:
    """Return a function that takes a step; see :func:`minirnn.functional.recurrence.stepper_of`."""
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    if w_hr is not None:
        return stepper_of(lstm, weights, states, {})
    _, B, H = states[0].shape
    h, c = (s.reshape(2 * B, H) for s in states)
    z = np.empty((B, 4 * H), w_hh.dtype)
    w, w_x, h_t, place = panels(w_hh), panels(w_ih), h[B:], one_step(B, H)

    def step(x: Array) -> Array:
        _loops.lstm_forward(z, h, c, w, b_ih, b_hh, None, w_x, read(x), *place)
        return h_t

    return step
