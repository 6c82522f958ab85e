r"""The Elman recurrence, with tanh or ReLU, over packed rows.

Forward, with :math:`\phi` the nonlinearity:

.. math::  h_t = \phi(z_t), \qquad z_t = W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}

Backward. A state reaches the loss through the output at its own step and through the next state, so

.. math::
    dh_t &= dy_t + W_{hh}^\top dz_{t+1} \\
    dz_t &= dh_t \odot \phi'(z_t), \qquad \tanh' = 1 - h^2, \quad \mathrm{relu}' = [h > 0]

and, as the weights are the same at every step, their gradients are sums over all rows:

.. math::
    dW_{ih} = \sum_t dz_t x_t^\top, \quad dW_{hh} = \sum_t dz_t h_{t-1}^\top, \quad
    db = \sum_t dz_t, \quad dx_t = W_{ih}^\top dz_t

With recurrent dropout :math:`W_{hh}` multiplies :math:`\mu \odot h_{t-1}`, the mask :math:`\mu` being the
same at every step. Then what it hands back is masked, and its own gradient sees the masked states:

.. math::
    dh_t = dy_t + \mu \odot W_{hh}^\top dz_{t+1}, \qquad dW_{hh} = \sum_t dz_t (\mu \odot h_{t-1})^\top

What the functions take is said in :mod:`minirnn.functional.recurrence`.

References
----------
https://docs.pytorch.org/docs/stable/generated/torch.nn.RNN.html;
P. Werbos, "Backpropagation through time: what it does and how to do it", Proc. IEEE 78 (1990).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from ..backend import Array, get_array_module
from ..layout import Layout
from . import recurrence
from .gates import number
from .recurrence import Mask, States, Traces, Weights
from .scratch import put_back, put_back_workspace, scratch, workspace
from .shared import add_gradients, gate_sums, masked, masked_

GATES = ("h",)
STATES = ("h",)
weight_shapes = partial(recurrence.weight_shapes, len(GATES))


class RNNContext(NamedTuple):
    """What BPTT through one layer has to remember: its input and its states."""

    x: Array  # (N, I), a row per step of a sequence
    h: Array  # (B + N, H): h_0 over all h_t
    w_ih: Array  # (H, I)
    w_hh: Array  # (H, H)
    layout: Layout
    nonlinearity: str
    mask: Array | None  # (B, H): recurrent dropout


def forward(
    x: Array,
    states: States,
    weights: Weights,
    layout: Layout,
    nonlinearity: str = "tanh",
    mask: Mask = None,
    save: bool = True,
) -> RNNContext | None:
    """Fill ``h[B:]`` from ``h[:B]``; `nonlinearity` is "tanh" or "relu"."""
    (h,) = states
    w_ih, w_hh, b_ih, b_hh = weights
    xp, relu = get_array_module(x), nonlinearity == "relu"
    z = h[layout.batch_size :]  # z_t becomes h_t in its place
    for span in layout.spans:
        x[span.rows].dot(w_ih.T, z[span.rows])
    if b_ih is not None and b_hh is not None:
        z += b_ih + b_hh
    w, products = xp.ascontiguousarray(w_hh.T), xp.empty((layout.batch_size, len(w_hh)), x.dtype)
    for h_prev, h_t, from_h in zip(*layout.transitions(h), layout.running(products), strict=True):
        if mask is not None:
            h_prev = masked(h_prev, mask[: len(h_t)])
        h_t += h_prev.dot(w, from_h)
        if relu:
            xp.maximum(h_t, 0, out=h_t)
        else:
            xp.tanh(h_t, h_t)
    return RNNContext(x, h, w_ih, w_hh, layout, nonlinearity, mask) if save else None


def backward(
    ctx: RNNContext, dy: Array | None, dstates: States, dweights: Weights, trace: Traces = None
) -> Array:
    """Return dx, lead dh back in its place, and add to the weights' gradients."""
    x, h, _, w_hh, layout, nonlinearity, mask = ctx
    xp, relu = get_array_module(x), nonlinearity == "relu"
    dx, memory = xp.empty(x.shape, x.dtype), workspace((layout.span_rows, len(w_hh)), x)
    (dh,) = dstates
    dhs, dys = layout.running(dh), layout.split(dy)
    traces, one = layout.split(None if trace is None else trace[0]), number(1, x)
    for span in reversed(layout.spans):
        y = h[layout.batch_size :][span.rows]
        dz = memory[: len(y)]
        if relu:
            dead = layout.split(y <= 0, span)
        else:
            dead = layout.split(None, span)
            xp.multiply(y, y, dz)
            xp.subtract(one, dz, dz)
        steps = span.steps
        per_step = zip(
            layout.split(dz, span), dead, dhs[steps], dys[steps], traces[steps], strict=True
        )
        for dz_t, dead_t, dh_t, dy_t, trace_t in reversed(list(per_step)):
            if dy_t is not None:
                dh_t += dy_t
            if trace_t is not None:
                trace_t[...] = dh_t
            if dead_t is None:
                dz_t *= dh_t  # dz_t held 1 - h_t^2
            else:  # select: 0 times an infinite gradient would be NaN
                dz_t[...] = dh_t
                xp.copyto(dz_t, 0, where=dead_t)
            dz_t.dot(w_hh, dh_t)
            if mask is not None:
                masked_(dh_t, mask[: len(dh_t)])
        add_gradients(ctx, span, dz, dx, dweights)
    put_back_workspace(memory)
    return dx


def step(
    x: Array, states: States, weights: Weights, new: States, nonlinearity: str = "tanh"
) -> None:
    """Take one step: the equation as it stands."""
    (h,), (z,) = states, new
    w_ih, w_hh, b_ih, b_hh = weights
    xp = get_array_module(x)
    gate_sums(w_ih, b_ih, x, z[None])
    from_h = scratch((1, *z.shape), z)
    z += gate_sums(w_hh, b_hh, h, from_h)[0]
    put_back(from_h)
    if nonlinearity == "tanh":
        xp.tanh(z, z)
    else:
        xp.maximum(z, 0, out=z)


def gates(ctx: RNNContext) -> dict[str, Array]:
    """Return the gates' values by name: none here."""
    return {}
