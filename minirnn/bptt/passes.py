"""A pass: one layer in one direction.

Forward leads the states from the initial to the last ones, in place; backward leads their gradients the
same way back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from ..backend import Array, get_array_module
from ..functional.recurrence import Mask, Recurrence, States, Traces, Weights
from ..layout import Layout

# What a recurrence has left for its own backward; nobody else looks into it.
Context: TypeAlias = Any


class Pass(NamedTuple):
    """A recurrence and what it computes with.

    Attributes
    ----------
    recurrence : Recurrence
        The pure pair, of the place where the arrays lie.
    weights : sequence of arrays, or None for what there is not
        In the order in which the recurrence takes them.
    options : mapping
        Further arguments of its ``forward``.
    layout : Layout
        Where the steps lie in the rows.
    mask : array of shape (B, P), optional
        Recurrent dropout.
    """

    recurrence: Recurrence
    weights: Weights
    options: Mapping[str, Any]
    layout: Layout
    mask: Mask

    def forward(self, x: Array, states: States, save: bool = True) -> tuple[Array, Context]:
        """Return h at every step, (N, P), and the context; lead `states`, each (B, size), on to the last."""
        recurrence, weights, options, layout, mask = self
        every = self.begin(states)
        ctx = recurrence.forward(x, every, weights, layout, mask=mask, save=save, **options)
        return self.finish(every, states), ctx

    def backward(
        self,
        ctx: Context,
        dy: Array | None,
        dstates: States,
        dweights: Weights,
        trace: Traces = None,
    ) -> Array:
        """Return dx, (N, I), and add to `dweights`; lead `dstates` back to the initial states' gradients."""
        dx: Array = self.recurrence.backward(ctx, dy, dstates, dweights, trace)
        return dx

    def begin(self, states: States) -> list[Array]:
        """Return arrays for the states at all steps, (B + N, size), with the initial ones in place."""
        empty, layout = get_array_module(states[0]).empty, self.layout
        B, every = layout.batch_size, []
        for s in states:
            rows = empty((B + layout.rows, s.shape[1]), s.dtype)
            rows[:B] = s
            every.append(rows)
        return every

    def finish(self, every: Sequence[Array], states: States) -> Array:
        """Put the last states in place, and return h at every step."""
        layout = self.layout
        for k, s in enumerate(states):
            s[...] = layout.last_states(every[k])
        return every[0][layout.batch_size :]

    def over(self, layout: Layout) -> Pass:
        """Return the pass over another batch, without a mask, which would be the batch's."""
        return type(self)(self.recurrence, self.weights, self.options, layout, None)

    def within(self, layout: Layout, sequences: slice) -> Pass:
        """Return the plain pass over a segment or part of the batch: `sequences`, lying as `layout` says."""
        mask = None if self.mask is None else self.mask[sequences]
        return Pass(self.recurrence, self.weights, self.options, layout, mask)
