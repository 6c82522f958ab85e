r"""Long short-term memory over packed rows, with torch's optional projection of the state.

Forward, with gates i (input), f (forget), g (candidate) and o (output):

.. math::
    i, f, o &= \sigma(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}), \qquad g = \tanh(\ldots) \\
    c_t &= f \odot c_{t-1} + i \odot g \\
    h_t &= o \odot \tanh c_t, \qquad \text{with a projection } h_t = W_{hr} (o \odot \tanh c_t)

Backward. The cell is an accumulator: along c the gradient is multiplied by f and nothing else.

.. math::
    dc_t &\mathrel{+}= dh_t \odot o\,(1 - \tanh^2 c_t) \\
    dz_i &= dc_t \odot g\, i (1 - i), \quad dz_f = dc_t \odot c_{t-1} f (1 - f), \quad
    dz_g = dc_t \odot i (1 - g^2), \\
    dz_o &= dh_t \odot \tanh c_t\, o (1 - o), \qquad
    dc_{t-1} = dc_t \odot f, \quad dh_{t-1} = W_{hh}^\top dz

With a projection :math:`h_t = W_{hr} m_t,\; m_t = o \odot \tanh c_t`, the gradient
:math:`dm_t = W_{hr}^\top dh_t` takes the place of :math:`dh_t` in :math:`dc_t` and :math:`dz_o`, and
:math:`dW_{hr} = \sum_t dh_t m_t^\top`. The other weights' gradients, and a mask on :math:`h_{t-1}`, are as
in :mod:`minirnn.functional.rnn`.

What the functions take is said in :mod:`minirnn.functional.recurrence`.

References
----------
S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997);
F. Gers et al., "Learning to forget", Neural Computation 12 (2000);
https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..backend import Array, get_array_module
from ..layout import Layout
from . import recurrence
from .shared import (
    add_bias_gradient,
    gate_sums,
    halved,
    keep,
    masked,
    masked_,
    number,
    scratch,
    sigmoid_,
)

GATES = ("i", "f", "g", "o")
STATES = ("h", "c")
# In memory the three sigmoid gates stand together: i, f, o, g.
_ORDER = [0, 1, 3, 2]


class LSTMContext(NamedTuple):
    """What BPTT through one layer has to remember: its input, its states and its gates."""

    x: Array  # (N, I)
    h: Array  # (B + N, P): h_0 over all h_t
    c: Array  # (B + N, H): c_0 over all c_t
    gates: Array  # (4, N, H): i, f, o, g
    tanh_c: Array  # (N, H)
    w_ih: Array  # (4H, I)
    w_hh: Array  # (4H, P)
    w_hr: Array | None  # (P, H)
    layout: Layout
    mask: Array | None  # (B, P): recurrent dropout


def weight_shapes(
    input_size: int, hidden_size: int, output_size: int, bias: bool
) -> recurrence.Shapes:
    """Return the shapes of W_ih, W_hh, b_ih, b_hh, W_hr."""
    shapes = recurrence.weight_shapes(len(GATES), input_size, hidden_size, output_size, bias)
    # Without projection h is of the hidden size.
    projection = None if output_size == hidden_size else (output_size, hidden_size)
    return {**shapes, "weight_hr": projection}


def forward(
    x: Array,
    states: Sequence[Array],
    weights: Sequence[Any],
    layout: Layout,
    mask: Array | None = None,
    save: bool = True,
) -> LSTMContext | None:
    """Fill ``h[B:]`` and ``c[B:]`` from ``h[:B]`` and ``c[:B]``; without projection P = H."""
    h, c = states
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    xp = get_array_module(x)
    B, N, H = layout.batch_size, layout.rows, c.shape[1]
    w_x = halved(w_ih, _ORDER).reshape(4 * H, -1).T
    w_h = xp.ascontiguousarray(halved(w_hh, _ORDER).transpose(0, 2, 1))  # (4, P, H)
    bias = None if b_ih is None or b_hh is None else halved(b_ih + b_hh, _ORDER).ravel()
    gates = xp.empty((4, N, H), x.dtype) if save else None
    tanh_cs = xp.empty((N, H), x.dtype) if save else None
    from_x = xp.empty((layout.span_rows, 4 * H), x.dtype)
    memory = xp.empty(6 * B * H, x.dtype)
    half = number(0.5, x)

    def step_scratch(n: int) -> tuple[Array, ...]:
        z = memory[: 4 * n * H].reshape(4, n, H)
        m, tanh_c = memory[4 * B * H :].reshape(2, B, H)
        return z, z[:3], *z, m[:n], tanh_c[:n]

    whole = (
        *layout.transitions(h),
        *layout.transitions(c),
        layout.by_size(step_scratch),
        layout.split(tanh_cs),
        layout.split_blocks(gates),
    )
    for span in layout.spans:
        z_x = from_x[: span.rows.stop - span.rows.start]
        x[span.rows].dot(w_x, z_x)
        if bias is not None:
            z_x += bias
        z_x = z_x.reshape(-1, 4, H).swapaxes(0, 1)
        per_step = (layout.split_blocks(z_x, span), *(a[span.steps] for a in whole))
        for z_x_t, h_prev, h_t, c_prev, c_t, room, saved_tanh_c, gates_t in zip(
            *per_step, strict=True
        ):
            z, sigmoids, i, f, o, g, m, tanh_c = room
            if mask is not None:
                h_prev = masked(h_prev, mask[: len(h_t)])
            xp.matmul(h_prev, w_h, out=z)
            z += z_x_t
            xp.tanh(z, z)
            sigmoids *= half
            sigmoids += half
            xp.multiply(f, c_prev, c_t)
            c_t += xp.multiply(i, g, m)
            if gates_t is not None:
                gates_t[...] = z
                tanh_c = saved_tanh_c
            xp.tanh(c_t, tanh_c)
            if w_hr is None:
                xp.multiply(o, tanh_c, h_t)
            else:
                xp.matmul(xp.multiply(o, tanh_c, m), w_hr.T, out=h_t)
    if gates is None:
        return None
    return LSTMContext(x, h, c, gates, tanh_cs, w_ih, w_hh, w_hr, layout, mask)


def backward(
    ctx: LSTMContext,
    dy: Array | None,
    dstates: Sequence[Array],
    dweights: Sequence[Any],
    trace: Sequence[Array] | None = None,
) -> Array:
    """Return dx, lead dh and dc back in their places, and add to the weights' gradients."""
    x, h, c, activations, tanh_cs, w_ih, w_hh, w_hr, layout, mask = ctx
    xp = get_array_module(x)
    B, H, P, R = layout.batch_size, tanh_cs.shape[1], h.shape[1], layout.span_rows
    dx = xp.empty(x.shape, x.dtype)
    dw_ih, dw_hh, *dbs, dw_hr = dweights
    (dh, dc), memory = dstates, xp.empty((2, B, H), x.dtype)
    trace_h, trace_c = (None, None) if trace is None else trace
    whole = (
        layout.by_size(lambda n: (dh[:n], dc[:n], memory[0, :n], memory[1, :n])),
        layout.split(activations[1]),
        layout.split(dy),
        layout.split(trace_h),
        layout.split(trace_c),
    )
    factors, all_dz = xp.empty((5, R, H), x.dtype), xp.empty((R, 4, H), x.dtype)
    all_dh = None if w_hr is None else xp.empty((R, P), x.dtype)
    one = number(1, x)
    for span in reversed(layout.spans):
        i, f, o, g = activations[:, span.rows]
        c_prev, tanh_c = layout.previous_rows(c, span), tanh_cs[span.rows]
        # What each gate's dz is per unit of dc_t (i, f, g) or of dm_t (o), for many steps at once:
        # by_i = g i (1 - i), by_f = c_{t-1} f (1 - f), by_m = tanh(c) o (1 - o), by_g = i (1 - g^2),
        # and what dc_t gets per unit of dm_t: m_to_c = o (1 - tanh(c)^2).
        by_c, by_m, m_to_c = factors[:3, : len(f)], factors[3, : len(f)], factors[4, : len(f)]
        by_i, by_f, by_g = by_c
        for by_gate, s, other in ((by_i, i, g), (by_f, f, c_prev), (by_m, o, tanh_c)):
            xp.subtract(one, s, by_gate)
            by_gate *= s
            by_gate *= other
        for factor, tanh, other in ((by_g, g, i), (m_to_c, tanh_c, o)):
            xp.multiply(tanh, tanh, factor)
            xp.subtract(one, factor, factor)
            factor *= other
        dz = all_dz[: len(f)]
        span_dh = None if all_dh is None else all_dh[: len(f)]
        per_step = (
            layout.split(dz, span),
            layout.split_blocks(by_c, span),
            layout.split(by_m, span),
            layout.split(m_to_c, span),
            layout.split(span_dh, span),
            *(a[span.steps] for a in whole),
        )
        for dz_t, by_c_t, by_m_t, m_to_c_t, span_dh_t, room, f_t, *given in reversed(
            list(zip(*per_step, strict=True))
        ):
            dh_t, dc_t, dc_from_m, dm_t = room
            dy_t, trace_h_t, trace_c_t = given
            if dy_t is not None:
                dh_t += dy_t
            if span_dh_t is None:
                dm_t = dh_t  # m_t = o * tanh(c_t) is h_t itself
            else:
                span_dh_t[...] = dh_t
                xp.matmul(dh_t, w_hr, out=dm_t)
            dc_t += xp.multiply(dm_t, m_to_c_t, dc_from_m)
            if trace_h_t is not None:
                trace_h_t[...], trace_c_t[...] = dh_t, dc_t
            xp.multiply(dc_t, by_c_t, dz_t[:, :3].swapaxes(0, 1))
            xp.multiply(dm_t, by_m_t, dz_t[:, 3])
            dc_t *= f_t
            dz_t.reshape(-1, 4 * H).dot(w_hh, dh_t)
            if mask is not None:
                masked_(dh_t, mask[: len(dh_t)])

        dz = dz.reshape(-1, 4 * H)
        h_prev = layout.previous_rows(h, span)
        if mask is not None:
            h_prev = masked(h_prev, layout.of_sequence(mask, span))
        dz.dot(w_ih, dx[span.rows])
        dw_ih += dz.T.dot(x[span.rows])
        dw_hh += dz.T.dot(h_prev)
        add_bias_gradient(dbs, dz)
        if dw_hr is not None and span_dh is not None:
            dw_hr += span_dh.T.dot(o * tanh_c)
    return dx


def step(
    x: Array,
    states: Sequence[Array],
    weights: Sequence[Any],
    new: Sequence[Array],
) -> None:
    """Take one step: the equations as they stand."""
    (h, c), (h_new, c_new) = states, new
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    xp, (B, H) = get_array_module(x), c.shape
    z = gate_sums(w_ih, b_ih, x, scratch((4, B, H), x))
    z_h = gate_sums(w_hh, b_hh, h, scratch((4, B, H), x))
    z += z_h
    i, f, g, o = z
    sigmoid_(z[:2])
    xp.tanh(g, g)
    sigmoid_(o)
    xp.multiply(f, c, c_new)
    m = scratch((B, H), x)
    c_new += xp.multiply(i, g, m)
    xp.tanh(c_new, m)
    if w_hr is None:
        xp.multiply(o, m, h_new)
    else:
        m *= o
        m.dot(w_hr.T, h_new)
    keep(z, z_h, m)


def gates(ctx: LSTMContext) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    return dict(zip("ifog", ctx.gates, strict=True))
