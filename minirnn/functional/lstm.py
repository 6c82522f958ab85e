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

References
----------
S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997);
F. Gers et al., "Learning to forget", Neural Computation 12 (2000);
https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html.
"""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, get_array_module
from ..packing import Layout
from .gemm import column_sums

GATES = ("i", "f", "g", "o")
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


def _halved(w: Array) -> Array:
    """Return the four blocks of `w` in memory order, those of the sigmoids halved.

    sigmoid(z) = tanh(z / 2) / 2 + 1/2 never overflows, and lets one tanh serve all four gates.
    Halving is exact in floating point.
    """
    blocks = w.reshape(4, -1, *w.shape[1:])[_ORDER]
    blocks[:3] *= 0.5
    return blocks


def forward(
    x: Array,
    states: tuple[Array, Array],
    weights: tuple[Array, Array, Array | None, Array | None, Array | None],
    layout: Layout,
    mask: Array | None = None,
) -> LSTMContext:
    """Fill ``h[B:]`` and ``c[B:]``, the states at all steps, from ``h[:B]`` and ``c[:B]``.

    Parameters
    ----------
    x : array of shape (N, I)
    states : (h, c), arrays of shapes (B + N, P) and (B + N, H); P = H without projection
    weights : (w_ih, w_hh, b_ih, b_hh, w_hr), of shapes (4H, I), (4H, P), (4H,), (4H,), (P, H)
        The biases and the projection may be None.
    layout : Layout
        Where the steps lie in the N rows.
    mask : array of shape (B, P), optional
        Multiplies the state that enters the recurrent product, the same at every step.
    """
    h, c = states
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    xp = get_array_module(x)
    B, N, H = layout.batch_size, layout.rows, c.shape[1]
    gates = xp.matmul(x, _halved(w_ih).transpose(0, 2, 1), out=xp.empty((4, N, H), x.dtype))
    if b_ih is not None and b_hh is not None:
        gates += _halved(b_ih + b_hh)[:, None]
    w = xp.ascontiguousarray(_halved(w_hh).transpose(0, 2, 1))  # (4, P, H)
    tanh_c = xp.empty((N, H), x.dtype)
    product = xp.empty((4, B, H), x.dtype)
    scratch = xp.empty((B, H), x.dtype)
    steps = zip(
        layout.split_previous(h),
        layout.split_previous(c),
        layout.split(h[B:]),
        layout.split(c[B:]),
        layout.split(tanh_c),
        layout.split_blocks(gates),
        strict=True,
    )
    for h_prev, c_prev, h_t, c_t, tanh_c_t, z in steps:
        n = len(h_t)
        if mask is not None:
            h_prev = h_prev * mask[:n]
        z += xp.matmul(h_prev, w, out=product[:, :n])
        xp.tanh(z, z)
        sigmoids = z[:3]
        sigmoids *= 0.5
        sigmoids += 0.5
        i, f, o, g = z
        xp.multiply(f, c_prev, c_t)
        c_t += xp.multiply(i, g, scratch[:n])
        xp.tanh(c_t, tanh_c_t)
        if w_hr is None:
            xp.multiply(o, tanh_c_t, h_t)
        else:
            xp.matmul(o * tanh_c_t, w_hr.T, out=h_t)
    return LSTMContext(x, h, c, gates, tanh_c, w_ih, w_hh, w_hr, layout, mask)


def backward(
    ctx: LSTMContext,
    dy: Array | None,
    dstates: tuple[Array, Array],
    trace: tuple[Array, Array] | None = None,
) -> tuple[Array, tuple[Array, Array], tuple[Array | None, ...]]:
    """Return the gradients of the input, of the initial states and of the weights.

    Parameters
    ----------
    ctx : LSTMContext
    dy : array of shape (N, P), optional
        Gradient of the states h at all steps, as far as they are the output.
    dstates : (dh_n, dc_n), arrays of shapes (B, P) and (B, H)
        Gradients of each sequence's last states. They wait in their row until the loop, coming
        from the end, reaches that sequence's last step.
    trace : arrays of shapes (N, P) and (N, H), optional
        Filled with dL/dh_t and dL/dc_t, the total gradients at every step.

    Returns
    -------
    dx : array of shape (N, I)
    dstates : (dh_0, dc_0)
    dweights : (dw_ih, dw_hh, db_ih, db_hh, dw_hr)
    """
    x, h, c, activations, tanh_c, w_ih, w_hh, w_hr, layout, mask = ctx
    xp = get_array_module(x)
    N, H = tanh_c.shape
    i, f, o, g = activations
    # What each gate's dz is per unit of dc_t (i, f, g) or of dh_t (o), for all steps at once.
    by_c = xp.empty((3, N, H), x.dtype)
    xp.multiply(i * (1 - i), g, by_c[0])
    xp.multiply(f * (1 - f), layout.previous_rows(c), by_c[1])
    xp.multiply(1 - g * g, i, by_c[2])
    by_h = tanh_c * o * (1 - o)
    h_to_c = o * (1 - tanh_c * tanh_c)

    dz = xp.empty((N, 4, H), x.dtype)
    dh, dc = dstates[0].copy(), dstates[1].copy()
    dhs = None if w_hr is None else xp.empty_like(h[layout.batch_size :])
    scratch = xp.empty_like(dc)
    nothing = [None] * layout.steps
    steps = list(
        zip(
            layout.split(dz),
            layout.split_blocks(by_c),
            layout.split(by_h),
            layout.split(h_to_c),
            layout.split(f),
            nothing if dy is None else layout.split(dy),
            nothing if dhs is None else layout.split(dhs),
            nothing if trace is None else zip(*map(layout.split, trace), strict=True),
            strict=True,
        )
    )
    for dz_t, by_c_t, by_h_t, h_to_c_t, f_t, dy_t, dhs_t, trace_t in reversed(steps):
        n = len(dz_t)
        dh_t, dc_t = dh[:n], dc[:n]
        if dy_t is not None:
            dh_t += dy_t
        dm_t = dh_t  # the gradient of o * tanh(c_t)
        if dhs_t is not None:
            dhs_t[...] = dh_t
            dm_t = dh_t @ w_hr
        dc_t += xp.multiply(dm_t, h_to_c_t, scratch[:n])
        if trace_t is not None:
            trace_t[0][...], trace_t[1][...] = dh_t, dc_t
        xp.multiply(dc_t, by_c_t, dz_t[:, :3].swapaxes(0, 1))
        xp.multiply(dm_t, by_h_t, dz_t[:, 3])
        dc_t *= f_t
        xp.matmul(dz_t.reshape(n, 4 * H), w_hh, out=dh_t)
        if mask is not None:
            dh_t *= mask[:n]

    dz = dz.reshape(N, 4 * H)
    h_prev = layout.previous_rows(h)
    if mask is not None:
        h_prev = h_prev * layout.spread(mask)
    db = column_sums(dz)
    dw_hr = None if dhs is None else dhs.T @ (o * tanh_c)
    return dz @ w_ih, (dh, dc), (dz.T @ x, dz.T @ h_prev, db, db, dw_hr)


def gates(ctx: LSTMContext) -> dict[str, Array]:
    """Return the gates' values by name, arrays of shape (N, H)."""
    return dict(zip("ifog", ctx.gates, strict=True))
