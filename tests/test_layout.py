"""Layouts: what is kept of them, and for how long."""

import pickle
import tracemalloc

import numpy as np
import pytest
from helpers import close

import minirnn
from minirnn.layout import Layout, equal_lengths, kept, layout_of


@pytest.fixture
def memory():
    """Return a function that tells how many bytes are held that were not at first."""
    kept.clear()
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()
    tracemalloc.stop()
    kept.clear()


def test_layouts_of_many_lengths_are_kept_in_a_few_megabytes(memory):
    for T in range(20_000, 20_064):
        layout = equal_lengths(T, 1)
        assert layout.state_starts[-1] == T
        assert layout.reverse[0] == T - 1
        del layout
    assert memory()[0] < 5 << 20


@pytest.mark.parametrize("longest", [5, 60, 400])
@pytest.mark.parametrize("cut", [False, True])
def test_packed_layouts_are_kept_in_a_few_megabytes(memory, longest, cut):
    rng = np.random.default_rng(0)
    for _ in range(12_000 // longest):
        lengths = np.sort(rng.integers(1, longest + 1, 64))
        sizes = 64 - np.searchsorted(lengths, np.arange(lengths[-1]), side="right")
        layout = layout_of(sizes, 64)
        for made in (layout.last, layout.previous_state, layout.reverse, layout.sequence):
            assert made is not None
        if cut:
            assert layout.segments
            assert len(layout.parts(2)) == 2
        del layout
    assert 1 << 20 < memory()[0] < (1 + cut) * 5 << 20


def test_batches_of_the_same_lengths_share_a_layout():
    x = np.arange(10.0).reshape(5, 2)
    first, second = (minirnn.pack_padded_sequence(x, lengths) for lengths in ([5, 2], [5, 2]))
    assert first.layout is second.layout
    made = minirnn.PackedSequence(first.data, [2, 2, 1, 1, 1])
    assert made.layout is first.layout
    assert minirnn.pack_padded_sequence(x, [5, 1]).layout is not first.layout
    none = minirnn.pack_padded_sequence(x, [5, 0], enforce_sorted=False)
    one = minirnn.pack_padded_sequence(x[:, :1], [5])
    assert (none.layout.batch_size, one.layout.batch_size) == (2, 1)


def test_layouts_in_use_again_and_again_are_kept(memory):
    for _ in range(3):
        layouts = [equal_lengths(T, 8) for T in (10, 20, 30)]
    assert [equal_lengths(T, 8) is one for T, one in zip((10, 20, 30), layouts, strict=True)] == [
        True
    ] * 3


@pytest.mark.parametrize(
    "shape", [(5_000_000, 1, 2), (5_000_000, 2), (5_000_000, 0, 3), (10**9, 0, 3)]
)
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_wrong_shape_is_refused_at_once(memory, shape, batch_first):
    x = np.broadcast_to(np.float32(0), shape)
    if batch_first and len(shape) == 3:
        x = x.swapaxes(0, 1)
    layer = minirnn.RNN(3, 4, batch_first=batch_first)
    before, _ = memory()
    with pytest.raises(ValueError, match="input: expected"):
        layer.forward(x)
    assert memory()[1] - before < 1 << 20


def test_once_makes_it_once():
    layout = Layout(np.array([2, 1]), 2)
    made = []

    def make(layout, number):
        made.append(number)
        return object()

    first = layout.once(make, 1)
    assert layout.once(make, 1) is first
    assert layout.once(make, 2) is not first
    assert made == [1, 2]
    assert layout.reverse is layout.reverse
    again = pickle.loads(pickle.dumps(layout))
    assert "reverse" not in vars(again)
    assert again.reverse.tolist() == layout.reverse.tolist() == [2, 1, 0]


@pytest.mark.parametrize("steps", [1, 4])
def test_reversing_a_padded_batch_copies_it(steps):
    rng = np.random.default_rng(0)
    layout = equal_lengths(steps, 3)
    rows = rng.standard_normal((steps * 3, 2))
    result = layout.reversed_rows(rows)
    close(result, rows[layout.reverse], 0)
    assert not np.shares_memory(result, rows)
    assert result.flags.c_contiguous
