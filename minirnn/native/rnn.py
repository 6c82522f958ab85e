"""The Elman recurrence, its loop in C; :mod:`minirnn.functional.rnn` has equations and arguments."""

from __future__ import annotations

from collections.abc import Callable

from ..backend import Array, quiet
from ..functional import rnn, shared
from ..functional.recurrence import Mask, States, Traces, Weights
from ..functional.rnn import GATES, STATES, RNNContext, gates, weight_shapes
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

_FORWARD = {"tanh": _loops.rnn_tanh_forward, "relu": _loops.rnn_relu_forward}
_BACKWARD = {"tanh": _loops.rnn_tanh_backward, "relu": _loops.rnn_relu_backward}
_step_in_numpy = quiet(rnn.step)
_STEP = {"tanh": _loops.rnn_tanh_step, "relu": _loops.rnn_relu_step}


def forward(
    x: Array,
    states: States,
    weights: Weights,
    layout: Layout,
    nonlinearity: str = "tanh",
    mask: Mask = None,
    save: bool = True,
) -> RNNContext | None:
    """Fill ``h[B:]``, the states at all steps, from ``h[:B]``, the initial ones."""
    (h,), (w_ih, w_hh, *biases) = states, weights
    x, mask, H, loop = read(x), read(mask), len(w_hh), _FORWARD[nonlinearity]
    w, w_x = packed_once(w_hh, layout), input_once(w_ih, layout)
    for span, place in cuts(layout):
        x_w = of_input(x, w_ih, w_x, span, h, layout.batch_size + span.rows.start)
        loop(h, w, *biases, mask, *x_w, *place, H)
    return RNNContext(x, h, w_ih, w_hh, layout, nonlinearity, mask) if save else None


def backward(
    ctx: RNNContext, dy: Array | None, dstates: States, dweights: Weights, trace: Traces = None
) -> Array:
    """Return the gradient of the input; add up those of the weights."""
    (dh,), (trace_h,), H = dstates, trace or (None,), len(ctx.w_hh)
    given = dh, read(dy), trace_h, ctx.h
    return back_through(_BACKWARD[ctx.nonlinearity], given, ctx, H, dweights, shared.add_gradients)


def step(
    x: Array, states: States, weights: Weights, new: States, nonlinearity: str = "tanh"
) -> None:
    """Take one step."""
    (h,), (h_new,), (w_ih, w_hh, *biases) = states, new, weights
    if not step_in_c(x, w_ih, w_hh):
        _step_in_numpy(x, states, weights, new, nonlinearity)
        return
    _STEP[nonlinearity](h_new, read(h), w_ih, read(x), w_hh, *biases)


def stepper(
    weights: Weights, states: States, nonlinearity: str = "tanh"
) -> Callable[[Array], Array]:
    """Return a function that takes a step; see :func:`minirnn.functional.recurrence.stepper_of`."""
    w_ih, w_hh, *biases = weights
    _, B, H = states[0].shape
    h, loop, place = states[0].reshape(2 * B, H), _FORWARD[nonlinearity], one_step(B, H)
    w, w_x, h_t = panels(w_hh), panels(w_ih), h[B:]

    def step(x: Array) -> Array:
        loop(h, w, *biases, None, w_x, read(x), *place)
        return h_t

    return step
