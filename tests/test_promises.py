"""docs/promises.md: each promise names the tests that hold it, and they are there."""

import re
from pathlib import Path

import numpy as np
import pytest

import minirnn

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "promises.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(test_\w+)`", PAGE)))
THERE = {
    name
    for path in TESTS.rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("name", NAMED)
def test_a_named_test_is_there(name):
    assert name in THERE


def test_every_promise_has_a_test():
    rows = [row for row in PAGE.splitlines() if row.startswith("| ") and "held by" not in row]
    assert len(rows) > 30
    for row in rows:
        assert re.search(r"\| `test_\w+`(, `test_\w+`)* \|$", row), row


def test_an_empty_batch_is_refused_and_an_empty_sequence_taken():
    for layer in (minirnn.RNN(3, 4), minirnn.LSTM(3, 4), minirnn.GRU(3, 4)):
        with pytest.raises(ValueError, match="at least one sequence"):
            layer.forward(np.zeros((5, 0, 3), np.float32))
        packed = minirnn.pack_padded_sequence(np.zeros((2, 1, 3), np.float32), [0])
        layer.forward(packed)
    with pytest.raises(ValueError, match="at least one sequence"):
        minirnn.pack_padded_sequence(np.zeros((5, 0, 3), np.float32), [])
    with pytest.raises(ValueError, match="at least one"):
        minirnn.MSELoss()(np.zeros((0, 3)), np.zeros((0, 3)))
    for layer in (minirnn.Linear(3, 4), minirnn.Embedding(3, 4)):
        x = np.zeros((0, 3), np.float32) if isinstance(layer, minirnn.Linear) else np.zeros(0, int)
        y, ctx = layer.forward(x)
        layer.backward(ctx, np.ones_like(y))
        assert not any(p.grad.any() for p in layer.parameters())


LONG = list(range(100_000))


@pytest.mark.parametrize(
    "call",
    [
        lambda: minirnn.last_step(np.ones((3, 100_000, 1)), LONG),
        lambda: minirnn.last_step(np.ones((3, 2, 1)), LONG),
        lambda: minirnn.Embedding(3, 4, padding_idx=LONG),
        lambda: minirnn.RNN(LONG, 3),
        lambda: minirnn.RNN(3, 3, nonlinearity="x" * 100_000),
        lambda: minirnn.RNN(3, 3, bias=LONG),
        lambda: minirnn.SGD([minirnn.Parameter(np.ones(1))], lr=LONG),
        lambda: minirnn.Adam([minirnn.Parameter(np.ones(1))], betas=LONG),
        lambda: minirnn.MultiStepLR(minirnn.SGD([minirnn.Parameter(np.ones(1))]), ["x" * 10**5]),
        lambda: minirnn.CrossEntropyLoss(ignore_index=LONG),
        lambda: minirnn.pack_padded_sequence(np.ones((3, 100_000, 1)), LONG),
        lambda: minirnn.pad_sequence([np.ones(2)], padding_value=LONG),
        lambda: minirnn.PackedSequence(np.ones((3, 1)), LONG),
        lambda: minirnn.RNN(3, 3, rng=LONG),
        lambda: minirnn.Linear(3, 3, dtype=LONG),
        lambda: minirnn.set_num_threads(LONG),
        lambda: minirnn.clip_grad_norm_([minirnn.Parameter(np.ones(1))], LONG),
        lambda: minirnn.truncated_bptt(minirnn.RNN(3, 3), np.ones((3, 1, 3), np.float32), LONG),
        lambda: minirnn.Sequential(*[minirnn.Linear(2, 2)] * 3).backward(LONG, None),
    ],
)
def test_messages_are_short(call):
    with pytest.raises((ValueError, TypeError)) as info:
        call()
    assert len(str(info.value)) < 400
