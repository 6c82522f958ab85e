r"""Gated recurrent unit with layer normalisation, over packed rows.

Forward, with gates r, z, n as in :mod:`minirnn.functional.gru`, and LN the normalisation of a row to mean 0
and variance 1 (see :mod:`minirnn.functional.activation`), without gain and bias:

.. math::
    a_t &= \gamma_{ih} \odot \mathrm{LN}(W_{ih} x_t) + b_{ih}, \qquad
    q_t = \gamma_{hh} \odot \mathrm{LN}(W_{hh} h_{t-1}) + b_{hh} \\
    r &= \sigma(a_r + q_r), \quad z = \sigma(a_z + q_z), \quad n = \tanh(a_n + r \odot q_n) \\
    h_t &= n + z \odot (h_{t-1} - n)

All three gates' products are one row for LN, as in Haste's layer.

Backward, with :math:`\mathrm{LN}'` the adjoint of a normalisation with its gain:

.. math::
    da_n &= dh_t \odot (1 - z)(1 - n^2), \qquad dq_n = da_n \odot r \\
    da_r &= dq_r = da_n \odot q_n\, r (1 - r), \qquad da_z = dq_z = dh_t \odot (h_{t-1} - n)\, z (1 - z) \\
    dp_t &= \mathrm{LN}'_{hh}(dq_t), \qquad dh_{t-1} = dh_t \odot z + W_{hh}^\top dp_t

and at the end, for all rows at once, :math:`ds = \mathrm{LN}'_{ih}(da)`, of which
:math:`dx = W_{ih}^\top ds` and :math:`dW_{ih} = \sum_t ds_t x_t^\top`.

What the functions take is said in :mod:`minirnn.functional.recurrence`.

References
----------
J. Ba, J. Kiros, G. Hinton, "Layer normalization", arXiv:1607.06450 (2016);
https://github.com/lmnt-com/haste (``LayerNormGRU``).
"""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, get_array_module
from ..layout import Layout
from . import recurrence
from .activation import LayerNormContext, layer_norm_backward, layer_norm_forward
from .gates import saturating, sigmoid_
from .recurrence import Mask, States, Traces, Weights
from .shared import (
    add_bias_gradient,
    add_input_gradients,
    column_sums,
    entering,
    masked,
    masked_,
    products,
)

GATES = ("r", "z", "n")
STATES = ("h",)
EPS = 1e-5


class Step(NamedTuple):
    """What one time step leaves for backward."""

    gates: Array  # (n, 3, H): r, z, n
    q_n: Array  # (n, H)
    norm_h: LayerNormContext  # of W_hh h_{t-1}


class Context(NamedTuple):
    """What BPTT through one layer has to remember."""

    x: Array  # (N, I)
    h: Array  # (B + N, H): h_0 over all h_t
    w_ih: Array  # (3H, I)
    weights: Weights
    steps: list[Step]
    norm_x: LayerNormContext  # of W_ih x_t, all rows
    layout: Layout
    mask: Array | None  # (B, H): recurrent dropout


def weight_shapes(
    input_size: int, hidden_size: int, output_size: int, bias: bool
) -> recurrence.Shapes:
    """Return the shapes of W_ih, W_hh, their biases and their gains."""
    shapes = recurrence.weight_shapes(len(GATES), input_size, hidden_size, output_size, bias)
    rows = (3 * hidden_size,)
    return {**shapes, "gain_ih": rows, "gain_hh": rows}


def equations(a: Array, h: Array, h_in: Array, weights: Weights) -> tuple[Array, Step]:
    """Return the next h, and what backward needs; `a` is the input's part of the gates, and changed."""
    _, w_hh, _, b_hh, _, gain_hh = weights
    xp, H = get_array_module(h), h.shape[1]
    q, norm_h = layer_norm_forward(h_in.dot(w_hh.T), gain_hh, b_hh, EPS)
    q_n, gates = q[:, 2 * H :], a.reshape(-1, 3, H)
    r, z, n = gates.swapaxes(0, 1)
    r += q[:, :H]
    z += q[:, H : 2 * H]
    with saturating():
        sigmoid_(r)
        sigmoid_(z)
    n += r * q_n
    xp.tanh(n, n)
    return n + z * (h - n), Step(gates, q_n, norm_h)


def forward(
    x: Array, states: States, weights: Weights, layout: Layout, mask: Mask = None, save: bool = True
) -> Context | None:
    """Fill ``h[B:]`` from ``h[:B]``."""
    (h,), (w_ih, _, b_ih, _, gain_ih, _) = states, weights
    a, norm_x = layer_norm_forward(products(x, w_ih, layout), gain_ih, b_ih, EPS)
    steps = []
    per_step = layout.split(a), *layout.transitions(h)
    for a_t, h_prev, h_t in zip(*per_step, strict=True):
        h_in = h_prev if mask is None else masked(h_prev, mask[: len(h_t)])
        h_t[...], step = equations(a_t, h_prev, h_in, weights)
        if save:
            steps.append(step)
    return Context(x, h, w_ih, weights, steps, norm_x, layout, mask) if save else None


def backward(
    ctx: Context, dy: Array | None, dstates: States, dweights: Weights, trace: Traces = None
) -> Array:
    """Return dx, lead dh back in its place, and add to the weights' gradients."""
    xp, layout, mask, w_hh = get_array_module(ctx.x), ctx.layout, ctx.mask, ctx.weights[1]
    da, dq, dp = xp.empty((3, layout.rows, len(w_hh)), ctx.x.dtype)
    per_step = (
        ctx.steps,
        layout.transitions(ctx.h)[0],
        layout.running(dstates[0]),
        *map(layout.split, (da, dq, dp, dy, None if trace is None else trace[0])),
    )
    for step, h_prev, dh, da_t, dq_t, dp_t, dy_t, trace_t in reversed(
        list(zip(*per_step, strict=True))
    ):
        (r, z, n), H = step.gates.swapaxes(0, 1), dh.shape[1]
        if dy_t is not None:
            dh += dy_t
        if trace_t is not None:
            trace_t[...] = dh
        dr, dz, dn = da_t.reshape(-1, 3, H).swapaxes(0, 1)
        dn[...] = dh * (1 - z) * (1 - n * n)
        dr[...], dz[...] = dn * step.q_n * r * (1 - r), dh * (h_prev - n) * z * (1 - z)
        dq_t[:, : 2 * H], dq_t[:, 2 * H :] = da_t[:, : 2 * H], dn * r
        dp_t[...] = layer_norm_backward(step.norm_h, dq_t)
        dh_in = dp_t.dot(w_hh)
        dh *= z
        dh += dh_in if mask is None else masked_(dh_in, mask[: len(dh)])
    return _add_up(ctx, da, dq, dp, dweights)


def _add_up(ctx: Context, da: Array, dq: Array, dp: Array, dweights: Weights) -> Array:
    """Return dx, and add to the weights' gradients, whose sums run over all rows."""
    x, steps, norm_x = ctx.x, ctx.steps, ctx.norm_x
    xp = get_array_module(x)
    dw_ih, dw_hh, db_ih, db_hh, dgain_ih, dgain_hh = dweights
    ds, dx = layer_norm_backward(norm_x, da), xp.empty(x.shape, x.dtype)
    for span in reversed(ctx.layout.spans):
        rows, inside = span.rows, steps[span.steps]
        add_input_gradients(ctx, span, ds[rows], dx, dw_ih)
        dw_hh += dp[rows].T.dot(entering(ctx, span))
        add_bias_gradient((db_ih,), da[rows])
        add_bias_gradient((db_hh,), dq[rows])
        dgain_ih += column_sums(da[rows] * norm_x.x_hat[rows])
        dgain_hh += column_sums(dq[rows] * xp.concatenate([s.norm_h.x_hat for s in inside]))
    return dx


def step(x: Array, states: States, weights: Weights, new: States) -> None:
    """Take one step."""
    (h,), (h_new,), (w_ih, _, b_ih, _, gain_ih, _) = states, new, weights
    a, _ = layer_norm_forward(x.dot(w_ih.T), gain_ih, b_ih, EPS)
    h_new[...], _ = equations(a, h, h, weights)


def gates(ctx: Context) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    xp = get_array_module(ctx.x)
    every = xp.concatenate([step.gates for step in ctx.steps]).swapaxes(0, 1)
    return dict(zip(GATES, every, strict=True))
