"""The cross entropy with classes in one pass in C; :mod:`minirnn.functional.loss` has the equations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array
from ..functional import loss
from ..functional.loss import CrossEntropyContext
from . import _training
from .shared import read

# So few entries take less time in C, where the exponentials are taken one by one, than NumPy's passes.
_FEW = 1 << 11


def cross_entropy_forward(
    logits: Array,
    targets: Array,
    weight: Array | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    save: bool = True,
) -> tuple[Array, CrossEntropyContext | None]:
    """Return the cross entropy of softmax(logits) with the targets: in NumPy, if not all rows count alike."""
    alike = weight is None and ignore_index is None and not label_smoothing
    if not alike or reduction == "none" or logits.size > _FEW:
        args = logits, targets, weight, ignore_index, reduction, label_smoothing, save
        return loss.cross_entropy_forward(*args)
    slope, rows = np.empty(logits.shape, logits.dtype), len(logits)
    classes = read(targets.astype(np.int64, copy=False))
    denominator = rows if reduction == "mean" else 1
    value = _training.cross_entropy(slope, read(logits), classes, denominator)
    ctx = CrossEntropyContext(slope, None, rows, reduction) if save else None
    return logits.dtype.type(value), ctx


def cross_entropy_backward(ctx: CrossEntropyContext, dloss: Any = 1.0) -> Array:
    """Return ``dlogits``: in NumPy, if not all rows count alike."""
    slope, kept, denominator, reduction = ctx
    if kept is not None or type(dloss) is not float or not dloss:
        return loss.cross_entropy_backward(ctx, dloss)
    dlogits: Array = slope.copy()
    _training.scale(dlogits, dloss / denominator if reduction == "mean" else dloss)
    return dlogits
