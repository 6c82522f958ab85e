"""What the recurrences have in common."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from ..backend import Array, get_array_module
from ..layout import Layout

# Rows are added up one after the other by so many at most, and then such sums: float32 keeps its digits.
_RUN = 32


def column_sums(rows: Array) -> Array:
    """Return ``rows.sum(0)`` by vector-matrix products, which the CPU does faster, over runs of rows."""
    xp = get_array_module(rows)
    N, features = rows.shape
    if N <= 4 * _RUN:
        ones = xp.empty(N, rows.dtype)
        ones.fill(1)
        return ones.dot(rows)
    n = N // _RUN
    ones = xp.empty(_RUN, rows.dtype)
    ones.fill(1)
    folded = ones.dot(rows[: n * _RUN].reshape(_RUN, n * features))
    total = column_sums(folded.reshape(n, features))
    if n * _RUN < N:
        total += column_sums(rows[n * _RUN :])
    return total


def products(x: Array, w: Array, layout: Layout) -> Array:
    """Return ``x @ w.T``, span by span, so that no bit depends on how many steps there are beside them."""
    xp = get_array_module(x)
    out = xp.empty((len(x), len(w)), x.dtype)
    for span in layout.spans:
        x[span.rows].dot(w.T, out[span.rows])
    return out


def masked(x: Array, mask: Array) -> Array:
    """Return ``x * mask``, and 0 where the mask is 0, whatever x holds there: 0 times infinity is NaN."""
    return masked_(x.copy(), mask)


def masked_(x: Array, mask: Array) -> Array:
    """Do the same in the place of `x`."""
    get_array_module(x).copyto(x, 0, where=mask == 0)
    x *= mask
    return x


def add_bias_gradient(dbs: Sequence[Array | None], dz: Array) -> None:
    """Add ``dz.sum(0)`` to each of the biases' gradients, if there are biases."""
    if dbs[0] is not None:
        db = column_sums(dz)
        for total in dbs:
            total += db


def number(value: float, like: Array) -> Array:
    """Return `value` as an array without dimensions, of the dtype and place of `like`.

    NumPy makes such an array of Python's number anew for every operation, which on a step's gates is felt.
    """
    return get_array_module(like).asarray(value, like.dtype)


# A thread keeps so many arrays, of so many bytes in all.
_BYTES = 1 << 20
_ARRAYS = 16


class _Scratch(threading.local):
    """Arrays that a thread uses again and again, by shape, dtype and place."""

    def __init__(self) -> None:
        self.arrays: dict[tuple[Any, ...], list[Array]] = {}
        self.bytes = 0
        self.count = 0


_scratch = _Scratch()


def scratch(shape: tuple[int, ...], like: Array) -> Array:
    """Return an array of the dtype and place of `like`; :func:`keep` it when its use is over.

    So that a step of a stream allocates nothing but its result. It is taken out of its place meanwhile: a
    signal handler that interrupts the step and takes one of its own gets other memory.
    """
    try:
        array = _scratch.arrays[shape, like.dtype, type(like)].pop()
    except (KeyError, IndexError):
        return get_array_module(like).empty(shape, like.dtype)
    _scratch.bytes -= array.nbytes
    _scratch.count -= 1
    return array


def keep(*arrays: Array) -> None:
    """Put arrays of :func:`scratch` back for the next call, as far as there is room for them."""
    for array in arrays:
        if array.nbytes > _BYTES:
            continue
        if _scratch.count >= _ARRAYS or _scratch.bytes + array.nbytes > _BYTES:
            _scratch.__init__()  # type: ignore[misc]
        _scratch.arrays.setdefault((array.shape, array.dtype, type(array)), []).append(array)
        _scratch.bytes += array.nbytes
        _scratch.count += 1


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
    keep(product)
    return out


def halved(w: Array, order: list[int]) -> Array:
    """Return the gates' blocks of `w` in this order, the last its tanh's, those of sigmoids halved.

    sigmoid(z) = tanh(z / 2) / 2 + 1/2 never overflows, and lets one tanh serve several gates. Halving is
    exact in floating point.
    """
    blocks = w.reshape(len(order), -1, *w.shape[1:]).take(order, axis=0)
    blocks[:-1] *= 0.5
    return blocks


def sigmoid_(z: Array) -> Array:
    """Turn `z` into its sigmoid, by way of tanh: no overflow, and no digit lost in float32."""
    xp: Any = get_array_module(z)
    half = z.dtype.type(0.5)
    z *= half
    xp.tanh(z, z)
    z *= half
    z += half
    return z
