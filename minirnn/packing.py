"""Packed batches: sequences of different lengths, stored step by step without any padding.

Sort the sequences by descending length and write down, time step by time step, the rows that are
still running::

    lengths 4, 2, 1                 t = 0      1    2  3
    a b c d                         a e g  |  b f | c | d
    e f           is packed as
    g                               batch_sizes = 3, 2, 1, 1

A recurrence then runs over the first ``batch_sizes[t]`` rows of its state at step t and never meets a
padded value. The format is that of ``torch.nn.utils.rnn`` and so are the functions' names.

Packing moves values and drops padding, so it is linear, and its adjoint is padding with zeros: the
gradient of ``pack_padded_sequence`` is ``pad_packed_sequence`` of the gradient, and the other way
round.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from . import checks
from .backend import Array, asnumpy, get_array_module, is_array
from .layout import Layout, step_and_sequence


class Packing(NamedTuple):
    """How a batch is packed."""

    layout: Layout
    sorted_indices: Array | None

    def check(self, name: str, x: Any) -> None:
        """Require `x` to be a PackedSequence that is packed in this way."""
        if not isinstance(x, PackedSequence):
            raise TypeError(f"{name}: expected a PackedSequence, got {type(x).__name__}")
        other = x.packing
        if other.layout is self.layout and other.sorted_indices is self.sorted_indices:
            return
        if other.layout.sizes != self.layout.sizes:
            raise ValueError(
                f"{name}: expected batch_sizes {checks.brief(self.layout.sizes)}, "
                f"got {checks.brief(other.layout.sizes)}"
            )
        if other._order() != self._order():
            raise ValueError(
                f"{name}: expected the sequences in the order {checks.brief(self._order())}, "
                f"got {checks.brief(other._order())}"
            )

    def _order(self) -> list[int]:
        if self.sorted_indices is None:
            return list(range(self.layout.batch_size))
        order: list[int] = self.sorted_indices.tolist()
        return order


class _Arithmetic:
    """``+ - * /`` on rows: with a number, with an array of the data's shape, or packed in the same way.

    A tuple's own sum and multiples are longer tuples, which nobody means here.
    """

    # Of an array and a packed sequence, the sequence decides.
    __array_ufunc__ = None

    def _combine(self, operation: Callable[[Any, Any], Any], other: Any) -> PackedSequence:
        raise NotImplementedError

    def __add__(self, other: Any) -> PackedSequence:
        return self._combine(operator.add, other)

    def __radd__(self, other: Any) -> PackedSequence:
        return self._combine(operator.add, other)

    def __sub__(self, other: Any) -> PackedSequence:
        return self._combine(operator.sub, other)

    def __rsub__(self, other: Any) -> PackedSequence:
        return self._combine(lambda rows, x: x - rows, other)

    def __mul__(self, other: Any) -> PackedSequence:
        return self._combine(operator.mul, other)

    def __rmul__(self, other: Any) -> PackedSequence:
        return self._combine(operator.mul, other)

    def __truediv__(self, other: Any) -> PackedSequence:
        return self._combine(operator.truediv, other)

    def __rtruediv__(self, other: Any) -> PackedSequence:
        return self._combine(lambda rows, x: x / rows, other)

    def __neg__(self) -> PackedSequence:
        return self._combine(operator.mul, -1)


class _Fields(NamedTuple):
    data: Array
    batch_sizes: Array
    sorted_indices: Array | None = None
    unsorted_indices: Array | None = None


class PackedSequence(_Arithmetic, _Fields):
    """Sequences of different lengths as one array of rows; see the module's text for the order.

    Made by :func:`pack_padded_sequence` or :func:`pack_sequence`, seldom by hand. ``+ - * /`` act on the
    rows, with numbers, arrays of the data's shape, and sequences that are packed in the same way; for all
    else there is :meth:`map`.

    Parameters
    ----------
    data : array of shape (sum of lengths, ...)
        The rows, on the host or on the GPU.
    batch_sizes : array of int64 on the host, shape (T,)
        How many sequences are still running at each step; descending.
    sorted_indices : array of int64 on the host, shape (B,), optional
        ``sorted_indices[k]`` is the place, in the batch as it was given, of the k-th longest sequence.
        ``None`` means that the batch was given in descending order, and B is ``batch_sizes[0]``. It is
        there also for a sorted batch if some lengths are zero, since `batch_sizes` cannot count those.
    unsorted_indices : array of int64 on the host, shape (B,), optional
        The inverse permutation; derived from `sorted_indices` if not given.

    Raises
    ------
    TypeError, ValueError
        If the batch sizes are not descending positive integers that add up to the rows of `data`, or if
        an index array is no permutation.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.PackedSequence.html
    """

    _layout: Layout

    def __new__(  # noqa: D102 (described by the class)
        cls,
        data: Array,
        batch_sizes: Any,
        sorted_indices: Any = None,
        unsorted_indices: Any = None,
    ) -> PackedSequence:
        checks.storable("data", data)
        sizes = _host_integers("batch_sizes", batch_sizes)
        if np.any(sizes[1:] > sizes[:-1]) or (len(sizes) and sizes[-1] < 1):
            raise ValueError(
                f"batch_sizes: expected positive and descending, got {checks.brief(sizes)}"
            )
        rows = sum(sizes.tolist())  # of Python's integers, which do not wrap around
        if data.ndim < 1 or len(data) != rows:
            raise ValueError(
                f"data: expected {rows} rows, the sum of batch_sizes, got shape {data.shape}"
            )
        if sorted_indices is None and unsorted_indices is not None:
            sorted_indices = _inverse(_permutation("unsorted_indices", unsorted_indices))
        if sorted_indices is None:
            if not len(sizes):
                raise ValueError("batch_sizes: expected at least one step, got none")
            return cls._make_valid(data, sizes, None, None, Layout(sizes, int(sizes[0])))
        order = _permutation("sorted_indices", sorted_indices)
        if len(sizes) and len(order) < sizes[0]:
            raise ValueError(
                f"sorted_indices: expected at least batch_sizes[0] = {sizes[0]} entries, got {len(order)}"
            )
        inverse = _inverse(order)
        if unsorted_indices is not None and not np.array_equal(
            _permutation("unsorted_indices", unsorted_indices), inverse
        ):
            raise ValueError("unsorted_indices: expected the inverse of sorted_indices")
        return cls._make_valid(data, sizes, order, inverse, Layout(sizes, len(order)))

    @classmethod
    def _make_valid(
        cls,
        data: Array,
        batch_sizes: Array,
        sorted_indices: Array | None,
        unsorted_indices: Array | None,
        layout: Layout,
    ) -> PackedSequence:
        for indices in (batch_sizes, sorted_indices, unsorted_indices):
            if indices is not None:
                # Whatever unpacks the batch relies on what was checked here.
                indices.flags.writeable = False
        packed = super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)
        packed._layout = layout
        return packed

    def _with(self, data: Array) -> PackedSequence:
        """Return `data`, which has a row for each of this batch's, packed in the same way."""
        return self._make_valid(data, *self[1:], self._layout)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)

    @classmethod
    def _make(cls, iterable: Any) -> PackedSequence:  # type: ignore[override]
        return cls(*iterable)  # also what _replace calls

    @property
    def packing(self) -> Packing:
        """All but the rows: what two sequences have in common that are packed in the same way."""
        return Packing(self._layout, self.sorted_indices)

    @property
    def layout(self) -> Layout:
        """Where each step lies in the rows; shared by all that :meth:`map` makes from this batch."""
        return self._layout

    @property
    def batch_size(self) -> int:
        """The number of sequences, those of length zero included."""
        return self._layout.batch_size

    def _combine(self, operation: Callable[[Any, Any], Any], other: Any) -> PackedSequence:
        if isinstance(other, PackedSequence):
            self.packing.check("other", other)
            other = other.data
        if isinstance(other, checks.NUMBER):
            # A NumPy scalar of another precision would promote the rows.
            other = other.item() if isinstance(other, np.generic) else other
        elif not is_array(other):
            raise TypeError(
                "PackedSequence: + - * / expected a number, an array of the shape of .data, or sequences "
                f"packed in the same way, got {type(other).__name__}; see .map and .data"
            )
        else:
            checks.array_module(data=self.data, other=other)
            checks.shape("other", other, self.data.shape, "that of .data")
            if other.dtype != self.data.dtype:
                raise TypeError(f"other: expected dtype {self.data.dtype}, got {other.dtype}")
        return self._with(operation(self.data, other))

    def map(self, fn: Callable[[Array], Array]) -> PackedSequence:
        """Apply `fn` to all rows at once and return the result, packed in the same way.

        Parameters
        ----------
        fn : callable
            Takes `data`; returns an array with as many rows.

        Raises
        ------
        ValueError
            If the result has another number of rows.

        Examples
        --------
        >>> packed = pack_sequence([np.array([1.0, 2.0]), np.array([3.0])])
        >>> packed.map(lambda rows: 10 * rows).data
        array([10., 30., 20.])
        """
        data = fn(self.data)
        checks.array_module(map=data)
        if data.ndim < 1 or len(data) != self._layout.rows:
            raise ValueError(
                f"map: expected {self._layout.rows} rows from the function, got shape {data.shape}"
            )
        return self._with(data)


def _host_integers(name: str, values: Any, shape: tuple[int, ...] | None = None) -> Array:
    """Return `values` as a one-dimensional int64 array on the host, refusing anything inexact."""
    if is_array(values):
        checks.array_module(**{name: values})
    array = asnumpy(values)
    if array.size == 0 and not hasattr(values, "dtype"):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected integers, got dtype {array.dtype}")
    if array.ndim != 1 or (shape is not None and array.shape != shape):
        raise ValueError(f"{name}: expected shape {shape or '(n,)'}, got {array.shape}")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: expected integers below 2**63, got {checks.brief(array)}")
    return array.astype(np.int64)  # a copy: the caller may use the array again


def _permutation(name: str, values: Any) -> Array:
    order = _host_integers(name, values)
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise ValueError(
            f"{name}: expected a permutation of 0..{len(order) - 1}, got {checks.brief(order)}"
        )
    return order


def _inverse(order: Array) -> Array:
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    return inverse


def _sort(lengths: Array, enforce_sorted: bool) -> tuple[Array, Array | None]:
    """Return the lengths in descending order and the permutation that sorts them, if one is needed."""
    if (lengths[1:] <= lengths[:-1]).all():
        order = None if enforce_sorted and lengths[-1] > 0 else np.arange(len(lengths))
        return lengths, order
    if enforce_sorted:
        raise ValueError(
            f"lengths: expected descending order, got {checks.brief(lengths)}; "
            "pass enforce_sorted=False to have the batch sorted"
        )
    order = np.argsort(-lengths, kind="stable")
    return lengths[order], order


def _pack(
    flat: Array, lengths: Array, order: Array | None, place: Callable[[Array, Array], Array]
) -> PackedSequence:
    """Gather the packed rows out of `flat`, where step t of sequence k is row ``place(t, k)``.

    `lengths` is descending; k counts the sequences as they were given.
    """
    ended = np.searchsorted(lengths[::-1], np.arange(lengths[0]), side="right")
    batch_sizes = len(lengths) - ended
    step, sequence = step_and_sequence(batch_sizes)
    if order is not None:
        sequence = order[sequence]
    xp = get_array_module(flat)
    return PackedSequence._make_valid(
        flat.take(xp.asarray(place(step, sequence)), axis=0),
        batch_sizes,
        order,
        None if order is None else _inverse(order),
        Layout(batch_sizes, len(lengths)),
    )


_NO_CHECK: Any = object()


def pack_padded_sequence(
    input: Array,
    lengths: Any,
    batch_first: bool = False,
    enforce_sorted: bool = True,
    *,
    check_padding: Any = _NO_CHECK,
) -> PackedSequence:
    """Pack a padded batch of sequences of different lengths.

    Its gradient is :func:`pad_packed_sequence` of the packed gradient, with zeros as padding.

    Parameters
    ----------
    input : array of shape (T, B, ...), or (B, T, ...) with `batch_first`
        Floats, integers or booleans, any number of trailing dimensions.
    lengths : list or array of int, shape (B,)
        Steps of each sequence, 0 to T. Length zero is allowed (torch refuses it): such a sequence has
        no rows, and a recurrent layer leaves its state as it was.
    batch_first : bool
    enforce_sorted : bool
        Demand that the lengths come in descending order. With ``False`` the batch is sorted, and whatever
        unpacks it or runs over it restores the order given.
    check_padding : scalar, keyword-only
        The value that fills the padding. If given, lengths that disagree with it are refused: every
        sequence must end on a step that is not all `check_padding`, and all steps after it must be.

    Returns
    -------
    PackedSequence
        A copy; the steps beyond the longest length are dropped.

    Raises
    ------
    ValueError
        If a length is negative, larger than T or no integer, if their number is not B, if the batch is
        empty, if the order is enforced and not there, or if `check_padding` finds a disagreement.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.pack_padded_sequence.html

    Examples
    --------
    >>> batch = np.array([[1, 2, 3], [4, 5, 0]])
    >>> packed = pack_padded_sequence(batch, [3, 2], batch_first=True, check_padding=0)
    >>> packed.data, packed.batch_sizes
    (array([1, 4, 2, 5, 3]), array([2, 2, 1]))
    """
    checks.storable("input", input)
    if input.ndim < 2:
        axes = "(B, T, ...)" if batch_first else "(T, B, ...)"
        raise ValueError(f"input: expected at least 2 dimensions {axes}, got shape {input.shape}")
    B, T = input.shape[:2] if batch_first else (input.shape[1], input.shape[0])
    if B == 0:
        raise ValueError("input: expected at least one sequence, got an empty batch")
    if 0 in input.shape[2:]:
        raise ValueError(f"input: expected at least one feature, got shape {input.shape}")
    given = _checked_lengths(lengths, B, T)
    if check_padding is not _NO_CHECK:
        _check_padding(input, given, batch_first, check_padding)
    lengths, order = _sort(given, enforce_sorted)
    xp = get_array_module(input)
    flat = xp.ascontiguousarray(input).reshape(B * T, *input.shape[2:])
    if batch_first:
        return _pack(flat, lengths, order, lambda step, sequence: sequence * T + step)
    return _pack(flat, lengths, order, lambda step, sequence: step * B + sequence)


def _checked_lengths(lengths: Any, B: int, T: int) -> Array:
    lengths = _host_integers("lengths", lengths, (B,))
    if B and (lengths.min() < 0 or lengths.max() > T):
        raise ValueError(f"lengths: expected 0 <= length <= T = {T}, got {checks.brief(lengths)}")
    return lengths


def _check_padding(input: Array, lengths: Array, batch_first: bool, value: Any) -> None:
    if not isinstance(value, checks.NUMBER | np.bool_):
        raise TypeError(f"check_padding: expected a number, got {value!r}")
    by_sequence = asnumpy(input if batch_first else input.swapaxes(0, 1))
    B, T = by_sequence.shape[:2]
    by_sequence = by_sequence.reshape(B, T, int(np.prod(by_sequence.shape[2:])))
    is_value = np.isnan(by_sequence) if value != value else np.equal(by_sequence, value)
    filled = ~is_value.all(2)
    if T == 0:
        return  # and all lengths are zero
    some = filled.any(1)
    # The last step that is not padding, counted from 1; 0 if all of them are.
    true = np.where(some, T - filled[:, ::-1].argmax(1), 0)
    wrong = np.flatnonzero(true != lengths)
    if not len(wrong):
        return
    k = wrong[0]
    leading = int(filled[k].argmax())
    if leading and (lengths[k] == true[k] - leading or filled[some, -1].all()):
        raise ValueError(
            f"lengths: sequence {k} has its padding (value {value}) on the left, {leading} steps of it; "
            "expected it on the right: make the batch with pad_sequence, or roll each sequence by "
            "its length"
        )
    raise ValueError(
        f"lengths: sequence {k} is given length {lengths[k]}, but its padding (value {value}) "
        f"starts after step {true[k]}; the padding says lengths = {checks.brief(true)}, "
        f"got {checks.brief(lengths)}"
    )


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Array, Array]:
    """Unpack into a padded batch, in the order in which the batch was given.

    The inverse of :func:`pack_padded_sequence`, and its adjoint.

    Parameters
    ----------
    sequence : PackedSequence
    batch_first : bool
    padding_value : scalar
        What to put after the end of each sequence.
    total_length : int, optional
        Pad to this many steps instead of the longest length.

    Returns
    -------
    padded : array of shape (T, B, ...), or (B, T, ...) with `batch_first`
    lengths : array of int64 on the host, shape (B,)

    Raises
    ------
    TypeError
        If `sequence` is no PackedSequence.
    ValueError
        If `total_length` is smaller than the longest length.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.pad_packed_sequence.html

    Examples
    --------
    >>> packed = pack_sequence([np.array([1, 2, 3]), np.array([4])])
    >>> pad_packed_sequence(packed, batch_first=True, padding_value=-1)
    (array([[ 1,  2,  3],
           [ 4, -1, -1]]), array([3, 1]))
    """
    layout = _require_packed("sequence", sequence).layout
    B, T = layout.batch_size, layout.steps
    if total_length is not None:
        whole = isinstance(total_length, int | np.integer) and not isinstance(total_length, bool)
        if not whole or total_length < T:
            raise ValueError(
                f"total_length: expected at least the longest length, {T}, got {total_length}"
            )
        T = int(total_length)  # a narrow integer would wrap around below
    step, place = layout._step_and_sequence
    if sequence.sorted_indices is not None:
        place = sequence.sorted_indices[place]
    lengths = layout.lengths.copy()
    if sequence.unsorted_indices is not None:
        lengths = lengths[sequence.unsorted_indices]
    return _scatter(sequence.data, place, step, B, T, batch_first, padding_value), lengths


def _scatter(
    rows: Array, sequence: Array, step: Array, B: int, T: int, batch_first: bool, value: float
) -> Array:
    """Put each of `rows` into a padded batch, at its place in its sequence."""
    _check_padding_value(value, rows.dtype)
    xp = get_array_module(rows)
    flat = xp.full((B * T, *rows.shape[1:]), value, rows.dtype)
    flat[xp.asarray(sequence * T + step if batch_first else step * B + sequence)] = rows
    return flat.reshape(*((B, T) if batch_first else (T, B)), *rows.shape[1:])


def _check_padding_value(value: Any, dtype: np.dtype[Any]) -> None:
    if not isinstance(value, checks.NUMBER | np.bool_):
        raise TypeError(f"padding_value: expected a number, got {value!r}")
    if dtype.kind == "f":
        finite = isinstance(value, int | np.integer) or np.isfinite(value)
        if finite and abs(float(value)) > float(np.finfo(dtype).max):
            raise TypeError(f"padding_value: expected a number of dtype {dtype}, got {value!r}")
        return
    whole = not isinstance(value, float | np.floating) or float(value).is_integer()
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if not whole or not low <= value <= high:
        raise TypeError(f"padding_value: expected an integer of dtype {dtype}, got {value!r}")


def pack_sequence(sequences: Sequence[Array], enforce_sorted: bool = True) -> PackedSequence:
    """Pack a list of sequences of different lengths.

    Parameters
    ----------
    sequences : list of arrays of shape (length, ...)
        All of one dtype and with the same trailing dimensions.
    enforce_sorted : bool
        As in :func:`pack_padded_sequence`.

    Returns
    -------
    PackedSequence

    Examples
    --------
    >>> pack_sequence([np.array([4]), np.array([1, 2, 3])], enforce_sorted=False).data
    array([1, 4, 2, 3])
    """
    flat, lengths = _concatenate(sequences)
    starts = np.cumsum(lengths) - lengths
    lengths, order = _sort(lengths, enforce_sorted)
    return _pack(flat, lengths, order, lambda step, sequence: starts[sequence] + step)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Array]:
    """Unpack into a list of sequences, in the order in which they were given.

    Examples
    --------
    >>> unpack_sequence(pack_sequence([np.array([1, 2, 3]), np.array([4])]))
    [array([1, 2, 3]), array([4])]
    """
    packed = _require_packed("packed_sequences", packed_sequences)
    step, sequence = packed.layout._step_and_sequence
    lengths = packed.layout.lengths
    if packed.sorted_indices is not None:
        sequence, lengths = packed.sorted_indices[sequence], lengths[packed.unsorted_indices]
    ends = np.cumsum(lengths)
    rows = np.empty_like(step)
    rows[(ends - lengths)[sequence] + step] = np.arange(len(step))
    rows = get_array_module(packed.data).asarray(rows)
    bounds = [0, *ends.tolist()]
    return [packed.data.take(rows[a:b], axis=0) for a, b in pairwise(bounds)]


def _require_packed(name: str, x: Any) -> PackedSequence:
    if not isinstance(x, PackedSequence):
        raise TypeError(f"{name}: expected a PackedSequence, got {type(x).__name__}")
    return x


def pad_sequence(
    sequences: Sequence[Array],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Array:
    """Stack a list of sequences of different lengths into a padded batch.

    Parameters
    ----------
    sequences : list of arrays of shape (length, ...)
    batch_first : bool
    padding_value : scalar
    padding_side : {"right", "left"}

    Returns
    -------
    array of shape (T, B, ...), or (B, T, ...) with `batch_first`

    Examples
    --------
    >>> pad_sequence([np.array([1, 2, 3]), np.array([4])], batch_first=True)
    array([[1, 2, 3],
           [4, 0, 0]])
    """
    checks.choice("padding_side", padding_side, ("right", "left"))
    flat, lengths = _concatenate(sequences)
    B, T = len(lengths), int(lengths.max())
    sequence = np.repeat(np.arange(B), lengths)
    step = np.arange(len(sequence)) - (np.cumsum(lengths) - lengths)[sequence]
    if padding_side == "left":
        step += (T - lengths)[sequence]
    return _scatter(flat, sequence, step, B, T, batch_first, padding_value)


def unpad_sequence(padded_sequences: Array, lengths: Any, batch_first: bool = False) -> list[Array]:
    """Cut a padded batch into a list of sequences; the inverse of :func:`pad_sequence`.

    Examples
    --------
    >>> unpad_sequence(np.array([[1, 2, 3], [4, 0, 0]]), [3, 1], batch_first=True)
    [array([1, 2, 3]), array([4])]
    """
    checks.array_module(padded_sequences=padded_sequences)
    if padded_sequences.ndim < 2:
        raise ValueError(
            f"padded_sequences: expected at least 2 dimensions, got {padded_sequences.shape}"
        )
    by_sequence = padded_sequences if batch_first else padded_sequences.swapaxes(0, 1)
    B, T = by_sequence.shape[:2]
    lengths = _checked_lengths(lengths, B, T)
    return [
        sequence[:length].copy()
        for sequence, length in zip(by_sequence, lengths.tolist(), strict=True)
    ]


def _concatenate(sequences: Sequence[Array]) -> tuple[Array, Array]:
    """Return all steps of all sequences in one array, and the lengths."""
    if isinstance(sequences, PackedSequence) or not isinstance(sequences, Sequence):
        raise TypeError(f"sequences: expected a list of arrays, got {type(sequences).__name__}")
    if not sequences:
        raise ValueError("sequences: expected at least one, got an empty list")
    xp = checks.array_module(**{f"sequences[{k}]": s for k, s in enumerate(sequences)})
    first = sequences[0]
    checks.storable("sequences[0]", first)
    for k, s in enumerate(sequences):
        if s.ndim < 1 or s.shape[1:] != first.shape[1:]:
            raise ValueError(
                f"sequences[{k}]: expected shape (length, {', '.join(map(str, first.shape[1:]))}), "
                f"got {s.shape}"
            )
        if s.dtype != first.dtype:
            raise TypeError(
                f"sequences[{k}]: expected dtype {first.dtype}, that of sequences[0], got {s.dtype}"
            )
    return xp.concatenate(sequences), np.array([len(s) for s in sequences])
