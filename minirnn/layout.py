"""Where each time step lies in the rows of a packed batch: all that a loop over time has to know."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from itertools import accumulate
from operator import sub
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from .backend import Array, get_array_module

T = TypeVar("T")

# A span has rows enough for a matrix product to run at full speed, or steps enough for its own
# bookkeeping to count for nothing; and so few that scratch space of its size does not
# count beside a long batch.
_SPAN_ROWS = 1024
_SPAN_STEPS = 256

# What the layouts that are kept may hold together, and what each step and each row of one comes to: lists
# of Python's numbers and of slices, and index arrays; as much again if checkpoints or threads cut it.
_KEPT_BYTES = 4 << 20
_STEP_BYTES, _ROW_BYTES = 300, 40


class Span(NamedTuple):
    """A run of steps and the rows they lie in: the unit of large products and of scratch space."""

    steps: slice
    rows: slice

    def moved(self, steps: int, rows: int) -> Span:
        """Return the span as it is where `steps` and `rows` before it are left out."""
        (a, b), (c, d) = ((part.start, part.stop) for part in self)
        return Span(slice(a - steps, b - steps), slice(c - rows, d - rows))


class Segment(NamedTuple):
    """A run of steps of a packed batch, itself a packed batch.

    Attributes
    ----------
    rows : slice
        Its rows among all rows.
    layout : Layout
        Of its rows; sequences that ended just before it have length zero in it.
    """

    rows: slice
    layout: Layout


class Part(NamedTuple):
    """Some of a packed batch's sequences, themselves a packed batch.

    Attributes
    ----------
    sequences : slice
        Which of the batch's.
    rows : array of intp, on the host
        Their rows among all rows.
    layout : Layout
        Of their rows.
    """

    sequences: slice
    rows: Array
    layout: Layout


class _once(Generic[T]):  # noqa: N801 (a decorator)
    """Turn a method into an attribute, made when it is first asked for, as :meth:`Layout.once` makes it."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self.make, self.__doc__ = make, make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layout: Layout, owner: type) -> T:
        made = layout.__dict__[self.name] = self.make(layout)
        return made


class Layout:
    """Where each time step lies in the rows of a packed batch.

    Everything here is on the host: a loop over a GPU's rows must never ask the GPU where they are.

    Parameters
    ----------
    batch_sizes : array of intp, shape (T,)
        Descending.
    batch_size : int
        The number of sequences, those of length zero included.

    Attributes
    ----------
    sizes, starts : list of int, length T
        Step t is ``rows[starts[t] : starts[t] + sizes[t]]``.
    rows : int
        The number of rows, the sum of all lengths.
    equal : bool
        Whether all sequences have the same length.
    spans : list of Span
        The steps, cut into runs of 1024 rows or max(256, sqrt(T)) steps, whichever is less.
    span_rows : int
        The number of rows of the largest span.
    """

    def __init__(
        self, batch_sizes: Array, batch_size: int, spans: list[Span] | None = None
    ) -> None:
        self.sizes: list[int] = batch_sizes.tolist()
        self.batch_sizes, self.batch_size = batch_sizes, batch_size
        self.steps = len(self.sizes)
        bounds = list(accumulate(self.sizes, initial=0))
        self.starts, self.rows = bounds[:-1], bounds[-1]
        self.equal = self.rows == self.steps * batch_size
        self._made: dict[Hashable, Any] = {}
        self.spans = self._cut(bounds) if spans is None else spans
        self.span_rows = max([s.rows.stop - s.rows.start for s in self.spans], default=0)

    def once(self, make: Callable[..., T], *args: Hashable) -> T:
        """Return ``make(self, *args)``, made once and kept for as long as the layout lives.

        It does not go along when the layout is pickled: some of it belongs to a GPU of this process, and
        the rest is made again sooner than it is read.
        """
        key = (make, *args)
        try:
            made: T = self._made[key]
        except KeyError:
            made = self._made[key] = make(self, *args)
        return made

    def index(self, name: str, xp: Any) -> Array:
        """Return the index array `name` where `xp` computes: on a GPU uploaded once, and then kept.

        That is once for each GPU, since kernels take addresses, and for each stream: nobody waits for an
        upload, so only what follows on its own stream finds it there.
        """
        if xp is np:
            return getattr(self, name)
        cuda = xp.cuda
        return self.once(_upload, name, xp, cuda.runtime.getDevice(), cuda.get_current_stream().ptr)

    def __getstate__(self) -> dict[str, Any]:
        return {**{k: v for k, v in vars(self).items() if k not in _LATER}, "_made": {}}

    def _cut(self, bounds: list[int]) -> list[Span]:
        """Cut the steps into spans; step t's rows are those from ``bounds[t]`` to ``bounds[t + 1]``."""
        most = max(_SPAN_STEPS, math.isqrt(self.steps))
        spans, first = [], 0
        while first < self.steps:
            full = bisect_left(bounds, bounds[first] + _SPAN_ROWS, first)
            stop = min(full, first + most, self.steps)
            spans.append(Span(slice(first, stop), slice(bounds[first], bounds[stop])))
            first = stop
        return spans

    def rows_of(self, steps: slice) -> slice:
        """Return where the rows of some steps lie."""
        stop = self.rows if steps.stop == self.steps else self.starts[steps.stop]
        return slice(self.starts[steps.start], stop)

    # -- the batch cut into smaller ones ------------------------------------------------------------

    @_once
    def segments(self) -> list[Segment]:
        """Cut the batch into segments: as many whole spans as it takes to have sqrt(T) steps."""
        segments: list[Segment] = []
        inside: list[Span] = []
        for span in self.spans:
            inside.append(span)
            first, stop = inside[0].steps.start, span.steps.stop
            if stop - first < math.isqrt(self.steps) and stop < self.steps:
                continue
            rows = slice(inside[0].rows.start, span.rows.stop)
            entering = self.batch_size if first == 0 else self.sizes[first - 1]
            spans = [s.moved(first, rows.start) for s in inside]
            layout = Layout(np.array(self.sizes[first:stop], np.intp), entering, spans)
            segments.append(Segment(rows, layout))
            inside = []
        return segments

    def parts(self, count: int) -> list[Part]:
        """Deal the sequences out to `count` batches, long and short ones to each alike."""
        return self.once(Layout._deal, count)

    def _deal(self, count: int) -> list[Part]:
        return [self._part(k, count) for k in range(count)]

    def _part(self, first: int, count: int) -> Part:
        sequences = slice(first, None, count)
        sizes = [len(range(first, size, count)) for size in self.sizes if size > first]
        rows = np.flatnonzero(self.sequence % count == first)
        layout = Layout(np.array(sizes, np.intp), len(range(first, self.batch_size, count)))
        return Part(sequences, rows, layout)

    # -- views of each step -------------------------------------------------------------------------

    def split(self, rows: Array | None, span: Span | None = None) -> list[Any]:
        """Return one view per step of an array (N, features), a row for each of the batch's, or the span's.

        Of no array, one ``None`` per step.
        """
        if rows is None:
            return [None] * (self.steps if span is None else span.steps.stop - span.steps.start)
        if self.equal:
            return list(rows.reshape(-1, self.batch_size, rows.shape[1]))
        return [rows[one] for one in self._step_slices(span)]

    def split_blocks(self, blocks: Array | None, span: Span | None = None) -> list[Any]:
        """Return one view (G, n, H) per step of an array (G, N, H), its rows in G blocks; or ``None``."""
        if blocks is None:
            return self.split(None, span)
        if self.equal:
            G, _, H = blocks.shape
            return list(blocks.reshape(G, -1, self.batch_size, H).swapaxes(0, 1))
        return [blocks[:, one] for one in self._step_slices(span)]

    @_once
    def _slices(self) -> tuple[list[slice], ...]:
        """Per step: its rows; of ``[h_0; all rows]`` the states before it that go on; those of B that run."""
        before = [0, *(self.batch_size + start for start in self.starts)]
        both = (zip(starts, self.sizes, strict=False) for starts in (self.starts, before))
        rows, states = ([slice(start, start + n) for start, n in steps] for steps in both)
        return rows, states, list(map(slice, self.sizes))

    def _step_slices(self, span: Span | None) -> list[slice]:
        slices: list[slice] = self._slices[0]
        if span is None:
            return slices
        first = span.rows.start
        if first == 0:
            return slices[span.steps]
        return [slice(s.start - first, s.stop - first) for s in slices[span.steps]]

    def running(self, rows: Array) -> list[Array]:
        """Return, per step, the first of `rows`, as many as are running."""
        if self.equal:
            return [rows] * self.steps
        return [rows[one] for one in self._slices[2]]

    def by_size(self, make: Callable[[int], T]) -> list[T]:
        """Return ``make(batch size)`` for every step, made once for each size there is."""
        if self.equal:
            return [make(self.batch_size)] * self.steps
        made = {size: make(size) for size in set(self.sizes)}
        return [made[size] for size in self.sizes]

    def transitions(self, states: Array) -> tuple[list[Array], list[Array]]:
        """Return, per step, the states before it that go on, and those after it, both of [h_0; all rows]."""
        if self.equal:
            every = list(states.reshape(-1, self.batch_size, states.shape[1]))
            return every[:-1], every[1:]
        return [states[one] for one in self._slices[1]], self.split(states[self.batch_size :])

    # -- rows gathered ------------------------------------------------------------------------------

    def previous_rows(self, states: Array, span: Span) -> Array:
        """Return, for each row of the span, the state before it, out of ``states = [h_0; all rows]``."""
        if self.equal:
            return states[span.rows]
        xp = get_array_module(states)
        return states.take(self.index("previous_state", xp)[span.rows], axis=0)

    def last_states(self, states: Array) -> Array:
        """Return each sequence's last state, out of ``states = [h_0; all rows]``."""
        if self.equal:
            return states[self.rows :]
        xp = get_array_module(states)
        return states.take(self.index("last", xp), axis=0)

    def reversed_rows(self, rows: Array) -> Array:
        """Return the rows with every sequence reversed in its own time."""
        if self.equal:
            by_step = rows.reshape(self.steps, self.batch_size, *rows.shape[1:])
            return by_step[::-1].copy().reshape(rows.shape)
        xp = get_array_module(rows)
        return rows.take(self.index("reverse", xp), axis=0)

    def of_sequence(self, values: Array, span: Span) -> Array:
        """Return, for each row of the span, the entry of `values`, one per sequence, of its sequence."""
        xp = get_array_module(values)
        return values.take(self.index("sequence", xp)[span.rows], axis=0)

    # -- index arrays -------------------------------------------------------------------------------

    @_once
    def step_and_sequence(self) -> tuple[Array, Array]:
        """For every row, its time step and its sequence."""
        sizes = np.array(self.sizes, np.intp)
        step = np.repeat(np.arange(self.steps), sizes)
        return step, np.arange(self.rows) - np.array(self.starts, np.intp)[step]

    @property
    def sequence(self) -> Array:
        """For every row, its sequence."""
        return self.step_and_sequence[1]

    @_once
    def state_starts(self) -> Array:
        """For every step, the row in ``[h_0; all rows]`` where the states before it begin.

        One more entry, the last, says where the last step's own states begin.
        """
        return self.batch_size + np.array([-self.batch_size, *self.starts], np.intp)

    @_once
    def lengths(self) -> Array:
        """For every sequence, its length; descending."""
        ending = np.diff([0, *self.sizes[::-1], self.batch_size])  # with length T, T - 1, ..., 1, 0
        return np.repeat(np.arange(self.steps, -1, -1), ending)

    @_once
    def last(self) -> Array:
        """For every sequence, the index of its last state in ``[h_0; all rows]``.

        A sequence of length zero ends where it began, in its row of ``h_0``.
        """
        B, ending = self.batch_size, self.sizes[::-1]
        starts = [*(B + start for start in self.starts[::-1]), 0]
        counts = [*map(sub, [*ending, B], [0, *ending])]  # of sequences that end there
        return np.repeat(np.array(starts, np.intp), np.array(counts, np.intp)) + np.arange(B)

    @_once
    def previous_state(self) -> Array:
        """For every row, the index of the state before it in ``[h_0; all rows]``."""
        B = self.batch_size
        sizes = np.array([B, *self.sizes], np.intp)
        return np.arange(B, B + self.rows) - np.repeat(sizes[:-1], sizes[1:])

    @_once
    def reverse(self) -> Array:
        """For every row, the row of the same sequence counted from its other end.

        Reversing every sequence in its own time keeps the lengths, so it permutes the rows of
        the same layout; doing it twice changes nothing.
        """
        step, sequence = self.step_and_sequence
        starts = np.array(self.starts, np.intp)
        return starts[self.lengths[sequence] - 1 - step] + sequence


# What is made when it is first asked for, and so is no part of a layout that is pickled.
_LATER = {name for name, value in vars(Layout).items() if isinstance(value, _once)}


def _upload(layout: Layout, name: str, xp: Any, device: int, stream: int) -> Array:
    return xp.asarray(getattr(layout, name))


def inverse_of(order: Array) -> Array:
    """Return the inverse of a permutation."""
    inverse = np.empty(len(order), np.intp)
    inverse[order] = np.arange(len(order))
    return inverse


class _Layouts:
    """Layouts that were asked for before: the last ones, as many as a few MB hold."""

    def __init__(self) -> None:
        self._layouts: OrderedDict[Hashable, Layout] = OrderedDict()
        self._bytes = 0

    def equal_lengths(self, steps: int, batch_size: int) -> Layout:
        """Return the layout of a padded batch in which nothing is padding: ``(T, B, ...)`` by reshape."""
        layout = self._found((steps, batch_size))
        if layout is None:
            layout = Layout(np.full(steps, batch_size, np.intp), batch_size)
            self._keep((steps, batch_size), layout)
        return layout

    def layout_of(self, batch_sizes: Array, batch_size: int) -> Layout:
        """Return the layout of steps of so many rows each, of sequences some of which may have none."""
        key = batch_sizes.tobytes(), batch_size
        layout = self._found(key)
        if layout is None:
            layout = Layout(batch_sizes, batch_size)
            self._keep(key, layout)
        return layout

    def clear(self) -> None:
        """Keep none of them any longer."""
        self._layouts.clear()
        self._bytes = 0

    # No lock, for which a signal handler that runs a layer would wait for ever: every operation on the dict
    # is whole, and whoever finds a layout gone makes another. The count of bytes may miss what a handler or
    # another thread has added meanwhile, until they are counted anew.

    def _found(self, key: Hashable) -> Layout | None:
        try:
            self._layouts.move_to_end(key)
            return self._layouts[key]
        except KeyError:
            return None

    def _keep(self, key: Hashable, layout: Layout) -> None:
        held = _held(layout)
        if held > _KEPT_BYTES:
            return
        self._layouts[key] = layout
        self._bytes += held
        if self._bytes > _KEPT_BYTES:
            self._forget(_KEPT_BYTES * 3 // 4)

    def _forget(self, most: int) -> None:
        """Drop the oldest until the rest, one at least, hold `most` bytes; counting them takes time."""
        held = sum(map(_held, list(self._layouts.values())))
        while held > most and len(self._layouts) > 1:
            with suppress(KeyError):
                held -= _held(self._layouts.popitem(last=False)[1])
        self._bytes = held


def _held(layout: Layout) -> int:
    """Return how many bytes a layout comes to hold."""
    held: int = _STEP_BYTES * (layout.steps + 10) + _ROW_BYTES * layout.rows
    return held


kept = _Layouts()
equal_lengths, layout_of = kept.equal_lengths, kept.layout_of
