"""The forms of a layer's input, and of a recurrent layer's state, and the rows that they all become.

Padded, batch first, unbatched, packed: whatever came in, what has its form goes back in it. A layer that acts
on every row or entry by itself asks for less, :func:`per_row` and :func:`per_entry`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from . import checks
from .backend import Array, get_array_module
from .layout import Layout, equal_lengths, layout_of
from .packed_sequence import PackedSequence, Packing


def of(name: str, x: Any, features: int, batch_first: bool, like: Array) -> Form:
    """Return the form of `x`, an input of so many features."""
    if isinstance(x, PackedSequence):
        _check_rows(name, x.data, features, like)
        return Packed(x.packing)
    checks.floating(name, x, like)
    shape = x.shape
    if len(shape) not in (2, 3):
        axes = "(B, T, I)" if batch_first else "(T, B, I)"
        raise ValueError(f"{name}: expected {axes}, (T, I) or a PackedSequence, got shape {shape}")
    if shape[-1] != features:
        # Before a layout is made, which for a wrong shape may be of any size.
        axes = "(T, features)"
        if len(shape) == 3:
            axes = "(B, T, features)" if batch_first else "(T, B, features)"
        checks.shape(name, x, (*shape[:-1], features), axes)
    if len(shape) == 2:
        return Unbatched(equal_lengths(shape[0], 1))
    T, B = (shape[1], shape[0]) if batch_first else (shape[0], shape[1])
    if B == 0:
        raise ValueError(f"{name}: expected at least one sequence, got shape {shape}")
    return (BatchFirst if batch_first else Padded)(equal_lengths(T, B))


class Form:
    """What the four have in common.

    Attributes
    ----------
    layout : Layout
        Where the steps lie in the rows.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def rows(self, name: str, x: Any, features: int, like: Array) -> Array:
        """Return the rows (N, features) of `x`, which must be of this form, and of the dtype of `like`."""
        self.check(name, x, features, like)
        return self.flat(x)

    def check(self, name: str, x: Any, features: int, like: Array) -> None:
        """Require `x` to be of this form, of so many features, and of the dtype of `like`."""
        raise NotImplementedError

    def flat(self, x: Any) -> Array:
        """Return the rows of what is of this form."""
        raise NotImplementedError

    def restore(self, rows: Array) -> Any:
        """Return `rows` in this form."""
        raise NotImplementedError

    def windows(self, x: Any, k: int) -> Iterator[tuple[slice, slice | None, Any]]:
        """Cut `x`, which is of this form, into windows of `k` steps: steps, rows if packed, window."""
        for first in range(0, self.layout.steps, k):
            steps = slice(first, min(first + k, self.layout.steps))
            window, rows = self._window(x, steps)
            yield steps, rows, window

    def _window(self, x: Any, steps: slice) -> tuple[Any, slice | None]:
        return x[steps], None

    def states(
        self,
        name: str,
        state: Any,
        passes: int,
        sizes: Sequence[int],
        like: Array,
        copy: bool = True,
    ) -> list[Array]:
        """Return the state's arrays as (passes, B, size), sorted as the rows; zero for what is not given."""
        B, xp = self.layout.batch_size, get_array_module(like)
        if state is None:
            return [xp.zeros((passes, B, size), like.dtype) for size in sizes]
        arrays = []
        for (label, x), size in zip(unpack_state(name, state, len(sizes)), sizes, strict=True):
            shape = passes, B, size
            if x is None:
                arrays.append(xp.zeros(shape, like.dtype))
            else:
                checks.floating(label, x, like)
                x = self._sorted(label, x, shape)
                arrays.append(x.copy() if copy else x)
        return arrays

    def restore_states(self, arrays: list[Array]) -> Any:
        """Return the arrays as the state that they make up, in the order in which the batch came."""
        return pack_state(arrays)

    def _sorted(self, label: str, x: Array, shape: tuple[int, int, int]) -> Array:
        checks.shape(label, x, shape, "(num_layers * num_directions, B, features)")
        return x


class Padded(Form):
    """(T, B, features)."""

    def check(self, name: str, x: Any, features: int, like: Array) -> None:  # noqa: D102
        checks.floating(name, x, like)
        T, B = self.layout.steps, self.layout.batch_size
        checks.shape(name, x, (T, B, features), "(T, B, features)")

    def flat(self, x: Any) -> Array:  # noqa: D102
        return x.reshape(self.layout.rows, x.shape[2])

    def restore(self, rows: Array) -> Array:  # noqa: D102
        return rows.reshape(self.layout.steps, self.layout.batch_size, rows.shape[1])


class BatchFirst(Padded):
    """(B, T, features)."""

    def check(self, name: str, x: Any, features: int, like: Array) -> None:  # noqa: D102
        checks.floating(name, x, like)
        T, B = self.layout.steps, self.layout.batch_size
        checks.shape(name, x, (B, T, features), "(B, T, features)")

    def flat(self, x: Any) -> Array:  # noqa: D102
        return super().flat(x.swapaxes(0, 1))

    def restore(self, rows: Array) -> Array:  # noqa: D102
        return super().restore(rows).swapaxes(0, 1)

    def _window(self, x: Any, steps: slice) -> tuple[Any, slice | None]:
        return x[:, steps], None


class Unbatched(Form):
    """(T, features): rows already; the state has no axis B."""

    def check(self, name: str, x: Any, features: int, like: Array) -> None:  # noqa: D102
        checks.floating(name, x, like)
        checks.shape(name, x, (self.layout.steps, features), "(T, features)")

    def flat(self, x: Any) -> Array:  # noqa: D102
        return x

    def restore(self, rows: Array) -> Array:  # noqa: D102
        return rows

    def _sorted(self, label: str, x: Array, shape: tuple[int, int, int]) -> Array:
        passes, _, size = shape
        checks.shape(label, x, (passes, size), "(num_layers * num_directions, features)")
        return x[:, None]

    def restore_states(self, arrays: list[Array]) -> Any:  # noqa: D102
        return pack_state([x[:, 0] for x in arrays])


class Packed(Form):
    """A PackedSequence: rows already; its sequences, and so the states, are sorted by length."""

    def __init__(self, packing: Packing) -> None:
        super().__init__(packing.layout)
        self.packing = packing

    def check(self, name: str, x: Any, features: int, like: Array) -> None:  # noqa: D102
        self.packing.check(name, x)
        _check_rows(name, x.data, features, like)

    def flat(self, x: Any) -> Array:  # noqa: D102
        return x.data

    def restore(self, rows: Array) -> PackedSequence:  # noqa: D102
        return self.packing.of(rows)

    def _window(self, x: PackedSequence, steps: slice) -> tuple[PackedSequence, slice]:
        _, batch_sizes, order, inverse = self.packing
        B, rows = self.layout.batch_size, self.layout.rows_of(steps)
        if order is None or inverse is None:
            order = inverse = np.arange(B)  # which say that sequences have ended
        sizes = batch_sizes[steps]
        return Packing(layout_of(sizes, B), sizes, order, inverse).of(x.data[rows]), rows

    def _sorted(self, label: str, x: Array, shape: tuple[int, int, int]) -> Array:
        return _permuted(super()._sorted(label, x, shape), self.packing.sorted_indices)

    def restore_states(self, arrays: list[Array]) -> Any:  # noqa: D102
        return pack_state([_permuted(x, self.packing.unsorted_indices) for x in arrays])


def _check_rows(name: str, rows: Array, features: int, like: Array) -> None:
    checks.floating(name, rows, like)
    checks.shape(name, rows, (len(rows), features), "(rows, features)")


def _permuted(x: Array, order: Array | None) -> Array:
    if order is None:
        return x
    xp = get_array_module(x)
    return xp.take(x, xp.asarray(order), axis=1)


def too_many(layer: Any, more: Sequence[Any]) -> TypeError:
    """Return the error for arguments beyond input and state: of an LSTM most often c, half of its state."""
    pair = "; its state is one argument, the pair (h, c)" if layer._states == 2 else ""
    return TypeError(
        f"{type(layer).__name__}: expected the input and a state, got {2 + len(more)} arguments{pair}"
    )


def unpack_state(name: str, state: Any, count: int) -> list[tuple[str, Array | None]]:
    """Return the `count` arrays that make up `state`, each with its name for messages.

    Parameters
    ----------
    name : str
        The argument's name.
    state : array, or a pair of arrays if `count` is 2; or None
    count : {1, 2}

    Raises
    ------
    TypeError
        If a pair is expected, and `state` is none.
    """
    if count == 1:
        return [(name, state)]
    if state is None:
        state = (None, None)
    if not isinstance(state, _PAIR) or len(state) != 2:
        raise TypeError(f"{name}: expected a pair of h and c, got {type(state).__name__}")
    (name_h, name_c), (h, c) = _names_of_both(name), state
    return [(name_h, h), (name_c, c)]


_PAIR = (tuple, list)


@cache
def _names_of_both(name: str) -> tuple[str, str]:
    return (name, name.replace("h_", "c_")) if "h_" in name else (f"{name}[0]", f"{name}[1]")


def nothing_in(state: Any) -> bool:
    """Tell whether no array of a state, or of its gradient, is given."""
    return all(x is None for x in (state if isinstance(state, tuple | list) else (state,)))


def pack_state(arrays: Sequence[Array]) -> Any:
    """Return the arrays as the state that they make up."""
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


class PerRow(NamedTuple):
    """The form of what a layer takes that acts on every row by itself.

    Attributes
    ----------
    axes : tuple of int
        The shape before the axes that make up a row.
    packing : Packing, optional
        How the rows are packed, if they are.
    """

    axes: tuple[int, ...]
    packing: Packing | None

    def restore(self, rows: Array) -> Any:
        """Return `rows`, (N, ...), in this form."""
        x = rows if len(self.axes) == 1 else rows.reshape(self.axes + rows.shape[1:])
        return x if self.packing is None else self.packing.of(x)

    def gradient(self, name: str, d: Any, row: tuple[int, ...], like: Array) -> Array:
        """Return the rows, each of shape `row`, of an output's gradient: of this form and like `like`."""
        rows = _gradient(name, d, self.axes + row, like, self.packing)
        return rows if len(self.axes) == 1 else rows.reshape(-1, *row)


def per_row(name: str, x: Any, row: tuple[int, ...]) -> tuple[PerRow, Array]:
    """Return the form of `x`, an array or packed, whose last axes make up a row, and its rows (N, *row)."""
    data, packing = _unpacked(name, x)
    shape = data.shape
    cut = len(shape) - len(row)
    if shape[cut:] != row or cut < (packing is not None):
        raise ValueError(f"{name}: expected shape (..., {', '.join(map(str, row))}), got {shape}")
    return PerRow(shape[:cut], packing), data if cut == 1 else data.reshape(-1, *row)


class PerEntry(NamedTuple):
    """The form of what a layer takes that acts on every entry by itself: its shape and packing."""

    shape: tuple[int, ...]
    packing: Packing | None

    def restore(self, x: Array) -> Any:
        """Return `x`, of this shape, in this form."""
        return x if self.packing is None else self.packing.of(x)

    def gradient(self, name: str, d: Any, like: Array) -> Array:
        """Return the entries of an output's gradient: of this form and like `like`."""
        return _gradient(name, d, self.shape, like, self.packing)


def per_entry(name: str, x: Any) -> tuple[PerEntry, Array]:
    """Return the form of `x`, an array or packed, and its entries."""
    data, packing = _unpacked(name, x)
    return PerEntry(data.shape, packing), data


def _unpacked(name: str, x: Any) -> tuple[Array, Packing | None]:
    if isinstance(x, PackedSequence):
        return x.data, x.packing
    if type(x) is not np.ndarray:
        checks.array_module(**{name: x})
    return x, None


def _gradient(
    name: str, d: Any, shape: tuple[int, ...], like: Array, packing: Packing | None
) -> Array:
    if packing is not None:
        packing.check(name, d)
        d = d.data
    elif isinstance(d, PackedSequence):
        raise TypeError(f"{name}: expected an array like the output, got PackedSequence")
    checks.floating(name, d, like)
    checks.shape(name, d, shape, "that of the output")
    data: Array = d
    return data
