r"""Elementwise activations, the softmax, and layer normalisation over the last axis.

.. math::
    \mathrm{relu}(x) = \max(x, 0), \quad dx = dy\,[y > 0]; \qquad
    \tanh: \; dx = dy\,(1 - y^2); \qquad
    \sigma(x) = \frac{1}{1 + e^{-x}}, \quad dx = dy\, y (1 - y)

The softmax p of x along an axis, and its logarithm:

.. math::
    dx = p \odot \Big(dp - \sum dp \odot p\Big); \qquad
    y = \log p, \quad dx = dy - p \sum dy

Layer normalisation, with :math:`\hat x = (x - \mu) / \sqrt{\sigma^2 + \epsilon}` over n features:

.. math::
    y = g \odot \hat x + b, \qquad d\hat x = g \odot dy, \qquad
    dx = \frac{d\hat x - \mathrm{mean}(d\hat x) - \hat x\, \mathrm{mean}(d\hat x \odot \hat x)}
              {\sqrt{\sigma^2 + \epsilon}}

References
----------
J. Ba, J. Kiros, G. Hinton, "Layer normalization", arXiv:1607.06450 (2016)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import FLOATS, Array, get_array_module, quiet


def relu_forward(x: Array) -> Array:
    """Return ``max(x, 0)``; NaN stays."""
    return get_array_module(x).maximum(x, 0)


def relu_backward(y: Array, dy: Array) -> Array:
    """Return dx: dy where the unit is not dead, else 0, also of an infinite dy."""
    return get_array_module(y).where(y <= 0, dy.dtype.type(0), dy)


def tanh_forward(x: Array) -> Array:
    """Return ``tanh(x)``."""
    return get_array_module(x).tanh(x)


def tanh_backward(y: Array, dy: Array) -> Array:
    """Return dx."""
    return dy * (1 - y * y)


def sigmoid_forward(x: Array) -> Array:
    """Return the sigmoid by ``exp(-|x|)``, which neither overflows nor loses the tail's digits."""
    xp = get_array_module(x)
    e = xp.exp(-abs(x))
    return xp.where(x < 0, e, e.dtype.type(1)) / (1 + e)


def sigmoid_backward(y: Array, dy: Array) -> Array:
    """Return dx."""
    return dy * (y * (1 - y))


def _floating(x: Array, axis: int) -> Any:
    """Return the module on which `x` lies, if it is a plain array to compute with and has `axis`."""
    xp: Any = get_array_module(x)
    if x.dtype not in FLOATS or isinstance(x, np.ma.MaskedArray | np.matrix):
        raise TypeError(
            f"x: expected an array of float32 or float64, got {type(x).__name__} of dtype {x.dtype}; convert "
            "it with numpy.asarray and .astype"
        )
    if isinstance(axis, bool) or not isinstance(axis, int | np.integer):
        raise TypeError(f"axis: expected an integer, got {type(axis).__name__}")
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis: expected one of the array's {x.ndim}, got {axis!s:.80}")
    return xp


@quiet
def log_softmax(x: Array, axis: int = -1) -> Array:
    r"""Return :math:`x - \log \sum e^x` along an axis; no overflow.

    Parameters
    ----------
    x : array of floating point
        Logits, or any numbers.
    axis : int
        The axis along which the probabilities sum to one.

    Returns
    -------
    array of the shape of `x`
        A new one.

    Raises
    ------
    TypeError
        If `x` is no plain array of float32 or float64, or `axis` no integer.
    ValueError
        If `x` has no such axis.

    See Also
    --------
    softmax : Probabilities.

    Examples
    --------
    >>> import numpy as np
    >>> log_softmax(np.array([0.0, 1000.0]))
    array([-1000.,     0.])
    """
    xp = _floating(x, axis)
    best = xp.expand_dims(x.argmax(axis), axis)
    shifted = x - xp.take_along_axis(x, best, axis)
    terms = xp.exp(shifted)
    xp.put_along_axis(terms, best, 0, axis)  # the largest is 1, and would swallow a small rest
    return shifted - xp.log1p(terms.sum(axis=axis, keepdims=True))


def log_softmax_backward(y: Array, dy: Array, axis: int) -> Array:
    """Return dx: dy without its sum times the probabilities; that of the largest by 1 - p, for its digits."""
    xp = get_array_module(y)
    total, best = dy.sum(axis=axis, keepdims=True), xp.expand_dims(y.argmax(axis), axis)
    dx = xp.exp(y)
    dx *= -total
    dx += dy
    log_p, d = xp.take_along_axis(y, best, axis), xp.take_along_axis(dy, best, axis)
    xp.put_along_axis(dx, best, -d * xp.expm1(log_p) - xp.exp(log_p) * (total - d), axis)
    return dx


@quiet
def softmax(x: Array, axis: int = -1) -> Array:
    r"""Return :math:`e^x / \sum e^x` along an axis; no overflow.

    Parameters
    ----------
    x : array of floating point
        Logits, or any numbers.
    axis : int
        The axis along which the probabilities sum to one.

    Returns
    -------
    array of the shape of `x`
        A new one.

    Raises
    ------
    TypeError
        If `x` is no plain array of float32 or float64, or `axis` no integer.
    ValueError
        If `x` has no such axis.

    See Also
    --------
    log_softmax : Their logarithms.

    Examples
    --------
    >>> import numpy as np
    >>> softmax(np.array([1.0, 1.0, 1001.0, 1001.0]))
    array([0. , 0. , 0.5, 0.5])
    """
    xp = _floating(x, axis)
    e = xp.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def softmax_backward(y: Array, dy: Array, axis: int) -> Array:
    """Return dx: the probabilities times dy without its mean under them.

    A constant in dy makes no difference. Without its entry at the largest probability, that one, which may
    be rounded to 1, is in no sum.
    """
    xp = get_array_module(y)
    dy = dy - xp.take_along_axis(dy, xp.expand_dims(y.argmax(axis), axis), axis)
    return y * (dy - (dy * y).sum(axis=axis, keepdims=True))


class LayerNormContext(NamedTuple):
    """The normalised rows, what they were divided by, and the gain."""

    x_hat: Array  # (N, features)
    deviation: Array  # (N, 1)
    weight: Array | None  # (features,)


def layer_norm_forward(
    x: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, LayerNormContext]:
    """Return y for rows x of shape (N, features)."""
    xp = get_array_module(x)
    x_hat = x - x.mean(axis=1, keepdims=True)
    deviation = xp.sqrt((x_hat * x_hat).mean(axis=1, keepdims=True) + x.dtype.type(eps))
    x_hat /= deviation
    y = x_hat.copy() if weight is None else x_hat * weight
    if bias is not None:
        y += bias
    return y, LayerNormContext(x_hat, deviation, weight)


def layer_norm_backward(ctx: LayerNormContext, dy: Array) -> Array:
    """Return dx; the gain's gradient is the sum of ``dy * x_hat``, the bias' of ``dy``."""
    x_hat, deviation, weight = ctx
    dx_hat = dy if weight is None else dy * weight
    along = (dx_hat * x_hat).mean(axis=1, keepdims=True)
    return (dx_hat - dx_hat.mean(axis=1, keepdims=True) - x_hat * along) / deviation
