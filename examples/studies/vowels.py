"""The Japanese vowels of data/README.md: who of nine men is speaking."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

FILE = Path(__file__).resolve().parent / "data" / "japanese_vowels.npz"
COEFFICIENTS, SPEAKERS = 12, 9


class Utterances(NamedTuple):
    """Sequences of shape (T, 12), float32, T from 7 to 29, and the number of each one's speaker."""

    sequences: list[np.ndarray]
    speakers: np.ndarray

    def of(self, numbers):
        """Return some of them."""
        return Utterances([self.sequences[i] for i in numbers], self.speakers[numbers])


def vowels():
    """Return the 270 utterances to train on and the 370 to test with."""
    with np.load(FILE) as file:
        values = (file["millionths"] / 1e6).astype(np.float32)
        lengths, speakers = file["lengths"].astype(int), file["speaker"].astype(int)
    every = Utterances(np.split(values, np.cumsum(lengths)[:-1]), speakers)
    return every.of(np.arange(270)), every.of(np.arange(270, 640))


def standardised(train, *others):
    """Return all of them with the mean 0 and the deviation 1 that each coefficient has in `train`."""
    rows = np.concatenate(train.sequences)
    mean, deviation = rows.mean(0), rows.std(0)
    return [Utterances([(s - mean) / deviation for s in u.sequences], u.speakers)
            for u in (train, *others)]  # fmt: skip
