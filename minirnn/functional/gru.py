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

References
----------
K. Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014;
https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html.
"""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, get_array_module
from ..packing import Layout
from .gemm import column_sums

GATES = ("r", "z", "n")


class GRUContext(NamedTuple):
    """What BPTT through one layer has to remember: its input, its states and its gates."""

    x: Array  # (N, I)
    h: Array  # (B + N, H): h_0 over all h_t
    gates: Array  # (3, N, H): r, z, n
    q: Array  # (N, H)
    w_ih: Array  # (3H, I)
    w_hh: Array  # (3H, H)
    layout: Layout
    mask: Array | None  # (B, H): recurrent dropout


def _halved(w: Array) -> Array:
    """Return the three blocks of `w`, those of the sigmoids halved; see :mod:`.lstm`."""
    blocks = w.reshape(3, -1, *w.shape[1:]).copy()
    blocks[:2] *= 0.5
    return blocks


def forward(
    x: Array,
    states: tuple[Array],
    weights: tuple[Array, Array, Array | None, Array | None],
    layout: Layout,
    mask: Array | None = None,
) -> GRUContext:
    """Fill ``h[B:]``, the states at all steps, from ``h[:B]``, the initial ones.

    Parameters
    ----------
    x : array of shape (N, I)
    states : (h,), h an array of shape (B + N, H)
    weights : (w_ih, w_hh, b_ih, b_hh), of shapes (3H, I), (3H, H), (3H,), (3H,); or None for the
        biases
    layout : Layout
        Where the steps lie in the N rows.
    mask : array of shape (B, H), optional
        Multiplies the state that enters the recurrent product, the same at every step.
    """
    (h,) = states
    w_ih, w_hh, b_ih, b_hh = weights
    xp = get_array_module(x)
    B, N, H = layout.batch_size, layout.rows, h.shape[1]
    gates = xp.matmul(x, _halved(w_ih).transpose(0, 2, 1), out=xp.empty((3, N, H), x.dtype))
    b_hn = None
    if b_ih is not None and b_hh is not None:
        bias = b_ih.copy()
        bias[: 2 * H] += b_hh[: 2 * H]
        b_hn = b_hh[2 * H :]
        gates += _halved(bias)[:, None]
    w = xp.ascontiguousarray(_halved(w_hh).transpose(0, 2, 1))  # (3, H, H)
    q = xp.empty((N, H), x.dtype)
    product = xp.empty((3, B, H), x.dtype)
    scratch = xp.empty((B, H), x.dtype)
    steps = zip(
        layout.split_previous(h),
        layout.split(h[B:]),
        layout.split(q),
        layout.split_blocks(gates),
        strict=True,
    )
    for h_prev, h_t, q_t, a in steps:
        count = len(h_t)
        h_in = h_prev if mask is None else h_prev * mask[:count]
        p = xp.matmul(h_in, w, out=product[:, :count])
        sigmoids = a[:2]
        sigmoids += p[:2]
        xp.tanh(sigmoids, sigmoids)
        sigmoids *= 0.5
        sigmoids += 0.5
        r, z, n = a
        if b_hn is None:
            q_t[...] = p[2]
        else:
            xp.add(p[2], b_hn, q_t)
        n += xp.multiply(r, q_t, scratch[:count])
        xp.tanh(n, n)
        xp.subtract(h_prev, n, h_t)
        h_t *= z
        h_t += n
    return GRUContext(x, h, gates, q, w_ih, w_hh, layout, mask)


def backward(
    ctx: GRUContext, dy: Array | None, dstates: tuple[Array], trace: tuple[Array] | None = None
) -> tuple[Array, tuple[Array], tuple[Array, Array, Array, Array]]:
    """Return the gradients of the input, of the initial state and of the weights.

    Parameters
    ----------
    ctx : GRUContext
    dy : array of shape (N, H), optional
        Gradient of the states at all steps, as far as they are the output.
    dstates : (dh_n,), dh_n an array of shape (B, H)
        Gradient of each sequence's last state. It waits in its row until the loop, coming from
        the end, reaches that sequence's last step.
    trace : (array of shape (N, H),), optional
        Filled with dL/dh_t, the total gradient at every step.

    Returns
    -------
    dx : array of shape (N, I)
    dstates : (dh_0,)
    dweights : (dw_ih, dw_hh, db_ih, db_hh)
    """
    x, h, activations, q, w_ih, w_hh, layout, mask = ctx
    xp = get_array_module(x)
    N, H = q.shape
    r, z, n = activations
    # What each gradient is per unit of dh_t, for all steps at once, in the order q, r, z, n: so
    # the products with W_hh (q, r, z) and with W_ih (r, z, n) read one block each.
    per_dh = xp.empty((4, N, H), x.dtype)
    by_q, by_r, by_z, by_n = per_dh
    xp.multiply(1 - z, 1 - n * n, by_n)
    xp.multiply(by_n, r, by_q)
    xp.multiply(by_q * (1 - r), q, by_r)
    xp.multiply(z * (1 - z), layout.previous_rows(h) - n, by_z)

    da = xp.empty((N, 4, H), x.dtype)
    w_qrz = xp.concatenate([w_hh[2 * H :], w_hh[: 2 * H]])
    dh = dstates[0].copy()
    product = xp.empty_like(dh)
    nothing = [None] * layout.steps
    steps = list(
        zip(
            layout.split(da),
            layout.split_blocks(per_dh),
            layout.split(z),
            nothing if dy is None else layout.split(dy),
            nothing if trace is None else layout.split(trace[0]),
            strict=True,
        )
    )
    for da_t, per_dh_t, z_t, dy_t, trace_t in reversed(steps):
        count = len(da_t)
        dh_t = dh[:count]
        if dy_t is not None:
            dh_t += dy_t
        if trace_t is not None:
            trace_t[...] = dh_t
        xp.multiply(dh_t, per_dh_t, da_t.swapaxes(0, 1))
        dh_in = xp.matmul(da_t[:, :3].reshape(count, 3 * H), w_qrz, out=product[:count])
        if mask is not None:
            dh_in *= mask[:count]
        dh_t *= z_t
        dh_t += dh_in

    da = da.reshape(N, 4 * H)
    da_qrz, da_rzn = da[:, : 3 * H], da[:, H:]
    h_prev = layout.previous_rows(h)
    if mask is not None:
        h_prev = h_prev * layout.spread(mask)
    dw_qrz = da_qrz.T @ h_prev
    dw_hh = xp.concatenate([dw_qrz[H:], dw_qrz[:H]])
    db = column_sums(da)
    db_hh = xp.concatenate([db[H : 3 * H], db[:H]])
    return da_rzn @ w_ih, (dh,), (da_rzn.T @ x, dw_hh, db[H:], db_hh)


def gates(ctx: GRUContext) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    return dict(zip(GATES, ctx.gates, strict=True))
