r"""Gated recurrent unit whose reset gate acts before the recurrent product, as first published.

Keras computes it with ``reset_after=False``, ONNX with ``linear_before_reset=0``, its default; torch and
cuDNN compute that of :mod:`minirnn.functional.gru`.

Forward, with gates r (reset), z (update) and n (new state):

.. math::
    r, z &= \sigma(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}) \\
    n &= \tanh(W_{in} x_t + b_{in} + W_{hn} (r \odot h_{t-1}) + b_{hn}) \\
    h_t &= (1 - z) \odot n + z \odot h_{t-1}

The two biases only ever appear as their sum.

Backward, with da the gradient before a gate's nonlinearity:

.. math::
    da_n &= dh_t \odot (1 - z)(1 - n^2), \qquad ds = W_{hn}^\top da_n \\
    da_r &= ds \odot h_{t-1}\, r (1 - r), \qquad da_z = dh_t \odot (h_{t-1} - n)\, z (1 - z) \\
    dh_{t-1} &= dh_t \odot z + ds \odot r + W_{hr}^\top da_r + W_{hz}^\top da_z,
        \qquad dx_t = W_{ih}^\top [da_r, da_z, da_n]

and :math:`dW_{hn}` is the sum of :math:`da_n (r \odot h_{t-1})^\top`; the other weights' gradients, and a
mask on the :math:`h_{t-1}` that :math:`W_{hh}` multiplies, are as in :mod:`minirnn.functional.rnn`.

What the functions take is said in :mod:`minirnn.functional.recurrence`.

References
----------
K. Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014;
https://keras.io/api/layers/recurrent_layers/gru/; https://onnx.ai/onnx/operators/onnx__GRU.html.
"""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, get_array_module
from ..layout import Layout
from .gates import by_gate, saturating, sigmoid_
from .gru import GATES, STATES, weight_shapes
from .recurrence import Mask, States, Traces, Weights
from .scratch import put_back, scratch
from .shared import add_bias_gradient, add_input_gradients, gate_sums, masked, masked_

__all__ = ["GATES", "STATES", "Context", "backward", "forward", "gates", "step", "weight_shapes"]


class Context(NamedTuple):
    """What BPTT through one layer has to remember: its input, its states and its gates."""

    x: Array  # (N, I)
    h: Array  # (B + N, H): h_0 over all h_t
    gates: Array  # (N, 3H): r, z, n
    w_ih: Array  # (3H, I)
    w_hh: Array  # (3H, H)
    layout: Layout
    mask: Array | None  # (B, H): recurrent dropout


@saturating()
def forward(
    x: Array, states: States, weights: Weights, layout: Layout, mask: Mask = None, save: bool = True
) -> Context | None:
    """Fill ``h[B:]`` from ``h[:B]``."""
    (h,) = states
    w_ih, w_hh, b_ih, b_hh = weights
    xp, H = get_array_module(x), h.shape[1]
    w_rz, w_n = xp.ascontiguousarray(w_hh[: 2 * H].T), xp.ascontiguousarray(w_hh[2 * H :].T)
    every = xp.empty((layout.rows if save else layout.span_rows, 3 * H), x.dtype)
    before, after = layout.transitions(h)
    for span in layout.spans:
        a = every[span.rows] if save else every[: span.rows.stop - span.rows.start]
        x[span.rows].dot(w_ih.T, a)
        if b_ih is not None and b_hh is not None:
            a += b_ih + b_hh
        per_step = layout.split(a, span), before[span.steps], after[span.steps]
        for a_t, h_prev, h_t in zip(*per_step, strict=True):
            rz, r, z, n = a_t[:, : 2 * H], a_t[:, :H], a_t[:, H : 2 * H], a_t[:, 2 * H :]
            h_in = h_prev if mask is None else masked(h_prev, mask[: len(h_t)])
            rz += h_in.dot(w_rz)
            sigmoid_(rz)
            n += (r * h_in).dot(w_n)
            xp.tanh(n, n)
            xp.subtract(h_prev, n, h_t)
            h_t *= z
            h_t += n
    return Context(x, h, every, w_ih, w_hh, layout, mask) if save else None


def backward(
    ctx: Context, dy: Array | None, dstates: States, dweights: Weights, trace: Traces = None
) -> Array:
    """Return dx, lead dh back in its place, and add to the weights' gradients."""
    x, h, every, _, w_hh, layout, mask = ctx
    xp, H = get_array_module(x), h.shape[1]
    dx = xp.empty(x.shape, x.dtype)
    dw_ih, dw_hh, *dbs = dweights
    w_rz, w_n = w_hh[: 2 * H], w_hh[2 * H :]
    of_all_steps = (
        layout.running(dstates[0]),
        layout.split(dy),
        layout.split(None if trace is None else trace[0]),
    )
    for span in reversed(layout.spans):
        a, h_prev = every[span.rows], layout.previous_rows(h, span)
        h_in = h_prev if mask is None else masked(h_prev, layout.of_sequence(mask, span))
        r, z, n = a[:, :H], a[:, H : 2 * H], a[:, 2 * H :]
        # What each gradient is per unit of what reaches it, for many steps at once.
        da = xp.concatenate([h_in * r * (1 - r), (h_prev - n) * z * (1 - z)], axis=1)
        da = xp.concatenate([da, (1 - z) * (1 - n * n)], axis=1)
        per_step = [layout.split(rows, span) for rows in (da, r, z)]
        per_step += [rows[span.steps] for rows in of_all_steps]
        for da_t, r_t, z_t, dh_t, dy_t, trace_t in reversed(list(zip(*per_step, strict=True))):
            if dy_t is not None:
                dh_t += dy_t
            if trace_t is not None:
                trace_t[...] = dh_t
            da_t[:, H : 2 * H] *= dh_t
            da_t[:, 2 * H :] *= dh_t
            ds = da_t[:, 2 * H :].dot(w_n)
            da_t[:, :H] *= ds
            dh_in = da_t[:, : 2 * H].dot(w_rz)
            dh_in += ds * r_t
            if mask is not None:
                masked_(dh_in, mask[: len(dh_t)])
            dh_t *= z_t
            dh_t += dh_in
        add_input_gradients(ctx, span, da, dx, dw_ih)
        dw_hh[: 2 * H] += da[:, : 2 * H].T.dot(h_in)
        dw_hh[2 * H :] += da[:, 2 * H :].T.dot(r * h_in)
        add_bias_gradient(dbs, da)
    return dx


def step(x: Array, states: States, weights: Weights, new: States) -> None:
    """Take one step: the equations as they stand."""
    (h,), (h_new,) = states, new
    w_ih, w_hh, b_ih, b_hh = weights
    xp, (B, H) = get_array_module(x), h.shape
    b_rz, b_n = (None, None) if b_hh is None else (b_hh[: 2 * H], b_hh[2 * H :])
    a = gate_sums(w_ih, b_ih, x, scratch((3, B, H), x))
    p, q = scratch((2, B, H), x), scratch((1, B, H), x)
    rz, (r, z, n) = a[:2], a
    rz += gate_sums(w_hh[: 2 * H], b_rz, h, p)
    with saturating():
        sigmoid_(rz)
        r *= h
        n += gate_sums(w_hh[2 * H :], b_n, r, q)[0]
        xp.tanh(n, n)
        xp.subtract(h, n, h_new)
        h_new *= z
        h_new += n
    put_back(a, p, q)


def gates(ctx: Context) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    return by_gate(ctx.gates, GATES)
