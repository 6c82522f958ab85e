"""Limits on gradients, between backward and the optimiser's step."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .backend import Array, get_array_module
from .module import Parameter, shared_buffer


def _list(parameters: Iterable[Parameter] | Parameter) -> list[Parameter]:
    return [parameters] if isinstance(parameters, Parameter) else list(parameters)


def _gradients(parameters: list[Parameter]) -> list[Array]:
    """Return the gradients in as few arrays as they lie in."""
    buffer = shared_buffer(parameters)
    return [p.grad for p in parameters] if buffer is None else [buffer.grad]


def clip_grad_norm_(
    parameters: Iterable[Parameter] | Parameter,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Array:
    r"""Scale all gradients so that their norm, taken over all of them together, is at most `max_norm`.

    .. math::  g \leftarrow g \cdot \min(1, \mathrm{max\_norm} / (\lVert g \rVert + 10^{-6}))

    Parameters
    ----------
    parameters : iterable of Parameter, or one
    max_norm : float
    norm_type : float
        p of the p-norm; may be ``inf``.
    error_if_nonfinite : bool
        Refuse a norm that is NaN or infinite. Reads the norm, and so waits for a GPU.

    Returns
    -------
    scalar array
        The norm before clipping, on the device where the gradients are.

    Raises
    ------
    FloatingPointError
        With `error_if_nonfinite`: names the parameters at fault; the gradients are unchanged.

    References
    ----------
    R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
    ICML 2013; https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> w = minirnn.Parameter(np.zeros(2))
    >>> w.grad[...] = [3.0, 4.0]
    >>> float(minirnn.clip_grad_norm_([w], 1.0)), w.grad.round(3)
    (5.0, array([0.6, 0.8]))
    """
    parameters = _list(parameters)
    if not parameters:
        raise ValueError("parameters: expected at least one, got none")
    if not max_norm >= 0:
        raise ValueError(f"max_norm: expected a number >= 0, got {max_norm!r}")
    if not norm_type > 0:
        raise ValueError(f"norm_type: expected a number > 0, got {norm_type!r}")
    gradients = _gradients(parameters)
    xp = get_array_module(gradients[0])
    if norm_type == 2:
        total = xp.sqrt(sum(xp.vdot(g, g) for g in gradients))
    elif math.isinf(norm_type):
        total = xp.max(xp.stack([xp.max(xp.abs(g)) for g in gradients]))
    else:
        total = sum(xp.sum(xp.abs(g) ** norm_type) for g in gradients) ** (1 / norm_type)
    if error_if_nonfinite and not math.isfinite(float(total)):
        guilty = [p.name for p in parameters if not bool(xp.isfinite(p.grad).all())]
        raise FloatingPointError(
            f"the gradients' norm is {float(total)}; not finite in: {', '.join(guilty)}"
            if guilty
            else f"the gradients' norm is {float(total)}: it overflows, all entries are finite"
        )
    scale = xp.minimum(max_norm / (total + 1e-6), 1).astype(gradients[0].dtype)
    for g in gradients:
        g *= scale
    return total


def clip_grad_value_(parameters: Iterable[Parameter] | Parameter, clip_value: float) -> None:
    """Move every entry of every gradient into ``[-clip_value, clip_value]``.

    Parameters
    ----------
    parameters : iterable of Parameter, or one
    clip_value : float
    """
    if not clip_value >= 0:
        raise ValueError(f"clip_value: expected a number >= 0, got {clip_value!r}")
    for g in _gradients(_list(parameters)):
        get_array_module(g).clip(g, -clip_value, clip_value, out=g)
