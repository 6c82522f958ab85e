"""What the pairs have in common: arrays as C takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..layout import Layout
from . import _loops


class Run(NamedTuple):
    """A span of the steps, as a loop takes it."""

    rows: slice
    states: slice  # in [entering; all rows]: those that enter, and the span's
    entering: int
    sizes: Array  # int64

    def batch(self, H: int) -> tuple[Array, int, int]:
        """Return a loop's last arguments."""
        return self.sizes, self.entering, H


def sizes_of(layout: Layout) -> Array:
    """Return the steps' sizes as C reads them."""
    return layout.batch_sizes.astype(np.int64, copy=False)


def runs(layout: Layout) -> list[Run]:
    """Return one run for each span of the layout."""
    sizes, before = sizes_of(layout), layout.state_starts
    result = []
    for steps, rows in layout.spans:
        entering = layout.sizes[steps.start - 1] if steps.start else layout.batch_size
        first = int(before[steps.start])
        states = slice(first, first + entering + rows.stop - rows.start)
        result.append(Run(rows, states, entering, sizes[steps]))
    return result


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


def mask_of(mask: Array | None, entering: int) -> Any:
    """Return the rows of recurrent dropout's mask for the sequences that enter."""
    return None if mask is None else read(mask)[:entering]
