"""What goes into a layer's directions, what comes out of them, and the adjoint of each.

The reverse direction is the same recurrence over rows in which every sequence is reversed. Reversing permutes
the rows of one layout, so it is its own inverse and its own adjoint.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..backend import Array, get_array_module
from ..layout import Layout


def split(x: Array, layout: Layout, directions: int) -> list[Array]:
    """Return what each direction reads: x, and its reverse."""
    return [x] if directions == 1 else [x, layout.reversed_rows(x)]


def split_backward(dxs: Sequence[Array], layout: Layout) -> Array:
    """Return dx, the sum over the directions that have read x."""
    dx = dxs[0]
    if len(dxs) == 2:
        dx += layout.reversed_rows(dxs[1])
    return dx


def join(ys: Sequence[Array], layout: Layout) -> Array:
    """Return what the directions put out, side by side: (N, D * P)."""
    if len(ys) == 1:
        return ys[0]
    y, y_reversed = ys
    return get_array_module(y).concatenate([y, layout.reversed_rows(y_reversed)], axis=1)


def join_backward(dy: Array | None, layout: Layout, directions: int) -> list[Array | None]:
    """Return each direction's part of dy."""
    if dy is None or directions == 1:
        return [dy] * directions
    contiguous, P = get_array_module(dy).ascontiguousarray, dy.shape[1] // 2
    return [contiguous(dy[:, :P]), layout.reversed_rows(dy[:, P:])]
