r"""Losses, each with its gradient beside it.

A reduction turns the losses of all entries into their mean, their sum, or leaves them; its adjoint
hands the incoming gradient to all entries, by :func:`_spread`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..backend import Array, get_array_module


def _reduce(losses: Array, reduction: str, denominator: Any) -> Array:
    if reduction == "none":
        return losses
    total = losses.sum()
    return total / denominator if reduction == "mean" else total


def _spread(dloss: Any, reduction: str, denominator: Any) -> Any:
    return dloss / denominator if reduction == "mean" else dloss


class CrossEntropyContext(NamedTuple):
    """The predicted distribution, and what it is compared with."""

    log_p: Array  # (N, C)
    target: Array  # (N,), ignored ones replaced by 0
    weight: Array  # (N, 1): of each row, that of its class; 0 if ignored
    class_weight: Array | None  # (C,)
    kept: Array | None  # (N, 1), None if no row is ignored
    denominator: Array
    reduction: str
    smoothing: float


def cross_entropy_forward(
    logits: Array,
    targets: Array,
    weight: Array | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    save: bool = True,
) -> tuple[Array, CrossEntropyContext | None]:
    r"""Return the cross entropy of softmax(logits) with the targets.

    .. math::
        \ell_n = -(1 - \epsilon)\, w_{t_n} \log p_{n,t_n}
                 - \frac{\epsilon}{C} \sum_c w_c \log p_{n,c}, \qquad
        \text{mean} = \frac{\sum_n \ell_n}{\sum_n w_{t_n}}

    Parameters
    ----------
    logits : array of shape (N, C)
    targets : array of int, shape (N,)
    weight : array of shape (C,), optional
    ignore_index : int, optional
        Targets of this value count for nothing; if none counts, the mean is NaN.
    reduction : {"mean", "sum", "none"}
    label_smoothing : float
        epsilon.
    """
    xp = get_array_module(logits)
    N, C = logits.shape
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - xp.log(xp.exp(shifted).sum(1, keepdims=True))
    kept = None if ignore_index is None else (targets != ignore_index)[:, None]
    target = targets if kept is None else xp.where(kept[:, 0], targets, 0)
    row_weight = xp.ones(N, logits.dtype) if weight is None else xp.take(weight, target)
    row_weight = row_weight[:, None]
    if kept is not None:
        row_weight = row_weight * kept
    picked = xp.take_along_axis(log_p, target[:, None], axis=1)
    losses = -(1 - label_smoothing) * (row_weight * picked)[:, 0]
    if label_smoothing:
        all_classes = log_p if weight is None else log_p * weight
        smooth = all_classes.sum(1) * (-label_smoothing / C)
        losses += smooth if kept is None else smooth * kept[:, 0]
    denominator = row_weight.sum()
    if kept is not None and reduction == "mean":
        nothing = denominator == 0
        denominator = xp.where(nothing, 1, denominator)
        losses = xp.where(nothing, xp.nan, losses)
    ctx = CrossEntropyContext(
        log_p, target, row_weight, weight, kept, denominator, reduction, label_smoothing
    )
    return _reduce(losses, reduction, denominator), ctx if save else None


def cross_entropy_backward(ctx: CrossEntropyContext, dloss: Any = 1.0) -> Array:
    r"""Return ``dlogits``, the sum over classes of weight times ``p - onehot``.

    .. math::
        d\ell_n / d\mathrm{logit}_{n,c} = (1 - \epsilon)\, w_{t_n} (p_{n,c} - [c = t_n])
            + \frac{\epsilon}{C} \Big(p_{n,c} \sum_k w_k - w_c\Big)
    """
    log_p, target, row_weight, class_weight, kept, denominator, reduction, smoothing = ctx
    xp = get_array_module(log_p)
    C = log_p.shape[1]
    p = xp.exp(log_p)
    one_hot = xp.arange(C) == target[:, None]
    dlogits = (p - one_hot) * ((1 - smoothing) * row_weight)
    if smoothing:
        per_class = xp.ones(C, log_p.dtype) if class_weight is None else class_weight
        smooth = (p * per_class.sum() - per_class) * (smoothing / C)
        dlogits += smooth if kept is None else smooth * kept
    d = _spread(dloss, reduction, denominator)
    dlogits *= d[:, None] if reduction == "none" else d
    return dlogits


class MSEContext(NamedTuple):
    """The residual, and how it was reduced."""

    residual: Array
    reduction: str


def mse_forward(
    input: Array, target: Array, reduction: str = "mean", save: bool = True
) -> tuple[Array, MSEContext | None]:
    """Return the squared difference, reduced; the arrays are of one shape."""
    residual = input - target
    loss = _reduce(residual * residual, reduction, residual.size)
    return loss, MSEContext(residual, reduction) if save else None


def mse_backward(ctx: MSEContext, dloss: Any = 1.0) -> Array:
    """Return ``dinput = 2 * residual``, reduced likewise."""
    residual, reduction = ctx
    return 2 * residual * _spread(dloss, reduction, residual.size)


class BCEContext(NamedTuple):
    """Logits and targets, and how the loss was weighted and reduced."""

    logits: Array
    target: Array
    weight: Array | None
    pos_weight: Array | None
    reduction: str


def bce_with_logits_forward(
    logits: Array,
    target: Array,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    reduction: str = "mean",
    save: bool = True,
) -> tuple[Array, BCEContext | None]:
    r"""Return the binary cross entropy of sigmoid(logits) with the targets.

    With :math:`\mathrm{softplus}(z) = \log(1 + e^z)`, computed without overflow, and positive
    weight :math:`q`:

    .. math::  \ell = w \big((1 - t)\, z + (1 + (q - 1) t)\, \mathrm{softplus}(-z)\big)
    """
    xp = get_array_module(logits)
    softplus = xp.log1p(xp.exp(-xp.abs(logits))) + xp.maximum(-logits, 0)
    positive = 1 if pos_weight is None else 1 + (pos_weight - 1) * target
    losses = (1 - target) * logits + positive * softplus
    if weight is not None:
        losses = losses * weight
    ctx = BCEContext(logits, target, weight, pos_weight, reduction)
    return _reduce(losses, reduction, losses.size), ctx if save else None


def bce_with_logits_backward(ctx: BCEContext, dloss: Any = 1.0) -> Array:
    r"""Return ``dlogits``: :math:`w ((1 - t) - (1 + (q - 1) t)\, \sigma(-z))`."""
    logits, target, weight, pos_weight, reduction = ctx
    xp = get_array_module(logits)
    positive = 1 if pos_weight is None else 1 + (pos_weight - 1) * target
    sigmoid_of_minus = 0.5 - 0.5 * xp.tanh(0.5 * logits)
    dlogits = (1 - target) - positive * sigmoid_of_minus
    if weight is not None:
        dlogits = dlogits * weight
    return dlogits * _spread(dloss, reduction, dlogits.size)
