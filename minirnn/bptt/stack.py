"""Layers on top of each other: forward from the first to the last, backward the same way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..backend import Array, quiet
from ..functional.recurrence import States, Weights
from ..functional.shared import masked, masked_
from ..layout import Layout
from . import directions, execution
from .execution import Execution, InTurn
from .passes import Context, Pass


class Stack(NamedTuple):
    """What runs, layer by layer, and direction by direction within a layer.

    Attributes
    ----------
    passes : list of Pass
        L * D of them.
    masks : list of arrays (N, features), or None
        For each layer what its input is multiplied with: dropout.
    execution : Execution
        How the passes of a layer run.
    """

    passes: list[Pass]
    masks: list[Array | None]
    execution: Execution

    def forward(self, x: Array, states: States, save: bool = True) -> tuple[Array, list[Context]]:
        """Run the layers.

        Parameters
        ----------
        x : array of shape (N, I)
        states : list of arrays (L * D, B, size)
            The initial states, in whose place the last ones are left.
        save : bool

        Returns
        -------
        y, contexts : array of shape (N, D * P), the last layer's output; a context for each pass
        """
        passes, masks, execution = self
        layout, D, own = passes[0].layout, len(passes) // len(masks), _per_pass(states)
        contexts: list[Context] = []
        for layer in range(len(masks)):
            sides = slice(layer * D, (layer + 1) * D)
            if masks[layer] is not None:
                x = masked(x, masks[layer])
            xs = directions.split(x, layout, D)
            ys, ctxs = execution.forward(passes[sides], xs, own[sides], save)
            x = directions.join(ys, layout)
            contexts += ctxs
        return x, contexts

    def backward(
        self,
        contexts: Sequence[Context],
        dy: Array | None,
        dstates: States,
        dweights: Sequence[Weights],
        traces: Sequence[States | None],
    ) -> Array:
        """Run the layers back.

        Parameters
        ----------
        contexts : list with an entry for each pass
        dy : array of shape (N, D * P), optional
        dstates : like `states`
            The last states' gradients, in whose place those of the initial ones are left.
        dweights : list with an entry for each pass
            The weights' gradients are added into these.
        traces : list with an entry for each pass, arrays to fill or None

        Returns
        -------
        dx : array of shape (N, I)
        """
        passes, masks, execution = self
        layout, D, own = passes[0].layout, len(passes) // len(masks), _per_pass(dstates)
        for layer in reversed(range(len(masks))):
            sides = slice(layer * D, (layer + 1) * D)
            dys = directions.join_backward(dy, layout, D)
            of_passes = contexts[sides], dys, own[sides], dweights[sides], traces[sides]
            dxs = execution.backward(passes[sides], *of_passes)
            dy = directions.split_backward(dxs, layout)
            if masks[layer] is not None:
                masked_(dy, masks[layer])
        return dy

    def over(self, layout: Layout, traced: bool) -> Stack:
        """Return the same without masks for another batch, whose steps lie as `layout` says."""
        D = len(self.passes) // len(self.masks)
        passes = [p.over(layout) for p in self.passes]
        how = execution.choose(passes[:D], traced)
        return stack_of(
            passes, [None] * len(self.masks), how, isinstance(self, Quiet | QuietSingle)
        )


def _per_pass(states: States) -> list[list[Array]]:
    """Return for each pass its own of the states' arrays."""
    return [[s[k] for s in states] for k in range(len(states[0]))]


class Single(Stack):
    """The same of one layer in one direction, which is most models and needs neither lists nor loops."""

    __slots__ = ()

    def forward(self, x: Array, states: States, save: bool = True) -> tuple[Array, list[Context]]:
        """Run the pass."""
        y, ctx = self.passes[0].forward(x, [s[0] for s in states], save)
        return y, [ctx]

    def backward(
        self,
        contexts: Sequence[Context],
        dy: Array | None,
        dstates: States,
        dweights: Sequence[Weights],
        traces: Sequence[States | None],
    ) -> Array:
        """Run the pass back."""
        own = [d[0] for d in dstates]
        return self.passes[0].backward(contexts[0], dy, own, dweights[0], traces[0])


class Quiet(Stack):
    """The same where NumPy multiplies, in its pairs or with masks: what is too small there is zero."""

    __slots__ = ()

    forward = quiet(Stack.forward)
    backward = quiet(Stack.backward)


class QuietSingle(Single):
    """Both at once."""

    __slots__ = ()

    forward = quiet(Single.forward)
    backward = quiet(Single.backward)


def stack_of(passes: list[Pass], masks: list[Array | None], how: Execution, numpy: bool) -> Stack:
    """Return the stack of such passes, masks and execution; `numpy` says whether NumPy computes in it."""
    single = len(passes) == 1 and masks[0] is None and isinstance(how, InTurn)
    kinds = (Single, QuietSingle) if single else (Stack, Quiet)
    return kinds[numpy](passes, masks, how)
