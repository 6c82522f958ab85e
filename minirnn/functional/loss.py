r"""Losses, each with its gradient beside it.

A reduction turns the losses of all entries into their mean, their sum, or leaves them; its adjoint
hands the incoming gradient to all entries, by ``_spread``. Sums over entries are taken in float64:
what is a loss of millions of entries must not depend on how they are rounded.

What is ignored or weighted by zero has no influence, whatever it holds: since 0 times infinity is NaN, it
is left out by selecting (``_weighted``), not by multiplying.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, get_array_module, quiet

# So few classes are summed one after the other, over all rows at once: row by row, each sum is too short for
# NumPy's loops.
_FEW_CLASSES = 32


def _reduce(losses: Array, reduction: str, denominator: Any) -> Array:
    if reduction == "none":
        return losses
    total = losses.sum(dtype=np.float64)
    return (total / denominator if reduction == "mean" else total).astype(losses.dtype)


def _spread(dloss: Any, reduction: str, denominator: Any) -> Any:
    return dloss / denominator if reduction == "mean" else dloss


def _weighted(weight: Array, x: Array) -> Array:
    """Return ``weight * x``, zero wherever the weight is."""
    return weight * get_array_module(weight).where(weight == 0, 0, x)


def _times(gradient: Array, d: Any) -> Array:
    """Return ``gradient * d`` in the place of `gradient`, zero wherever d is."""
    nothing = d == 0
    if not isinstance(nothing, bool | np.bool_):
        get_array_module(gradient).copyto(gradient, 0, where=nothing)
    elif nothing:
        gradient.fill(0)
    gradient *= d
    return gradient


def _shifted(logits: Array, kept: Array | None = None) -> Array:
    """Return the logits without the largest of each row, whose softmax is the same; 0 in rows not kept."""
    shifted = logits.copy("F" if logits.shape[1] <= _FEW_CLASSES else "C")
    if kept is not None:
        shifted[~kept] = 0
    shifted -= shifted.max(1)[:, None]
    return shifted


class CrossEntropyContext(NamedTuple):
    """The derivative of every row's loss, and how the losses are reduced."""

    slope: Array  # (N, C)
    kept: Array | None  # (N,), None if no row is ignored
    denominator: Any
    reduction: str


@quiet
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

    What the other classes have together gives both the logarithm of a p near 1 and its 1 - p with all digits.

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
    kept = None if ignore_index is None else targets != ignore_index
    target = targets if kept is None else xp.where(kept, targets, 0)
    kept, row_weight = _of_rows(target, kept, weight, label_smoothing, logits.dtype)
    shifted = _shifted(logits, kept)
    at_target = xp.arange(len(target)), target
    own = shifted[at_target]
    e, e_own = xp.exp(shifted), xp.exp(own)
    e[at_target] = 0
    others = e.sum(1)
    log_total = xp.log1p(others + (e_own - 1))
    losses = log_total - own
    if row_weight is not None:
        losses = _weighted(row_weight, losses)
    if label_smoothing:
        log_p = shifted - log_total[:, None]
        smooth = _smooth(log_p, weight, kept)
        losses = (1 - label_smoothing) * losses + label_smoothing * smooth
    losses, denominator = _of_mean(losses, kept, row_weight, reduction)
    loss = _reduce(losses, reduction, denominator)
    if not save:
        return loss, None
    slope = _slope(e, e_own, others, at_target)
    if row_weight is not None:
        slope *= row_weight[:, None]
    if label_smoothing:
        slope *= 1 - label_smoothing
        slope += label_smoothing * _smooth_slope(log_p, weight, kept)
    return loss, CrossEntropyContext(slope, kept, denominator, reduction)


def _slope(e: Array, e_own: Array, others: Array, at_target: Any) -> Array:
    """Turn `e`, which is 0 at the target, into ``p - onehot``, whose classes weigh `e_own` and `others`."""
    total = others + e_own
    e /= total[:, None]
    e[at_target] = -others / total
    return e


def _smooth(log_p: Array, weight: Array | None, kept: Array | None) -> Array:
    """Return the mean over all classes of each row's losses, were they the target."""
    losses = -log_p if weight is None else _weighted(weight, -log_p)
    smooth = losses.sum(1) / log_p.shape[1]
    return smooth if kept is None else smooth * kept


def _smooth_slope(log_p: Array, weight: Array | None, kept: Array | None) -> Array:
    """Return its derivative."""
    p, C = get_array_module(log_p).exp(log_p), log_p.shape[1]
    per_class = get_array_module(p).ones(C, p.dtype) if weight is None else weight
    slope = (p * per_class.sum() - per_class) / C
    return slope if kept is None else slope * kept[:, None]


def _of_rows(
    target: Array, kept: Array | None, weight: Array | None, smoothing: float, dtype: Any
) -> tuple[Array | None, Array | None]:
    """Return which rows have a say, and the weight of each, as :class:`CrossEntropyContext` keeps them."""
    row_weight = None
    if weight is not None:
        row_weight = weight.take(target.astype(np.intp, copy=False))
        if not smoothing:
            # With smoothing such a row still says something about the other classes.
            heavy = row_weight != 0
            kept = heavy if kept is None else kept & heavy
    if kept is not None:
        row_weight = kept.astype(dtype) if row_weight is None else row_weight * kept
    return kept, row_weight


def _of_mean(
    losses: Array, kept: Array | None, row_weight: Array | None, reduction: str
) -> tuple[Array, Any]:
    """Return the losses and what their sum is divided by; a mean of no rows is NaN, its gradient zero."""
    xp = get_array_module(losses)
    denominator: Any = len(losses) if row_weight is None else row_weight.sum(dtype=np.float64)
    if kept is not None and reduction == "mean":
        nothing = denominator == 0
        denominator = xp.where(nothing, 1, denominator)
        losses = xp.where(nothing, xp.nan, losses)
    return losses, denominator


@quiet
def cross_entropy_backward(ctx: CrossEntropyContext, dloss: Any = 1.0) -> Array:
    r"""Return ``dlogits``, the sum over classes of weight times ``p - onehot``.

    .. math::
        d\ell_n / d\mathrm{logit}_{n,c} = (1 - \epsilon)\, w_{t_n} (p_{n,c} - [c = t_n])
            + \frac{\epsilon}{C} \Big(p_{n,c} \sum_k w_k - w_c\Big)
    """
    slope, kept, denominator, reduction = ctx
    d = _spread(dloss, reduction, denominator)
    if reduction == "none":
        d = (d if kept is None else get_array_module(slope).where(kept, d, 0))[:, None]
    return _times(slope.copy(), d)


class NLLContext(NamedTuple):
    """The targets, and how much each counts."""

    share: Array  # (N,): the weight of the row's class, 0 if ignored
    target: Array  # (N,), ignored ones replaced by 0
    classes: int
    denominator: Any
    reduction: str


@quiet
def nll_forward(
    log_p: Array,
    targets: Array,
    weight: Array | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    save: bool = True,
) -> tuple[Array, NLLContext | None]:
    r"""Return the negative log-likelihood of the targets, whose arguments are as for the cross entropy.

    .. math::
        \ell_n = -w_{t_n} \log p_{n,t_n}, \qquad
        \text{mean} = \frac{\sum_n \ell_n}{\sum_n w_{t_n}}, \qquad
        d\ell_n / d\log p_{n,c} = -w_{t_n} [c = t_n]
    """
    xp = get_array_module(log_p)
    N, C = log_p.shape
    kept = None if ignore_index is None else targets != ignore_index
    target = targets.copy() if kept is None else xp.where(kept, targets, 0)
    kept, row_weight = _of_rows(target, kept, weight, 0, log_p.dtype)
    losses = -log_p[xp.arange(N), target]
    if row_weight is not None:
        losses = _weighted(row_weight, losses)
    losses, denominator = _of_mean(losses, kept, row_weight, reduction)
    share = xp.ones(N, log_p.dtype) if row_weight is None else row_weight
    ctx = NLLContext(share, target, C, denominator, reduction) if save else None
    return _reduce(losses, reduction, denominator), ctx


@quiet
def nll_backward(ctx: NLLContext, dloss: Any = 1.0) -> Array:
    """Return the gradient of the log-probabilities: only those of the targets have one."""
    share, target, classes, denominator, reduction = ctx
    xp = get_array_module(share)
    dlog_p = xp.zeros((len(share), classes), share.dtype)
    d = _spread(dloss, reduction, denominator)
    dlog_p[xp.arange(len(share)), target] = -_weighted(share, d)
    return dlog_p


class _Softmax(NamedTuple):
    """A softmax with exact tails: :math:`1 - p` is known even where p rounds to 1."""

    p: Array  # (N, C)
    best: Array  # (N,), the class of the largest logit
    rest: Array  # (N,), 1 - p of that class
    shifted: Array  # (N, C), the logits without the largest
    log_total: Array  # (N,), log p = shifted - log_total


def _softmax(logits: Array, kept: Array | None = None) -> _Softmax:
    """Return the softmax of each row; rows that are not kept have no influence."""
    xp = get_array_module(logits)
    shifted = _shifted(logits, kept)
    best = shifted.argmax(1)
    at_best = xp.arange(len(logits)), best
    p = xp.exp(shifted)
    one = p[at_best]  # or NaN, if a logit is
    p[at_best] = 0
    rest = p.sum(1)
    p[at_best] = one
    total = one + rest
    p /= total[:, None]
    return _Softmax(p, best, rest / total, shifted, xp.log1p(rest + (one - 1)))


class SoftCrossEntropyContext(NamedTuple):
    """The predicted distribution, and the one it is compared with."""

    p: Array  # (N, C)
    missing: Array  # (N, C), 1 - p
    share: Array  # (N, C), each class's weight times its smoothed probability
    reduction: str


@quiet
def soft_cross_entropy_forward(
    logits: Array,
    targets: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    save: bool = True,
) -> tuple[Array, SoftCrossEntropyContext | None]:
    r"""Return the cross entropy of softmax(logits) with distributions over the classes.

    .. math::
        \ell_n = -\sum_c s_{n,c} \log p_{n,c}, \qquad
        s_{n,c} = w_c \big((1 - \epsilon)\, q_{n,c} + \epsilon / C\big), \qquad
        \text{mean} = \frac{1}{N} \sum_n \ell_n

    Parameters
    ----------
    logits, targets : arrays of shape (N, C)
        `targets` is q.
    weight : array of shape (C,), optional
    reduction : {"mean", "sum", "none"}
    label_smoothing : float
        epsilon.

    A row whose shares are all zero is ignored.
    """
    xp = get_array_module(logits)
    N, C = logits.shape
    share = targets
    if label_smoothing:
        share = share * (1 - label_smoothing) + label_smoothing / C
    if weight is not None:
        share = share * weight
    p, best, rest, shifted, log_total = _softmax(logits, share.any(1))
    losses = _weighted(share, log_total[:, None] - shifted).sum(1)
    ctx = None
    if save:
        missing = 1 - p
        missing[xp.arange(N), best] = rest
        ctx = SoftCrossEntropyContext(p, missing, share, reduction)
    return _reduce(losses, reduction, N), ctx


@quiet
def soft_cross_entropy_backward(ctx: SoftCrossEntropyContext, dloss: Any = 1.0) -> Array:
    r"""Return ``dlogits``: what the other classes give a class, without what it gives them.

    .. math::
        d\ell_n / d\mathrm{logit}_{n,c} = p_{n,c} \sum_k s_{n,k} - s_{n,c}
            = p_{n,c} \sum_{k \ne c} s_{n,k} - s_{n,c} (1 - p_{n,c})
    """
    p, missing, share, reduction = ctx
    dlogits = p * (share.sum(1, keepdims=True) - share) - share * missing
    d = _spread(dloss, reduction, len(p))
    if reduction == "none":
        d = get_array_module(p).where(share.any(1), d, 0)[:, None]
    return _times(dlogits, d)


class MSEContext(NamedTuple):
    """The residual, and how it was reduced."""

    residual: Array
    reduction: str


@quiet
def mse_forward(
    input: Array, target: Array, reduction: str = "mean", save: bool = True
) -> tuple[Array, MSEContext | None]:
    """Return the squared difference, reduced; the arrays are of one shape."""
    residual = input - target
    loss = _reduce(residual * residual, reduction, residual.size)
    return loss, MSEContext(residual, reduction) if save else None


@quiet
def mse_backward(ctx: MSEContext, dloss: Any = 1.0) -> Array:
    """Return ``dinput = 2 * residual``, reduced likewise."""
    residual, reduction = ctx
    return _times(2 * residual, _spread(dloss, reduction, residual.size))


class BCEContext(NamedTuple):
    """Logits and targets, and how the loss was weighted and reduced."""

    logits: Array
    target: Array
    weight: Array | None
    pos_weight: Array | None
    reduction: str


@quiet
def bce_with_logits_forward(
    logits: Array,
    target: Array,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    reduction: str = "mean",
    save: bool = True,
) -> tuple[Array, BCEContext | None]:
    r"""Return the binary cross entropy of sigmoid(logits) with the targets.

    With :math:`\mathrm{softplus}(z) = \log(1 + e^z) = \log(1 + e^{-|z|}) + \max(z, 0)`, which neither
    overflows nor cancels, and positive weight :math:`q`:

    .. math::  \ell = w \big((1 - t)\, \mathrm{softplus}(z) + q\, t\, \mathrm{softplus}(-z)\big)
    """
    xp = get_array_module(logits)
    if weight is not None:
        logits, target = (xp.where(weight == 0, 0, x) for x in (logits, target))
    tail = xp.log1p(xp.exp(-xp.abs(logits)))
    positive = target if pos_weight is None else pos_weight * target
    losses = _weighted(1 - target, tail + xp.maximum(logits, 0))
    losses += _weighted(positive, tail + xp.maximum(-logits, 0))
    if weight is not None:
        losses *= weight
    ctx = BCEContext(logits, target, weight, pos_weight, reduction)
    return _reduce(losses, reduction, losses.size), ctx if save else None


@quiet
def bce_with_logits_backward(ctx: BCEContext, dloss: Any = 1.0) -> Array:
    r"""Return ``dlogits``: :math:`w ((1 - t)\, \sigma(z) - q\, t\, \sigma(-z))`.

    :math:`\sigma(-|z|) = e^{-|z|} / (1 + e^{-|z|})` keeps its digits however small it is.
    """
    logits, target, weight, pos_weight, reduction = ctx
    xp = get_array_module(logits)
    e = xp.exp(-xp.abs(logits))
    large, small = 1 / (1 + e), e / (1 + e)
    above = logits > 0
    positive = target if pos_weight is None else pos_weight * target
    dlogits = _weighted(1 - target, xp.where(above, large, small))
    dlogits -= _weighted(positive, xp.where(above, small, large))
    d = _spread(dloss, reduction, dlogits.size)
    return _times(dlogits, d if weight is None else _weighted(weight, d))


# The least that a logarithm counts for, so that a probability of 0 costs much and not infinitely much, and
# the least variance p (1 - p) that a gradient is divided by: torch's, which has the latter in float32.
_LEAST_LOG, _LEAST_VARIANCE = -100.0, float(np.float32(1e-12))


class ProbabilityContext(NamedTuple):
    """The derivative of every entry's loss, without its weight."""

    slope: Array
    weight: Array | None
    reduction: str


@quiet
def bce_forward(
    p: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    save: bool = True,
) -> tuple[Array, ProbabilityContext | None]:
    r"""Return the binary cross entropy of probabilities with the targets.

    .. math::
        \ell = -w \big(t \max(\log p, -100) + (1 - t) \max(\log(1 - p), -100)\big), \qquad
        d\ell / dp = w\, \frac{p - t}{\max(p (1 - p), 10^{-12})}
    """
    xp = get_array_module(p)
    if weight is not None:
        p, target = (xp.where(weight == 0, 0, x) for x in (p, target))
    with np.errstate(divide="ignore"):
        log_p, log_rest = (xp.maximum(log, _LEAST_LOG) for log in (xp.log(p), xp.log1p(-p)))
    losses = (target - 1) * log_rest - target * log_p
    slope = (p - target) / xp.maximum(p * (1 - p), _LEAST_VARIANCE) if save else None
    if weight is not None:
        losses = losses * weight
    ctx = ProbabilityContext(slope, weight, reduction) if save else None
    return _reduce(losses, reduction, losses.size), ctx


@quiet
def bce_backward(ctx: ProbabilityContext, dloss: Any = 1.0) -> Array:
    """Return the gradient of the probabilities."""
    slope, weight, reduction = ctx
    d = _spread(dloss, reduction, slope.size)
    return _times(slope.copy(), d if weight is None else _weighted(weight, d))
