"""Limits on the gradients, for between backward and the optimiser's step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from . import checks
from .backend import Array, get_array_module
from .functional import norm
from .pairs import pair_for
from .parameter import Parameter, flat_pieces, parameter_list


def clip_grad_norm_(
    parameters: Iterable[Parameter] | Parameter,
    max_norm: float,
    norm_type: float | str = 2.0,
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
        The largest norm that is left as it is.
    norm_type : float
        The p of the p-norm, above 0; ``math.inf`` or ``"inf"`` for the largest entry.
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

    See Also
    --------
    clip_grad_value_ : Each entry by itself.

    Notes
    -----
    Frozen parameters (``requires_grad = False``) are left out.

    A norm whose entries' powers are too large or too small for the dtype (in float32 a 2-norm above 1.8e19,
    where torch returns infinity and zeroes the gradients) still comes out right; on the GPU, where nothing
    waits for a number, not so the 2-norm.

    References
    ----------
    R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
    ICML 2013; `torch.nn.utils.clip_grad_norm_
    <https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html>`__

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
    parameters = [p for p in parameter_list("parameters", parameters) if p._requires_grad]
    max_norm = checks.number("max_norm", max_norm, "[0, inf]")
    if error_if_nonfinite is not False:
        checks.flags(error_if_nonfinite=error_if_nonfinite)
    p = checks.number(
        "norm_type",
        math.inf if isinstance(norm_type, str) and norm_type == "inf" else norm_type,
        "(0, inf]",
    )
    gradients = [piece.grad for piece in flat_pieces(parameters) if piece.grad.size]
    if not gradients:
        return np.zeros((), np.float32)
    pair = pair_for(norm, gradients[0])
    total = pair.of(gradients, p)
    if error_if_nonfinite and not math.isfinite(total):
        guilty = [p.name for p in parameters if not get_array_module(p.grad).isfinite(p.grad).all()]
        where = f"not finite in {', '.join(guilty)}" if guilty else "all entries are finite"
        raise FloatingPointError(f"gradients: expected a finite norm, got {total}; {where}")
    before: Array = pair.limit(gradients, total, max_norm)
    return before


def clip_grad_value_(parameters: Iterable[Parameter] | Parameter, clip_value: float) -> None:
    r"""Move every entry of every gradient into the range from ``-clip_value`` to ``clip_value``.

    .. math::  g \leftarrow \max(-c, \min(c, g))

    Parameters
    ----------
    parameters : iterable of Parameter, or one
        Those whose gradients are meant.
    clip_value : float
        The limit c.

    Raises
    ------
    ValueError
        If there are no parameters, or `clip_value` is negative.
    TypeError
        If `parameters` holds something else.

    See Also
    --------
    clip_grad_norm_ : All of them by one factor, which keeps the direction.

    References
    ----------
    `torch.nn.utils.clip_grad_value_
    <https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_value_.html>`__

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
    parameters = [p for p in parameter_list("parameters", parameters) if p._requires_grad]
    clip_value = checks.number("clip_value", clip_value, "[0, inf]")
    for piece in flat_pieces(parameters):
        g = piece.grad
        get_array_module(g).clip(g, -clip_value, clip_value, out=g)
