"""A pass by segments of the steps, which keeps the states between them and computes all else again.

Segments are whole spans, so both ways add up the same numbers in the same order: no bit changes.
"""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, get_array_module
from ..functional.recurrence import States, Weights
from ..layout import Layout
from .passes import Pass


def choose(wanted: bool, save: bool, traced: bool) -> type[Pass]:
    """Return the kind of a layer's passes: plain for inference, and for a trace, which needs every step."""
    return Checkpointed if wanted and save and not traced else Pass


class Checkpoint(NamedTuple):
    """Enough to run one segment again."""

    segment: Pass
    x: Array
    states: list[Array]  # those that enter it


class Checkpointed(Pass):
    """The pass that leaves checkpoints as its context."""

    __slots__ = ()

    def forward(
        self, x: Array, states: States, save: bool = True
    ) -> tuple[Array, list[Checkpoint]]:
        """Run segment by segment."""
        y = get_array_module(x).empty((self.layout.rows, states[0].shape[1]), x.dtype)
        checkpoints = []
        for rows, layout in self.layout.segments:
            running = slice(layout.batch_size)
            segment, x_s = super().within(layout, running), x[rows]
            entering = [s[running] for s in states]  # views, which the segment leads on
            checkpoints.append(Checkpoint(segment, x_s, [s.copy() for s in entering]))
            y[rows], _ = segment.forward(x_s, entering, save=False)
        return y, checkpoints

    def backward(
        self,
        ctx: list[Checkpoint],
        dy: Array | None,
        dstates: States,
        dweights: Weights,
        trace: States | None = None,
    ) -> Array:
        """Run segment by segment, after running each again."""
        xp, (w_ih, *_) = get_array_module(dstates[0]), self.weights
        dx = xp.empty((self.layout.rows, w_ih.shape[1]), w_ih.dtype)
        for (rows, layout), (segment, x, states) in zip(
            reversed(self.layout.segments), reversed(ctx), strict=True
        ):
            _, ctx_s = segment.forward(x, [s.copy() for s in states])
            dx[rows] = segment.backward(
                ctx_s,
                None if dy is None else dy[rows],
                [d[: layout.batch_size] for d in dstates],
                dweights,
                None if trace is None else [t[rows] for t in trace],
            )
        return dx

    def within(self, layout: Layout, sequences: slice) -> Pass:
        """Return the pass over a part of the batch, with checkpoints as well."""
        return Checkpointed(*super().within(layout, sequences))
