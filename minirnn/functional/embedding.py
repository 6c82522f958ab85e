r"""Rows of a table, looked up by token: :math:`y_n = W_{token(n)}`.

The gradient adds up what comes back to each row: :math:`dW_v = \sum_{n:\, token(n) = v} dy_n`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, get_array_module

# A product with a one-hot matrix works for every row of the table, sorting for every token: so the product
# is for small tables.
_ONE_HOT = 64

# A sum of so many rows, one after the other, loses no digit that counts; longer ones are sums of such sums.
RUN = 1024


class EmbeddingContext(NamedTuple):
    """The tokens, and what is needed of the table."""

    tokens: Array  # (N,)
    num_embeddings: int
    padding_idx: int | None


def forward(
    tokens: Array, weight: Array, padding_idx: int | None = None, save: bool = True
) -> tuple[Array, EmbeddingContext | None]:
    """Return ``weight[tokens]``.

    Parameters
    ----------
    tokens : array of int, shape (N,)
    weight : array of shape (num_embeddings, embedding_dim)
    padding_idx : int, optional
        The token whose row gets no gradient.
    """
    tokens = tokens.astype(np.intp, copy=False)
    y = weight.take(tokens, axis=0)
    return y, EmbeddingContext(tokens, len(weight), padding_idx) if save else None


def backward(ctx: EmbeddingContext, dy: Array, dweight: Array) -> None:
    """Add to `dweight`, of the table's shape, what dy, (N, embedding_dim), has for each of its rows."""
    tokens, V, padding_idx = ctx
    xp = get_array_module(dy)
    if xp is np:
        sums = _one_hot_sums(tokens, dy, V) if V <= _ONE_HOT else None
        if sums is None:
            sums = _sorted_sums(tokens, dy, V, padding_idx)
    else:
        sums = xp.zeros((V, dy.shape[1]), dy.dtype)
        xp.add.at(sums, tokens, dy)
    if padding_idx is not None:
        sums[padding_idx] = 0
    dweight += sums


def _one_hot_sums(tokens: Array, dy: Array, V: int) -> Array | None:
    """Return the sums, if what comes out is finite, and so small that its square is finite as well."""
    one_hot = _one_hot_rows(V, dy.dtype).take(tokens, axis=0)
    with np.errstate(all="ignore"):
        dweight = one_hot.T.dot(dy)
        # A row that is not finite has reached every row of the table, since 0 * NaN is NaN.
        return dweight if math.isfinite(np.vdot(dweight, dweight)) else None


@lru_cache(4)
def _one_hot_rows(V: int, dtype: np.dtype[Any]) -> Array:
    return np.eye(V, dtype=dtype)


def _sorted_sums(tokens: Array, dy: Array, V: int, padding_idx: int | None) -> Array:
    """Sum up runs of equal tokens, which are neighbours when sorted; those of the padding take no part."""
    dweight = np.zeros((V, dy.shape[1]), dy.dtype)
    if padding_idx is not None:
        counts = tokens != padding_idx
        tokens, dy = tokens[counts], dy[counts]
    if len(tokens) == 0:
        return dweight
    order = np.argsort(tokens, kind="stable")
    tokens = tokens[order]
    cut = np.r_[True, tokens[1:] != tokens[:-1]]
    cut[::RUN] = True
    starts = np.flatnonzero(cut)
    sums, tokens = np.add.reduceat(dy[order], starts, axis=0), tokens[starts]
    starts = np.flatnonzero(np.r_[True, tokens[1:] != tokens[:-1]])
    dweight[tokens[starts]] = np.add.reduceat(sums, starts, axis=0)
    return dweight
