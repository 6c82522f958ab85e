"""Batches of sequences of different lengths, shuffled, packed, and resumable in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import checks
from .backend import RNG, Array, asnumpy, generator, is_array
from .packing import pack_sequence

_POOL = 50  # batches whose sequences are sorted by length together


def batches(
    sequences: Any,
    targets: Any = None,
    batch_size: int = 32,
    shuffle: bool = True,
    bucket: bool = False,
    drop_last: bool = False,
    rng: RNG = None,
) -> Batches:
    """Cut sequences into packed batches; each iteration over the result is one epoch.

    Parameters
    ----------
    sequences : list of arrays of shape (length, ...), or array of shape (N, T, ...)
        A memory map is read batch by batch.
    targets : sequence, optional
        One for each sequence. If each has its sequence's length they are per step, and packed likewise;
        else they are stacked.
    batch_size : int
        How many sequences a batch has.
    shuffle : bool
        Draw another order for every epoch.
    bucket : bool
        Put sequences of similar lengths into a batch.
    drop_last : bool
        Leave out the last batch if it is smaller.
    rng : seed or Generator, optional
        For the orders; the library's own generator if not given.

    Returns
    -------
    Batches
        Yields a PackedSequence, or with targets a pair of it and the batch's targets.

    Raises
    ------
    ValueError
        If there are no sequences, or they differ in their steps' shapes, or targets in number.
    TypeError
        If they are not arrays of one dtype, or a switch neither True nor False.

    See Also
    --------
    minirnn.fit : Takes it as it is.

    Examples
    --------
    >>> import numpy as np
    >>> data = batches([np.array([1, 2, 3]), np.array([4])], [6, 4], batch_size=2, shuffle=False)
    >>> for tokens, sums in data:
    ...     print(tokens.data, sums)
    [1 4 2 3] [6 4]
    """
    return Batches(sequences, targets, batch_size, shuffle, bucket, drop_last, rng)


class Batches:
    """What :func:`batches` returns.

    Attributes
    ----------
    epoch : int
        How many epochs have been finished.
    padding_saved : float
        The share of the padding steps of unsorted batches that bucketing does without, in this epoch.

    Raises
    ------
    ValueError, TypeError
        As :func:`batches`.

    See Also
    --------
    batches : Makes it.
    """

    def __init__(
        self,
        sequences: Any,
        targets: Any,
        batch_size: int,
        shuffle: bool,
        bucket: bool,
        drop_last: bool,
        rng: RNG,
    ) -> None:
        checks.positive(batch_size=batch_size)
        checks.flags(shuffle=shuffle, bucket=bucket, drop_last=drop_last)
        self._sequences = _listed("sequences", sequences)
        self._lengths = np.array([len(s) for s in self._sequences])
        first = self._sequences[0]
        for k, s in enumerate(self._sequences):
            if s.shape[1:] != first.shape[1:]:
                raise ValueError(
                    f"sequences[{k}]: expected steps of shape {first.shape[1:]}, got {s.shape[1:]}"
                )
            if s.dtype != first.dtype:
                raise TypeError(f"sequences[{k}]: expected dtype {first.dtype}, got {s.dtype}")
        self._targets = None if targets is None else self._checked(targets)
        self.batch_size, self.shuffle = int(batch_size), bool(shuffle)
        self.bucket, self.drop_last = bool(bucket), bool(drop_last)
        if len(self) == 0:
            raise ValueError(
                f"batch_size: expected at most {len(self._sequences)}, the number of sequences, "
                f"with drop_last, got {batch_size}"
            )
        self._rng = None if rng is None else generator(rng)
        self.epoch = 0
        self._seed, self._position, self._resumed = 0, 0, False

    def _checked(self, targets: Any) -> Any:
        if isinstance(targets, str) or not hasattr(targets, "__getitem__"):
            raise TypeError(f"targets: expected one a sequence, got {type(targets).__name__}")
        if len(targets) != len(self._sequences):
            raise ValueError(
                f"targets: expected {len(self._sequences)}, one a sequence, got {len(targets)}"
            )
        shapes = [np.shape(t) for t in targets]
        self._per_step = all(
            shape and shape[0] == n for shape, n in zip(shapes, self._lengths, strict=True)
        )
        if self._per_step:
            return _listed("targets", targets)
        for k, shape in enumerate(shapes):
            if shape != shapes[0]:
                raise ValueError(
                    f"targets[{k}]: expected shape {shapes[0]}, that of targets[0], got {shape}; "
                    f"or targets per step, of their sequences' lengths"
                )
        return targets

    def __len__(self) -> int:
        count = len(self._sequences)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        if not self._resumed:
            self._position = 0
            if self.shuffle:
                self._seed = int(generator(self._rng).integers(2**63))
        self._resumed = False
        return self._run(self._plan(self.bucket))

    def _run(self, plan: list[Array]) -> Iterator[Any]:
        for k in range(self._position, len(plan)):
            self._position = k + 1
            yield self._batch(plan[k])
        self.epoch += 1
        self._position = 0

    def _plan(self, bucket: bool) -> list[Array]:
        """Return the sequences' numbers, batch by batch: a function of the epoch's seed."""
        draw, count = np.random.default_rng(self._seed), len(self._sequences)
        order = draw.permutation(count) if self.shuffle else np.arange(count)
        if bucket:
            size = _POOL * self.batch_size
            pools = [order[k : k + size] for k in range(0, count, size)]
            order = np.concatenate([p[np.argsort(-self._lengths[p], kind="stable")] for p in pools])
        plan = [order[k * self.batch_size :][: self.batch_size] for k in range(len(self))]
        return [plan[k] for k in draw.permutation(len(plan))] if bucket and self.shuffle else plan

    def _batch(self, numbers: Array) -> Any:
        packed = pack_sequence([self._sequences[k] for k in numbers], enforce_sorted=False)
        if self._targets is None:
            return packed
        chosen = [self._targets[k] for k in numbers]
        if self._per_step:
            return packed, pack_sequence(chosen, enforce_sorted=False)
        return packed, np.stack([np.asarray(t) for t in chosen])

    @property
    def padding_saved(self) -> float:
        """The share of the padding of unsorted batches that bucketing does without."""
        if not self.bucket:
            return 0.0
        sorted_, plain = (self._padding(self._plan(bucket)) for bucket in (True, False))
        return 1 - sorted_ / plain if plain else 0.0

    def _padding(self, plan: list[Array]) -> int:
        lengths = (self._lengths[numbers] for numbers in plan)
        return sum(int(n.max() * len(n) - n.sum()) for n in lengths)

    def state_dict(self) -> dict[str, Any]:
        """Return where the epoch stands, after the batch that was given last, and how orders are drawn."""
        return {
            "epoch": self.epoch,
            "seed": self._seed,
            "position": self._position,
            "count": len(self._sequences),
            "batch_size": self.batch_size,
            "rng": None if self._rng is None else dict(self._rng.bit_generator.state),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned: the next iteration begins with the next batch.

        Raises
        ------
        ValueError
            If it is of other data or another batch size; nothing is changed.
        """
        own = self.state_dict()
        if missing := [name for name in own if name not in state_dict]:
            raise ValueError(f"state_dict: expected {list(own)}, {missing} missing")
        for name in ("count", "batch_size"):
            if state_dict[name] != own[name]:
                raise ValueError(f"state_dict: expected {name} {own[name]}, got {state_dict[name]}")
        for name, limit in (("epoch", 2**63), ("seed", 2**63), ("position", len(self) + 1)):
            value = state_dict[name]
            if type(value) is not int or not 0 <= value < limit:
                raise ValueError(
                    f"state_dict: {name}: expected 0 <= {name} < {limit}, got {checks.got(value)}"
                )
        if (state_dict["rng"] is None) != (self._rng is None):
            raise ValueError(
                "state_dict: rng: expected batches that were made with rng= as these were"
            )
        if self._rng is not None:
            try:
                self._rng.bit_generator.state = state_dict["rng"]
            except (TypeError, ValueError, KeyError) as error:
                self._rng.bit_generator.state = own["rng"]
                raise ValueError(f"state_dict: rng: {error}") from None
        self.epoch, self._seed = state_dict["epoch"], state_dict["seed"]
        self._position = state_dict["position"]
        # After a whole epoch there is nothing to go on with, and the next one is drawn.
        self._resumed = self._position > 0


def _listed(name: str, values: Any) -> Sequence[Array]:
    """Return `values` as arrays of at least one axis, one a sequence."""
    if is_array(values) and values.dtype != object and values.ndim < 2:
        raise ValueError(f"{name}: expected shape (N, T, ...), or a list, got {values.shape}")
    if isinstance(values, str) or not hasattr(values, "__getitem__"):
        raise TypeError(f"{name}: expected a list of arrays, got {type(values).__name__}")
    if len(values) == 0:
        raise ValueError(f"{name}: expected at least one, got none")
    found = []
    for k in range(len(values)):
        value = values[k]
        host = isinstance(value, np.ndarray) or not is_array(value)
        array = asnumpy(value) if host else value
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name}[{k}]: expected an array of numbers, got dtype {array.dtype}")
        if array.ndim < 1:
            raise ValueError(f"{name}[{k}]: expected shape (length, ...), got {array.shape}")
        found.append(array)
    return found
