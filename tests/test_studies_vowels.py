"""What the studies of speakers, instability and extrapolation measure, and the lessons they teach."""

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

import minirnn

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "studies"))
import extrapolation
import instability
import instability_film
import speakers
import tricks
from training import SumMod, batches
from vowels import standardised, vowels


def assert_gradients(parameters, objective):
    """Each parameter's gradient along a random direction is the numerical one."""
    rng = np.random.default_rng(1)
    for p in parameters:
        direction, before = rng.standard_normal(p.data.shape), p.data.copy()
        p.data = before + 1e-6 * direction
        above = objective()
        p.data = before - 1e-6 * direction
        slope = (above - objective()) / 2e-6
        p.data = before
        np.testing.assert_allclose((p.grad * direction).sum(), slope, rtol=1e-6, atol=1e-9)


# -- the vowels ------------------------------------------------------------------------------------


def test_the_vowels_are_the_published_ones():
    train, test = vowels()
    assert [len(u.sequences) for u in (train, test)] == [270, 370]
    assert (np.bincount(train.speakers) == 30).all()
    assert np.bincount(test.speakers).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    lengths = [len(s) for u in (train, test) for s in u.sequences]
    assert (min(lengths), max(lengths)) == (7, 29)
    first = train.sequences[0]
    assert (first.shape, first.dtype) == ((20, 12), np.float32)
    np.testing.assert_array_equal(first[0, :3], np.float32([1.860936, -0.207383, 0.261557]))


def test_all_are_standardised_by_those_that_train():
    train, test = vowels()
    ours, theirs = standardised(train, test)
    rows = np.concatenate(ours.sequences)
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(rows.std(0), 1, rtol=1e-5)
    own = np.concatenate(train.sequences)
    expected = (test.sequences[3] - own.mean(0)) / own.std(0)
    np.testing.assert_allclose(theirs.sequences[3], expected, rtol=1e-6)


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
@pytest.mark.parametrize("pooled", [False, True])
def test_the_gradient_of_what_tells_speakers(cell, pooled):
    net = speakers.Speakers(cell, 3, 0.0, pooled).to(np.float64)
    rng = np.random.default_rng(0)
    heard = [rng.standard_normal((n, 12)) for n in (3, 5, 2)]
    x = minirnn.pack_sequence(heard, enforce_sorted=False)
    criterion, given = minirnn.CrossEntropyLoss(), np.array([1, 8, 0])
    logits, ctx = net.forward(x)
    _, ctx_l = criterion.forward(logits, given)
    net.backward(ctx, criterion.backward(ctx_l))
    assert_gradients(net.parameters(), lambda: criterion.forward(net.forward(x)[0], given)[0])


def test_no_network_has_seen_what_it_is_asked_in_cross_validation(monkeypatch):
    """Each utterance is answered once, and every fold has its share of every speaker."""
    train, _ = vowels()
    seen = []

    def learn(part, seed):
        assert (np.bincount(part.speakers) == 24).all()
        seen.append({s.tobytes() for s in part.sequences})
        return len(seen)

    def answers(net, left_out):
        assert not {s.tobytes() for s in left_out.sequences} & seen[net - 1]
        assert (np.bincount(left_out.speakers) == 6).all()
        return np.eye(9)[left_out.speakers]

    monkeypatch.setattr(speakers, "learn", learn)
    monkeypatch.setattr(speakers, "answers", answers)
    monkeypatch.setattr(speakers, "standardised", lambda *utterances: utterances)
    logits = speakers.cross_validated(train, 0)
    np.testing.assert_array_equal(logits.argmax(1), train.speakers)
    assert len(seen) == 5


def test_confusion_is_the_mean_over_runs():
    given = np.array([0, 0, 4, 8])
    counts = speakers.confusion([{"mistaken": [[1, 4]]}, {"mistaken": []}], given)
    assert counts[0, 0] == 1.5
    assert counts[0, 4] == 0.5
    assert counts[4, 4] == counts[8, 8] == 1
    assert counts.sum() == 4


# -- instability -----------------------------------------------------------------------------------


def test_a_swing_is_half_the_largest_change_in_the_second_half():
    early, late = [0.1, 0.9, 0.1, 0.5], [0.9, 0.84, 0.96, 0.95]
    seen = instability.swung(early + late)
    assert seen["swing"] == pytest.approx(0.06)
    assert (seen["accuracy"], seen["best"]) == (0.95, 0.96)
    assert instability.swung(list(np.linspace(0, 1, 51)))["swing"] == pytest.approx(0.01)
    assert instability.swung([0.5])["swing"] == 0


@pytest.mark.parametrize(
    ("norms", "radii", "expected"),
    [
        ([1, 2, 3, 11, 5, 5], [0.9, 1.1, 1.2], (1, 0)),  # the gradient in epoch 2, the radius too
        ([1, 2, 3, 4, 11, 5], [0.9, 1.1, 1.2], (1, 1)),
        ([11, 2, 3, 4, 5, 5], [0.9, 1.1, 1.2], (1, 0)),
        ([1, 2, 3, 4, 5, 10], [0.9, 1.1, 1.2], (0, 0)),
    ],
)
def test_which_passed_its_limit_first(norms, radii, expected):
    seen = instability.blown(norms, radii, 3)
    assert seen["largest_norm"] == max(norms)
    assert seen["norm_by_epoch"].tolist() == [max(norms[k : k + 2]) for k in (0, 2, 4)]
    if expected == (1, 0) and norms[3] == 11:
        expected = (
            1,
            1,
        )  # within one epoch the order is not known: the radius is given the benefit
    assert (seen["exploded"], seen["radius_first"]) == expected


def test_what_is_left_when_the_recipe_is_known():
    rows = [
        {"recipe": r, "swing": s} for r, s in (("a", 1), ("a", 3), ("b", 7), ("b", 8), ("b", 0))
    ]
    assert instability.apart(rows, "swing") == [-1, 1, 0, 1, -7]


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
def test_the_gradient_of_the_classifier(cell):
    net = instability.Classifier(cell, 3, 4, 2, 0.0, words=6).to(np.float64)
    words = [np.array([1, 5, 5]), np.array([2]), np.array([0, 3])]
    x = minirnn.pack_sequence(words, enforce_sorted=False)
    criterion, given = minirnn.CrossEntropyLoss(), np.array([1, 0, 1])
    logits, ctx = net.forward(x)
    _, ctx_l = criterion.forward(logits, given)
    net.backward(ctx, criterion.backward(ctx_l))
    assert_gradients(net.parameters(), lambda: criterion.forward(net.forward(x)[0], given)[0])


def test_sentences_become_numbers_of_words(tmp_path, monkeypatch):
    lines = [f"{k}\t{rating}\t{text}" for k, (rating, text) in enumerate(
        [(2.5, "Good film")] * 3 + [(-1, "a bad film, caf\xe9")] * 4 + [(0, "neither")] * 9)]  # fmt: skip
    path = tmp_path / "film.txt"
    path.write_text("\n".join(lines), encoding="latin-1")
    monkeypatch.setenv(instability_film.VARIABLE, str(path))
    train, test = instability_film.snippets(100)
    assert [len(d.classes) for d in (train, test)] == [5, 2]
    both = [*zip(train.sequences, train.classes, strict=True),
            *zip(test.sequences, test.classes, strict=True)]  # fmt: skip
    assert sorted((len(s), int(c)) for s, c in both) == [(2, 1)] * 3 + [(4, 0)] * 4
    monkeypatch.setattr(instability_film, "WORDS", 3)
    train, _ = instability_film.snippets(100)
    assert set(np.concatenate(train.sequences)) == {0, 1, 2}


# -- extrapolation ---------------------------------------------------------------------------------


def lesson_on(way, strength=0.0):
    """Return a lesson in float64 with its model, a batch, and what it is to minimise."""
    model = SumMod(hidden_dim=5).to(np.float64)
    args = Namespace(
        seed=0,
        strength=strength,
        total_steps=8,
        min_seq_len=2,
        max_number=9,
        carry=False,
        gather=0.0,
    )
    lesson = tricks.LESSONS[way](model, minirnn.CrossEntropyLoss(), args)
    model.to(np.float64)
    tokens, sums = next(batches(np.random.default_rng(0), 6))
    return lesson, model, tokens, sums


def plain_loss(model, tokens, sums, state=None):
    return minirnn.CrossEntropyLoss().forward(model.forward(tokens, state)[0], sums)[0]


def test_small_jacobians_are_what_the_lesson_says():
    lesson, model, tokens, sums = lesson_on("small Jacobians", 0.7)
    lesson(1, tokens, sums)
    w = model.rnn.weight_hh_l0

    def objective():
        _, ctx = model.forward(tokens)
        slopes = 1 - ctx.output.data**2
        squares = [np.linalg.norm(slope[:, None] * w.data) ** 2 for slope in slopes]
        return plain_loss(model, tokens, sums) + 0.7 * np.mean(squares)

    assert_gradients(model.parameters(), objective)


def test_absolute_weights_are_what_the_lesson_says():
    lesson, model, tokens, sums = lesson_on("L1", 0.3)
    lesson(1, tokens, sums)
    w = model.rnn.weight_hh_l0
    assert_gradients(
        model.parameters(), lambda: plain_loss(model, tokens, sums) + 0.3 * abs(w.data).sum()
    )


def test_a_drawn_start_stands_for_a_sum_and_is_learned():
    lesson, model, tokens, sums = lesson_on("drawn start")
    before = np.random.default_rng((0, 1)).integers(0, 10, 6)
    _, _, asked = lesson(1, tokens, sums)
    np.testing.assert_array_equal(asked, (sums + before) % 10)
    assert model.start.weight.grad.any()
    assert_gradients(
        model.parameters(),
        lambda: plain_loss(model, tokens, asked, np.tanh(model.start.weight.data[before])[None]),
    )


def test_noise_on_weights_is_there_for_the_gradient_and_gone_after_it():
    lesson, model, tokens, sums = lesson_on("weight noise", 0.5)
    w = model.rnn.weight_hh_l0
    before = w.data.copy()
    noise = 0.5 * np.random.default_rng((0, 1)).standard_normal(before.shape, np.float32)
    lesson(1, tokens, sums)
    np.testing.assert_array_equal(w.data, before)
    w.data = before + noise
    assert_gradients(model.parameters(), lambda: plain_loss(model, tokens, sums))


def test_carried_at_the_end_goes_on_even_if_wrong():
    lesson, _, tokens, sums = lesson_on("carried")
    _, _, first = lesson(2, tokens, sums)
    np.testing.assert_array_equal(first, sums)  # not in the first quarter
    rng = np.random.default_rng((0, 3))
    order, draws = rng.permutation(6), rng.random(6)
    on = draws >= lesson.carried.anew
    assert on.any()
    _, _, second = lesson(3, tokens, sums)
    np.testing.assert_array_equal(second, (sums + first[order] * on) % 10)


def test_the_weights_written_by_hand_add_ten_thousand_digits():
    model, h_0 = tricks.by_hand()
    digits = np.random.default_rng(0).integers(0, 10, (10_000, 20))
    for k, (_, logits) in enumerate(extrapolation.pieces(model, h_0, digits)):
        sums = digits[: 10 * k + 10].sum(0) % 10
        np.testing.assert_array_equal(logits[-1].argmax(1), sums)
    seen = extrapolation.rested(model, h_0, digits[:20])
    assert seen["spread"] == 0
    assert seen["places"] == len(set(digits[:20].sum(0) % 10))  # one for each sum
    assert seen["right_at_rest"] == 1


def test_accuracies_and_first_slips_are_counted(monkeypatch):
    """A network that is off by 3 from the 8th digit on in every third sequence, and then by 5."""
    digits = np.random.default_rng(0).integers(0, 10, (1000, 9))
    answers = digits.cumsum(0) % 10
    answers[7:50, ::3] += 3
    answers[50:, ::3] += 5
    logits = np.eye(10)[answers % 10]
    monkeypatch.setattr(extrapolation, "pieces", lambda *_: [(None, logits)])
    seen = extrapolation.counted(None, None, digits)
    assert [seen[f"at_{n}"] for n in (5, 20, 1000)] == pytest.approx([1, 2 / 3, 2 / 3])
    assert seen["slips"].tolist() == [0, 0, 0, 3, 0, 0, 0, 0, 0, 0]
    assert extrapolation.commonest_slips([{"slips": [0, 1, 2, 5, 0, 4, 0, 3, 0, 0]}]) == (8, 15)


def test_dials_are_told_by_the_mean_logits_and_tell_the_likely_slip(monkeypatch):
    digits = np.random.default_rng(0).integers(0, 10, (3, 500))
    sums = digits.cumsum(0) % 10
    mod_5 = np.eye(5)[sums % 5]
    monkeypatch.setattr(extrapolation, "pieces", lambda *_: [(None, mod_5)])
    shares = extrapolation.dials(None, None, digits)
    np.testing.assert_allclose(shares, [0, 0.5, 0, 0.5, 0], atol=1e-12)  # blind to parity
    assert extrapolation.loosest(shares) == 5
    monkeypatch.setattr(extrapolation, "pieces", lambda *_: [(None, np.eye(10)[sums])])
    shares = extrapolation.dials(None, None, digits)
    np.testing.assert_allclose(shares, np.array([2, 2, 2, 2, 1]) / 9)
    assert extrapolation.loosest([0, 0, 1, 0, 0]) == 3  # of ten notches of 108 degrees
    assert extrapolation.loosest([0, 0.67, 0, 0.01, 0.32]) == 4  # parity, and one notch mod 5
