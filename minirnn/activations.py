"""Activations and layer normalisation as layers, for heads of more than one Linear."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from . import checks, forms
from .backend import Array, default_xp, float_dtype, quiet, shown
from .functional import activation
from .functional.shared import column_sums
from .module import Context, Module, saving
from .parameter import Parameter


class _Elementwise(Module):
    _forward: ClassVar[staticmethod[..., Array]]
    _backward: ClassVar[staticmethod[..., Array]]
    _along: tuple[int, ...] = ()  # the axis, for what acts along one

    @quiet
    def forward(self, input: Any) -> tuple[Any, Context]:
        """Return the activation of every entry.

        Parameters
        ----------
        input : array of floating point, or PackedSequence

        Returns
        -------
        y, ctx : array, or PackedSequence, like `input`; Context

        Raises
        ------
        TypeError
            If `input` is not floating point.
        """
        form, x = forms.per_entry("input", input)
        checks.floating("input", x)
        y = self._forward(x, *self._along)
        if not saving():
            return form.restore(y), self._context(None, form)
        return form.restore(shown(y.view())), self._context(y, form)

    @quiet
    def backward(self, ctx: Context, dy: Any) -> Any:
        """Return the gradient of `input`.

        Parameters
        ----------
        ctx : Context
        dy : array, or PackedSequence, like `y`

        Returns
        -------
        array, or PackedSequence, like `input`
        """
        y, form = self._saved(ctx)
        return form.restore(self._backward(y, form.gradient("dy", dy, y), *self._along))


class ReLU(_Elementwise):
    r""":math:`\max(x, 0)` of every entry.

    See Also
    --------
    Tanh, Sigmoid : Other activations.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU.html

    Examples
    --------
    >>> import numpy as np
    >>> y, ctx = ReLU().forward(np.array([-1.0, 2.0]))
    >>> y
    array([0., 2.])
    """

    _forward = staticmethod(activation.relu_forward)
    _backward = staticmethod(activation.relu_backward)


class Tanh(_Elementwise):
    r""":math:`\tanh x` of every entry.

    See Also
    --------
    ReLU, Sigmoid : Other activations.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.Tanh.html

    Examples
    --------
    >>> import numpy as np
    >>> tanh = Tanh()
    >>> y, ctx = tanh.forward(np.array([0.0, 100.0]))
    >>> y, tanh.backward(ctx, np.ones(2))  # where it is flat no gradient passes
    (array([0., 1.]), array([1., 0.]))
    """

    _forward = staticmethod(activation.tanh_forward)
    _backward = staticmethod(activation.tanh_backward)


class Sigmoid(_Elementwise):
    r""":math:`1 / (1 + e^{-x})` of every entry.

    See Also
    --------
    ReLU, Tanh : Other activations.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.Sigmoid.html

    Examples
    --------
    >>> import numpy as np
    >>> Sigmoid()(np.array([-1000.0, 0.0, 1000.0]))  # nothing overflows
    array([0. , 0.5, 1. ])
    """

    _forward = staticmethod(activation.sigmoid_forward)
    _backward = staticmethod(activation.sigmoid_backward)


class _AlongAxis(_Elementwise):
    # Each class has its own, as Python 3.11.2 does not show the arguments of one that is inherited.
    def __init__(self, dim: int = -1) -> None:
        self.dim = checks.whole("dim", dim)
        self._along = (self.dim,)

    @quiet
    def forward(self, input: Any) -> tuple[Any, Context]:
        """Return it along the axis.

        Parameters
        ----------
        input : array of floating point, or PackedSequence

        Returns
        -------
        y, ctx : array, or PackedSequence, like `input`; Context

        Raises
        ------
        TypeError
            If `input` is not floating point.
        ValueError
            If it has no such axis.
        """
        axes = forms.per_entry("input", input)[1].ndim
        if not -axes <= self.dim < axes:
            raise ValueError(f"input: expected an axis {self.dim}, got {axes} axes")
        return super().forward(input)


class Softmax(_AlongAxis):
    r""":math:`e^{x_i} / \sum_j e^{x_j}` along an axis; :class:`CrossEntropyLoss` takes logits, without it.

    Parameters
    ----------
    dim : int
        The axis, of a PackedSequence that of its rows.

    Raises
    ------
    TypeError, ValueError
        If `dim` is no integer that an axis can have.

    See Also
    --------
    softmax : The function.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmax.html

    Examples
    --------
    >>> import numpy as np
    >>> Softmax()(np.array([[2.0, 2.0], [0.0, 1000.0]]))
    array([[0.5, 0.5],
           [0. , 1. ]])
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__(dim)

    _forward = staticmethod(activation.softmax)
    _backward = staticmethod(activation.softmax_backward)


class LogSoftmax(_AlongAxis):
    r""":math:`x_i - \log \sum_j e^{x_j}` along an axis: what :class:`NLLLoss` takes.

    Parameters
    ----------
    dim : int
        The axis, of a PackedSequence that of its rows.

    Raises
    ------
    TypeError, ValueError
        If `dim` is no integer that an axis can have.

    See Also
    --------
    log_softmax : The function.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.LogSoftmax.html

    Examples
    --------
    >>> import numpy as np
    >>> LogSoftmax()(np.array([0.0, 1000.0]))  # where the softmax has become 0
    array([-1000.,     0.])
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__(dim)

    _forward = staticmethod(activation.log_softmax)
    _backward = staticmethod(activation.log_softmax_backward)


class LayerNorm(Module):
    r"""Every row with mean 0 and variance 1 over its last axes, then a gain and a bias.

    .. math::  y = g \odot \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + b

    Parameters
    ----------
    normalized_shape : int or tuple of int
        The last axes of the input.
    eps : float
        Added to the variance, so that nothing is divided by zero.
    elementwise_affine : bool
        Whether there are a gain and a bias.
    bias : bool
        Whether there is a bias, if there is a gain.
    dtype : dtype, keyword-only
        Of the parameters: float32 or float64.

    Attributes
    ----------
    weight, bias : Parameter of shape `normalized_shape`, or None

    Raises
    ------
    ValueError
        If a size is no positive integer, or `eps` negative.
    TypeError
        If `dtype` is neither float32 nor float64, or a switch neither True nor False.

    See Also
    --------
    LayerNormGRU, LayerNormLSTM : Within the recurrence.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.LayerNorm.html

    Examples
    --------
    >>> import numpy as np
    >>> LayerNorm(2)(np.array([[1.0, 3.0]], np.float32)).round(3)
    array([[-1.,  1.]], dtype=float32)
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
    ) -> None:
        several = isinstance(normalized_shape, tuple | list) and len(normalized_shape)
        shape: Any = normalized_shape if several else [normalized_shape]
        for size in shape:
            checks.positive(normalized_shape=size)
        checks.flags(elementwise_affine=elementwise_affine, bias=bias)
        dtype = float_dtype(dtype)
        self.normalized_shape = tuple(map(int, shape))
        self.eps = checks.number("eps", eps, "[0, inf)")
        self.elementwise_affine = elementwise_affine
        xp = default_xp()
        self.weight = (
            Parameter(xp.ones(self.normalized_shape, dtype)) if elementwise_affine else None
        )
        affine = elementwise_affine and bias
        self.bias = Parameter(xp.zeros(self.normalized_shape, dtype)) if affine else None

    @quiet
    def forward(self, input: Any) -> tuple[Any, Context]:
        """Return the normalised rows.

        Parameters
        ----------
        input : array of shape ``(..., *normalized_shape)``, or PackedSequence of such rows

        Returns
        -------
        y, ctx : array, or PackedSequence, like `input`; Context

        Raises
        ------
        TypeError
            If `input` is not floating point, or not of the gain's dtype.
        ValueError
            If its last axes are others.
        """
        form, x = forms.per_row("input", input, self.normalized_shape)
        checks.floating("input", x, None if self.weight is None else self.weight.data)
        weight, bias = ((None if p is None else p.data.ravel()) for p in (self.weight, self.bias))
        rows = x.reshape(-1, math.prod(self.normalized_shape))
        y, saved = activation.layer_norm_forward(rows, weight, bias, self.eps)
        return form.restore(y.reshape(x.shape)), self._context(saved if saving() else None, form)

    @quiet
    def backward(self, ctx: Context, dy: Any) -> Any:
        """Add to the gradients of gain and bias; return that of `input`.

        Parameters
        ----------
        ctx : Context
        dy : array, or PackedSequence, like `y`

        Returns
        -------
        array, or PackedSequence, like `input`
        """
        saved, form = self._saved(ctx)
        given = form.gradient("dy", dy, self.normalized_shape, saved.x_hat)
        rows = given.reshape(saved.x_hat.shape)
        dx = activation.layer_norm_backward(saved, rows)
        if self.weight is not None:
            self.weight.grad += column_sums(rows * saved.x_hat).reshape(self.weight.shape)
        if self.bias is not None:
            self.bias.grad += column_sums(rows).reshape(self.bias.shape)
        return form.restore(dx.reshape(given.shape))
