r"""Long short-term memory with layer normalisation, over packed rows.

Forward, with gates i, f, g, o as in :mod:`minirnn.functional.lstm`, and LN the normalisation of a row to mean
0 and variance 1 (see :mod:`minirnn.functional.activation`), without gain and bias:

.. math::
    z_t &= \gamma_{ih} \odot \mathrm{LN}(W_{ih} x_t) + b_{ih}
         + \gamma_{hh} \odot \mathrm{LN}(W_{hh} h_{t-1}) + b_{hh} \\
    i, f, o &= \sigma(z), \quad g = \tanh(z), \qquad c_t = f \odot c_{t-1} + i \odot g \\
    m_t &= \gamma_c \odot \mathrm{LN}(c_t) + b_c, \qquad h_t = o \odot \tanh m_t

All four gates' products are one row for LN. The cell is normalised where it is read, not where it is kept:
along c the gradient is still multiplied by f and nothing else.

Backward, with :math:`\mathrm{LN}'` the adjoint of a normalisation with its gain:

.. math::
    dc_t &\mathrel{+}= \mathrm{LN}'_c\big(dh_t \odot o\,(1 - \tanh^2 m_t)\big) \\
    dz_i &= dc_t \odot g\, i (1 - i), \quad dz_f = dc_t \odot c_{t-1} f (1 - f), \quad
    dz_g = dc_t \odot i (1 - g^2), \\
    dz_o &= dh_t \odot \tanh m_t\, o (1 - o) \\
    dp_t &= \mathrm{LN}'_{hh}(dz_t), \qquad dh_{t-1} = W_{hh}^\top dp_t, \qquad dc_{t-1} = dc_t \odot f

and at the end, for all rows at once, :math:`da = \mathrm{LN}'_{ih}(dz)`, of which
:math:`dx = W_{ih}^\top da` and :math:`dW_{ih} = \sum_t da_t x_t^\top`.

What the functions take is said in :mod:`minirnn.functional.recurrence`.

References
----------
J. Ba, J. Kiros, G. Hinton, "Layer normalization", arXiv:1607.06450 (2016), equations 20 to 22
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

GATES = ("i", "f", "g", "o")
STATES = ("h", "c")
EPS = 1e-5


class Step(NamedTuple):
    """What one time step leaves for backward."""

    gates: Array  # (n, 4, H): i, f, g, o
    tanh_m: Array  # (n, H)
    norm_h: LayerNormContext  # of W_hh h_{t-1}
    norm_c: LayerNormContext


class Context(NamedTuple):
    """What BPTT through one layer has to remember."""

    x: Array  # (N, I)
    h: Array  # (B + N, H): h_0 over all h_t
    c: Array  # (B + N, H): c_0 over all c_t
    steps: list[Step]
    norm_x: LayerNormContext  # of W_ih x_t, all rows
    w_ih: Array  # (4H, I)
    weights: Weights
    layout: Layout
    mask: Array | None  # (B, H): recurrent dropout


def weight_shapes(
    input_size: int, hidden_size: int, output_size: int, bias: bool
) -> recurrence.Shapes:
    """Return the shapes of W_ih, W_hh, their biases, the three gains, and the bias of the cell."""
    shapes = recurrence.weight_shapes(len(GATES), input_size, hidden_size, output_size, bias)
    rows, cell = (4 * hidden_size,), (hidden_size,)
    gains = {"gain_ih": rows, "gain_hh": rows, "gain_c": cell}
    return {**shapes, **gains, "bias_c": cell if bias else None}


def equations(z_x: Array, h: Array, c: Array, weights: Weights) -> tuple[Array, Array, Step]:
    """Return the next h and c, and what backward needs; `z_x` is the input's part of z."""
    _, w_hh, _, b_hh, _, gain_hh, gain_c, b_c = weights
    xp, H = get_array_module(h), c.shape[1]
    z, norm_h = layer_norm_forward(h.dot(w_hh.T), gain_hh, b_hh, EPS)
    z += z_x
    gates = z.reshape(-1, 4, H)
    i, f, g, o = gates.swapaxes(0, 1)
    with saturating():
        for gate in (i, f, o):
            sigmoid_(gate)
    xp.tanh(g, g)
    c_t = f * c + i * g
    m, norm_c = layer_norm_forward(c_t, gain_c, b_c, EPS)
    tanh_m = xp.tanh(m)
    return o * tanh_m, c_t, Step(gates, tanh_m, norm_h, norm_c)


def forward(
    x: Array, states: States, weights: Weights, layout: Layout, mask: Mask = None, save: bool = True
) -> Context | None:
    """Fill ``h[B:]`` and ``c[B:]`` from ``h[:B]`` and ``c[:B]``."""
    (h, c), (w_ih, _, b_ih, _, gain_ih, *_) = states, weights
    z_x, norm_x = layer_norm_forward(products(x, w_ih, layout), gain_ih, b_ih, EPS)
    steps = []
    per_step = layout.split(z_x), *layout.transitions(h), *layout.transitions(c)
    for z_x_t, h_prev, h_t, c_prev, c_t in zip(*per_step, strict=True):
        h_in = h_prev if mask is None else masked(h_prev, mask[: len(h_t)])
        h_t[...], c_t[...], step = equations(z_x_t, h_in, c_prev, weights)
        if save:
            steps.append(step)
    return Context(x, h, c, steps, norm_x, w_ih, weights, layout, mask) if save else None


def backward(
    ctx: Context, dy: Array | None, dstates: States, dweights: Weights, trace: Traces = None
) -> Array:
    """Return dx, lead dh and dc back in their places, and add to the weights' gradients."""
    xp, layout, mask = get_array_module(ctx.x), ctx.layout, ctx.mask
    w_hh = ctx.weights[1]
    dz, dp = xp.empty((2, layout.rows, len(w_hh)), ctx.x.dtype)
    dm = xp.empty((layout.rows, ctx.c.shape[1]), ctx.x.dtype)
    per_step = (
        ctx.steps,
        layout.transitions(ctx.c)[0],
        *map(layout.running, dstates),
        *map(layout.split, (dz, dp, dm, dy, *(trace or (None, None)))),
    )
    for step, c_prev, dh, dc, dz_t, dp_t, dm_t, dy_t, *traces in reversed(
        list(zip(*per_step, strict=True))
    ):
        i, f, g, o = step.gates.swapaxes(0, 1)
        if dy_t is not None:
            dh += dy_t
        dm_t[...] = dh * o * (1 - step.tanh_m * step.tanh_m)
        dc += layer_norm_backward(step.norm_c, dm_t)
        for kept, d in zip(traces, (dh, dc), strict=True):
            if kept is not None:
                kept[...] = d
        di, df, dg, do = dz_t.reshape(-1, 4, g.shape[1]).swapaxes(0, 1)
        di[...], df[...] = dc * g * i * (1 - i), dc * c_prev * f * (1 - f)
        dg[...], do[...] = dc * i * (1 - g * g), dh * step.tanh_m * o * (1 - o)
        dc *= f
        dp_t[...] = layer_norm_backward(step.norm_h, dz_t)
        dp_t.dot(w_hh, dh)
        if mask is not None:
            masked_(dh, mask[: len(dh)])
    return _add_up(ctx, dz, dp, dm, dweights)


def _add_up(ctx: Context, dz: Array, dp: Array, dm: Array, dweights: Weights) -> Array:
    """Return dx, and add to the weights' gradients, whose sums run over all rows."""
    x, steps, norm_x = ctx.x, ctx.steps, ctx.norm_x
    xp = get_array_module(x)
    dw_ih, dw_hh, db_ih, db_hh, dgain_ih, dgain_hh, dgain_c, db_c = dweights
    da, dx = layer_norm_backward(norm_x, dz), xp.empty(x.shape, x.dtype)
    for span in reversed(ctx.layout.spans):
        rows, inside = span.rows, steps[span.steps]
        add_input_gradients(ctx, span, da[rows], dx, dw_ih)
        dw_hh += dp[rows].T.dot(entering(ctx, span))
        add_bias_gradient((db_ih, db_hh), dz[rows])
        add_bias_gradient((db_c,), dm[rows])
        dgain_ih += column_sums(dz[rows] * norm_x.x_hat[rows])
        dgain_hh += column_sums(dz[rows] * xp.concatenate([s.norm_h.x_hat for s in inside]))
        dgain_c += column_sums(dm[rows] * xp.concatenate([s.norm_c.x_hat for s in inside]))
    return dx


def step(x: Array, states: States, weights: Weights, new: States) -> None:
    """Take one step."""
    (h, c), (h_new, c_new), (w_ih, _, b_ih, _, gain_ih, *_) = states, new, weights
    z_x, _ = layer_norm_forward(x.dot(w_ih.T), gain_ih, b_ih, EPS)
    h_new[...], c_new[...], _ = equations(z_x, h, c, weights)


def gates(ctx: Context) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    xp = get_array_module(ctx.x)
    every = xp.concatenate([step.gates for step in ctx.steps]).swapaxes(0, 1)
    return dict(zip(GATES, every, strict=True))
