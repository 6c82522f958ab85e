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

from typing import NamedTuple

from ..backend import Array, get_array_module
from ..layout import Layout, Span
from . import recurrence
from .gates import from_input, negated, number, saturating, sigmoid_
from .recurrence import Mask, States, Traces, Weights
from .scratch import put_back, put_back_workspace, scratch, workspace
from .shared import add_gradients, gate_sums, masked, masked_

GATES = ("i", "f", "g", "o")
STATES = ("h", "c")
# In memory o, i, f, g: the sigmoids (o, i, f) and what dc_t is multiplied with (i, f, g) are one block each.
_ORDER, _SIGMOIDS = [3, 0, 1, 2], slice(0, 3)


class LSTMContext(NamedTuple):
    """What BPTT through one layer has to remember: its input, its states and its gates."""

    x: Array  # (N, I)
    h: Array  # (B + N, P): h_0 over all h_t
    c: Array  # (B + N, H): c_0 over all c_t
    gates: Array  # (4, N, H): o, i, f, g
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


@saturating()
def forward(
    x: Array, states: States, weights: Weights, layout: Layout, mask: Mask = None, save: bool = True
) -> LSTMContext | None:
    """Fill ``h[B:]`` and ``c[B:]`` from ``h[:B]`` and ``c[:B]``; without projection P = H."""
    (h, c), (w_ih, w_hh, b_ih, b_hh, w_hr) = states, weights
    xp, B, N, H = get_array_module(x), layout.batch_size, layout.rows, c.shape[1]
    w_x, w_h = negated(w_ih, _ORDER, _SIGMOIDS), negated(w_hh, _ORDER, _SIGMOIDS)
    w_h, bias = xp.ascontiguousarray(w_h.transpose(0, 2, 1)), None  # (4, P, H)
    if b_ih is not None and b_hh is not None:
        bias = negated(b_ih + b_hh, _ORDER, _SIGMOIDS).ravel()
    gates = xp.empty((4, N, H), x.dtype) if save else None
    tanh_cs = xp.empty((N, H), x.dtype) if save else None
    one, memory = number(1, x), xp.empty(6 * B * H, x.dtype)

    def scratch_t(n: int) -> tuple[Array, ...]:
        z = memory[: 4 * n * H].reshape(4, n, H)  # [o, i, f, g]; the sigmoids are [o, i, f]
        m, tanh_c = memory[4 * B * H :].reshape(2, B, H)
        return z, z[:3], *z, m[:n], tanh_c[:n]

    of_all_steps = (
        *layout.transitions(h),
        *layout.transitions(c),
        layout.by_size(scratch_t),
        layout.split(tanh_cs),
        layout.split_blocks(gates),
    )
    for span, z_x in from_input(x, w_x, bias, layout):
        per_step = (layout.split_blocks(z_x, span), *(a[span.steps] for a in of_all_steps))
        for z_x_t, h_prev, h_t, c_prev, c_t, arrays_t, saved_tanh_c, gates_t in zip(
            *per_step, strict=True
        ):
            z, sigmoids, o, i, f, g, m, tanh_c = arrays_t
            if mask is not None:
                h_prev = masked(h_prev, mask[: len(h_t)])
            xp.matmul(h_prev, w_h, out=z)  # of the sigmoids what is negated
            z += z_x_t
            xp.exp(sigmoids, sigmoids)
            sigmoids += one
            xp.divide(one, sigmoids, sigmoids)
            xp.tanh(g, g)
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
    ctx: LSTMContext, dy: Array | None, dstates: States, dweights: Weights, trace: Traces = None
) -> Array:
    """Return dx, lead dh and dc back in their places, and add to the weights' gradients."""
    x, h, _, gates, tanh_cs, _, w_hh, w_hr, layout, mask = ctx
    xp, B, H, R = get_array_module(x), layout.batch_size, tanh_cs.shape[1], layout.span_rows
    dx, memory = xp.empty(x.shape, x.dtype), xp.empty((2, B, H), x.dtype)
    (dh, dc), (trace_h, trace_c) = dstates, (None, None) if trace is None else trace
    of_all_steps = (
        layout.by_size(lambda n: (dh[:n], dc[:n], memory[0, :n], memory[1, :n])),
        layout.split(gates[2]),
        layout.split(dy),
        layout.split(trace_h),
        layout.split(trace_c),
    )
    all_factors, all_dz = workspace((5, R, H), x), workspace((R, 4 * H), x)
    all_dh = None if w_hr is None else xp.empty((R, h.shape[1]), x.dtype)
    for span in reversed(layout.spans):
        n = span.rows.stop - span.rows.start
        by_c, by_m, m_to_c = _factors(ctx, span, all_factors)
        dz, span_dh = all_dz[:n], None if all_dh is None else all_dh[:n]
        dz_ifgo = dz.reshape(n, 4, H).swapaxes(0, 1)
        per_step = (
            layout.split(dz, span),
            layout.split_blocks(dz_ifgo[:3], span),
            layout.split(dz_ifgo[3], span),
            layout.split_blocks(by_c, span),
            layout.split(by_m, span),
            layout.split(m_to_c, span),
            layout.split(span_dh, span),
            *(a[span.steps] for a in of_all_steps),
        )
        for dz_t, dz_ifg_t, dz_o_t, by_c_t, by_m_t, m_to_c_t, span_dh_t, *others in reversed(
            list(zip(*per_step, strict=True))
        ):
            (dh_t, dc_t, dc_from_m, dm_t), f_t, dy_t, trace_h_t, trace_c_t = others
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
            xp.multiply(dc_t, by_c_t, dz_ifg_t)
            xp.multiply(dm_t, by_m_t, dz_o_t)
            dc_t *= f_t
            dz_t.dot(w_hh, dh_t)
            if mask is not None:
                masked_(dh_t, mask[: len(dh_t)])
        add_gradients(ctx, span, dz, dx, dweights)
        if span_dh is not None:
            _add_projection_gradient(ctx, span, span_dh, dweights[4])
    put_back_workspace(all_factors, all_dz)
    return dx


def _factors(ctx: LSTMContext, span: Span, memory: Array) -> tuple[Array, Array, Array]:
    """Return for all steps of a span what depends on the forward pass alone.

    What dz_i, dz_f, dz_g are per unit of dc_t, (3, n, H), and dz_o per unit of dm_t, (n, H); and what dc_t
    gets per unit of dm_t, (n, H). Without projection dm_t is dh_t.
    """
    gates = ctx.gates[:, span.rows]
    (o, i, _, g), sigmoids = gates, gates[:3]
    xp, one = get_array_module(i), number(1, i)
    c_prev, tanh_c = ctx.layout.previous_rows(ctx.c, span), ctx.tanh_c[span.rows]
    by_m, by_i, by_f, by_g, m_to_c = factors = memory[:, : len(i)]
    # s (1 - s) of each sigmoid s
    xp.subtract(one, sigmoids, factors[:3])
    factors[:3] *= sigmoids
    # by_m = tanh(c_t) o (1 - o)
    by_m *= tanh_c
    # by_i = g i (1 - i)
    by_i *= g
    # by_f = c_{t-1} f (1 - f)
    by_f *= c_prev
    # by_g = i (1 - g^2)
    xp.multiply(g, g, by_g)
    xp.subtract(one, by_g, by_g)
    by_g *= i
    # m_to_c = o (1 - tanh(c_t)^2)
    xp.multiply(tanh_c, tanh_c, m_to_c)
    xp.subtract(one, m_to_c, m_to_c)
    m_to_c *= o
    return factors[1:4], by_m, m_to_c


def _add_projection_gradient(ctx: LSTMContext, span: Span, dh: Array, dw_hr: Array) -> None:
    """Add dh^T m, with m = o * tanh(c), of a span's rows."""
    dw_hr += dh.T.dot(ctx.gates[0, span.rows] * ctx.tanh_c[span.rows])


def step(x: Array, states: States, weights: Weights, new: States) -> None:
    """Take one step: the equations as they stand."""
    (h, c), (h_new, c_new) = states, new
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    xp, (B, H) = get_array_module(x), c.shape
    z = gate_sums(w_ih, b_ih, x, scratch((4, B, H), x))
    z_h = gate_sums(w_hh, b_hh, h, scratch((4, B, H), x))
    z += z_h
    (i, f, g, o), m = z, scratch((B, H), x)
    with saturating():
        sigmoid_(z[:2])
        sigmoid_(o)
        xp.tanh(g, g)
        xp.multiply(f, c, c_new)
        c_new += xp.multiply(i, g, m)
        xp.tanh(c_new, m)
        if w_hr is None:
            xp.multiply(o, m, h_new)
        else:
            m *= o
            m.dot(w_hr.T, h_new)
    put_back(z, z_h, m)


def gates(ctx: LSTMContext) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    o, i, f, g = ctx.gates
    return {"i": i, "f": f, "g": g, "o": o}
