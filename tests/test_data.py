"""Batches of sequences: nothing lost, in an order that a seed decides, from where one left off."""

import numpy as np
import pytest

import minirnn
from minirnn.data import batches

RNG = np.random.default_rng(0)
SEQUENCES = [np.full(n, k) for k, n in enumerate(RNG.integers(0, 9, 203))]
SUMS = [s.sum() for s in SEQUENCES]


def seen(data):
    return [minirnn.unpack_sequence(x) for x in data]


def flat(epoch):
    return [s.tobytes() for batch in epoch for s in batch]


@pytest.mark.parametrize("bucket", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_is_each_sequence_once(shuffle, bucket):
    data = batches(SEQUENCES, batch_size=4, shuffle=shuffle, bucket=bucket, rng=1)
    epoch = seen(data)
    assert len(epoch) == len(data) == 51
    assert sorted(flat(epoch)) == sorted(s.tobytes() for s in SEQUENCES)
    again = batches(SEQUENCES, batch_size=4, shuffle=shuffle, bucket=bucket, rng=1)
    assert flat(seen(again)) == flat(epoch)
    assert (flat(seen(data)) != flat(epoch)) == shuffle
    dropped = batches(SEQUENCES, batch_size=4, shuffle=shuffle, bucket=bucket, drop_last=True)
    assert [len(b) for b in seen(dropped)] == [4] * 50


def test_targets_stay_with_their_sequences():
    for x, y in batches(SEQUENCES, SUMS, batch_size=8):
        assert [s.sum() for s in minirnn.unpack_sequence(x)] == y.tolist()
    for x, y in batches(SEQUENCES, [2 * s for s in SEQUENCES], batch_size=8):
        np.testing.assert_array_equal(2 * x.data, y.data)


def test_bucketing_saves_what_it_says():
    def padding(data):
        sizes = [[len(s) for s in batch] for batch in seen(data)]
        return sum(max(n) * len(n) - sum(n) for n in sizes)

    plain = batches(SEQUENCES, batch_size=4, rng=2)
    sorted_ = batches(SEQUENCES, batch_size=4, bucket=True, rng=2)
    saved = 1 - padding(sorted_) / padding(plain)
    assert sorted_.padding_saved == pytest.approx(saved)
    assert saved > 0.8
    assert plain.padding_saved == 0


@pytest.mark.parametrize("rng", [None, 3])
@pytest.mark.parametrize("first", [0, 1, 30, 51, 60])
def test_it_goes_on_where_it_stood(first, rng):
    minirnn.manual_seed(0)
    data = batches(SEQUENCES, batch_size=4, bucket=True, rng=rng)
    stream = (x for _ in range(3) for x in data)
    for _ in range(first):
        next(stream)
    state, own = data.state_dict(), minirnn.get_rng_state()
    rest = [x.data.tobytes() for x in stream]
    other = batches(SEQUENCES, batch_size=4, bucket=True, rng=rng and 77)
    minirnn.set_rng_state(own)
    other.load_state_dict(state)
    assert other.epoch == first // 52
    resumed = [x.data.tobytes() for _ in range(other.epoch, 3) for x in other]
    assert resumed == rest


def test_arrays_and_memory_maps(tmp_path):
    whole = np.arange(60.0).reshape(5, 4, 3)
    np.save(tmp_path / "x.npy", whole)
    for data in (whole, np.load(tmp_path / "x.npy", mmap_mode="r"), whole.tolist()):
        (x, y), (x2, _) = batches(data, np.arange(5), batch_size=3, shuffle=False)
        np.testing.assert_array_equal(minirnn.pad_packed_sequence(x)[0], whole[:3].swapaxes(0, 1))
        assert y.tolist() == [0, 1, 2]
        assert x2.batch_size == 2


def test_what_is_no_data_is_refused():
    for bad, error, message in [
        ([], ValueError, "at least one"),
        (np.ones(3), ValueError, r"\(N, T"),
        ([np.ones((2, 3)), np.ones((2, 4))], ValueError, r"sequences\[1\]"),
        ([np.ones(2), np.ones(2, int)], TypeError, r"sequences\[1\]"),
        (["abc"], TypeError, r"sequences\[0\]"),
        (7, TypeError, "list"),
    ]:
        with pytest.raises(error, match=message):
            batches(bad)
    with pytest.raises(ValueError, match="targets: expected 203"):
        batches(SEQUENCES, [1])
    with pytest.raises(ValueError, match=r"targets\[1\]"):
        batches(SEQUENCES[:2], [np.ones(20), np.ones(21)])
    with pytest.raises(ValueError, match="batch_size"):
        batches(SEQUENCES, batch_size=300, drop_last=True)
    data = batches(SEQUENCES, rng=0)
    before = data.state_dict()
    for change in ({"position": 99}, {"count": 2}, {"seed": "x"}, {"rng": {}}, {"rng": None}):
        with pytest.raises(ValueError, match="state_dict"):
            data.load_state_dict(before | change)
        assert data.state_dict() == before
