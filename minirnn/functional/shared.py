"""What the recurrences have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..backend import FLOATS, Array, get_array_module
from ..layout import Layout, Span
from .recurrence import Weights
from .scratch import put_back, scratch

# Rows are added up one after the other by so many at most, and then such sums: float32 keeps its digits.
_RUN = 32


def column_sums(rows: Array) -> Array:
    """Return ``rows.sum(0)`` by vector-matrix products, which the CPU does faster, over runs of rows."""
    N, features = rows.shape
    if N <= 4 * _RUN:
        return _ones(N, rows).dot(rows)
    n = N // _RUN
    folded = _ones(_RUN, rows).dot(rows[: n * _RUN].reshape(_RUN, n * features))
    total = column_sums(folded.reshape(n, features))
    if n * _RUN < N:
        total += column_sums(rows[n * _RUN :])
    return total


_ONES = {dtype: np.ones(4 * _RUN, dtype) for dtype in FLOATS}


def _ones(n: int, like: Array) -> Array:
    """Return so many ones, 4 runs at most, of the dtype and place of `like`: not to be written to."""
    if isinstance(like, np.ndarray):
        return _ONES[like.dtype][:n]
    return get_array_module(like).ones(n, like.dtype)


def products(x: Array, w: Array, layout: Layout) -> Array:
    """Return ``x @ w.T``, span by span, so that no bit depends on how many steps there are beside them."""
    xp = get_array_module(x)
    out = xp.empty((len(x), len(w)), x.dtype)
    for span in layout.spans:
        x[span.rows].dot(w.T, out[span.rows])
    return out


def masked(x: Array, mask: Array) -> Array:
    """Return ``x * mask``, and 0 where the mask is 0, whatever x holds there: 0 times infinity is NaN."""
    return masked_(get_array_module(x).array(x), mask)


def masked_(x: Array, mask: Array) -> Array:
    """Do the same in the place of `x`."""
    get_array_module(x).copyto(x, 0, where=mask == 0)
    x *= mask
    return x


class Saved(Protocol):
    """What the context of every recurrence here has, whatever computed it."""

    @property
    def x(self) -> Array: ...  # noqa: D102
    @property
    def h(self) -> Array: ...  # noqa: D102
    @property
    def w_ih(self) -> Array: ...  # noqa: D102
    @property
    def layout(self) -> Layout: ...  # noqa: D102
    @property
    def mask(self) -> Array | None: ...  # noqa: D102


def add_gradients(ctx: Saved, span: Span, dz: Array, dx: Array, dweights: Weights) -> None:
    """End the backward pass of a span, when its loop is done: dx, and the weights' gradients.

    Each span adds to the gradients by itself, so that checkpoints, whose segments are spans, change no bit.

    Parameters
    ----------
    ctx : Saved
    span : Span
        Of n rows.
    dz : array of shape (n, G * H)
        Gradient of ``W_ih x_t + b_ih``, and of ``W_hh h_{t-1} + b_hh``.
    dx : array of shape (N, I)
        The span's rows are filled.
    dweights : (dw_ih, dw_hh, db_ih, db_hh, ...)
        Are added to; the biases' may be None, and others are not touched.
    """
    dw_ih, dw_hh, db_ih, db_hh = dweights[:4]
    dz.dot(ctx.w_ih, dx[span.rows])
    dw_ih += dz.T.dot(ctx.x[span.rows])
    dw_hh += dz.T.dot(entering(ctx, span))
    add_bias_gradient((db_ih, db_hh), dz)


def add_input_gradients(ctx: Saved, span: Span, dz: Array, dx: Array, dw_ih: Array) -> None:
    """Fill the span's rows of dx, and add to W_ih's gradient."""
    dz.dot(ctx.w_ih, dx[span.rows])
    dw_ih += dz.T.dot(ctx.x[span.rows])


def entering(ctx: Saved, span: Span) -> Array:
    """Return what W_hh has multiplied at each of the span's rows: the state before, masked if it was."""
    h_prev = ctx.layout.previous_rows(ctx.h, span)
    if ctx.mask is None:
        return h_prev
    return masked(h_prev, ctx.layout.of_sequence(ctx.mask, span))


def add_bias_gradient(dbs: Sequence[Array | None], dz: Array) -> None:
    """Add ``dz.sum(0)`` to each of the biases' gradients, if there are biases."""
    if dbs[0] is None:
        return
    db = column_sums(dz)
    for total in dbs:
        if total is not None:
            total += db


def gate_sums(w: Array, b: Array | None, x: Array, out: Array) -> Array:
    """Write ``x @ w.T + b`` into `out`, (gates, B, H), each gate's block of rows of `w` by itself.

    Blocks, since NumPy sets up a buffer for every operation on columns.
    """
    gates, B, H = out.shape
    xp = get_array_module(x)
    if B == 1:
        # Streaming. A single row holds its blocks one after the other, so one product does for all.
        row = out.reshape(1, -1)
        x.dot(w.T, row)
        if b is not None:
            row += b[None]
        return out
    w = w.reshape(gates, H, -1).transpose(0, 2, 1)
    if b is None:
        return xp.matmul(x, w, out=out)
    out[...] = b.reshape(gates, 1, H)
    product = scratch(out.shape, out)
    out += xp.matmul(x, w, out=product)
    put_back(product)
    return out
