"""The gradient of a table, row by row in C; :mod:`minirnn.functional.embedding` has the equations."""

from __future__ import annotations

import numpy as np

from ..backend import Array
from ..functional import embedding
from ..functional.embedding import EmbeddingContext, forward
from . import _training
from .shared import read

__all__ = ["backward", "forward"]


def backward(ctx: EmbeddingContext, dy: Array, dweight: Array) -> None:
    """Add to `dweight` what dy has for each row of the table."""
    tokens, _, padding_idx = ctx
    if len(tokens) > embedding.RUN:
        embedding.backward(ctx, dy, dweight)
        return
    left_out = -1 if padding_idx is None else padding_idx
    _training.add_rows(dweight, read(dy), read(tokens.astype(np.int64, copy=False)), left_out)
