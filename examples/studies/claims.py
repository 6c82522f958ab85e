"""Claims that data decide, by one rule.

A claim says where some quantity lies: a median above .9, a difference above 0, a share between .2 and .5. The
runs give a 95 % interval for the quantity. The claim is **held** if the whole interval lies where the claim
says, **not held** if no part of it does, and **undecided** otherwise, as it is with too few runs. No verdict
is typed by hand, and more runs can only be asked for, not argued with.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

NORMAL = 1.959964  # the 97.5 % point of the normal distribution
INFINITY = math.inf
ABOVE = (1e-9, INFINITY)  # the region of a difference that is positive


class Interval(NamedTuple):
    """Where a quantity lies with 95 % confidence, both ends included."""

    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.low:.4g}"
        if self == (-INFINITY, INFINITY):
            return "too few runs"
        if self.high == INFINITY:
            return f"above {self.low if self != ABOVE else 0:.4g}"
        return f"{self.low:.4g} to {self.high:.4g}"


class Claim(NamedTuple):
    """A claim and what became of it.

    Attributes
    ----------
    text : str
    verdict : {"held", "not held", "undecided"}
    quantity : str
        What was measured.
    interval, region : Interval
        Where the quantity lies by the data, and where it lies if the claim is right.
    """

    text: str
    verdict: str
    quantity: str
    interval: Interval
    region: Interval


def decide(interval: Sequence[float], region: Sequence[float]) -> str:
    """Return the rule's word: held, not held, or undecided.

    >>> decide((2, 3), (1, 4)), decide((5, 6), (1, 4)), decide((3, 5), (1, 4))
    ('held', 'not held', 'undecided')
    >>> decide((math.nan, math.nan), (0, 1))
    'undecided'
    """
    (low, high), (lowest, highest) = interval, region
    if lowest <= low and high <= highest:
        return "held"
    return "not held" if high < lowest or low > highest else "undecided"


def claim(text: str, quantity: str, interval: Sequence[float], region: Sequence[float]) -> Claim:
    """Return the claim `text`, which says that `quantity` lies in `region`, decided by its interval."""
    return Claim(text, decide(interval, region), quantity, Interval(*interval), Interval(*region))


def exact(text: str, quantity: str, error: float, tolerance: float) -> Claim:
    """Return a claim that needs no statistics: that `error` is at most `tolerance`."""
    return claim(text, quantity, (error, error), (0, tolerance))


def median_interval(values: Iterable[float]) -> Interval:
    """Return the interval of the median between two order statistics; infinite from fewer than six values.

    Whatever the distribution, the number of values below its median is binomial with p = 1/2.

    >>> median_interval(range(10)), median_interval([1, 2, 3])
    (Interval(low=1.0, high=8.0), Interval(low=-inf, high=inf))
    """
    x = np.sort(np.asarray(list(values), np.float64))
    n, tail, k = len(x), 0.0, 0
    while k < n and (tail := tail + math.comb(n, k) / 2**n) <= 0.025:
        k += 1  # P(at most k - 1 values below) <= 2.5 %
    if k == 0 or np.isnan(x).any():
        return Interval(-INFINITY, INFINITY)
    return Interval(float(x[k - 1]), float(x[n - k]))


def share_interval(successes: int, runs: int) -> Interval:
    """Return Wilson's interval of a share.

    >>> str(share_interval(9, 10)), str(share_interval(0, 0))
    ('0.5958 to 0.9821', '0 to 1')
    """
    if runs == 0:
        return Interval(0.0, 1.0)
    z, p = NORMAL**2 / runs, successes / runs
    middle, half = p + z / 2, math.sqrt(z * (p * (1 - p) + z / 4))
    return Interval(max(0.0, (middle - half) / (1 + z)), min(1.0, (middle + half) / (1 + z)))


def difference_interval(a: Iterable[float], b: Iterable[float]) -> Interval:
    """Return how far `a` lies above `b`: the interval of Hodges and Lehmann, from Mann's and Whitney's test.

    Infinite if there are too few runs, as with three against three.

    >>> difference_interval(range(10, 20), range(10))
    Interval(low=7.0, high=13.0)
    """
    x, y = np.asarray(list(a), np.float64), np.asarray(list(b), np.float64)
    n, m = len(x), len(y)
    k = math.floor(n * m / 2 - NORMAL * math.sqrt(n * m * (n + m + 1) / 12))
    if k < 1 or np.isnan(x).any() or np.isnan(y).any():
        return Interval(-INFINITY, INFINITY)
    pairs = np.sort((x[:, None] - y).ravel())
    return Interval(float(pairs[k - 1]), float(pairs[n * m - k]))


def correlation(x: Iterable[float], y: Iterable[float]) -> tuple[float, Interval]:
    """Return Spearman's rank correlation and its interval, by Fisher's transformation.

    >>> r, interval = correlation(range(50), np.arange(50) ** 3)
    >>> round(r, 3), interval.low > 0.99
    (1.0, True)
    """
    a, b = _ranks(x), _ranks(y)
    n = len(a)
    if n < 4 or a.std() == 0 or b.std() == 0:
        return math.nan, Interval(-1.0, 1.0)
    r = float(np.corrcoef(a, b)[0, 1])
    z, half = math.atanh(min(max(r, -1 + 1e-12), 1 - 1e-12)), NORMAL * 1.03 / math.sqrt(n - 3)
    return r, Interval(math.tanh(z - half), math.tanh(z + half))


def _ranks(values: Iterable[float]) -> np.ndarray:
    """Return ranks, those of equal values averaged."""
    x = np.asarray(list(values), np.float64)
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
