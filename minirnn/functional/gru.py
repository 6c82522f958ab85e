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

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..backend import Array, get_array_module
from ..layout import Layout
from . import recurrence
from .shared import column_sums, gate_sums, halved, keep, masked, masked_, number, scratch, sigmoid_

GATES = ("r", "z", "n")
STATES = ("h",)
_ORDER = [0, 1, 2]


class GRUContext(NamedTuple):
    """What BPTT through one layer has to remember: its input, its states and its gates."""

    x: Array  # (N, I)
    h: Array  # (B + N, H): h_0 over all h_t
    gates: Array  # (4, N, H): r, z, q, n
    w_ih: Array  # (3H, I)
    w_hh: Array  # (3H, H)
    layout: Layout
    mask: Array | None  # (B, H): recurrent dropout


def weight_shapes(
    input_size: int, hidden_size: int, output_size: int, bias: bool
) -> recurrence.Shapes:
    """Return the shapes of W_ih, W_hh, b_ih, b_hh."""
    return recurrence.weight_shapes(len(GATES), input_size, hidden_size, output_size, bias)


def forward(
    x: Array,
    states: Sequence[Array],
    weights: Sequence[Any],
    layout: Layout,
    mask: Array | None = None,
    save: bool = True,
) -> GRUContext | None:
    """Fill ``h[B:]`` from ``h[:B]``."""
    (h,) = states
    w_ih, w_hh, b_ih, b_hh = weights
    xp = get_array_module(x)
    B, N, H = layout.batch_size, layout.rows, h.shape[1]
    w_x = halved(w_ih, _ORDER).reshape(3 * H, -1).T
    w_h = xp.ascontiguousarray(halved(w_hh, _ORDER).transpose(0, 2, 1))  # (3, H, H)
    bias, b_hn = None, None
    if b_ih is not None and b_hh is not None:
        bias, b_hn = b_ih.copy(), b_hh[2 * H :]
        bias[: 2 * H] += b_hh[: 2 * H]
        bias[: 2 * H] *= 0.5
    gates = xp.empty((4, N, H), x.dtype) if save else None
    from_x = xp.empty((layout.span_rows, 3 * H), x.dtype)
    memory = xp.empty((5, B * H), x.dtype)
    half = number(0.5, x)

    def step_scratch(n: int) -> tuple[Array, ...]:
        block = memory.ravel()[: 4 * n * H].reshape(4, n, H)
        return block, block[:3], block[:2], *block, memory[4, : n * H].reshape(n, H)

    whole = (
        *layout.transitions(h),
        layout.by_size(step_scratch),
        layout.split_blocks(gates),
    )
    for span in layout.spans:
        a_x = from_x[: span.rows.stop - span.rows.start]
        x[span.rows].dot(w_x, a_x)
        if bias is not None:
            a_x += bias
        a_x = a_x.reshape(-1, 3, H).swapaxes(0, 1)
        per_step = (
            layout.split_blocks(a_x[:2], span),
            layout.split(a_x[2], span),
            *(a[span.steps] for a in whole),
        )
        for rz_x_t, n_x_t, h_prev, h_t, room, gates_t in zip(*per_step, strict=True):
            block, rzq, rz, r, z, q, n, r_q = room
            h_in = h_prev if mask is None else masked(h_prev, mask[: len(h_t)])
            xp.matmul(h_in, w_h, out=rzq)
            rz += rz_x_t
            xp.tanh(rz, rz)
            rz *= half
            rz += half
            if b_hn is not None:
                q += b_hn
            xp.add(xp.multiply(r, q, r_q), n_x_t, n)
            xp.tanh(n, n)
            xp.subtract(h_prev, n, h_t)
            h_t *= z
            h_t += n
            if gates_t is not None:
                gates_t[...] = block
    if gates is None:
        return None
    return GRUContext(x, h, gates, w_ih, w_hh, layout, mask)


def backward(
    ctx: GRUContext,
    dy: Array | None,
    dstates: Sequence[Array],
    dweights: Sequence[Any],
    trace: Sequence[Array] | None = None,
) -> Array:
    """Return dx, lead dh back in its place, and add to the weights' gradients."""
    x, h, activations, w_ih, w_hh, layout, mask = ctx
    xp = get_array_module(x)
    B, H, R = layout.batch_size, h.shape[1], layout.span_rows
    dx = xp.empty(x.shape, x.dtype)
    dw_ih, dw_hh, db_ih, db_hh = dweights
    # With the blocks of da in the order q, r, z, n the products with W_hh (q, r, z) and with W_ih
    # (r, z, n) read one block each.
    w_qrz = xp.concatenate([w_hh[2 * H :], w_hh[: 2 * H]])
    (dh,), memory = dstates, xp.empty((B, H), x.dtype)
    whole = (
        layout.by_size(lambda n: (dh[:n], memory[:n])),
        layout.split(activations[1]),
        layout.split(dy),
        layout.split(None if trace is None else trace[0]),
    )
    factors, all_da = xp.empty((4, R, H), x.dtype), xp.empty((R, 4, H), x.dtype)
    one = number(1, x)
    for span in reversed(layout.spans):
        r, z, q, n = activations[:, span.rows]
        h_prev = layout.previous_rows(h, span)
        # What each gradient is per unit of dh_t, for many steps at once: by_z = (h_{t-1} - n) z (1 - z),
        # by_n = (1 - z)(1 - n^2), by_q = by_n r, by_r = by_q q (1 - r). In by_q waits 1 - z until it is due.
        per_dh = factors[:, : len(r)]
        by_q, by_r, by_z, by_n = per_dh
        unset = xp.subtract(one, z, by_q)
        xp.subtract(h_prev, n, by_z)
        by_z *= z
        by_z *= unset
        xp.multiply(n, n, by_n)
        xp.subtract(one, by_n, by_n)
        by_n *= unset
        xp.subtract(one, r, by_r)
        xp.multiply(by_n, r, by_q)
        by_r *= by_q
        by_r *= q
        da = all_da[: len(r)]
        per_step = (
            layout.split(da, span),
            layout.split_blocks(per_dh, span),
            *(a[span.steps] for a in whole),
        )
        for da_t, per_dh_t, (dh_t, dh_in), z_t, dy_t, trace_t in reversed(
            list(zip(*per_step, strict=True))
        ):
            if dy_t is not None:
                dh_t += dy_t
            if trace_t is not None:
                trace_t[...] = dh_t
            xp.multiply(dh_t, per_dh_t, da_t.swapaxes(0, 1))
            xp.matmul(da_t.reshape(-1, 4 * H)[:, : 3 * H], w_qrz, out=dh_in)
            if mask is not None:
                masked_(dh_in, mask[: len(dh_t)])
            dh_t *= z_t
            dh_t += dh_in

        da = da.reshape(-1, 4 * H)
        da_qrz, da_rzn = da[:, : 3 * H], da[:, H:]
        if mask is not None:
            h_prev = masked(h_prev, layout.of_sequence(mask, span))
        xp.matmul(da_rzn, w_ih, out=dx[span.rows])
        # Here and above matmul: ndarray.dot would first copy these columns.
        dw_ih += da_rzn.T @ x[span.rows]
        dw_qrz = da_qrz.T @ h_prev
        dw_hh[2 * H :] += dw_qrz[:H]
        dw_hh[: 2 * H] += dw_qrz[H:]
        if db_ih is not None and db_hh is not None:
            db = column_sums(da)
            db_ih += db[H:]
            db_hh[: 2 * H] += db[H : 3 * H]
            db_hh[2 * H :] += db[:H]
    return dx


def step(
    x: Array,
    states: Sequence[Array],
    weights: Sequence[Any],
    new: Sequence[Array],
) -> None:
    """Take one step: the equations as they stand."""
    (h,), (h_new,) = states, new
    w_ih, w_hh, b_ih, b_hh = weights
    xp, (B, H) = get_array_module(x), h.shape
    a = gate_sums(w_ih, b_ih, x, scratch((3, B, H), x))
    p = gate_sums(w_hh, b_hh, h, scratch((3, B, H), x))
    (r, z, n), q = a, p[2]
    a[:2] += p[:2]
    sigmoid_(a[:2])
    q *= r
    n += q
    xp.tanh(n, n)
    xp.subtract(h, n, h_new)
    h_new *= z
    h_new += n
    keep(a, p)


def gates(ctx: GRUContext) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    r, z, _, n = ctx.gates
    return {"r": r, "z": z, "n": n}
