"""Gates: their weights and values in blocks, and a sigmoid with all its digits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..backend import Array, get_array_module
from ..layout import Layout, Span
from .scratch import put_back_workspace, workspace


def number(value: float, like: Array) -> Array:
    """Return `value` as an array without dimensions, of the dtype and place of `like`.

    NumPy makes such an array of Python's number anew for every operation, which on a step's gates is felt.
    """
    return get_array_module(like).asarray(value, like.dtype)


def negated(w: Array, order: list[int], sigmoids: slice) -> Array:
    """Return the gates' blocks of `w` in this order, those that will be sigmoids' negated.

    So that products with them are what the exponential in ``sigmoid(z) = 1 / (1 + exp(-z))`` takes.
    """
    blocks = w.reshape(len(order), -1, *w.shape[1:]).take(order, axis=0)
    these = blocks[sigmoids]
    get_array_module(w).negative(these, these)
    return blocks


def from_input(
    x: Array, w: Array, bias: Array | None, layout: Layout, front: Array | None = None
) -> Iterator[tuple[Span, Array]]:
    """Yield each span, and what its steps' gates get from the input, (blocks, n, H).

    It is overwritten by that of the next span.

    Parameters
    ----------
    x : array of shape (N, I)
    w : array of shape (G, H, I)
    bias : array of shape (G * H,), optional
    layout : Layout
    front : array of shape (H,), optional
        Stands in a block before the G others at every step.
    """
    xp, (G, H, _) = get_array_module(x), w.shape
    w, K = w.reshape(G * H, -1).T, 0 if front is None else H
    memory = workspace((layout.span_rows, K + G * H), x)
    if front is not None:
        memory[:, :K] = front
    for span in layout.spans:
        z = memory[: span.rows.stop - span.rows.start]
        z_x = z[:, K:]
        xp.matmul(x[span.rows], w, out=z_x)
        if bias is not None:
            z_x += bias
        yield span, z.reshape(len(z), -1, H).swapaxes(0, 1)
    put_back_workspace(memory)


def saturating() -> np.errstate:
    """Return a context, or a decorator, in which gates may close: exponentials overflow, products vanish."""
    return np.errstate(over="ignore", under="ignore")


def sigmoid_(z: Array) -> None:
    """Turn `z` into its sigmoid, with all digits of its tail at 0; within :func:`saturating`."""
    xp: Any = get_array_module(z)
    one = number(1, z)
    xp.negative(z, z)
    xp.exp(z, z)
    z += one
    xp.divide(one, z, z)


def by_gate(gates: Array, names: Sequence[str]) -> dict[str, Array]:
    """Return the gates' values out of ``gates``, (N, G * H), by name: arrays of shape (N, H)."""
    blocks = gates.reshape(len(gates), len(names), gates.shape[1] // len(names))
    return {name: blocks[:, k] for k, name in enumerate(names)}
