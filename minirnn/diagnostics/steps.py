r"""What a recurrent layer did at every step, and one step of BPTT written for looking at it.

The layers' own backward passes turn whole batches into weight gradients as fast as they can. What the
diagnostics need lies in between: the gradient of what enters the gates, for each row by itself, and the
Jacobian of a single step. Both follow from the states, the gates and the equations, which are those of
:mod:`minirnn.functional`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, asnumpy, get_array_module
from ..bptt.checkpoints import Checkpointed
from ..bptt.execution import InParts
from ..bptt.passes import Pass
from ..bptt.stack import Stack
from ..functional import gru, gru_before, lstm, rnn
from ..functional.recurrence import state_names
from ..layout import Span


class Steps(NamedTuple):
    """What happened at some rows of one pass, which is one layer in one direction.

    Attributes
    ----------
    x : array of shape (n, I)
        What enters.
    h, c : arrays of shapes (n, P) and (n, H)
        The states after the step; ``c`` is the LSTM's, else None.
    h_before, c_before : arrays of the same shapes
        The states before it.
    mask : array of shape (n, P), optional
        What multiplies `h_before` in front of W_hh: recurrent dropout.
    q : array of shape (n, H), optional
        The GRU's W_hn h + b_hn, where the pass has kept it.
    gates : dict from gate name to array of shape (n, H)
    """

    x: Array
    h: Array
    c: Array | None
    h_before: Array
    c_before: Array | None
    mask: Array | None
    q: Array | None
    gates: dict[str, Array]

    @property
    def h_in(self) -> Array:
        """What enters the product with W_hh."""
        return self.h_before if self.mask is None else self.h_before * self.mask

    def at(self, rows: Any) -> Steps:
        """Return what happened at `rows` alone."""
        arrays, gates = self[:-1], self.gates
        of_rows = [None if a is None else a[rows] for a in arrays]
        return Steps._make([*of_rows, {name: a[rows] for name, a in gates.items()}])

    def in_float64(self) -> Steps:
        """Return all of it in float64, on the host."""
        arrays, gates = self[:-1], self.gates
        wide = [None if a is None else asnumpy(a).astype(np.float64) for a in arrays]
        by_name = {name: asnumpy(a).astype(np.float64) for name, a in gates.items()}
        return Steps._make([*wide, by_name])


def of_layer(layer: Any, stack: Stack, contexts: list[Any]) -> list[Steps]:
    """Return for each pass what happened at all of its rows, however it was run."""
    states = state_names(layer.recurrence)
    return [_of_pass(stack, k, ctx, len(states)) for k, ctx in enumerate(contexts)]


def _of_pass(stack: Stack, k: int, context: Any, states: int) -> Steps:
    pieces = [(rows, of_context(p, ctx)) for rows, p, ctx in _pieces(stack, k, context, states)]
    if len(pieces) == 1 and isinstance(pieces[0][0], slice):
        return pieces[0][1]
    N, first = stack.passes[k].layout.rows, pieces[0][1]

    def whole(arrays: list[Any]) -> Any:
        if arrays[0] is None:
            return None
        one = get_array_module(arrays[0]).empty((N, arrays[0].shape[1]), arrays[0].dtype)
        for (rows, _), a in zip(pieces, arrays, strict=True):
            one[rows] = a
        return one

    every = [whole([s[field] for _, s in pieces]) for field in range(len(Steps._fields) - 1)]
    gates = {name: whole([s.gates[name] for _, s in pieces]) for name in first.gates}
    return Steps._make([*every, gates])


def _pieces(stack: Stack, k: int, context: Any, states: int) -> Iterator[tuple[Any, Pass, Any]]:
    """Iterate over the parts and segments that a pass was run in: rows, pass and plain context of each."""
    parts = [(slice(None), stack.passes[k], context)]
    if isinstance(stack.execution, InParts):
        own = zip(stack.execution.parts, context, strict=True)
        parts = [(part.rows, p, ctx) for part, (p, ctx) in own]
    for rows, p, ctx in parts:
        if not isinstance(p, Checkpointed):
            yield rows, p, ctx
            continue
        if not ctx:  # no steps, so no segments
            yield rows, p, _of_no_steps(p, states)
        for (s_rows, _), (segment, x, entering) in zip(p.layout.segments, ctx, strict=True):
            _, again = segment.forward(x, [s.copy() for s in entering])
            yield (s_rows if isinstance(rows, slice) else rows[s_rows]), segment, again


def _of_no_steps(p: Pass, count: int) -> Any:
    xp, (w_ih, w_hh, *_) = get_array_module(p.weights[0]), p.weights
    H, B = len(w_hh) // len(p.recurrence.GATES), p.layout.batch_size
    sizes = (w_hh.shape[1], H)[:count]
    states = [xp.zeros((B, size), w_hh.dtype) for size in sizes]
    x = xp.empty((0, w_ih.shape[1]), w_ih.dtype)
    return Pass(*p).forward(x, states)[1]


def of_context(p: Pass, ctx: Any) -> Steps:
    """Return what happened at all rows of a pass that was run as a whole."""
    layout, B = p.layout, p.layout.batch_size
    every = Span(slice(0, layout.steps), slice(0, layout.rows))
    h, c = ctx.h, getattr(ctx, "c", None)
    return Steps(
        ctx.x,
        h[B:],
        None if c is None else c[B:],
        layout.previous_rows(h, every),
        None if c is None else layout.previous_rows(c, every),
        None if p.mask is None else layout.of_sequence(p.mask, every),
        getattr(ctx, "q", None),
        p.recurrence.gates(ctx),
    )


class Products(NamedTuple):
    """The gradients at some rows of a step's two products, W_ih x and W_hh h.

    Attributes
    ----------
    gates : slice
        Which rows of the two weights.
    d_x, d_h : arrays of shape (..., n, len(gates))
        Gradients of what W_ih's product and of what W_hh's product puts out.
    h : array of shape (n, P)
        What W_hh multiplies.
    """

    gates: slice
    d_x: Array
    d_h: Array
    h: Array


class Elman:
    r""":math:`h_t = \phi(z_t)`: tanh, or ReLU."""

    def __init__(self, weights: list[Any], options: dict[str, Any]) -> None:
        self.w_hh, self.relu = weights[1], options["nonlinearity"] == "relu"

    def products(self, s: Steps, dh: Array, dc: Array | None) -> list[Products]:
        """Return what comes back to the products of dh, and for the LSTM dc.

        They are the total gradients of the states after the step; axes may stand in front of the rows.
        """
        dz = dh * ((s.h > 0) if self.relu else _one_minus_square(s.h))
        return [Products(slice(None), dz, dz, s.h_in)]

    def totals(self, s: Steps, dh: Array, dc: Array | None) -> tuple[Array, Array | None]:
        """Return the total gradients of the states, of those that reach h and c from outside the step."""
        return dh, dc

    def back(self, s: Steps, dh: Array, dc: Array | None) -> tuple[Array, Array | None]:
        """Return the gradients of the states before the step: times its Jacobian, transposed."""
        through = sum(p.d_h @ self.w_hh[p.gates] for p in self.products(s, dh, dc))
        return _masked(s, through), None


class Gated(Elman):
    r""":math:`h_t = (1 - z) n + z h_{t-1}`: the GRU."""

    def __init__(self, weights: list[Any], options: dict[str, Any]) -> None:
        _, self.w_hh, _, self.b_hh = weights

    def products(self, s: Steps, dh: Array, dc: Array | None) -> list[Products]:
        """Return those of r and z, and those of n, which differ by the reset gate."""
        r, H, h = s.gates["r"], s.gates["r"].shape[1], s.h_in
        q = self._q(h, H) if s.q is None else s.q
        d_z, d_n = self._of_z_and_n(s, dh)
        d_rz = _side_by_side(d_n * q, r, d_z)
        return [
            Products(slice(0, 2 * H), d_rz, d_rz, h),
            Products(slice(2 * H, 3 * H), d_n, d_n * r, h),
        ]

    def _q(self, h: Array, H: int) -> Array:
        q: Array = h @ self.w_hh[2 * H :].T
        return q if self.b_hh is None else q + self.b_hh[2 * H :]

    def _of_z_and_n(self, s: Steps, dh: Array) -> tuple[Array, Array]:
        z, n = s.gates["z"], s.gates["n"]
        keep = 1 - z
        slope = s.h_before - n
        slope *= z
        slope *= keep
        keep *= _one_minus_square(n)
        return dh * slope, dh * keep

    def back(self, s: Steps, dh: Array, dc: Array | None) -> tuple[Array, Array | None]:
        """Return the gradient of the state before the step, which z hands on as well."""
        through, _ = super().back(s, dh, dc)
        return through + dh * s.gates["z"], None


class GatedBefore(Gated):
    """The GRU whose reset gate acts on what W_hh multiplies."""

    def products(self, s: Steps, dh: Array, dc: Array | None) -> list[Products]:
        """Return those of r and z, and those of n."""
        r, H, h = s.gates["r"], s.gates["r"].shape[1], s.h_in
        d_z, d_n = self._of_z_and_n(s, dh)
        d_rz = _side_by_side((d_n @ self.w_hh[2 * H :]) * h, r, d_z)
        return [
            Products(slice(0, 2 * H), d_rz, d_rz, h),
            Products(slice(2 * H, 3 * H), d_n, d_n, h * r),
        ]

    def back(self, s: Steps, dh: Array, dc: Array | None) -> tuple[Array, Array | None]:
        """Return the gradient of the state before the step."""
        rz, n = self.products(s, dh, dc)
        through = rz.d_h @ self.w_hh[rz.gates] + (n.d_h @ self.w_hh[n.gates]) * s.gates["r"]
        return _masked(s, through) + dh * s.gates["z"], None


class LongShortTerm(Elman):
    r""":math:`c_t = f c_{t-1} + i g, \; h_t = W_{hr} (o \tanh c_t)`: the LSTM."""

    def __init__(self, weights: list[Any], options: dict[str, Any]) -> None:
        _, self.w_hh, _, _, self.w_hr = weights

    def hidden(self, s: Steps) -> Array:
        """Return what a projection reads: o * tanh(c_t)."""
        return s.gates["o"] * get_array_module(s.c).tanh(s.c)

    def products(self, s: Steps, dh: Array, dc: Array | None) -> list[Products]:
        """Return those of i, f, g, o, the same for both products."""
        i, f, g, o = (s.gates[name] for name in "ifgo")
        xp = get_array_module(dh)
        dm = dh if self.w_hr is None else dh @ self.w_hr
        dz = [dc * (g * i * (1 - i)), dc * (s.c_before * f * (1 - f)), dc * (i * (1 - g * g))]
        dz = xp.concatenate([*dz, dm * (xp.tanh(s.c) * o * (1 - o))], axis=-1)
        return [Products(slice(None), dz, dz, s.h_in)]

    def totals(self, s: Steps, dh: Array, dc: Array | None) -> tuple[Array, Array | None]:
        """Return dh, and dc with what comes to c through h."""
        tanh_c = get_array_module(dh).tanh(s.c)
        dm = dh if self.w_hr is None else dh @ self.w_hr
        return dh, dc + dm * (s.gates["o"] * _one_minus_square(tanh_c))

    def back(self, s: Steps, dh: Array, dc: Array | None) -> tuple[Array, Array | None]:
        """Return the gradients of both states before the step."""
        dh, total = self.totals(s, dh, dc)
        through, _ = super().back(s, dh, total)
        return through, total * s.gates["f"]


def _one_minus_square(x: Array) -> Array:
    """Return the slope of tanh where it is x; in one array, since page faults cost more than products."""
    y = x * x
    get_array_module(y).subtract(1, y, y)
    return y


def _masked(s: Steps, dh: Any) -> Array:
    masked: Array = dh if s.mask is None else dh * s.mask
    return masked


def _side_by_side(d_r: Array, r: Array, d_z: Array) -> Array:
    """Return the gradients before r's sigmoid and before z's in one array; `d_r` is overwritten."""
    slope = 1 - r
    slope *= r
    d_r *= slope
    return get_array_module(d_r).concatenate([d_r, d_z], axis=-1)


_CELLS: dict[Any, type[Elman]] = {
    rnn: Elman,
    gru: Gated,
    gru_before: GatedBefore,
    lstm: LongShortTerm,
}


def cell_of(layer: Any, p: Pass, dtype: Any = None) -> Any:
    """Return one step's equations with the weights of `p`, on the host in `dtype` if that is given."""
    if getattr(layer, "recurrence", None) not in _CELLS:
        raise TypeError(f"layer: expected an RNN, GRU or LSTM, got {layer!r}")
    weights = list(p.weights)
    if dtype is not None:
        weights = [None if w is None else asnumpy(w).astype(dtype) for w in weights]
    return _CELLS[layer.recurrence](weights, dict(p.options))
