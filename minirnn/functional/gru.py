r"""Gated recurrent unit over packed rows, in the form that torch and cuDNN compute.

Forward, with gates r (reset), z (update) and n (new state):

.. math::
    r, z &= \sigma(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}) \\
    q &= W_{hn} h_{t-1} + b_{hn} \\
    n &= \tanh(W_{in} x_t + b_{in} + r \odot q) \\
    h_t &= (1 - z) \odot n + z \odot h_{t-1} = n + z \odot (h_{t-1} - n)

The reset gate multiplies q, bias included: the biases of r and z may be added beforehand, those of n
may not.

Backward, with da the gradient before a gate's nonlinearity:

.. math::
    da_n &= dh_t \odot (1 - z)(1 - n^2), \qquad dq = da_n \odot r \\
    da_r &= da_n \odot q\, r (1 - r), \qquad da_z = dh_t \odot (h_{t-1} - n)\, z (1 - z) \\
    dh_{t-1} &= dh_t \odot z + W_{hh}^\top [da_r, da_z, dq], \qquad dx_t = W_{ih}^\top [da_r, da_z, da_n]

The weights' gradients, and a mask on the :math:`h_{t-1}` that :math:`W_{hh}` multiplies, are as in
:mod:`minirnn.functional.rnn`.

What the functions take is said in :mod:`minirnn.functional.recurrence`.

References
----------
K. Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014;
https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from ..backend import Array, get_array_module
from ..layout import Layout, Span
from . import recurrence
from .gates import from_input, negated, number, saturating, sigmoid_
from .recurrence import Mask, States, Traces, Weights
from .scratch import put_back, put_back_workspace, scratch, workspace
from .shared import Saved, column_sums, entering, gate_sums, masked, masked_

GATES = ("r", "z", "n")
STATES = ("h",)
weight_shapes = partial(recurrence.weight_shapes, len(GATES))
# In memory the blocks lie in the order q, r, z, n: what W_hh works on (q, r, z), what W_ih works on (r, z, n)
# and the sigmoids (r, z) are one block each.


class GRUContext(NamedTuple):
    """What BPTT through one layer has to remember: its input, its states and its gates."""

    x: Array  # (N, I)
    h: Array  # (B + N, H): h_0 over all h_t
    gates: Array  # (4, N, H): q, r, z, n
    w_ih: Array  # (3H, I)
    w_hh: Array  # (3H, H)
    layout: Layout
    mask: Array | None  # (B, H): recurrent dropout


class GRURows(NamedTuple):
    """The same of a pair that finishes a step's gates at once, in C or in a kernel: row by row."""

    x: Array  # (N, I)
    h: Array  # (B + N, H)
    gates: Array  # (N, 3H): r, z, n
    q: Array  # (N, H)
    w_ih: Array  # (3H, I)
    w_hh: Array  # (3H, H)
    layout: Layout
    mask: Array | None  # (B, H)


@saturating()
def forward(
    x: Array, states: States, weights: Weights, layout: Layout, mask: Mask = None, save: bool = True
) -> GRUContext | None:
    """Fill ``h[B:]`` from ``h[:B]``."""
    (h,), (w_ih, w_hh, b_ih, b_hh) = states, weights
    xp, B, N, H = get_array_module(x), layout.batch_size, layout.rows, h.shape[1]
    w_x, w_qrz = negated(w_ih, [0, 1, 2], slice(0, 2)), negated(w_hh, [2, 0, 1], slice(1, 3))
    w_qrz = xp.ascontiguousarray(w_qrz.transpose(0, 2, 1))
    if b_ih is None or b_hh is None:
        bias, b_hn = None, xp.zeros(H, x.dtype)
    else:
        bias, b_hn = b_ih.copy(), b_hh[2 * H :]
        rz = bias[: 2 * H]
        rz += b_hh[: 2 * H]
        xp.negative(rz, rz)
    gates = xp.empty((4, N, H), x.dtype) if save else None
    one, memory = number(1, x), xp.empty(5 * B * H, x.dtype)

    def scratch_t(n: int) -> tuple[Array, ...]:
        block = memory[: 4 * n * H].reshape(4, n, H)  # [q, r, z, n]; qrz = [q, r, z], rz = [r, z]
        return block, block[:3], block[1:3], *block, memory[4 * B * H :][: n * H].reshape(n, H)

    of_all_steps = (
        *layout.transitions(h),
        layout.by_size(scratch_t),
        layout.split_blocks(gates),
    )
    for span, a_x in from_input(x, w_x, bias, layout, front=b_hn):
        per_step = (
            layout.split_blocks(a_x[:3], span),
            layout.split(a_x[3], span),
            *(a[span.steps] for a in of_all_steps),
        )
        for qrz_x_t, n_x_t, h_prev, h_t, arrays_t, gates_t in zip(*per_step, strict=True):
            block, qrz, rz, q, r, z, n, r_q = arrays_t
            h_in = h_prev if mask is None else masked(h_prev, mask[: len(h_t)])
            xp.matmul(h_in, w_qrz, out=qrz)
            qrz += qrz_x_t  # q, and of r and z what is negated
            xp.exp(rz, rz)
            rz += one
            xp.divide(one, rz, rz)
            xp.add(xp.multiply(r, q, r_q), n_x_t, n)
            xp.tanh(n, n)
            xp.subtract(h_prev, n, h_t)
            h_t *= z
            h_t += n
            if gates_t is not None:
                gates_t[...] = block
    return None if gates is None else GRUContext(x, h, gates, w_ih, w_hh, layout, mask)


def backward(
    ctx: GRUContext, dy: Array | None, dstates: States, dweights: Weights, trace: Traces = None
) -> Array:
    """Return dx, lead dh back in its place, and add to the weights' gradients."""
    x, h, _, _, w_hh, layout, mask = ctx
    xp, B, H, R = get_array_module(x), layout.batch_size, h.shape[1], layout.span_rows
    dx, w_qrz = xp.empty(x.shape, x.dtype), xp.concatenate([w_hh[2 * H :], w_hh[: 2 * H]])
    (dh,), all_dh_in = dstates, xp.empty((B, H), x.dtype)
    of_all_steps = (
        layout.by_size(lambda n: (dh[:n], all_dh_in[:n])),
        layout.split(ctx.gates[2]),
        layout.split(dy),
        layout.split(None if trace is None else trace[0]),
    )
    all_per_dh, all_da = workspace((4, R, H), x), workspace((R, 4 * H), x)
    for span in reversed(layout.spans):
        per_dh = _per_dh(ctx, span, all_per_dh)
        da = all_da[: span.rows.stop - span.rows.start]
        per_step = (
            layout.split_blocks(da.reshape(-1, 4, H).swapaxes(0, 1), span),
            layout.split(da[:, : 3 * H], span),
            layout.split_blocks(per_dh, span),
            *(a[span.steps] for a in of_all_steps),
        )
        for da_t, da_hh_t, per_dh_t, (dh_t, dh_in), z_t, dy_t, trace_t in reversed(
            list(zip(*per_step, strict=True))
        ):
            if dy_t is not None:
                dh_t += dy_t
            if trace_t is not None:
                trace_t[...] = dh_t
            xp.multiply(dh_t, per_dh_t, da_t)
            xp.matmul(da_hh_t, w_qrz, out=dh_in)
            if mask is not None:
                masked_(dh_in, mask[: len(dh_t)])
            dh_t *= z_t
            dh_t += dh_in
        add_gradients(ctx, span, da, dx, dweights)
    put_back_workspace(all_per_dh, all_da)
    return dx


def _per_dh(ctx: GRUContext, span: Span, memory: Array) -> Array:
    """Return what dq, da_r, da_z and da_n are per unit of dh_t, (4, n, H), for all steps of a span."""
    gates = ctx.gates[:, span.rows]
    q, r, z, n = gates
    xp, one, h_prev = get_array_module(r), number(1, r), ctx.layout.previous_rows(ctx.h, span)
    by_q, by_r, by_z, by_n = per_dh = memory[:, : len(r)]
    xp.subtract(one, gates[1:3], per_dh[1:3])  # 1 - r, 1 - z
    # by_n = (1 - n^2) (1 - z)
    xp.multiply(n, n, by_n)
    xp.subtract(one, by_n, by_n)
    by_n *= by_z
    # by_z = (1 - z) z (h_{t-1} - n)
    by_z *= z
    by_z *= xp.subtract(h_prev, n, by_q)
    # by_q = by_n r
    xp.multiply(by_n, r, by_q)
    # by_r = (1 - r) q by_q
    by_r *= q
    by_r *= by_q
    return per_dh


def add_gradients(ctx: Saved, span: Span, da: Array, dx: Array, dweights: Weights) -> None:
    """End the backward pass of a span; `da`, (n, 4H), has the blocks of dq, da_r, da_z, da_n."""
    dw_ih, dw_hh, db_ih, db_hh = dweights
    H = da.shape[1] // 4
    dw_qrz = add_products(ctx, span, da[:, H:], da[:, : 3 * H], dx, dw_ih)
    dw_hh[2 * H :] += dw_qrz[:H]
    dw_hh[: 2 * H] += dw_qrz[H:]
    if db_ih is not None and db_hh is not None:
        db = column_sums(da)
        db_ih += db[H:]
        db_hh[2 * H :] += db[:H]
        db_hh[: 2 * H] += db[H : 3 * H]


def add_products(
    ctx: Saved, span: Span, da_ih: Array, da_hh: Array, dx: Array, dw_ih: Array
) -> Array:
    """Fill the span's rows of dx, add to W_ih's gradient, and return W_hh's.

    `da_ih` is the gradient of what W_ih puts out, and `da_hh`, with dq for da_n, of what W_hh does.
    """
    # matmul, as ndarray.dot would first copy columns.
    get_array_module(dx).matmul(da_ih, ctx.w_ih, out=dx[span.rows])
    dw_ih += da_ih.T @ ctx.x[span.rows]
    dw_hh: Array = da_hh.T @ entering(ctx, span)
    return dw_hh


def step(x: Array, states: States, weights: Weights, new: States) -> None:
    """Take one step: the equations as they stand."""
    (h,), (h_new,) = states, new
    w_ih, w_hh, b_ih, b_hh = weights
    xp, (B, H) = get_array_module(x), h.shape
    a = gate_sums(w_ih, b_ih, x, scratch((3, B, H), x))
    p = gate_sums(w_hh, b_hh, h, scratch((3, B, H), x))
    (r, z, n), q = a, p[2]
    a[:2] += p[:2]
    with saturating():
        sigmoid_(a[:2])
        q *= r
        n += q
        xp.tanh(n, n)
        xp.subtract(h, n, h_new)
        h_new *= z
        h_new += n
    put_back(a, p)


def gates(ctx: GRUContext) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    _, r, z, n = ctx.gates
    return {"r": r, "z": z, "n": n}
