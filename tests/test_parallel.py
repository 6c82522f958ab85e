"""minirnn.parallel: N ranks in threads against one process with the whole batch."""

import copy
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import close

import minirnn
from minirnn import parallel

STEPS = 50


class Fake:
    """A communicator of mpi4py's kind whose ranks are threads of this process."""

    def __init__(self, rank, size, shared):
        self.rank, self.size, self.shared = rank, size, shared

    @classmethod
    def world(cls, size):
        shared = {
            "slots": [None] * size,
            "barrier": threading.Barrier(size, timeout=60),
            "allreduces": [0] * size,
        }
        return [cls(rank, size, shared) for rank in range(size)]

    def Get_rank(self):
        return self.rank

    def Get_size(self):
        return self.size

    def allgather(self, x):
        self.shared["slots"][self.rank] = copy.deepcopy(x)
        self.shared["barrier"].wait()
        gathered = list(self.shared["slots"])
        self.shared["barrier"].wait()
        return gathered

    def Allreduce(self, sent, received):
        assert sent is not received
        assert sent.flags.c_contiguous
        assert received.flags.c_contiguous
        self.shared["allreduces"][self.rank] += 1
        received[...] = sum(self.allgather(sent))

    def Bcast(self, buffer, root=0):
        assert buffer.flags.c_contiguous
        buffer[...] = self.allgather(buffer)[root]


def on_ranks(size, run):
    """Return what ``run(comm)`` returns, or the error that it raises, on each rank."""

    def caught(comm):
        try:
            return run(comm)
        except (ValueError, RuntimeError) as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(caught, Fake.world(size)))


class Model(minirnn.Module):
    def __init__(self, seed=0):
        options = {"dtype": np.float64, "rng": seed}
        self.embedding = minirnn.Embedding(7, 4, **options)
        self.lstm = minirnn.LSTM(4, 5, bidirectional=True, **options)
        self.head = minirnn.Linear(10, 3, **options)

    def forward(self, tokens):
        x, ctx_x = self.embedding.forward(tokens)
        (_, (h_n, _)), ctx_h = self.lstm.forward(x)
        logits, ctx_y = self.head.forward(np.concatenate(list(h_n), axis=1))
        return logits, (ctx_x, ctx_h, ctx_y)

    def backward(self, ctx, dlogits):
        ctx_x, ctx_h, ctx_y = ctx
        dh_n = np.stack(np.split(self.head.backward(ctx_y, dlogits), 2, axis=1))
        dx, _ = self.lstm.backward(ctx_h, None, (dh_n, None))
        self.embedding.backward(ctx_x, dx)


def batches(counts=(5, 2, 7, 3, 1), seed=0):
    """Yield batches of few sequences with lengths from zero on, and their targets."""
    rng = np.random.default_rng(seed)
    for step in range(STEPS):
        lengths = rng.integers(0, 6, counts[step % len(counts)])
        sequences = [rng.integers(0, 7, n) for n in lengths]
        yield (
            minirnn.pack_sequence(sequences, enforce_sorted=False),
            rng.integers(0, 3, len(lengths)),
        )


def train(model, comm=None, flat=True):
    """Return the weights after 50 steps of Adam, by name."""
    if flat:
        model.flatten_parameters()
    optimizer, criterion = minirnn.Adam(model.parameters(), 1e-2), minirnn.CrossEntropyLoss()
    for batch in batches():
        part = batch
        if comm is not None:
            part = parallel.shard(batch, comm.Get_rank(), comm.Get_size())
        optimizer.zero_grad()
        if part is not None:
            logits, ctx = model.forward(part[0])
            _, ctx_l = criterion.forward(logits, part[1])
            model.backward(ctx, criterion.backward(ctx_l))
        if comm is not None:
            parallel.average_gradients(model, comm, 0 if part is None else len(part[1]))
        minirnn.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("flat", [True, False])
def test_ranks_take_the_steps_of_one_process(size, flat):
    expected = train(Model(), flat=flat)
    shared = []

    def run(comm):
        shared.append(comm.shared)
        model = Model(seed=comm.Get_rank())
        parallel.broadcast(model, comm)
        trained = train(model, comm, flat)
        parallel.check_in_step(model, comm)
        return trained

    for actual in on_ranks(size, run):
        assert actual.keys() == expected.keys()
        for name in expected:
            close(actual[name], expected[name], 1e-12)
    assert shared[0]["allreduces"] == [STEPS * (size > 1)] * size  # one a step


# -- shard ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_sequence_goes_to_one_rank_in_the_order_given(size):
    rng = np.random.default_rng(size)
    sequences = [rng.standard_normal((n, 2)) for n in (3, 0, 5, 1, 4, 0)]
    packed = minirnn.pack_sequence(sequences, enforce_sorted=False)
    seen = []
    for rank in range(size):
        part = parallel.shard((packed, np.arange(6), packed.map(np.negative)), rank, size)
        if part is None:
            continue
        x, numbers, negative = part
        assert (np.diff(numbers) > 0).all()
        for b, one, minus in zip(
            numbers, minirnn.unpack_sequence(x), minirnn.unpack_sequence(negative), strict=True
        ):
            assert np.array_equal(one, sequences[b])
            assert np.array_equal(minus, -sequences[b])
        alone = parallel.shard(packed, rank, size)
        assert np.array_equal(alone.data, x.data)
        seen += numbers.tolist()
    assert sorted(seen) == list(range(6))
    assert (size == 7) == (parallel.shard(packed, 6 if size == 7 else 0, size) is None)


def test_ranks_get_as_many_steps_not_as_many_sequences():
    packed = minirnn.pack_sequence([np.zeros((n, 1)) for n in [10] + [1] * 10])
    assert [parallel.shard(packed, rank, 2).batch_size for rank in range(2)] == [1, 10]
    rng = np.random.default_rng(0)
    lengths = np.sort(rng.integers(0, 50, 64))[::-1]
    packed = minirnn.pack_sequence([np.zeros((n, 1)) for n in lengths], enforce_sorted=False)
    steps = [parallel.shard(packed, rank, 4).layout.rows for rank in range(4)]
    assert max(steps) - min(steps) <= 2
    assert sum(steps) == lengths.sum()


def test_shard_refuses():
    packed = minirnn.pack_sequence([np.zeros((2, 1)), np.zeros((1, 1))])
    with pytest.raises(TypeError, match="batch: expected a PackedSequence"):
        parallel.shard(np.zeros((2, 3)), 0, 2)
    with pytest.raises(ValueError, match=r"batch\[1\]: expected shape \(B, ...\) with B = 2"):
        parallel.shard((packed, np.zeros(3)), 0, 2)
    other = minirnn.pack_sequence([np.zeros((2, 1)), np.zeros((2, 1))])
    with pytest.raises(ValueError, match=r"lengths \[2, 1\], got \[2, 2\]"):
        parallel.shard((packed, other), 0, 2)
    for rank in (-1, 2, 1.0):
        with pytest.raises(ValueError, match="rank: expected 0 <= rank < size = 2"):
            parallel.shard(packed, rank, 2)


# -- averages and broadcasts ---------------------------------------------------------------------


def test_a_rank_of_weight_zero_counts_for_nothing():
    def run(comm):
        layer = minirnn.Linear(2, 1, dtype=np.float64, rng=0)
        layer.weight.grad.fill([1.0, 4.0, np.nan][comm.Get_rank()])
        layer.bias.grad.fill(comm.Get_rank())
        parallel.average_gradients(layer, comm, [3, 1, 0][comm.Get_rank()])
        return layer.weight.grad.tolist(), layer.bias.grad.tolist()

    assert on_ranks(3, run) == [([[1.75, 1.75]], [0.25])] * 3


def test_weights_are_checked():
    (comm,) = Fake.world(1)
    layer = minirnn.Linear(2, 1)
    for weight in (-1, np.inf, np.nan, "1"):
        with pytest.raises(ValueError, match="weight: expected a finite number"):
            parallel.average_gradients(layer, comm, weight)
    with pytest.raises(ValueError, match="one rank at least"):
        parallel.average_gradients(layer, comm, 0)


def test_broadcast_gives_weights_and_generators_of_rank_0():
    def run(comm):
        rng = np.random.default_rng(comm.Get_rank())
        model = minirnn.Sequential(minirnn.Linear(4, 9, rng=rng), minirnn.Dropout(0.5, rng=rng))
        buffer = model.flatten_parameters()
        parallel.broadcast(model, comm)
        assert buffer.complete
        return model.state_dict(), model(np.ones((3, 4), np.float32))

    (weights, y), *others = on_ranks(3, run)
    rng = np.random.default_rng(0)
    first = minirnn.Sequential(minirnn.Linear(4, 9, rng=rng), minirnn.Dropout(0.5, rng=rng))
    assert np.array_equal(weights["0.weight"], first.state_dict()["0.weight"])
    assert np.array_equal(y, first(np.ones((3, 4), np.float32)))
    for other_weights, other_y in others:
        assert np.array_equal(other_y, y)
        for name in weights:
            assert np.array_equal(other_weights[name], weights[name])


def test_broadcast_names_the_rank_with_another_model():
    def run(comm):
        layer = minirnn.Linear(2, 1 + (comm.Get_rank() == 1))
        before = layer.weight.data.copy()
        try:
            parallel.broadcast(layer, comm)
        finally:
            assert np.array_equal(layer.weight.data, before)

    for error in on_ranks(3, run):
        assert isinstance(error, ValueError)
        assert "ranks [1]" in str(error)


@pytest.mark.parametrize(("size", "guilty"), [(3, 0), (3, 2), (2, 1), (4, 3)])
def test_check_in_step_names_the_rank_that_differs(size, guilty):
    def run(comm):
        layer = minirnn.Linear(2, 1, rng=0)
        parallel.check_in_step(layer, comm)
        if comm.Get_rank() == guilty:
            layer.bias.data = np.nextafter(layer.bias.data, np.float32(9))
        parallel.check_in_step(layer, comm)

    for error in on_ranks(size, run):
        assert isinstance(error, RuntimeError)
        assert f"ranks [{guilty}] of {size}" in str(error)


def test_a_process_alone_is_a_world_of_one(monkeypatch):
    for name in parallel.STARTED:
        monkeypatch.delenv(name, raising=False)
    expected, model = train(Model()), Model()
    with parallel.world() as comm:
        parallel.broadcast(model, comm)
        actual = train(model, comm)
        parallel.check_in_step(model, comm)
    for name in expected:
        assert np.array_equal(actual[name], expected[name])
    with pytest.raises(ZeroDivisionError), parallel.world():
        _ = 1 / 0


@pytest.mark.parametrize("name", parallel.STARTED)
def test_a_rank_without_mpi4py_says_what_to_install(monkeypatch, name):
    monkeypatch.setenv(name, "0")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r"pip install 'minirnn\[mpi\]'"), parallel.world():
        pass


def test_mpi4py_is_such_a_communicator():
    mpi = pytest.importorskip("mpi4py.MPI", reason="mpi4py is not installed (extra mpi)")
    comm = mpi.COMM_SELF
    expected, model = train(Model()), Model()
    parallel.broadcast(model, comm)
    actual = train(model, comm)
    parallel.check_in_step(model, comm)
    for name in expected:
        close(actual[name], expected[name], 1e-12)
