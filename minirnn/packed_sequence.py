"""A packed batch: sequences of different lengths, stored step by step without any padding.

Sort the sequences by descending length and write down, time step by time step, the rows that are
still running::

    lengths 4, 2, 1                 t = 0      1    2  3
    a b c d                         a e g  |  b f | c | d
    e f           is packed as
    g                               batch_sizes = 3, 2, 1, 1

A recurrence then runs over the first ``batch_sizes[t]`` rows of its state at step t and never meets a
padded value. The format is that of ``torch.nn.utils.rnn``; :mod:`minirnn.packing` goes there and back.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import checks
from .backend import Array, asnumpy, is_array, quiet
from .layout import Layout, inverse_of, layout_of


class Packing(NamedTuple):
    """How a batch is packed: all of a PackedSequence but its rows."""

    layout: Layout
    batch_sizes: Array
    sorted_indices: Array | None
    unsorted_indices: Array | None

    def of(self, rows: Array) -> PackedSequence:
        """Return `rows` packed in this way."""
        fields = rows, self.batch_sizes, self.sorted_indices, self.unsorted_indices
        packed = tuple.__new__(PackedSequence, fields)
        vars(packed)["packing"] = self
        return packed

    def check(self, name: str, x: Any) -> None:
        """Require `x` to be a PackedSequence that is packed in this way."""
        other = require_packed(name, x).packing
        if other is self:
            return
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
    batch_sizes : array of intp on the host, shape (T,)
        How many sequences are still running at each step; descending.
    sorted_indices : array of intp on the host, shape (B,), optional
        ``sorted_indices[k]`` is the place, in the batch as it was given, of the k-th longest sequence.
        ``None`` means that the batch was given in descending order, and B is ``batch_sizes[0]``. It is
        there also for a sorted batch if some lengths are zero, since `batch_sizes` cannot count those.
    unsorted_indices : array of intp on the host, shape (B,), optional
        The inverse permutation; derived from `sorted_indices` if not given.

    Raises
    ------
    TypeError, ValueError
        If the batch sizes are not descending positive integers that add up to the rows of `data`, or if
        an index array is no permutation.

    See Also
    --------
    pack_sequence, pack_padded_sequence : Make one.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.PackedSequence.html

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> packed = minirnn.pack_sequence([np.array([1.0, 2.0, 3.0]), np.array([4.0])])
    >>> packed.data, packed.batch_sizes  # step 0 of both, then the longer one goes on
    (array([1., 4., 2., 3.]), array([2, 1, 1]))
    >>> (10 * packed + packed).data
    array([11., 44., 22., 33.])
    """

    packing: Packing  # all but the rows: what two sequences have in common that are packed in the same way

    def __new__(  # noqa: D102 (described by the class)
        cls,
        data: Array,
        batch_sizes: Any,
        sorted_indices: Any = None,
        unsorted_indices: Any = None,
    ) -> PackedSequence:
        checks.storable("data", data)
        sizes = host_integers("batch_sizes", batch_sizes)
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
            sorted_indices = inverse_of(_permutation("unsorted_indices", unsorted_indices))
        if sorted_indices is None:
            if not len(sizes):
                raise ValueError("batch_sizes: expected at least one step, got none")
            return sealed(layout_of(sizes, int(sizes[0])), sizes, None, None).of(data)
        order = _permutation("sorted_indices", sorted_indices)
        if len(sizes) and len(order) < sizes[0]:
            raise ValueError(
                f"sorted_indices: expected at least batch_sizes[0] = {sizes[0]} entries, got {len(order)}"
            )
        inverse = inverse_of(order)
        if unsorted_indices is not None and not np.array_equal(
            _permutation("unsorted_indices", unsorted_indices), inverse
        ):
            raise ValueError("unsorted_indices: expected the inverse of sorted_indices")
        return sealed(layout_of(sizes, len(order)), sizes, order, inverse).of(data)

    def _with(self, data: Array) -> PackedSequence:
        """Return `data`, which has a row for each of this batch's, packed in the same way."""
        return self.packing.of(data)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "packing":
            raise AttributeError(
                "packing: it follows from the fields, and changes as little as they do"
            )
        super().__setattr__(name, value)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)

    def __getstate__(self) -> None:
        """Leave out the packing, which a copy makes of its own arrays."""

    @classmethod
    def _make(cls, iterable: Any) -> PackedSequence:  # type: ignore[override]
        return cls(*iterable)  # also what _replace calls

    @property
    def layout(self) -> Layout:
        """Where each step lies in the rows; shared by all that :meth:`map` makes from this batch."""
        return self.packing.layout

    @property
    def batch_size(self) -> int:
        """The number of sequences, those of length zero included."""
        return self.packing.layout.batch_size

    @quiet
    def _combine(self, operation: Callable[[Any, Any], Any], other: Any) -> PackedSequence:
        if isinstance(other, PackedSequence):
            self.packing.check("other", other)
            other = other.data
        if checks.is_number(other):
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
        TypeError
            If it is no array.

        Examples
        --------
        >>> import minirnn
        >>> packed = minirnn.pack_sequence([np.array([1.0, 2.0]), np.array([3.0])])
        >>> packed.map(lambda rows: 10 * rows).data
        array([10., 30., 20.])
        """
        data = checks.function("fn", fn)(self.data)
        checks.array_module(map=data)
        if data.ndim < 1 or len(data) != self.layout.rows:
            raise ValueError(
                f"map: expected {self.layout.rows} rows from the function, got shape {data.shape}"
            )
        return self._with(data)


def sealed(layout: Layout, sizes: Array, order: Array | None, inverse: Array | None) -> Packing:
    """Return how a batch is packed, of what was checked: whatever unpacks it relies on that."""
    for indices in (sizes, order, inverse):
        if indices is not None:
            indices.setflags(write=False)
    return Packing(layout, sizes, order, inverse)


def host_integers(name: str, values: Any, shape: tuple[int, ...] | None = None) -> Array:
    """Return `values` as a one-dimensional array of intp on the host, refusing anything inexact."""
    array = values
    if type(values) is not np.ndarray:
        if is_array(values):
            checks.array_module(**{name: values})
        array = asnumpy(values)
        if array.size == 0 and not hasattr(values, "dtype"):
            array = array.astype(np.intp)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected integers, got dtype {array.dtype}")
    if array.ndim != 1 or (shape is not None and array.shape != shape):
        raise ValueError(f"{name}: expected shape {shape or '(n,)'}, got {array.shape}")
    if array.dtype == np.intp:
        return array.copy()  # the caller may use the array again
    if array.size and not np.can_cast(array.dtype, np.intp):
        limits = np.iinfo(np.intp)
        if not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
            expected = f"from -2**{limits.bits - 1} to 2**{limits.bits - 1} - 1"
            raise ValueError(f"{name}: expected integers {expected}, got {checks.brief(array)}")
    return array.astype(np.intp)


def _permutation(name: str, values: Any) -> Array:
    order = host_integers(name, values)
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise ValueError(
            f"{name}: expected a permutation of 0..{len(order) - 1}, got {checks.brief(order)}"
        )
    return order


def require_packed(name: str, x: Any) -> PackedSequence:
    """Return `x`, if it is a PackedSequence."""
    if not isinstance(x, PackedSequence):
        hint = checks.instead_of(x) if hasattr(x, "batch_sizes") else ""
        raise TypeError(f"{name}: expected a PackedSequence, got {type(x).__name__}{hint}")
    return x
