"""What the pairs have in common: arrays as C takes them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..backend import Array, quiet
from ..functional.recurrence import Weights
from ..functional.shared import Saved
from ..layout import Layout, Span
from ..threads import blas_threads
from . import _loops

Loop: TypeAlias = Callable[..., None]


class Cut(NamedTuple):
    """A span of the steps, as a loop takes it."""

    span: Span
    states: slice  # in [entering; all rows]: those that enter, and the span's
    sizes: Array  # of its steps
    entering: int  # sequences that enter


def cuts(layout: Layout) -> list[Cut]:
    """Return the layout's spans."""
    return layout.once(_cuts)


def _cuts(layout: Layout) -> list[Cut]:
    sizes, made = sizes_of(layout), []
    for span in layout.spans:
        steps, rows = span
        n = layout.sizes[steps.start - 1] if steps.start else layout.batch_size
        B = layout.batch_size
        states = slice(B + rows.start - n, B + rows.stop)
        made.append(Cut(span, states, sizes[steps], n))
    return made


def sizes_of(layout: Layout) -> Array:
    """Return the steps' sizes as C reads them."""
    return layout.batch_sizes.astype(np.int64, copy=False)


# C computes products of so many multiplications at most. Small ones take it less time than NumPy takes to
# begin them; large ones it leaves to a BLAS of several threads, or where it was not built for vectors.
_VECTORS = len(_loops.instruction_sets()) > 1
_MOST = sys.maxsize if _VECTORS and blas_threads() == 1 else 1 << 20


def in_c(rows: Array, w: Array) -> bool:
    """Tell whether C is to compute the product of `rows` and `w`."""
    many: int = len(rows) * w.size
    return many <= _MOST


def input_product(w_ih: Array) -> Callable[[Array, Array], None]:
    """Return a function of rows x and an array, which it fills with ``x @ w_ih.T``."""
    packed: Array | None = None

    def product(x: Array, out: Array) -> None:
        nonlocal packed
        if not in_c(x, w_ih):
            _dot(x, w_ih.T, out)
            return
        if packed is None:
            packed = panels(w_ih)
        _loops.product(out, x, packed, w_ih.shape[1])

    return product


@quiet
def _dot(x: Array, w: Array, out: Array) -> None:
    x.dot(w, out)


def add_gradients(
    ctx: Saved, cut: Cut, dz: Array, dx: Array, dweights: Weights, loop: Loop, numpy_way: Any
) -> None:
    """End the backward pass of a span: by `loop` in C or, with a mask or large products, in NumPy.

    `numpy_way` is the module with ``add_gradients`` and ``add_to_biases`` for the recurrence's dz.
    """
    if ctx.mask is not None or not in_c(dz, ctx.w_ih):
        quiet(numpy_way.add_gradients)(ctx, cut.span, dz, dx, dweights)
        return
    dw_ih, dw_hh, *dbs = dweights[:4]
    rows, db = cut.span.rows, np.empty(dz.shape[1], dz.dtype)
    saved, added = (ctx.w_ih, ctx.x[rows], ctx.h[cut.states]), (dw_ih, dw_hh, db)
    loop(dz, *saved, dx[rows], *added, cut.sizes, cut.entering, dw_hh.shape[1])
    numpy_way.add_to_biases(dbs, db)


def read(x: Any) -> Any:
    """Return `x` in the order of C and aligned: itself, if it is so, or a copy. ``None`` is ``None``."""
    if x is None or (x.flags.c_contiguous and x.flags.aligned):
        return x
    return x.copy()


def room_for(mask: Array | None) -> Array | None:
    """Return what a loop masks in."""
    return None if mask is None else np.empty_like(mask)


def part(x: Array | None, rows: slice) -> Array | None:
    """Return a span's rows of what is there."""
    return None if x is None else x[rows]


def panels(w: Array, pack: Callable[[Array, Array, int], None] = _loops.pack_transpose) -> Array:
    """Return the transpose of `w`, or with ``_loops.pack`` itself, in panels of columns, as C reads it."""
    out = np.empty(w.size + 64 // w.itemsize, w.dtype)  # C lets them begin with a line of the cache
    pack(out, w, w.shape[1])
    return out


def bias_sum(b_ih: Array | None, b_hh: Array | None, like: Array) -> Array:
    """Return the sum of the biases of the rows of `like`; zeros, if there are none."""
    if b_ih is None or b_hh is None:
        return np.zeros(len(like), like.dtype)
    total: Array = b_ih + b_hh
    return total
