"""Executions: how to run the passes of one layer, which do not wait for each other.

An execution is a pair over lists with an entry for each direction, as :class:`Execution` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, cast

import numpy as np

from ..backend import Array
from ..functional.recurrence import States, Weights
from ..layout import Layout, Part
from ..threads import num_threads, together
from .checkpoints import Checkpointed
from .passes import Context, Pass

T = TypeVar("T")
Passes: TypeAlias = Sequence[Pass]
Each: TypeAlias = Sequence[Any]  # an entry for each pass, as `Execution` says
Ran: TypeAlias = tuple[list[Array], list[Context]]

# What gives a thread enough to do, in multiplications of the recurrent product. Loops in C release the GIL
# for a whole pass, so they are the pass's; in NumPy each operation does, so they are a step's, and from a
# hidden size on: below, what needs the GIL is most of a step.
# A part of a batch has its rows copied, and all parts wait for the last, so it takes more than a direction.
_THREADED_PASS = 3 << 20
_THREADED_PART = 8 << 20
_THREADED_STEP = 1 << 20
_THREADED_SIZE = 128


def choose(passes: Sequence[Pass], traced: bool) -> Execution:
    """Return the execution for layers with such passes; traced ones need a whole context for each pass."""
    p = passes[0]
    if not isinstance(p.weights[0], np.ndarray):
        at_once = hasattr(p.recurrence, "forward_together") and not isinstance(p, Checkpointed)
        return InOneLaunch() if at_once else InTurn()
    threads = num_threads()
    busy = 0 if threads == 1 else _kept_busy(p)
    parts = min(threads // len(passes), busy, p.layout.batch_size)
    if parts > 1 and not traced:
        return InParts(p.layout.parts(parts))
    return InTurn() if busy == 0 or len(passes) == 1 else InThreads()


def _kept_busy(p: Pass) -> int:
    """Return how many threads such a pass could keep busy; 0 if it is too little for one beside another."""
    w_hh, layout = p.weights[1], p.layout
    in_a_step: int = layout.batch_size * w_hh.size
    in_the_pass: int = layout.rows * w_hh.size
    releases_gil = getattr(p.recurrence, "releases_gil", None)
    if releases_gil is not None and releases_gil(p.weights):
        return max(in_the_pass // _THREADED_PART, int(in_the_pass >= _THREADED_PASS))
    if len(w_hh) // len(p.recurrence.GATES) < _THREADED_SIZE:
        return 0
    return max(1, in_a_step // _THREADED_STEP)


class Execution(Protocol):
    """A pair over lists; what :meth:`.Pass.forward` and :meth:`.Pass.backward` take, for each direction."""

    def forward(
        self,
        passes: Sequence[Pass],
        xs: Sequence[Array],
        states: Sequence[States],
        save: bool,
    ) -> tuple[Sequence[Array], Sequence[Context]]:
        """Return the outputs and the contexts; lead `states` on to the last ones."""
        ...

    def backward(
        self,
        passes: Sequence[Pass],
        contexts: Sequence[Context],
        dys: Sequence[Array | None],
        dstates: Sequence[States],
        dweights: Sequence[Weights],
        traces: Sequence[States | None],
    ) -> Sequence[Array]:
        """Return the inputs' gradients; lead `dstates` back, add to `dweights`, fill `traces`."""
        ...


class InTurn:
    """One pass after the other."""

    def forward(self, passes: Passes, xs: Each, states: Each, save: bool) -> Ran:
        """Run the passes."""
        ys, contexts = [], []
        for k, p in enumerate(passes):
            y, ctx = p.forward(xs[k], states[k], save)
            ys.append(y)
            contexts.append(ctx)
        return ys, contexts

    def backward(
        self, passes: Passes, contexts: Each, dys: Each, dstates: Each, dweights: Each, traces: Each
    ) -> list[Array]:
        """Run the passes back."""
        return [
            p.backward(contexts[k], dys[k], dstates[k], dweights[k], traces[k])
            for k, p in enumerate(passes)
        ]


class InThreads:
    """A thread for each pass. No bit changes."""

    def forward(self, passes: Passes, xs: Each, states: Each, save: bool) -> Ran:
        """Run the passes."""
        done = together(
            [partial(p.forward, x, s, save) for p, x, s in zip(passes, xs, states, strict=True)]
        )
        return [y for y, _ in done], [ctx for _, ctx in done]

    def backward(
        self, passes: Passes, contexts: Each, dys: Each, dstates: Each, dweights: Each, traces: Each
    ) -> list[Array]:
        """Run the passes back."""
        per_pass = zip(passes, contexts, dys, dstates, dweights, traces, strict=True)
        return together([partial(p.backward, *args) for p, *args in per_pass])


class Together(Protocol):
    """What a recurrence has, besides its pair, that can run one direction or both at once."""

    def forward_together(
        self, passes: Sequence[tuple[Any, ...]], layout: Layout, **options: Any
    ) -> list[Context]:
        """Return the contexts; `passes` has what forward takes: x, states, weights and mask."""
        ...

    def backward_together(self, passes: Sequence[tuple[Any, ...]]) -> list[Array]:
        """Return the inputs' gradients; `passes` has what backward takes, in its order."""
        ...


class InOneLaunch:
    """All passes at once, by a recurrence that can: on the GPU one launch, of one direction or both."""

    def forward(self, passes: Passes, xs: Each, states: Each, save: bool) -> Ran:
        """Run the passes."""
        every = [p.begin(s) for p, s in zip(passes, states, strict=True)]
        contexts = cast(Together, passes[0].recurrence).forward_together(
            [(x, s, p.weights, p.mask) for p, x, s in zip(passes, xs, every, strict=True)],
            passes[0].layout,
            **passes[0].options,
        )
        ys = [p.finish(e, s) for p, e, s in zip(passes, every, states, strict=True)]
        return ys, contexts if save else [None] * len(ys)

    def backward(
        self, passes: Passes, contexts: Each, dys: Each, dstates: Each, dweights: Each, traces: Each
    ) -> list[Array]:
        """Run the passes back."""
        return cast(Together, passes[0].recurrence).backward_together(
            list(zip(contexts, dys, dstates, dweights, traces, strict=True))
        )


class InParts(NamedTuple):
    """A thread for each part of the batch and each pass. Weight gradients are sums of the parts'."""

    parts: list[Part]

    def forward(self, passes: Passes, xs: Each, states: Each, save: bool) -> Ran:
        """Run every part of every pass."""
        ys = [np.empty((len(x), s[0].shape[1]), x.dtype) for x, s in zip(xs, states, strict=True)]

        def run(side: int, k: int) -> tuple[Pass, Context]:
            part = self.parts[k]
            p = passes[side].within(part.layout, part.sequences)
            own = [s[part.sequences] for s in states[side]]  # views, which the part leads on
            ys[side][part.rows], ctx = p.forward(xs[side].take(part.rows, axis=0), own, save)
            return p, ctx

        return ys, self._each_part(run, len(passes))

    def backward(
        self, passes: Passes, contexts: Each, dys: Each, dstates: Each, dweights: Each, traces: Each
    ) -> list[Array]:
        """Run every part of every pass back."""
        dxs = [
            np.empty((p.layout.rows, p.weights[0].shape[1]), d[0].dtype)
            for p, d in zip(passes, dstates, strict=True)
        ]

        def run(side: int, k: int) -> Weights:
            part, (p, ctx) = self.parts[k], contexts[side][k]
            dy = dys[side]
            if dy is not None:
                dy = dy.take(part.rows, axis=0)
            own = [d[part.sequences].copy() for d in dstates[side]]
            traced = traces[side] or ()
            trace = [t[part.rows] for t in traced]  # copies, to be filled
            # Threads must not add into one array.
            dw = [None if d is None else np.zeros_like(d) for d in dweights[side]]
            dxs[side][part.rows] = p.backward(ctx, dy, own, dw, trace or None)
            for d, d_part in zip(dstates[side], own, strict=True):
                d[part.sequences] = d_part
            for t, t_part in zip(traced, trace, strict=True):
                t[part.rows] = t_part
            return dw

        for totals, parts in zip(dweights, self._each_part(run, len(passes)), strict=True):
            for dw in parts:
                for total, d in zip(totals, dw, strict=True):
                    if d is not None:
                        total += d
        return dxs

    def _each_part(self, run: Callable[[int, int], T], sides: int) -> list[list[T]]:
        """Return what `run` returns for every part of every side, side by side."""
        parts = range(len(self.parts))
        done = iter(together([partial(run, *one) for one in product(range(sides), parts)]))
        return [[next(done) for _ in parts] for _ in range(sides)]
