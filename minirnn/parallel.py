r"""One model on many processes, each with a part of the batch: data parallelism.

The gradient of a mean over n terms is the weighted mean of the parts' gradients,

.. math::  \nabla \frac1n \sum_{i} \ell_i = \sum_r \frac{n_r}{n}\, \nabla \frac1{n_r} \sum_{i \in r} \ell_i,

so ranks that start with the same weights, each take the gradient of its own part, and average those with the
weights :math:`n_r` take exactly the steps of one process with the whole batch. A user's own loop is then ::

    with world() as comm:
        broadcast(model, comm)
        for tokens, targets in batches:                                 # the same on every rank
            part = shard((tokens, targets), comm.Get_rank(), comm.Get_size())
            optimizer.zero_grad()
            if part is not None:                                            # a rank may get none
                ...                                                     # forward and backward as ever
            average_gradients(model, comm, weight=0 if part is None else len(part[1]))
            clip_grad_norm_(model.parameters(), 1.0)                    # of the average, everywhere
            optimizer.step()

and ``mpiexec -n 4 python program.py`` runs it on four processes, ``python program.py`` on one.

A communicator is any object with the methods of mpi4py's that are used here: ``Get_rank``, ``Get_size``,
``allgather`` of Python objects, and ``Allreduce`` and ``Bcast`` of buffers. ``mpi4py.MPI.COMM_WORLD`` is one
(``pip install 'minirnn[mpi]'``). Arrays on the GPU are handed over as they are, which needs an MPI that
knows CUDA.
"""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from . import checks
from .backend import Array, asnumpy, generator, get_array_module, quiet
from .module import Module, generators_of
from .packed_sequence import PackedSequence
from .packing import pack_sequence, unpack_sequence
from .parameter import Parameter, flat_pieces, parameter_list, require_one_kind


class Communicator(Protocol):
    """What is needed of a communicator; mpi4py's are such.

    See Also
    --------
    world : Yields one.
    """

    def Get_rank(self) -> int: ...  # noqa: D102, N802
    def Get_size(self) -> int: ...  # noqa: D102, N802
    def Allreduce(self, sendbuf: Any, recvbuf: Any) -> Any: ...  # noqa: D102, N802
    def Bcast(self, buf: Any, root: int = 0) -> Any: ...  # noqa: D102, N802
    def allgather(self, sendobj: Any) -> list[Any]: ...  # noqa: D102


class Alone:
    """The communicator of a process that is not one of several.

    See Also
    --------
    world : Yields it, where nothing has started several processes.

    Examples
    --------
    >>> comm = Alone()
    >>> comm.Get_rank(), comm.Get_size(), comm.allgather("loss")
    (0, 1, ['loss'])
    """

    def Get_rank(self) -> int:  # noqa: D102, N802
        return 0

    def Get_size(self) -> int:  # noqa: D102, N802
        return 1

    def Allreduce(self, sendbuf: Any, recvbuf: Any) -> None:  # noqa: D102, N802
        recvbuf[...] = sendbuf

    def Bcast(self, buf: Any, root: int = 0) -> None:  # noqa: D102, N802
        pass

    def allgather(self, sendobj: Any) -> list[Any]:  # noqa: D102
        return [sendobj]


# What the programs that start ranks tell each of them: MPICH's and Intel's, Open MPI's, Slurm's with PMIx.
STARTED = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK")


@contextmanager
def world() -> Iterator[Communicator]:
    """Yield the communicator of all the processes that ``mpiexec`` started, or of this one alone.

    An error that leaves the block ends all ranks, after it was shown with the number of its rank: the others
    would wait for this one without end. So does ``sys.exit`` with anything but success, with its code.

    Yields
    ------
    Communicator
        ``mpi4py.MPI.COMM_WORLD``, or one of size 1, for which mpi4py need not be installed.

    Raises
    ------
    ImportError
        If the process is one of several and there is no mpi4py.

    See Also
    --------
    broadcast : What comes first.

    Examples
    --------
    >>> from minirnn.parallel import world
    >>> with world() as comm:
    ...     print(f"rank {comm.Get_rank()} of {comm.Get_size()}")
    rank 0 of 1
    """
    if not any(name in os.environ for name in STARTED):
        yield Alone()
        return
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(
            "mpi4py: expected in a program started by mpiexec: pip install 'minirnn[mpi]'"
        ) from error
    comm = MPI.COMM_WORLD
    try:
        yield comm
    except BaseException as error:
        code = _exit_code(error)
        if code == 0:
            raise
        _show(error, comm.Get_rank())
        comm.Abort(code)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def _show(error: BaseException, rank: int) -> None:
    """Write the error where Python would have, and all that was printed before it."""
    sys.stdout.flush()
    if not isinstance(error, SystemExit):
        # At once, since what an abort overtakes is lost.
        sys.stderr.write("".join([f"rank {rank}: ", *traceback.format_exception(error)]))
    elif isinstance(error.code, str):
        print(error.code, file=sys.stderr)
    sys.stderr.flush()


def shard(batch: Any, rank: int, size: int) -> Any:
    """Return the part of a batch that is for one rank of `size`.

    Sequences are dealt out from the longest to the shortest, each to the rank that has the fewest steps so
    far: so that all finish together, which the same number of sequences would not make them.

    Parameters
    ----------
    batch : PackedSequence, or a tuple of one and of whatever belongs to it
        The others are arrays (B, ...), such as targets, or packed in the same order with the same lengths.
    rank, size : int
        Whose part, of how many ranks.

    Returns
    -------
    PackedSequence, tuple, or None
        Like `batch`, in the order in which it was given; None if there is no sequence for the rank.

    Raises
    ------
    TypeError
        If there is no PackedSequence, or one of the others is no array.
    ValueError
        If the others are not of as many samples, or not ``0 <= rank < size``.

    See Also
    --------
    average_gradients : What comes after backward.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn import pack_sequence
    >>> from minirnn.parallel import shard
    >>> sequences = [np.arange(1), np.arange(5), np.arange(2), np.arange(2)]
    >>> tokens = pack_sequence(sequences, enforce_sorted=False)
    >>> targets = np.array([10, 11, 12, 13])
    >>> [shard((tokens, targets), rank, 2)[1].tolist() for rank in range(2)]
    [[11], [10, 12, 13]]
    """
    checks.positive(size=size)
    if isinstance(rank, bool) or not isinstance(rank, int | np.integer) or not 0 <= rank < size:
        raise ValueError(f"rank: expected 0 <= rank < size = {size}, got {checks.got(rank)}")
    alone = isinstance(batch, PackedSequence) or not isinstance(batch, tuple | list)
    parts: list[Any] = [batch] if alone else list(batch)
    packed = next((p for p in parts if isinstance(p, PackedSequence)), None)
    if packed is None:
        raise TypeError(
            f"batch: expected a PackedSequence, or a tuple with one, got {type(batch).__name__}"
        )
    _check_parts(parts, packed)
    if size == 1:
        return batch
    own = _dealt(packed, int(size))[rank]
    if not len(own):
        return None
    result = tuple(_taken(p, own) for p in parts)
    return result[0] if alone else result


def _check_parts(parts: list[Any], packed: PackedSequence) -> None:
    for k, p in enumerate(parts):
        if isinstance(p, PackedSequence):
            if not np.array_equal(_lengths(p), _lengths(packed)):
                raise ValueError(
                    f"batch[{k}]: expected sequences of lengths {checks.brief(_lengths(packed))}, "
                    f"got {checks.brief(_lengths(p))}"
                )
            continue
        checks.array_module(**{f"batch[{k}]": p})
        if p.ndim < 1 or len(p) != packed.batch_size:
            raise ValueError(
                f"batch[{k}]: expected shape (B, ...) with B = {packed.batch_size}, got {p.shape}"
            )


def _lengths(packed: PackedSequence) -> Array:
    """Return the sequences' lengths in the order in which they were given."""
    lengths = packed.layout.lengths
    return lengths if packed.unsorted_indices is None else lengths[packed.unsorted_indices]


def _dealt(packed: PackedSequence, size: int) -> list[Array]:
    """Return for each rank which of the sequences are its own, ascending."""
    lengths = _lengths(packed)
    steps, own = [0] * size, [list[int]() for _ in range(size)]
    for b in np.argsort(-lengths, kind="stable").tolist():
        least = min(range(size), key=lambda r: (steps[r], len(own[r])))
        steps[least] += int(lengths[b])
        own[least].append(b)
    return [np.array(sorted(numbers), np.intp) for numbers in own]


def _taken(part: Any, own: Array) -> Any:
    if isinstance(part, PackedSequence):
        sequences = unpack_sequence(part)
        return pack_sequence([sequences[b] for b in own.tolist()], enforce_sorted=False)
    return part.take(get_array_module(part).asarray(own), axis=0)


@quiet
def average_gradients(model: Module, comm: Communicator, weight: float) -> None:
    """Replace every parameter's gradient by its weighted mean over all ranks: one Allreduce.

    Clip and step after it, on every rank alike.

    Parameters
    ----------
    model : Module
        The same on every rank. Its gradients are those of a loss that is a mean over the rank's own part.
    comm : Communicator
        From :func:`world`.
    weight : float
        What the rank's mean was divided by: how many samples, or targets that are not ignored, or the sum of
        the targets' weights; 0 for a rank without any, whose gradients are not looked at. Only the ratio
        between ranks matters.

    Raises
    ------
    ValueError
        If the weight is negative or not finite, or all ranks' are zero.
    TypeError
        If the parameters are of several dtypes or devices.

    See Also
    --------
    shard : Whose part it is that each rank has seen.

    Examples
    --------
    Beside a rank that has seen one sample, whose gradient is zero:

    >>> import minirnn
    >>> class WithAnother(Alone):
    ...     def Get_size(self):
    ...         return 2
    ...     def Allreduce(self, sent, total):
    ...         total[...] = sent
    ...         total[-1] += 1  # where the weights are added up
    >>> layer = minirnn.Linear(2, 1, bias=False)
    >>> layer.weight.grad = [[3.0, 6.0]]
    >>> average_gradients(layer, WithAnother(), weight=2)
    >>> layer.weight.grad
    array([[2., 4.]], dtype=float32)
    """
    weight = checks.number("weight", weight, "[0, inf)")
    _check_ends(model, comm)
    if comm.Get_size() == 1 and weight:
        return  # the mean over one is itself
    parameters = parameter_list("model", model.parameters())
    xp: Any = require_one_kind("model", parameters)
    flat = flat_pieces(parameters)
    # The weight travels as one more number, so that one Allreduce does for both.
    sent = xp.zeros(sum(p.size for p in parameters) + 1, parameters[0].dtype)
    if weight:
        _copy_gradients(flat, sent)
        sent *= weight
        sent[-1] = weight
    total = xp.empty_like(sent)
    _finish(xp)
    comm.Allreduce(sent, total)
    if xp is np and not total[-1] > 0:
        raise ValueError("weight: expected one rank at least with a weight above 0, got none")
    total[:-1] /= total[-1]
    start = 0
    for piece in flat:
        g = piece.grad
        g[...] = total[start : start + g.size].reshape(g.shape)
        start += g.size


def _check_ends(model: Any, comm: Any) -> None:
    checks.having("model", model, "a Module", "named_parameters")
    checks.having("comm", comm, "a communicator, such as world() gives", "Get_size", "allgather")


def _copy_gradients(flat: Any, out: Array) -> None:
    start = 0
    for piece in flat:
        g = piece.grad
        out[start : start + g.size] = g.ravel()
        start += g.size


def _finish(xp: Any) -> None:
    """Wait for a GPU: MPI reads memory and knows nothing of streams."""
    if xp is not np:
        xp.cuda.get_current_stream().synchronize()


def broadcast(model: Module, comm: Communicator) -> None:
    """Give every rank the weights and the states of the random generators of rank 0.

    Generators are those of the model's layers, and the library's own. They then draw the same numbers on
    every rank; for dropout that differs, seed the layers of each rank anew afterwards.

    Parameters
    ----------
    model : Module
        Made alike on every rank.
    comm : Communicator
        From :func:`world`.

    Raises
    ------
    ValueError
        On every rank, if a rank's parameters have other names, shapes or dtypes than those of rank 0.

    See Also
    --------
    check_in_step : Whether ranks are still alike.

    Examples
    --------
    >>> import minirnn
    >>> model = minirnn.Linear(2, 1)
    >>> with world() as comm:
    ...     broadcast(model, comm)
    ...     check_in_step(model, comm)  # else an error
    """
    _check_ends(model, comm)
    named = dict(model.named_parameters())
    kinds = comm.allgather([(name, p.shape, str(p.dtype)) for name, p in named.items()])
    other = [rank for rank, kind in enumerate(kinds) if kind != kinds[0]]
    if other:
        raise ValueError(f"model: expected the parameters of rank 0, got others on ranks {other}")
    xp = require_one_kind("model", parameter_list("model", named.values()))
    flat = xp.concatenate([p.data.ravel() for p in named.values()])
    _finish(xp)
    comm.Bcast(flat, root=0)
    start = 0
    for p in named.values():
        p.data = flat[start : start + p.size].reshape(p.shape)
        start += p.size
    own = [generator(), *generators_of(model)]
    states = [g.bit_generator.state for g in own] if comm.Get_rank() == 0 else None
    for g, state in zip(own, comm.allgather(states)[0], strict=True):
        g.bit_generator.state = state


def check_in_step(model: Module, comm: Communicator) -> None:
    """Require all ranks to hold the same weights, to the last bit; call it every so many steps.

    Parameters
    ----------
    model : Module
        Made alike on every rank.
    comm : Communicator
        From :func:`world`.

    Raises
    ------
    RuntimeError
        On every rank, naming those whose weights are not those that most ranks hold (of as many, rank 0's).

    See Also
    --------
    broadcast : Makes them alike.

    Examples
    --------
    >>> import minirnn
    >>> class WithAnother(Alone):
    ...     def allgather(self, digest):
    ...         return [digest, "that of other weights"]
    >>> check_in_step(minirnn.Linear(2, 1), WithAnother())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    RuntimeError: model: expected the same weights on every rank, got others on ranks [1] of 2; ...
    """
    _check_ends(model, comm)
    digest = hashlib.sha256()
    for name, p in model.named_parameters():
        digest.update(name.encode())
        digest.update(_bytes(p))
    digests = comm.allgather(digest.hexdigest())
    counts = Counter(digests)
    common = max(digests, key=lambda d: counts[d])  # the first of them, so rank 0's if it can be
    other = [rank for rank, d in enumerate(digests) if d != common]
    if other:
        raise RuntimeError(
            f"model: expected the same weights on every rank, got others on ranks {other} of "
            f"{len(digests)}; broadcast(model, comm) once at the start, and step on every rank alike"
        )


def _bytes(p: Parameter) -> bytes:
    return bytes(asnumpy(p.data).tobytes())
