"""Limits on the gradients, for between backward and the optimiser's step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import reduce
from typing import Any

import numpy as np

from . import checks
from .backend import Array, get_array_module, reads_values
from .parameter import Parameter, listed, pieces


def clip_grad_norm_(
    parameters: Iterable[Parameter] | Parameter,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Array:
    r"""Scale all gradients by one factor, so that their norm as one long vector is at most `max_norm`.

    .. math::  g \leftarrow g \cdot \min\Big(1, \frac{\mathrm{max\_norm}}{\lVert g \rVert_p + 10^{-6}}\Big)

    The direction stays. Backpropagation through time multiplies one Jacobian a step, so a
    gradient can come out longer than usual by orders of magnitude; this keeps such a one from
    undoing what was learnt.

    Parameters
    ----------
    parameters : iterable of Parameter, or one
        The gradients may be of any shapes; all on one device.
    max_norm : float
    norm_type : float
        p of the p-norm, above 0; ``math.inf`` for the largest entry.
    error_if_nonfinite : bool
        Refuse a norm that is NaN or infinite. Has to read the norm, so a GPU is waited for. Without
        it such a norm makes the gradients zero or NaN, as in torch.

    Returns
    -------
    scalar array
        The norm before clipping, where the gradients lie and of their dtype. A GPU is not waited for.

    Raises
    ------
    FloatingPointError
        With `error_if_nonfinite`, naming the parameters at fault; the gradients are unchanged.
    ValueError
        If there are no parameters, or a number is out of its range.
    TypeError
        If `parameters` holds something else.

    Notes
    -----
    Frozen parameters (``requires_grad = False``) are left out.

    On the host a 2-norm whose square is too large for the dtype (in float32 one above 1.8e19, where
    torch returns infinity and zeroes the gradients) still comes out right.

    References
    ----------
    R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
    ICML 2013; https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.clip import clip_grad_norm_
    >>> from minirnn.parameter import Parameter
    >>> w = Parameter(np.zeros(2))
    >>> w.grad = [3.0, 4.0]
    >>> float(clip_grad_norm_([w], max_norm=1.0))
    5.0
    >>> w.grad.round(3)
    array([0.6, 0.8])
    """
    parameters = [p for p in listed("parameters", parameters) if p.requires_grad]
    checks.at_least_zero("max_norm", max_norm)
    norm_type = float(norm_type)  # torch takes "inf", too
    if not norm_type > 0:
        raise ValueError(f"norm_type: expected a number > 0, got {norm_type!r}")
    gradients = [piece.grad for piece in pieces(parameters)]
    if not gradients:
        return np.zeros((), np.float32)
    xp = get_array_module(gradients[0])
    # What is not finite, the norm tells; what is too small to be squared, nobody misses.
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        total = _norm(xp, gradients, norm_type)
        if error_if_nonfinite and not math.isfinite(total):
            guilty = [p.name for p in parameters if not xp.isfinite(p.grad).all()]
            where = f"not finite in {', '.join(guilty)}" if guilty else "all entries are finite"
            raise FloatingPointError(f"gradients: expected a finite norm, got {total}; {where}")
        scale = xp.minimum(max_norm / (total + 1e-6), 1)
        for g in gradients:
            g *= scale
    return total


def clip_grad_value_(parameters: Iterable[Parameter] | Parameter, clip_value: float) -> None:
    r"""Move every entry of every gradient into the range from ``-clip_value`` to ``clip_value``.

    .. math::  g \leftarrow \max(-c, \min(c, g))

    Parameters
    ----------
    parameters : iterable of Parameter, or one
    clip_value : float
        The limit c.

    Raises
    ------
    ValueError
        If there are no parameters, or `clip_value` is negative.
    TypeError
        If `parameters` holds something else.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_value_.html

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.clip import clip_grad_value_
    >>> from minirnn.parameter import Parameter
    >>> w = Parameter(np.zeros(3))
    >>> w.grad = [-4.0, 0.5, 2.0]
    >>> clip_grad_value_(w, 1.0)
    >>> w.grad
    array([-1. ,  0.5,  1. ])
    """
    parameters = [p for p in listed("parameters", parameters) if p.requires_grad]
    checks.at_least_zero("clip_value", clip_value)
    for piece in pieces(parameters):
        g = piece.grad
        get_array_module(g).clip(g, -clip_value, clip_value, out=g)


def _norm(xp: Any, gradients: list[Array], p: float) -> Array:
    """Return the p-norm of all entries together, a scalar on the device."""
    if p == 2:
        total = xp.sqrt(_total(xp.vdot(g, g) for g in gradients))
        if reads_values(gradients[0]) and math.isinf(total):
            # The sum of squares overflowed. By the largest entry it does not, unless that is infinite.
            largest = _norm(xp, gradients, math.inf)
            if math.isfinite(largest):
                total = largest * xp.sqrt(_total(((g / largest) ** 2).sum() for g in gradients))
        return total
    if math.isinf(p):
        # Two reductions, where abs would first write an array.
        return reduce(xp.maximum, (xp.maximum(g.max(), -g.min()) for g in gradients))
    return _total((abs(g) ** p).sum() for g in gradients) ** (1 / p)


def _total(terms: Iterable[Array]) -> Array:
    return reduce(lambda a, b: a + b, terms)
