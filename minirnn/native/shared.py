"""What the pairs have in common: arrays as C takes them, and what is left to NumPy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from ..backend import Array, quiet
from ..functional.recurrence import Weights
from ..functional.shared import Saved
from ..layout import Layout, Span
from ..threads import blas_threads
from . import _loops

Loop: TypeAlias = Callable[..., None]
Pack: TypeAlias = Callable[[Array, Array, int], None]


def releases_gil(weights: Weights) -> bool:
    """Tell whether loops with such weights run in C: those with a projection are NumPy's."""
    return len(weights) < 5 or weights[4] is None


class Cut(NamedTuple):
    """A span of the steps, and the numbers that tell a loop where it lies in arrays of the whole batch."""

    span: Span
    # The sizes of all steps, the span's first step, its end, its first row; the batch size.
    place: tuple[Any, ...]


def cuts(layout: Layout) -> list[Cut]:
    """Return the layout's spans."""
    return layout.once(_cuts)


def _cuts(layout: Layout) -> list[Cut]:
    sizes = layout.batch_sizes.astype(np.int64, copy=False)
    return [
        Cut(span, (sizes, span.steps.start, span.steps.stop, span.rows.start, layout.batch_size))
        for span in layout.spans
    ]


def one_step(B: int, H: int) -> tuple[Any, ...]:
    """Return what tells a loop that there is one step, of B sequences."""
    return np.array([B], np.int64), 0, 1, 0, B, H


# C computes products of so many multiplications at most. Small ones take it less time than NumPy takes to
# begin them; large ones it leaves to a BLAS of several threads, or where it was not built for vectors.
_VECTORS = len(_loops.instruction_sets()) > 1
_MOST = sys.maxsize if _VECTORS and blas_threads() == 1 else 1 << 20


def in_c(span: Span, w: Array) -> bool:
    """Tell whether C is to compute the product of a span's rows and `w`."""
    many: int = (span.rows.stop - span.rows.start) * w.size
    return many <= _MOST


def step_in_c(x: Array, w_ih: Array, w_hh: Array) -> bool:
    """Tell whether C is to compute a step's products."""
    many: int = len(x) * (w_ih.size + w_hh.size)
    return many <= _MOST


def packed_once(w: Array, layout: Layout, pack: Pack = _loops.pack_transpose) -> Array:
    """Return `w`, which C packs for itself, or if several spans would do so its panels."""
    return w if len(layout.spans) == 1 else panels(w, pack)


def input_once(w_ih: Array, layout: Layout, pack: Pack = _loops.pack_transpose) -> Array:
    """Return the same of W_ih, if C computes its product with any span."""
    if len(layout.spans) == 1 or not any(in_c(span, w_ih) for span in layout.spans):
        return w_ih
    return panels(w_ih, pack)


def of_input(
    x: Array, w_ih: Array, packed: Array, span: Span, out: Array, first: int
) -> tuple[Array | None, ...]:
    """Return W_ih and x, with whose product C begins, or nothing: NumPy has written it to `out`.

    There the span's rows are those from `first` on.
    """
    if in_c(span, w_ih):
        return packed, x
    rows = x[span.rows]
    _dot(rows, w_ih.T, out[first : first + len(rows)])
    return None, None


@quiet
def _dot(x: Array, w: Array, out: Array) -> None:
    x.dot(w, out)


class Context(Saved, Protocol):
    """What the contexts of all pairs here have beside that."""

    @property
    def w_hh(self) -> Array: ...  # noqa: D102


def back_through(
    loop: Loop,
    given: Sequence[Any],
    ctx: Context,
    columns: int,
    dweights: Weights,
    add_gradients: Callable[..., None],
    pack: Pack = _loops.pack,
) -> Array:
    """Run a loop backward, span by span, with what comes after it; return the gradient of the input.

    Large products are left to NumPy's `add_gradients`, for which there is room for a span's dz, of `columns`
    columns. `given` is what the loop takes before W_hh, which `pack` puts into panels.
    """
    layout, x, H = ctx.layout, ctx.x, ctx.h.shape[1]
    dx = np.empty(x.shape, x.dtype)
    w, w_x = packed_once(ctx.w_hh, layout, pack), input_once(ctx.w_ih, layout, _loops.pack)
    dz = None
    for span, place in reversed(cuts(layout)):
        if in_c(span, ctx.w_ih):
            loop(*given, w, ctx.mask, None, w_x, x, dx, *dweights[:4], *place, H)
            continue
        if dz is None:
            dz = np.empty((layout.span_rows, columns), x.dtype)
        loop(*given, w, ctx.mask, dz, *_NOTHING, *place, H)
        quiet(add_gradients)(ctx, span, dz[: span.rows.stop - span.rows.start], dx, dweights)
    return dx


_NOTHING = (None,) * 7  # in the place of W_ih, x and the gradients


def read(x: Any) -> Any:
    """Return `x` in the order of C and aligned: itself, if it is so, or a copy. ``None`` is ``None``."""
    if x is None or (x.flags.c_contiguous and x.flags.aligned):
        return x
    return x.copy()


def panels(w: Array, pack: Pack = _loops.pack_transpose) -> Array:
    """Return the transpose of `w`, or with ``_loops.pack`` itself, in panels of columns, as C reads it."""
    # C lets them begin with a line of the cache, and reads a vector beyond their end.
    out = np.empty(w.size + 128 // w.itemsize, w.dtype)
    pack(out, w, w.shape[1])
    return out
