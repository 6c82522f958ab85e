"""The forms of a recurrent layer's input and state, and the rows that they all become.

Padded, batch first, unbatched, packed: whatever came in, what has its form goes back in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import checks
from .backend import Array, get_array_module
from .layout import Layout, equal_lengths
from .packed_sequence import PackedSequence


def of(name: str, x: Any, features: int, batch_first: bool, like: Array) -> tuple[Form, Array]:
    """Return the form of `x`, and its rows (N, features)."""
    form: Form
    if isinstance(x, PackedSequence):
        form = Packed(x)
    else:
        checks.floating(name, x, like)
        shape = x.shape
        if len(shape) in (2, 3) and shape[-1] != features:
            # Before a layout is made, which for a wrong shape may be of any size.
            axes = (
                ("(B, T, features)" if batch_first else "(T, B, features)")
                if len(shape) == 3
                else "(T, features)"
            )
            checks.shape(name, x, (*shape[:-1], features), axes)
        if len(shape) == 3:
            T, B = (shape[1], shape[0]) if batch_first else (shape[0], shape[1])
            if B == 0:
                raise ValueError(f"{name}: expected at least one sequence, got shape {shape}")
            form = (BatchFirst if batch_first else Padded)(equal_lengths(T, B))
        elif len(shape) == 2:
            form = Unbatched(equal_lengths(shape[0], 1))
        else:
            axes = "(B, T, I)" if batch_first else "(T, B, I)"
            raise ValueError(
                f"{name}: expected {axes}, (T, I) or a PackedSequence, got shape {shape}"
            )
    return form, form.rows(name, x, features, like)


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
        raise NotImplementedError

    def restore(self, rows: Array) -> Any:
        """Return `rows` in this form."""
        raise NotImplementedError

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
        xp, B = get_array_module(like), self.layout.batch_size
        if state is None:
            return [xp.zeros((passes, B, size), like.dtype) for size in sizes]
        arrays = []
        for (label, x), size in zip(unpack_state(name, state, len(sizes)), sizes, strict=True):
            if x is None:
                arrays.append(xp.zeros((passes, B, size), like.dtype))
            else:
                checks.floating(label, x, like)
                x = self._sorted(label, x, (passes, B, size))
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

    def rows(self, name: str, x: Any, features: int, like: Array) -> Array:  # noqa: D102
        checks.floating(name, x, like)
        T, B = self.layout.steps, self.layout.batch_size
        checks.shape(name, x, (T, B, features), "(T, B, features)")
        return x.reshape(T * B, features)

    def restore(self, rows: Array) -> Array:  # noqa: D102
        return rows.reshape(self.layout.steps, self.layout.batch_size, rows.shape[1])


class BatchFirst(Padded):
    """(B, T, features)."""

    def rows(self, name: str, x: Any, features: int, like: Array) -> Array:  # noqa: D102
        checks.floating(name, x, like)
        T, B = self.layout.steps, self.layout.batch_size
        checks.shape(name, x, (B, T, features), "(B, T, features)")
        return x.swapaxes(0, 1).reshape(T * B, features)

    def restore(self, rows: Array) -> Array:  # noqa: D102
        return super().restore(rows).swapaxes(0, 1)


class Unbatched(Form):
    """(T, features): rows already; the state has no axis B."""

    def rows(self, name: str, x: Any, features: int, like: Array) -> Array:  # noqa: D102
        checks.floating(name, x, like)
        checks.shape(name, x, (self.layout.steps, features), "(T, features)")
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

    def __init__(self, packed: PackedSequence) -> None:
        super().__init__(packed.layout)
        self.packed = packed

    def rows(self, name: str, x: Any, features: int, like: Array) -> Array:  # noqa: D102
        if x is not self.packed:
            self.packed.packing.check(name, x)
        checks.floating(name, x.data, like)
        checks.shape(name, x.data, (self.layout.rows, features), "(rows, features)")
        return x.data

    def restore(self, rows: Array) -> PackedSequence:  # noqa: D102
        return self.packed._with(rows)

    def _sorted(self, label: str, x: Array, shape: tuple[int, int, int]) -> Array:
        return _permuted(super()._sorted(label, x, shape), self.packed.sorted_indices)

    def restore_states(self, arrays: list[Array]) -> Any:  # noqa: D102
        return pack_state([_permuted(x, self.packed.unsorted_indices) for x in arrays])


def _permuted(x: Array, order: Array | None) -> Array:
    if order is None:
        return x
    xp = get_array_module(x)
    return xp.take(x, xp.asarray(order), axis=1)


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
    if not isinstance(state, tuple | list) or len(state) != 2:
        raise TypeError(f"{name}: expected a pair of h and c, got {type(state).__name__}")
    h, c = state
    if "h_" in name:
        return [(name, h), (name.replace("h_", "c_"), c)]
    return [(f"{name}[0]", h), (f"{name}[1]", c)]


def pack_state(arrays: Sequence[Array]) -> Any:
    """Return the arrays as the state that they make up."""
    return arrays[0] if len(arrays) == 1 else tuple(arrays)
