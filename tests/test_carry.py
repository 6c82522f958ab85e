"""examples/sum_mod/train.py --carry: states go on from batch to batch, and runs from where they stopped."""

from pathlib import Path

import numpy as np
import pytest

import minirnn

SUM_MOD = Path(__file__).parents[1] / "examples" / "sum_mod"
FLAGS = "--carry --total_steps 40 --log_every 10 --eval_every 20 --save_every 20"


@pytest.fixture
def example(monkeypatch):
    """The example's two files, imported."""
    monkeypatch.syspath_prepend(str(SUM_MOD))
    import lessons
    import model
    import train

    return model, lessons, train


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_a_resumed_run_is_the_whole_one(example, cell, tmp_path):
    *_, train = example
    args = train.arguments([*FLAGS.split(), "--cell", cell, "--batch_size", "32"])
    assert (args.run_name, args.gather) == (f"sum_mod-{cell}-carry-seed0", 0.03)
    expected = train.train(args).state_dict()
    rows, checkpoint = [], tmp_path / "checkpoint"

    def keep(step, carried, **parts):
        extra = {"rows": rows, "carried": carried}
        minirnn.save_checkpoint(checkpoint, step=step, extra=extra, **parts)

    stops = iter([False] * 24 + [True])  # after a quarter of the steps
    with pytest.raises(KeyboardInterrupt):
        train.train(args, rows.append, keep=keep, stopped=lambda: next(stops))
    resumed = train.train(args, checkpoint=checkpoint).state_dict()
    for name, value in expected.items():
        np.testing.assert_array_equal(resumed[name], value)
    args.carry, args.gather = False, 0.0
    plain = train.train(args).state_dict()
    assert any((plain[name] != value).any() for name, value in expected.items())


def test_sequences_go_on_from_the_states_and_sums_of_the_batch_before(example):
    model, lessons, _ = example
    net = model.SumMod(hidden_dim=8)
    carried = lessons.Carried(anew=0.0)
    assert carried.into(np.random.default_rng(0), 5) == (None, 0)
    first = np.array([[3, 7, 1, 9, 2], [4, 4, 4, 4, 4]])
    logits, ctx = net.forward(minirnn.pack_padded_sequence(first, [2] * 5))
    sums = np.array([7, 1, 5, 3, 6])
    answers = logits.argmax(1)
    sums[:3], sums[3:] = answers[:3], (answers[3:] + 1) % 10  # two of five are wrong
    carried.out_of(ctx.state, logits, sums)
    state, before = carried.into(np.random.default_rng(0), 5)
    order = np.random.default_rng(0).permutation(5)
    for place, came_from in enumerate(order):
        if came_from < 3:
            np.testing.assert_array_equal(state[:, place], ctx.state[:, came_from])
            assert before[place] == sums[came_from]
        else:
            assert not state[:, place].any()
            assert before[place] == 0
    second = np.array([[5, 6, 7, 8, 9]])
    logits, _ = net.forward(minirnn.pack_padded_sequence(second, [1] * 5), state)
    whole = np.concatenate([first[:, order], second])[:, order < 3]
    expected = net(minirnn.pack_padded_sequence(whole, [3] * 3))
    np.testing.assert_allclose(logits[order < 3], expected, rtol=1e-5, atol=1e-6)


def test_the_sums_so_far_are_asked_for_after_each_digit(example):
    _, lessons, _ = example
    digits = np.array([[3, 7, 1], [4, 4, 4], [9, 2, 0]])
    answers = lessons.sums_so_far(
        minirnn.pack_padded_sequence(digits, [3, 2, 1]), np.array([0, 5, 9])
    )
    sequences = [list(s) for s in minirnn.unpack_sequence(answers)]
    assert sequences == [[3, 7, 6], [2, 6], [0]]


def test_states_that_mean_the_same_are_drawn_to_their_mean(example):
    _, lessons, _ = example
    rng = np.random.default_rng(0)
    states, meanings = rng.standard_normal((7, 3)), np.array([0, 2, 2, 5, 0, 2, 0])

    def apart(states):
        own = [states[meanings == k] for k in (0, 2, 5)]
        return sum(((s - s.mean(0)) ** 2).sum() for s in own) / 7

    value, gradient = lessons.scattered(states, meanings, 6)
    np.testing.assert_allclose(value, apart(states))
    for i, j in np.ndindex(7, 3):
        moved = np.zeros((7, 3))
        moved[i, j] = 1e-6
        slope = (apart(states + moved) - apart(states - moved)) / 2e-6
        np.testing.assert_allclose(gradient[i, j], slope, atol=1e-8)


def test_the_lesson_after_each_digit_has_the_gradient_of_what_it_says(example):
    """Numerically: the loss of the digits from the second on, and the gathering of the states after them."""
    model, lessons, train = example
    flags = "--gather 0.5 --batch_size 6 --total_steps 8 --hidden_dim 4"
    args = train.arguments(flags.split())
    net = model.SumMod(hidden_dim=4).to(np.float64)
    tokens, sums = next(model.batches(np.random.default_rng(0), 6))
    lesson = lessons.AfterEach(net, minirnn.CrossEntropyLoss(), args)
    lesson(1, tokens, sums)

    def objective():
        logits, ctx = net.forward(tokens, each=True)
        answers = lessons.sums_so_far(tokens).data
        loss, _ = minirnn.CrossEntropyLoss().forward(logits.data[6:], answers[6:])
        apart, _ = lessons.scattered(ctx.output.data[6:], (answers * 10 + tokens.data)[6:], 100)
        return loss + 0.5 * 1 / 2 * apart  # the first of the two steps of a quarter

    for p in net.parameters():
        direction = np.random.default_rng(1).standard_normal(p.data.shape)
        before = p.data.copy()
        p.data = before + 1e-6 * direction
        above = objective()
        p.data = before - 1e-6 * direction
        slope = (above - objective()) / 2e-6
        p.data = before
        np.testing.assert_allclose((p.grad * direction).sum(), slope, rtol=1e-6, atol=1e-9)


def test_several_processes_cannot_carry(example, monkeypatch):
    *_, train = example

    class Two:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def Get_size(self):
            return 2

    monkeypatch.setattr(train, "world", Two)
    with pytest.raises(SystemExit, match="--carry: expected one process"):
        train.main(FLAGS.split())
