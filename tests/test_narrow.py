"""On a platform of 32 bits `intp` is int32, and NumPy refuses to count by int64 there: a stand-in for one."""

import re
from pathlib import Path

import numpy as np
import pytest

import minirnn
from minirnn.layout import equal_lengths, kept

PACKAGE = Path(minirnn.__file__).parent
COUNTED_BY = ("repeat", "bincount")  # what casts its counts to intp, safely
# What finds places; and what makes integers of the platform's own size, if no wider ones go in.
FOUND = ("argsort", "searchsorted", "flatnonzero")
MADE = ("arange", "array", "cumsum", "diff", "full")


def narrow(name):
    """Return NumPy's function as it is where a pointer has 32 bits."""
    function = getattr(np, name)

    def called(*args, **options):
        if name in COUNTED_BY:
            np.asarray(args[-1]).astype(np.int32, casting="safe")
        result = function(*args, **options)
        wide = any(getattr(a, "dtype", None) == np.int64 for a in args)
        asked = "dtype" in options or (name in ("array", "full") and len(args) > 1)
        own = result.dtype == np.int64 and not asked and (name in FOUND or not wide)
        return result.astype(np.int32) if own and name not in COUNTED_BY else result

    return called


@pytest.fixture
def narrow_numpy():
    functions = {name: narrow(name) for name in (*COUNTED_BY, *FOUND, *MADE)}
    kept.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "intp", np.int32)
        for name, function in functions.items():
            patch.setattr(np, name, function)
        yield
    kept.clear()


def work():
    """Return all results of one trip through packing, layouts and a layer."""
    rng = np.random.default_rng(0)
    lengths = np.array([2, 4, 0, 1, 4], np.int64)
    padded = rng.standard_normal((4, 5, 3))
    packed = minirnn.pack_padded_sequence(padded, lengths, enforce_sorted=False)
    again, counted = minirnn.pad_packed_sequence(packed)
    parts = minirnn.unpack_sequence(packed)
    left = minirnn.pad_sequence(parts, padding_side="left")
    whole = minirnn.pack_sequence([p for p in parts if len(p)], enforce_sorted=False)
    gru = minirnn.GRU(3, 4, 2, bidirectional=True, dtype=np.float64, rng=0)
    (output, h_n), ctx = gru.forward(packed)
    dx, _ = gru.backward(ctx, output.map(np.cos), np.ones_like(h_n))
    dense, _ = gru(padded)
    last = minirnn.last_step(gru(whole)[0])
    user = minirnn.PackedSequence(whole.data, np.array([4, 3, 2, 2], np.int64))
    kept = (packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices, user.batch_sizes)
    ends = minirnn.last_step(padded, [1, 2, 3, 4, 1])
    return [packed.data, again, *parts, left, output.data, h_n, dx.data, dense, last, ends], [
        counted,
        *kept,
    ]


EXPECTED = work()


def test_everything_works_where_a_pointer_has_32_bits(narrow_numpy):
    values, indices = work()
    assert {a.dtype for a in indices} == {np.dtype(np.int32)}
    for value, expected in zip(values, EXPECTED[0], strict=True):
        np.testing.assert_array_equal(value, expected)
    for value, expected in zip(indices, EXPECTED[1], strict=True):
        np.testing.assert_array_equal(value, expected)


def test_the_stand_in_refuses_what_such_a_platform_refuses(narrow_numpy):
    with pytest.raises(TypeError, match="int64"):
        np.repeat(np.zeros(2), np.array([1, 2], np.int64))
    assert np.repeat(np.zeros(2), np.array([1, 2])).shape == (3,)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_nothing_counts_behind_the_stand_ins_back(path):
    for line in re.findall(r".*\.repeat\(.*", path.read_text(encoding="utf-8")):
        assert re.search(r"np\.repeat\(|\.repeat\((B|T|S|\d)", line), line


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "functional").glob("*.py")), ids=lambda p: p.name
)
def test_what_a_user_looks_up_is_counted_in_intp(path):
    source = path.read_text(encoding="utf-8")
    looked_up = re.findall(r"\bweight\.take\((\w+)(.*)", source)
    for name, rest in looked_up:
        assert "intp" in rest or f"{name} = {name}.astype(np.intp, copy=False)" in source


def test_c_counts_in_64_bits_everywhere(narrow_numpy):
    for path in (PACKAGE / "native").glob("*.py"):
        for made in re.findall(r"np\.array\(\[B\].*?\)", path.read_text(encoding="utf-8")):
            assert "np.int64" in made, path
    if minirnn.native_available():
        from minirnn.native.shared import cuts

        for _, (sizes, *_) in cuts(equal_lengths(3, 2)):
            assert sizes.dtype == np.int64


def test_tokens_and_weighted_classes_of_64_bits_are_taken(narrow_numpy):
    tokens = np.array([2, 0, 2], np.int64)
    _, ctx = minirnn.functional.embedding.forward(tokens, np.eye(3, dtype=np.float32))
    assert ctx.tokens.dtype == np.int32
