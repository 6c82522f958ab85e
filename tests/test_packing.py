"""Packing: against torch where torch has an answer, and by its definition where not."""

import pickle
import tracemalloc

import numpy as np
import pytest
from helpers import close, spans
from hypothesis import given, settings
from hypothesis import strategies as st

import minirnn
from minirnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

DTYPES = [np.float32, np.float64, np.int64, np.int8, np.bool_]


@st.composite
def batches(draw, min_length=0):
    T = draw(st.integers(1, 6))
    B = draw(st.integers(1, 5))
    trailing = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    lengths = draw(st.lists(st.integers(min_length, T), min_size=B, max_size=B))
    dtype = draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return rng.integers(0, 100, (B, T, *trailing)).astype(dtype), lengths, draw(st.booleans())


def pack(x, lengths, batch_first, **options):
    x = x if batch_first else x.swapaxes(0, 1)
    return pack_padded_sequence(x, lengths, batch_first=batch_first, **options)


@settings(deadline=None)
@given(batches())
def test_rows_are_the_steps_of_the_sequences_by_length(batch):
    x, lengths, batch_first = batch
    packed = pack(x, lengths, batch_first, enforce_sorted=False)
    order = sorted(range(len(lengths)), key=lambda k: -lengths[k])
    rows = [x[k, t] for t in range(max(lengths)) for k in order if lengths[k] > t]
    assert len(packed.data) == len(rows)
    for row, expected in zip(packed.data, rows, strict=True):
        np.testing.assert_array_equal(row, expected)
    sizes = [sum(n > t for n in lengths) for t in range(max(lengths))]
    assert packed.batch_sizes.tolist() == sizes
    assert packed.data.dtype == x.dtype


@settings(deadline=None)
@given(batches(), st.integers(0, 3))
def test_unpacking_gives_the_batch_back(batch, extra):
    x, lengths, batch_first = batch
    packed = pack(x, lengths, batch_first, enforce_sorted=False)
    total = max(lengths) + extra
    padded, n = pad_packed_sequence(packed, batch_first, padding_value=1, total_length=total)
    padded = padded if batch_first else padded.swapaxes(0, 1)
    assert n.tolist() == lengths
    assert padded.shape == (len(x), total, *x.shape[2:])
    for row, source, length in zip(padded, x, lengths, strict=True):
        np.testing.assert_array_equal(row[:length], source[:length])
        np.testing.assert_array_equal(row[length:], np.ones_like(row[length:]))
    for sequence, source, length in zip(minirnn.unpack_sequence(packed), x, lengths, strict=True):
        np.testing.assert_array_equal(sequence, source[:length])


@settings(deadline=None)
@given(batches(min_length=1), st.booleans())
def test_agrees_with_torch(batch, enforce_sorted):
    torch = pytest.importorskip("torch")
    x, lengths, batch_first = batch
    if enforce_sorted:
        lengths = sorted(lengths, reverse=True)
    ours = pack(x, np.array(lengths), batch_first, enforce_sorted=enforce_sorted)
    their_x = torch.from_numpy(np.ascontiguousarray(x if batch_first else x.swapaxes(0, 1)))
    theirs = torch.nn.utils.rnn.pack_padded_sequence(
        their_x, torch.tensor(lengths), batch_first=batch_first, enforce_sorted=enforce_sorted
    )
    assert ours.batch_sizes.tolist() == theirs.batch_sizes.tolist()
    assert (ours.sorted_indices is None) == (theirs.sorted_indices is None)
    # Ties may be sorted in another order, so compare after unpacking.
    a, n = pad_packed_sequence(ours, batch_first)
    b, m = torch.nn.utils.rnn.pad_packed_sequence(theirs, batch_first)
    np.testing.assert_array_equal(a, b.numpy())
    assert n.tolist() == m.tolist()
    if len(set(lengths)) == len(lengths):
        np.testing.assert_array_equal(ours.data, theirs.data.numpy())


@settings(deadline=None)
@given(batches())
def test_pack_sequence_is_packing_the_padded_list(batch):
    x, lengths, _ = batch
    sequences = [row[:n] for row, n in zip(x, lengths, strict=True)]
    ours = pack_sequence(sequences, enforce_sorted=False)
    expected = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    np.testing.assert_array_equal(ours.data, expected.data)
    assert ours.batch_sizes.tolist() == expected.batch_sizes.tolist()


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_pad_sequence_agrees_with_torch(batch_first, side):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    sequences = [rng.standard_normal((n, 2)) for n in (3, 1, 5)]
    ours = minirnn.pad_sequence(sequences, batch_first, -1.0, side)
    theirs = torch.nn.utils.rnn.pad_sequence(
        [torch.from_numpy(s) for s in sequences], batch_first, -1.0, padding_side=side
    )
    np.testing.assert_array_equal(ours, theirs.numpy())
    if side == "right":
        back = minirnn.unpad_sequence(ours, [3, 1, 5], batch_first)
        for a, b in zip(back, sequences, strict=True):
            np.testing.assert_array_equal(a, b)


@settings(deadline=None)
@given(batches())
def test_padding_is_the_adjoint_of_packing(batch):
    x, lengths, batch_first = batch
    x = x.astype(np.float64)
    packed = pack(x, lengths, batch_first, enforce_sorted=False)
    rng = np.random.default_rng(1)
    d = packed.map(lambda rows: rng.standard_normal(rows.shape))
    dx, _ = pad_packed_sequence(d, batch_first, total_length=x.shape[1])
    dx = dx if batch_first else dx.swapaxes(0, 1)
    close(np.vdot(packed.data, d.data), np.vdot(x, dx))


@settings(deadline=None)
@given(batches())
def test_layout(batch):
    x, lengths, _ = batch
    with spans(rows=3, steps=2):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        segments = packed.layout.segments
    layout = packed.layout
    B = len(lengths)
    ordered = sorted(lengths, reverse=True)
    assert layout.lengths.tolist() == ordered
    # Number the states by (sequence, step), -1 for the initial one, and follow the indices.
    ids = [(k, t) for t in range(max(lengths)) for k in range(B) if ordered[k] > t]
    states = [(k, -1) for k in range(B)] + ids
    assert [states[i] for i in layout.last] == [(k, n - 1) for k, n in enumerate(ordered)]
    assert [states[i] for i in layout.previous_state] == [(k, t - 1) for k, t in ids]
    assert [ids[i] for i in layout.reverse] == [(k, ordered[k] - 1 - t) for k, t in ids]
    steps = [range(len(layout.sizes))[span.steps] for span in layout.spans]
    assert [t for span in steps for t in span] == list(range(len(layout.sizes)))
    for span, of_span in zip(layout.spans, steps, strict=True):
        assert [t for _, t in ids[span.rows]] == [
            t for t in of_span for _ in range(layout.sizes[t])
        ]
    assert [state for segment in segments for state in ids[segment.rows]] == ids
    for segment in segments:
        assert sum(span.rows.stop - span.rows.start for span in segment.layout.spans) == (
            segment.layout.rows
        )
        inside = ids[segment.rows]
        begin = B + segment.rows.start - segment.layout.batch_size
        around = states[begin : B + segment.rows.stop]
        assert around[segment.layout.batch_size :] == inside
        first = min((t for _, t in inside), default=0)
        entering = around[: segment.layout.batch_size]
        assert all(t == first - 1 for _, t in entering)


def test_check_padding_finds_the_tutorials_mistake():
    batch = np.array([[3, 1, 10, 10], [2, 5, 8, 1], [7, 10, 10, 10]])  # lengths 2, 4, 1
    options = {"batch_first": True, "enforce_sorted": False, "check_padding": 10}
    pack_padded_sequence(batch, [2, 4, 1], **options)
    with pytest.raises(ValueError, match=r"sequence 0 .*\[2, 4, 1\], got \[4, 2, 1\]"):
        pack_padded_sequence(batch, [4, 2, 1], **options)
    with pytest.raises(ValueError, match="sequence 2"):
        pack_padded_sequence(batch, [2, 4, 0], **options)


def test_check_padding_of_vectors_and_nan():
    x = np.ones((2, 3, 2))
    x[0, 2] = 0.0
    x[1, 0, 0] = 0.0  # a zero inside a step, or a step, is data
    pack_padded_sequence(x, [2, 3], True, False, check_padding=0.0)
    with pytest.raises(ValueError, match="sequence 0"):
        pack_padded_sequence(x, [3, 3], True, False, check_padding=0.0)
    x[0, 2] = np.nan
    pack_padded_sequence(x, [2, 3], True, False, check_padding=np.nan)
    with pytest.raises(ValueError, match="sequence 0"):
        pack_padded_sequence(x, [1, 3], True, False, check_padding=np.nan)


X = np.zeros((3, 2, 4))  # (T, B, F)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pack_padded_sequence(X, [1, 3]), "enforce_sorted=False"),
        (lambda: pack_padded_sequence(X, [4, 1]), "0 <= length <= T = 3"),
        (lambda: pack_padded_sequence(X, [2, -1]), "0 <= length"),
        (lambda: pack_padded_sequence(X, [2.0, 1.0]), "integers"),
        (lambda: pack_padded_sequence(X, [3]), "lengths: expected shape"),
        (lambda: pack_padded_sequence(X[:, :0], []), "empty batch"),
        (lambda: pack_padded_sequence(np.zeros(3), [3]), "input: expected at least 2"),
        (lambda: pack_sequence([]), "at least one"),
        (lambda: pack_sequence([np.zeros((2, 3)), np.zeros((1, 4))]), r"sequences\[1\]"),
        (lambda: PackedSequence(np.zeros(3), [1, 2]), "descending"),
        (lambda: PackedSequence(np.zeros(4), [2, 1]), "3 rows"),
        (lambda: PackedSequence(np.zeros(3), [2, 1], [0, 0]), "permutation"),
        (lambda: PackedSequence(np.zeros(3), [2, 1], [1, 0], [0, 1]), "inverse"),
        (lambda: pack_sequence([np.zeros(3)]).map(lambda d: d[1:]), "map: expected 3 rows"),
        (lambda: minirnn.unpad_sequence(X, [4, 1]), "lengths"),
        (lambda: minirnn.pad_sequence([np.zeros(2)], padding_side="up"), "padding_side"),
        (
            lambda: pad_packed_sequence(pack_sequence([np.zeros(3)]), total_length=2),
            "total_length",
        ),
    ],
)
def test_bad_values(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pack_padded_sequence([[1, 2]], [2], True), "got builtins.list"),
        (lambda: pad_packed_sequence(X), "PackedSequence"),
        (lambda: pack_sequence(X), "list of arrays"),
        (lambda: pack_sequence([np.zeros(2), np.zeros(1, int)]), "dtype"),
    ],
)
def test_bad_types(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_a_packed_sequence_is_a_named_tuple_and_pickles():
    packed = pack_sequence([np.arange(3), np.arange(2)])
    rows, sizes, order, inverse = packed
    assert rows is packed.data
    assert sizes.tolist() == [2, 2, 1]
    assert order is inverse is None
    again = pickle.loads(pickle.dumps(packed))
    np.testing.assert_array_equal(again.data, packed.data)
    assert again.layout.rows == 5


def test_the_callers_lengths_and_ours_are_apart():
    x = np.random.default_rng(0).standard_normal((4, 3, 2))
    lengths = np.array([4, 2, 1])
    packed = pack_padded_sequence(x, lengths)
    lengths[:] = 1
    assert packed.layout.last.tolist() == [3 + 6, 3 + 4, 3 + 2]
    returned = pad_packed_sequence(packed)[1]
    returned -= 1
    assert pad_packed_sequence(packed)[1].tolist() == [4, 2, 1]
    sizes = np.array([2, 1])
    by_hand = PackedSequence(np.ones(3), sizes)
    sizes[:] = 7
    assert by_hand.batch_sizes.tolist() == [2, 1]


def test_padding_values_are_not_cast():
    packed = pack_sequence([np.array([1, 2]), np.array([3])])
    for value in (0.5, np.nan):
        with pytest.raises(TypeError, match="padding_value: expected an integer"):
            pad_packed_sequence(packed, padding_value=value)
        with pytest.raises(TypeError, match="padding_value: expected an integer"):
            minirnn.pad_sequence([np.array([1, 2]), np.array([3])], padding_value=value)
    with pytest.raises(ValueError, match="total_length"):
        pad_packed_sequence(packed, total_length=3.5)


def test_replace_keeps_a_packed_sequence_whole():
    packed = pack_sequence([np.array([1.0, 2.0]), np.array([3.0])])
    other = packed._replace(data=packed.data * 2)
    assert other.batch_size == 2
    np.testing.assert_array_equal(other.data, packed.data * 2)


def test_no_features_are_refused():
    with pytest.raises(
        ValueError, match=r"input: expected at least one feature, got shape \(3, 2, 0\)"
    ):
        pack_padded_sequence(np.zeros((3, 2, 0)), [3, 2])


def test_padding_is_checked_also_where_there_is_no_step():
    packed = pack_padded_sequence(np.zeros((0, 2)), [0, 0], check_padding=0)
    assert packed.batch_size == 2
    assert not len(packed.data)


def test_a_padding_value_has_to_fit_the_dtype():
    packed = pack_sequence([np.array([1, 2], np.uint8)])
    with pytest.raises(
        TypeError, match="padding_value: expected an integer of dtype uint8, got -1"
    ):
        pad_packed_sequence(packed, padding_value=-1)
    padded, _ = pad_packed_sequence(packed, padding_value=255, total_length=3)
    assert padded[:, 0].tolist() == [1, 2, 255]


def peak(call):
    """Return how many bytes the call takes at most."""
    call()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("what", ["pack", "unpack"])
def test_one_long_sequence_among_short_ones_takes_the_memory_of_its_rows(what):
    n = 3000
    sequences = [np.ones((n, 4), np.float32), *np.ones((n, 1, 4), np.float32)]
    size = sum(s.nbytes for s in sequences)
    packed = pack_sequence(sequences)
    call = {
        "pack": lambda: pack_sequence(sequences),
        "unpack": lambda: minirnn.unpack_sequence(packed),
    }[what]
    assert peak(call) < 20 * size + 4_000_000
    for a, b in zip(minirnn.unpack_sequence(packed), sequences, strict=True):
        np.testing.assert_array_equal(a, b)


def test_packing_a_padded_batch_takes_no_more_than_a_few_times_the_batch():
    batch = np.zeros((1000, 1001), np.int8)
    lengths = [1000, *[1] * 1000]
    assert peak(lambda: pack_padded_sequence(batch, lengths)) < 3 * batch.nbytes


def test_unpacked_sequences_are_apart():
    packed = pack_sequence([np.array([1.0, 2.0]), np.array([3.0])])
    first, second = minirnn.unpack_sequence(packed)
    first[:] = 7
    assert second.tolist() == [3.0]
    assert packed.data.tolist() == [1.0, 3.0, 2.0]
    assert first.base is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PackedSequence(np.zeros((0, 3), "f4"), [2**62] * 4), f"expected {2**64} rows"),
        (lambda: PackedSequence(np.zeros((1, 3)), np.array([2**64 - 1], np.uint64)), r"2\*\*63"),
        (lambda: pack_padded_sequence(np.zeros((3, 3)), [-(2**63), 3, 1]), "0 <= length"),
        (lambda: pack_padded_sequence(np.zeros((3, 3)), [3, 1, -(2**63)]), "0 <= length"),
        (
            lambda: pack_padded_sequence(np.zeros((3, 3)), [-(2**63), 3, 1], enforce_sorted=False),
            "0 <= length",
        ),
        (
            lambda: pack_padded_sequence(np.zeros((3, 1)), np.array([2**63 + 1], np.uint64)),
            r"2\*\*63",
        ),
        (lambda: PackedSequence(np.zeros(3), [2, 1], [-1, 0]), "permutation"),
        (lambda: PackedSequence(np.zeros(3), [2, 1], None, [0, 0]), "permutation"),
        (lambda: PackedSequence(np.zeros(3), [2, 1])._replace(unsorted_indices=[1, 1]), "permut"),
        (
            lambda: pack_sequence([np.zeros(1), np.zeros(2)], False)._replace(
                unsorted_indices=np.array([0, 1])
            ),
            "inverse",
        ),
        (
            lambda: pad_packed_sequence(pack_sequence([np.zeros(1)]), total_length=True),
            "total_length",
        ),
    ],
)
@pytest.mark.skipif(np.intp(0).itemsize < 8, reason="the limits of 64 bits")
def test_numbers_at_the_limits(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_narrow_total_length_does_not_wrap_around():
    packed = pack_sequence([np.arange(1.0, 4.0), *[np.array([9.0])] * 3])
    padded, _ = pad_packed_sequence(packed, True, total_length=np.uint8(200))
    assert padded.shape == (4, 200)
    assert padded[:, 0].tolist() == [1, 9, 9, 9]
    assert padded[0, :4].tolist() == [1, 2, 3, 0]


@pytest.mark.parametrize("field", ["batch_sizes", "sorted_indices", "unsorted_indices"])
def test_what_was_checked_cannot_be_changed(field):
    packed = pack_sequence([np.zeros(1), np.zeros(2)], enforce_sorted=False)
    again = pickle.loads(pickle.dumps(packed))
    for p in (packed, again, packed.map(lambda rows: rows + 1), packed * 2):
        with pytest.raises(ValueError, match="read-only"):
            getattr(p, field)[:] = 0


def test_how_a_batch_is_packed_stays_with_it():
    packed, other = (pack_sequence([np.zeros(n), np.zeros(2)]) for n in (3, 4))
    before = packed.packing
    with pytest.raises(AttributeError, match="packing: it follows from the fields"):
        packed.packing = other.packing
    assert packed.packing is before
    packed.source = "a user's own"
    assert packed.source == "a user's own"


def test_messages_do_not_list_thousands_of_lengths():
    n = 5000
    packed = pack_sequence([np.zeros(3)] * n)
    ones = np.ones((3, n))
    reverse = np.arange(n)[::-1]
    in_reverse = PackedSequence(packed.data, packed.batch_sizes, reverse)
    for call in (
        lambda: pack_padded_sequence(ones, [1, *[2] * (n - 1)]),
        lambda: pack_padded_sequence(ones, [4] * n),
        lambda: pack_padded_sequence(ones, [2] * n, check_padding=0),
        lambda: minirnn.unpad_sequence(ones, [4] * n),
        lambda: PackedSequence(np.zeros(n), [*[1] * (n - 1), 2]),
        lambda: PackedSequence(np.zeros(n), [n], [0] * n),
        lambda: packed + in_reverse,
        lambda: pack_sequence([np.zeros(k) for k in range(n // 10)]) + packed,
    ):
        with pytest.raises(ValueError, match=r"\.\.\.") as caught:
            call()
        assert len(str(caught.value)) < 400


def test_padding_on_the_left_is_said_to_be_there():
    batch = np.array([[0, 0, 1, 2], [3, 4, 5, 6], [0, 7, 8, 9]])
    pack_padded_sequence(batch, [4, 4, 4], True, check_padding=0)
    for lengths in ([2, 4, 3], [1, 4, 3]):
        with pytest.raises(ValueError, match=r"sequence 0 has its padding .* on the left, 2 steps"):
            pack_padded_sequence(batch, lengths, True, False, check_padding=0)
    # A first step that is the padding's value by chance is none.
    with pytest.raises(ValueError, match="starts after step 3"):
        pack_padded_sequence(np.array([[0, 1, 2, 0]]), [1], True, check_padding=0)


@pytest.mark.parametrize("value", ["x", None, [0], np.zeros(2), 1j])
def test_a_padding_value_is_a_number(value):
    packed = pack_sequence([np.array([1.0, 2.0]), np.array([3.0])])
    with pytest.raises(TypeError, match="padding_value: expected a number"):
        pad_packed_sequence(packed, padding_value=value)
    with pytest.raises(TypeError, match="padding_value: expected a number"):
        minirnn.pad_sequence([np.array([1.0, 2.0])], padding_value=value)
    with pytest.raises(TypeError, match="check_padding: expected a number"):
        pack_padded_sequence(np.zeros((2, 1)), [1], check_padding=value)


def test_a_padding_value_does_not_become_another():
    packed = pack_sequence([np.ones(2, np.float32), np.ones(1, np.float32)])
    with pytest.raises(TypeError, match="padding_value: expected a number of dtype float32"):
        pad_packed_sequence(packed, padding_value=1e300)
    assert np.isinf(pad_packed_sequence(packed, padding_value=-np.inf)[0][1, 1])
    flags = pack_sequence([np.array([True, True]), np.array([True])])
    with pytest.raises(TypeError, match="padding_value"):
        pad_packed_sequence(flags, padding_value=7)
    assert pad_packed_sequence(flags, padding_value=True)[0].all()


CONVERSIONS = [
    np.ma.masked_array,
    lambda x: x.astype(">f4"),
    lambda x: x.astype(">i8"),
    lambda x: x.astype(np.float16),
    lambda x: x.astype(np.longdouble),
    lambda x: x.astype(object),
]


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_data_that_nothing_here_computes_with_is_refused(convert):
    x = convert(np.ones((3, 2)))
    for call in (
        lambda: pack_padded_sequence(x, [3, 2]),
        lambda: pack_sequence([x]),
        lambda: minirnn.pad_sequence([x]),
        lambda: PackedSequence(x, [3]),
    ):
        with pytest.raises(TypeError, match=r"expected (a plain array|float32)"):
            call()


def test_masked_lengths_are_refused():
    lengths = np.ma.masked_array([3, 2], mask=[False, True])
    with pytest.raises(TypeError, match="lengths: expected a plain array"):
        pack_padded_sequence(np.ones((3, 2)), lengths)


def test_arithmetic_acts_on_the_rows():
    rng = np.random.default_rng(0)
    sequences = [rng.standard_normal((n, 2)).astype(np.float32) for n in (2, 3)]
    a = pack_sequence(sequences, enforce_sorted=False)
    b = a.map(np.exp)
    for result, expected in (
        (a + b, a.data + b.data),
        (a - b, a.data - b.data),
        (a * b, a.data * b.data),
        (a / b, a.data / b.data),
        (a * 2, a.data * 2),
        (2 * a, a.data * 2),
        (1 - a, 1 - a.data),
        (1 / b, 1 / b.data),
        (np.float64(0.5) * a, a.data * np.float32(0.5)),
        (a + b.data, a.data + b.data),
        (b.data + a, a.data + b.data),
        (b.data - a, b.data - a.data),
        (-a, -a.data),
    ):
        assert isinstance(result, PackedSequence)
        assert result.packing == a.packing
        assert result.data.dtype == np.float32
        np.testing.assert_array_equal(result.data, expected)
    assert len(a) == len(tuple(a)) == 4
    other = pack_sequence(sequences[::-1])
    for call, error, message in (
        (lambda: a + other, ValueError, "order"),
        (lambda: a + {1}, TypeError, r"\.map and \.data"),
        (lambda: a * "x", TypeError, r"\.map and \.data"),
        (lambda: a + np.ones(2, np.float32), ValueError, "other: expected shape"),
        (lambda: a + b.data.astype(np.float64), TypeError, "other: expected dtype float32"),
    ):
        with pytest.raises(error, match=message):
            call()
