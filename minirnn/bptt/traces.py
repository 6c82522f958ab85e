"""What happened at every step, for looking at it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ..backend import Array, get_array_module, shown
from ..functional.recurrence import States
from ..layout import Layout
from . import directions
from .passes import Context, Pass


class Form(Protocol):
    """What an array came in as, and goes back to."""

    layout: Layout

    def restore(self, rows: Array) -> Any:
        """Return rows (N, features) in that form."""
        ...


class Trace(NamedTuple):
    """Every step of every layer, forward or backward.

    Each field holds one entry a layer; an array has the form of the layer's output, directions
    side by side.

    Attributes
    ----------
    h : tuple of arrays
        Forward the states h_t; backward dL/dh_t, the total gradient that reaches each state.
    c : tuple of arrays
        LSTM only, else empty: the cells c_t, or dL/dc_t.
    gates : dict from gate name to tuple of arrays
        Forward only, else empty: the gates' values, under ``i f g o`` or ``r z n``.

    See Also
    --------
    diagnostics.gradient_flow : The norms of a backward trace.

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> rnn = minirnn.RNN(2, 3, num_layers=2)
    >>> (output, h_n, states), ctx = rnn.forward(np.ones((5, 1, 2), np.float32), trace=True)
    >>> len(states.h), bool((states.h[-1] == output).all())
    (2, True)
    >>> _, _, gradients = rnn.backward(ctx, None, np.ones_like(h_n), trace=True)
    >>> gradients.h[-1][-1]  # what has reached the last layer's last state
    array([[1., 1., 1.]], dtype=float32)
    """

    h: tuple[Any, ...]
    c: tuple[Any, ...] = ()
    gates: dict[str, tuple[Any, ...]] = {}  # noqa: RUF012 (never written to)


def to_fill(passes: Sequence[Pass], sizes: Sequence[int], like: Array) -> list[States]:
    """Return arrays (N, size) for each pass's backward to fill."""
    xp, rows = get_array_module(like), passes[0].layout.rows
    return [[xp.empty((rows, size), like.dtype) for size in sizes] for _ in passes]


def of_gradients(traces: Sequence[States], form: Form, D: int) -> Trace:
    """Return what the passes have filled."""
    h, c, *_ = [_by_layer(arrays, form, D) for arrays in zip(*traces, strict=True)] + [()]
    return Trace(h, c)


def of_states(passes: Sequence[Pass], contexts: Sequence[Context], form: Form, D: int) -> Trace:
    """Return what the passes have saved."""
    B, recurrence = form.layout.batch_size, passes[0].recurrence
    h, c = ([getattr(ctx, s)[B:] for ctx in contexts if hasattr(ctx, s)] for s in "hc")
    gates = [recurrence.gates(ctx) for ctx in contexts]
    by_name = {name: _by_layer([g[name] for g in gates], form, D) for name in gates[0]}
    return Trace(_by_layer(h, form, D), _by_layer(c, form, D), by_name)


def _by_layer(per_pass: Sequence[Array], form: Form, D: int) -> tuple[Any, ...]:
    """Put the directions of each layer side by side, in the form of the output."""
    sides = (per_pass[k : k + D] for k in range(0, len(per_pass), D))
    joined = (directions.join(ys, form.layout) for ys in sides)
    return tuple(form.restore(shown(x)) for x in joined)
