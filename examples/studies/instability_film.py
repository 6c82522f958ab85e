"""The same questions as instability.py's, on sentences from film reviews.

    python examples/studies/instability_film.py --file movieReviewSnippets_GroundTruth.txt

The file has a line for each sentence: number, mean rating from -4 to 4, text, separated by tabs. It comes
with VADER (C. Hutto, E. Gilbert, ICWSM 2014), not with this project. The class is the sign of the rating.
"""

import argparse
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from claims import ABOVE, Claim, claim, difference_interval, median_interval
from instability import BASE, Classifier, Data, draw, swings, tables, watched
from study import Row, Study, groups, main, values

import minirnn

VARIABLE = "MINIRNN_FILM_SNIPPETS"  # how the file's name reaches the processes
EMBEDDING, HIDDEN = 50, 128  # as in the text
SENTENCES, WORDS, LONGEST = 20_000, 5000, 40  # more sentences than the file has: all of them
EPOCHS, SEEDS = 30, range(6)
CHANGES: dict[str, Row] = {
    "as said": {},
    "clip 5": {"clip": 5.0},
    "clip 1": {"clip": 1.0},
    "LSTM": {"cell": "LSTM"},
}


def settings(quick: bool) -> Iterable[Row]:
    """Return the text's recipe, clipping, and the LSTM."""
    for name, change in CHANGES.items():
        for seed in SEEDS[:1] if quick else SEEDS:
            flags = (
                {"epochs": 2, "sentences": 120}
                if quick
                else {"epochs": EPOCHS, "sentences": SENTENCES}
            )
            yield {"recipe": name, **BASE, **change, **flags, "seed": seed}


def run(recipe: str, cell: str, dropout: float, sentences: int, seed: int, **flags: Any) -> Row:
    """Train once on the file's sentences."""
    train, test = snippets(sentences)
    minirnn.manual_seed(seed)
    model = Classifier(cell, EMBEDDING, HIDDEN, 2, dropout, words=WORDS)
    return watched(model, train, test, seed, **flags)


def snippets(count: int) -> tuple[Data, Data]:
    """Return sentences as numbers of their words, four fifths to train on and the rest to test with.

    Words are numbered by how common they are; all others are number 0. Sentences rated 0 are left out.
    """
    lines = [line.split("\t") for line in _lines()]
    rated = [
        (float(rating) > 0, text.lower().split()[:LONGEST])
        for _, rating, text in lines
        if float(rating)
    ]
    order = np.random.default_rng(0).permutation(len(rated))[:count]
    chosen = [rated[i] for i in order if rated[i][1]]
    cut = len(chosen) * 4 // 5
    common = Counter(word for _, words in chosen[:cut] for word in words).most_common(WORDS - 1)
    number = {word: k for k, (word, _) in enumerate(common, 1)}
    numbered = [np.array([number.get(word, 0) for word in words]) for _, words in chosen]
    classes = np.array([int(positive) for positive, _ in chosen])
    return Data(numbered[:cut], classes[:cut]), Data(numbered[cut:], classes[cut:])


def _lines() -> list[str]:
    """Return the lines of the user's file; made-up ones for a rehearsal without it."""
    if name := os.environ.get(VARIABLE):
        return Path(name).read_text(encoding="latin-1").splitlines()
    rng, words = np.random.default_rng(0), np.array(["good", "bad", "a", "film", "it", "is"])
    drawn = [words[rng.integers(0, 6, n)] for n in rng.integers(2, 9, 200)]
    return [f"{k}\t{1 if 'good' in s else -1}\t{' '.join(s)}" for k, s in enumerate(drawn)]


def judge(rows: list[Row]) -> list[Claim]:
    """Decide what is said of swings, and of accuracies."""
    its = {name: values(part, "accuracy") for (name,), part in groups(rows, "recipe").items()}
    said = {
        "as said": ("the RNN gets 65-66 %", (0.65, 0.66)),
        "LSTM": ("the LSTM gets 68-70 %", (0.68, 0.70)),
    }
    return [
        *swings(rows),
        *(
            claim(text, "median accuracy", median_interval(its[name]), region)
            for name, (text, region) in said.items()
        ),
        claim(
            "an LSTM is more accurate than the RNN",
            "difference of accuracies",
            difference_interval(its["LSTM"], its["as said"]),
            ABOVE,
        ),
    ]


STUDY = Study(
    name="instability_film",
    question="On film reviews: does the accuracy swing because gradients explode?",
    settings=settings,
    run=run,
    tables=tables,
    claims=judge,
    draw=draw,
    size=(8, 8),
)

if __name__ == "__main__":
    p = argparse.ArgumentParser(add_help=False)
    p.add_argument("--file", type=Path)
    own, rest = p.parse_known_args()
    if own.file is not None:
        os.environ[VARIABLE] = str(own.file.resolve())
    elif not {"--quick", "-h", "--help"} & set(rest):
        raise SystemExit(
            "--file: expected the file of the sentences, which is not part of this project"
        )
    main(STUDY, rest)
