"""What the pairs have in common: arrays as C takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..functional.recurrence import States, Traces
from ..functional.shared import Saved
from ..layout import Layout, Span
from . import _loops


class Run(NamedTuple):
    """A span of the steps, as a loop takes it."""

    span: Span
    states: slice  # in [entering; all rows]: those that enter, and the span's
    last: tuple[Any, ...]  # for the loop: mask, room, batch sizes, sequences that enter, H


def sizes_of(layout: Layout) -> Array:
    """Return the steps' sizes as C reads them."""
    return layout.batch_sizes.astype(np.int64, copy=False)


def runs(layout: Layout, mask: Array | None, room: Array) -> list[Run]:
    """Return one run for each span of the layout; `room`, (B, H), is a loop's own to write to."""
    mask, H = read(mask), room.shape[1]
    return [
        Run(span, states, (None if mask is None else mask[:n], room[:n], sizes, n, H))
        for span, states, sizes, n in layout.once(_cuts)
    ]


def _cuts(layout: Layout) -> list[tuple[Span, slice, Array, int]]:
    """Return for each span where its states lie, its steps' sizes, and how many sequences enter it."""
    sizes, starts, cuts = sizes_of(layout), layout.state_starts, []
    for span in layout.spans:
        steps, rows = span
        n = layout.sizes[steps.start - 1] if steps.start else layout.batch_size
        first = int(starts[steps.start])
        states = slice(first, first + n + rows.stop - rows.start)
        cuts.append((span, states, sizes[steps], n))
    return cuts


def runs_back(
    ctx: Saved, width: int, H: int, dy: Array | None, dstates: States, trace: Traces
) -> Iterator[tuple[Run, Array, list[Any]]]:
    """Yield the runs from the last one, each with its dz, (n, width), and with a loop's first arguments.

    Which are dz, the states' gradients, dy and the traces, for the loop to fill or to lead back.
    """
    layout, dtype = ctx.layout, ctx.x.dtype
    own, traces, dy = [read(d) for d in dstates], [read(t) for t in trace or ()], read(dy)
    memory, room = np.empty((layout.span_rows, width), dtype), np.empty((len(own[0]), H), dtype)
    by_row = dy, *(traces or [None] * len(own))
    for run in reversed(runs(layout, ctx.mask, room)):
        rows, n = run.span.rows, len(run.last[1])
        dz = memory[: rows.stop - rows.start]
        given = [None if a is None else a[rows] for a in by_row]
        yield run, dz, [dz, *(d[:n] for d in own), *given]
    write_back(dstates, own)
    write_back(trace or (), traces)


def read(x: Any) -> Any:
    """Return `x` in the order of C and aligned: itself, if it is so, or a copy. ``None`` is ``None``."""
    if x is None or (x.flags.c_contiguous and x.flags.aligned):
        return x
    return x.copy()


def write_back(arrays: Sequence[Array], own: Sequence[Array]) -> None:
    """Bring what C wrote into the copies that :func:`read` made of `arrays`, if it made any."""
    for x, work in zip(arrays, own, strict=True):
        if work is not x:
            x[...] = work


def panels(w: Array) -> Array:
    """Return the transpose of `w` in panels of columns, as the product in C reads it."""
    out = np.empty(w.size, w.dtype)
    _loops.pack(out, read(w), w.shape[1])
    return out


def bias_sum(b_ih: Array | None, b_hh: Array | None, like: Array) -> Array:
    """Return the sum of the biases of the rows of `like`; zeros, if there are none."""
    if b_ih is None or b_hh is None:
        return np.zeros(len(like), like.dtype)
    total: Array = b_ih + b_hh
    return total
