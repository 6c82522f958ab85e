"""What the pairs have in common: arrays as C takes them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..backend import Array, quiet
from ..functional.recurrence import Weights
from ..functional.shared import Saved
from ..layout import Layout, Span
from ..threads import blas_threads
from . import _loops

Loop: TypeAlias = Callable[..., None]
Pack: TypeAlias = Callable[[Array, Array, int], None]


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


def packed_once(w: Array, layout: Layout, pack: Pack = _loops.pack_transpose) -> Array:
    """Return `w`, which C packs for itself, or if several spans would do so its panels."""
    return w if len(layout.spans) == 1 else panels(w, pack)


def of_input(x: Array, w_ih: Array, packed: Array, out: Array) -> tuple[Array | None, ...]:
    """Return W_ih and x, for C to begin with their product, or nothing: NumPy has filled `out` with it."""
    if in_c(x, w_ih):
        return packed, x
    _dot(x, w_ih.T, out)
    return None, None


@quiet
def _dot(x: Array, w: Array, out: Array) -> None:
    x.dot(w, out)


def back_through(
    loop: Loop,
    given: Sequence[Any],
    ctx: Saved,
    cut: Cut,
    dx: Array,
    dweights: Weights,
    numpy_way: Any,
) -> None:
    """Run a loop backward through a span, with what comes after it: in NumPy, with a mask or large products.

    `given` is what the loop takes before the gradients, dz first; `numpy_way` is the module with
    ``add_gradients`` and ``add_to_biases`` for the recurrence's dz.
    """
    dz, last = given[0], (cut.sizes, cut.entering, ctx.h.shape[1])
    if ctx.mask is not None or not in_c(dz, ctx.w_ih):
        loop(*given, *_NOTHING, *last)
        quiet(numpy_way.add_gradients)(ctx, cut.span, dz, dx, dweights)
        return
    dw_ih, dw_hh, *dbs = dweights[:4]
    rows, db = cut.span.rows, np.empty(dz.shape[1], dz.dtype)
    loop(*given, ctx.w_ih, ctx.x[rows], dx[rows], dw_ih, dw_hh, db, *last)
    numpy_way.add_to_biases(dbs, db)


_NOTHING = (None,) * 6  # in the place of W_ih, x and the gradients


def read(x: Any) -> Any:
    """Return `x` in the order of C and aligned: itself, if it is so, or a copy. ``None`` is ``None``."""
    if x is None or (x.flags.c_contiguous and x.flags.aligned):
        return x
    return x.copy()


def part(x: Array | None, rows: slice) -> Array | None:
    """Return a span's rows of what is there."""
    return None if x is None else x[rows]


def panels(w: Array, pack: Pack = _loops.pack_transpose) -> Array:
    """Return the transpose of `w`, or with ``_loops.pack`` itself, in panels of columns, as C reads it."""
    out = np.empty(w.size + 64 // w.itemsize, w.dtype)  # C lets them begin with a line of the cache
    pack(out, w, w.shape[1])
    return out
