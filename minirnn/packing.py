"""From sequences of different lengths to a packed batch and back, as ``torch.nn.utils.rnn`` does it.

Packing moves values and drops padding, so it is linear, and its adjoint is padding with zeros: the
gradient of ``pack_padded_sequence`` is ``pad_packed_sequence`` of the gradient, and the other way
round. What a packed batch looks like is said in :mod:`minirnn.packed_sequence`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from . import checks
from .backend import Array, asnumpy, get_array_module, quiet
from .functional import indices, order
from .layout import layout_of
from .packed_sequence import PackedSequence, host_integers, require_packed, sealed
from .pairs import pair_for


def _pack(
    flat: Array, lengths: Array, T: int, first: Array | None, stride: int, enforce_sorted: bool
) -> PackedSequence:
    """Gather the packed rows out of `flat`, where step t of sequence k is row ``first[k] + t * stride``.

    k counts the sequences as they were given, of at most T steps; if `first` is not given, it is k.
    """
    pair = pair_for(order, lengths)
    batch_sizes = pair.batch_sizes(lengths, T)
    if batch_sizes is None:
        raise _beyond(lengths, T)
    layout = layout_of(batch_sizes, len(lengths))
    arranged = pair.arrange(lengths, first, stride, layout, not enforce_sorted)
    if arranged is None:
        raise ValueError(
            f"lengths: expected descending order, got {checks.brief(lengths)}; "
            "pass enforce_sorted=False to have the batch sorted"
        )
    *order_and_inverse, rows = arranged
    data = flat.take(get_array_module(flat).asarray(rows), axis=0)
    # Batch sizes do not tell of sequences of length zero, an order does.
    if enforce_sorted and layout.steps and batch_sizes[0] == len(lengths):
        order_and_inverse = [None, None]
    return sealed(layout, batch_sizes, *order_and_inverse).of(data)


def _beyond(lengths: Array, T: int) -> ValueError:
    return ValueError(f"lengths: expected 0 <= length <= T = {T}, got {checks.brief(lengths)}")


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
        Whether padded arrays are (B, T, ...).
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
    TypeError
        If `input` is no array, or a switch neither True nor False.

    See Also
    --------
    pad_packed_sequence : The way back, and the adjoint.

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
    checks.flags(batch_first=batch_first, enforce_sorted=enforce_sorted)
    checks.storable("input", input)
    if input.ndim < 2:
        axes = "(B, T, ...)" if batch_first else "(T, B, ...)"
        raise ValueError(f"input: expected at least 2 dimensions {axes}, got shape {input.shape}")
    B, T = input.shape[:2] if batch_first else (input.shape[1], input.shape[0])
    if B == 0:
        raise ValueError("input: expected at least one sequence, got an empty batch")
    if 0 in input.shape[2:]:
        raise ValueError(f"input: expected at least one feature, got shape {input.shape}")
    lengths = host_integers("lengths", lengths, (B,))
    if check_padding is not _NO_CHECK:
        _check_padding(input, _checked(lengths, T), batch_first, check_padding)
    flat = input.reshape(B * T, *input.shape[2:])
    if batch_first:
        return _pack(flat, lengths, T, np.arange(B) * T, 1, enforce_sorted)
    return _pack(flat, lengths, T, None, B, enforce_sorted)


def _checked(lengths: Array, T: int) -> Array:
    if lengths.size and not indices.within(lengths, T + 1):
        raise _beyond(lengths, T)
    return lengths


def _check_padding(input: Array, lengths: Array, batch_first: bool, value: Any) -> None:
    if not isinstance(value, checks.NUMBER | np.bool_):
        raise TypeError(f"check_padding: expected a number, got {checks.got(value)}")
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
        What a recurrent layer made, or was given.
    batch_first : bool
        Whether padded arrays are (B, T, ...).
    padding_value : scalar
        What to put after the end of each sequence.
    total_length : int, optional
        Pad to this many steps instead of the longest length.

    Returns
    -------
    padded : array of shape (T, B, ...), or (B, T, ...) with `batch_first`
        In the order in which they were given.
    lengths : array of intp on the host, shape (B,)
        Of the sequences, in that order.

    Raises
    ------
    TypeError
        If `sequence` is no PackedSequence.
    ValueError
        If `total_length` is smaller than the longest length.

    See Also
    --------
    pack_padded_sequence : The way back, and the adjoint.

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
    checks.flags(batch_first=batch_first)
    layout = require_packed("sequence", sequence).layout
    B, T = layout.batch_size, layout.steps
    if total_length is not None:
        whole = isinstance(total_length, int | np.integer) and not isinstance(total_length, bool)
        if not whole or not T <= total_length <= np.iinfo(np.intp).max:
            raise ValueError(
                f"total_length: expected an integer, at least the longest length, {T}, and what an array can "
                f"have, got {checks.got(total_length)}"
            )
        T = int(total_length)  # a narrow integer would wrap around below
    step, place = layout.step_and_sequence
    if sequence.sorted_indices is not None:
        place = sequence.sorted_indices[place]
    lengths = layout.lengths.copy()
    if sequence.unsorted_indices is not None:
        lengths = lengths[sequence.unsorted_indices]
    return _scatter(sequence.data, place, step, B, T, batch_first, padding_value), lengths


@quiet
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
        raise TypeError(f"padding_value: expected a number, got {checks.got(value)}")
    if dtype.kind == "f":
        finite = isinstance(value, int | np.integer) or np.isfinite(value)
        # Python's integers are compared as they are: none is too large for that.
        exact = value if isinstance(value, int) else float(value)
        if finite and abs(exact) > float(np.finfo(dtype).max):
            raise TypeError(
                f"padding_value: expected a number of dtype {dtype}, got {checks.got(value)}"
            )
        return
    whole = not isinstance(value, float | np.floating) or float(value).is_integer()
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if not whole or not low <= value <= high:
        raise TypeError(
            f"padding_value: expected an integer of dtype {dtype}, got {checks.got(value)}"
        )


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
        Of all their steps.

    Raises
    ------
    ValueError
        If there is no sequence, their steps differ in shape, or the order is enforced and not there.
    TypeError
        If they are no arrays, of one dtype, in a list.

    See Also
    --------
    unpack_sequence : The way back.

    Examples
    --------
    >>> pack_sequence([np.array([4]), np.array([1, 2, 3])], enforce_sorted=False).data
    array([1, 4, 2, 3])
    """
    checks.flags(enforce_sorted=enforce_sorted)
    flat, lengths = _concatenate(sequences)
    starts = np.cumsum(lengths) - lengths
    return _pack(flat, lengths, int(lengths.max()), starts, 1, enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Array]:
    """Unpack into a list of sequences, in the order in which they were given.

    Parameters
    ----------
    packed_sequences : PackedSequence
        Of any rows.

    Returns
    -------
    list of arrays of shape (length, ...)
        A length may be zero.

    Raises
    ------
    TypeError
        If it is no PackedSequence.

    See Also
    --------
    pack_sequence : The way back.

    Examples
    --------
    >>> unpack_sequence(pack_sequence([np.array([1, 2, 3]), np.array([4])]))
    [array([1, 2, 3]), array([4])]
    """
    packed = require_packed("packed_sequences", packed_sequences)
    step, sequence = packed.layout.step_and_sequence
    lengths = packed.layout.lengths
    if packed.sorted_indices is not None:
        sequence, lengths = packed.sorted_indices[sequence], lengths[packed.unsorted_indices]
    ends = np.cumsum(lengths)
    rows = np.empty_like(step)
    rows[(ends - lengths)[sequence] + step] = np.arange(len(step))
    rows = get_array_module(packed.data).asarray(rows)
    bounds = [0, *ends.tolist()]
    return [packed.data.take(rows[a:b], axis=0) for a, b in pairwise(bounds)]


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
        The sequences, of any lengths.
    batch_first : bool
        Whether padded arrays are (B, T, ...).
    padding_value : scalar
        What is put after the end.
    padding_side : {"right", "left"}

    Returns
    -------
    array of shape (T, B, ...), or (B, T, ...) with `batch_first`
        As long as the longest.

    Raises
    ------
    ValueError
        If there is no sequence, or their steps differ in shape; if `padding_side` is another.
    TypeError
        If they are no arrays, of one dtype, in a list, or `padding_value` is no such number.

    See Also
    --------
    unpad_sequence : The way back.

    Examples
    --------
    >>> pad_sequence([np.array([1, 2, 3]), np.array([4])], batch_first=True)
    array([[1, 2, 3],
           [4, 0, 0]])
    """
    checks.flags(batch_first=batch_first)
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

    Parameters
    ----------
    padded_sequences : array of shape (T, B, ...), or (B, T, ...) with `batch_first`
        With the sequences from the first step on.
    lengths : list or array of int, shape (B,)
        Of the sequences.
    batch_first : bool
        Whether the batch comes first.

    Returns
    -------
    list of arrays of shape (length, ...)
        Copies.

    Raises
    ------
    ValueError
        If a length is negative or beyond T, or there is not one for each sequence.
    TypeError
        If `padded_sequences` is no array.

    See Also
    --------
    pad_sequence : The way back.

    Examples
    --------
    >>> unpad_sequence(np.array([[1, 2, 3], [4, 0, 0]]), [3, 1], batch_first=True)
    [array([1, 2, 3]), array([4])]
    """
    checks.flags(batch_first=batch_first)
    checks.storable("padded_sequences", padded_sequences)
    if padded_sequences.ndim < 2:
        raise ValueError(
            f"padded_sequences: expected at least 2 dimensions, got {padded_sequences.shape}"
        )
    by_sequence = padded_sequences if batch_first else padded_sequences.swapaxes(0, 1)
    B, T = by_sequence.shape[:2]
    lengths = _checked(host_integers("lengths", lengths, (B,)), T)
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
    return xp.concatenate(sequences), np.array([len(s) for s in sequences], np.intp)
