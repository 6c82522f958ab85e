"""The layers beside the recurrent ones, and the losses: parameters and checks around the pairs.

What acts on each step by itself (Linear, Embedding, Dropout) takes a PackedSequence as it is and
returns one: pack the tokens, then embed them, and no padding is ever looked up.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from . import checks
from .backend import RNG, Array, default_xp, generator, get_array_module, reads_values, uniform
from .functional import dropout, embedding, linear, loss
from .module import Context, Module, Parameter, describe, saving
from .packing import PackedSequence, Packing


def _data(x: Any) -> Any:
    return x.data if isinstance(x, PackedSequence) else x


def _packing(x: Any) -> Packing | None:
    return x.packing if isinstance(x, PackedSequence) else None


def _in_form_of(x: Any, rows: Array) -> Any:
    """Return `rows` in the form of `x`: packed in the same way, or as they are."""
    return x._with(rows) if isinstance(x, PackedSequence) else rows


def _check_gradient(dy: Any, shape: tuple[int, ...], like: Array, packing: Packing | None) -> Array:
    if packing is not None:
        packing.check("dy", dy)
    elif isinstance(dy, PackedSequence):
        raise TypeError("dy: expected an array like the output, got PackedSequence")
    rows = _data(dy)
    checks.floating("dy", rows, like)
    checks.shape("dy", rows, shape, "that of the output")
    return rows


class Linear(Module):
    r"""The affine map :math:`y = x W^\top + b`.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
    dtype : dtype, keyword-only
    rng : seed or Generator, keyword-only
        For the initial weights, uniform on ``+-1/sqrt(in_features)``.

    Attributes
    ----------
    weight : Parameter of shape (out_features, in_features)
    bias : Parameter of shape (out_features,), or None

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html

    Examples
    --------
    >>> import minirnn, numpy as np
    >>> layer = minirnn.Linear(3, 2)
    >>> y, ctx = layer.forward(np.ones((5, 3), np.float32))
    >>> layer.backward(ctx, np.ones_like(y)).shape
    (5, 3)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
        rng: RNG = None,
    ) -> None:
        checks.positive(in_features=in_features, out_features=out_features)
        bound = 1 / math.sqrt(in_features)
        rng = generator(rng)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(uniform(rng, -bound, bound, (out_features, in_features), dtype))
        self.bias = Parameter(uniform(rng, -bound, bound, (out_features,), dtype)) if bias else None

    def forward(self, input: Any) -> tuple[Any, Context]:
        """Map the last axis of `input`.

        Parameters
        ----------
        input : array of shape (..., in_features), or PackedSequence of such rows

        Returns
        -------
        y, ctx : array of shape (..., out_features), or PackedSequence; Context
        """
        rows = _data(input)
        weight = self.weight.data
        checks.floating("input", rows, weight)
        least = 2 if isinstance(input, PackedSequence) else 1
        if rows.ndim < least or rows.shape[-1] != self.in_features:
            raise ValueError(f"input: expected shape (..., {self.in_features}), got {rows.shape}")
        flat = rows if rows.ndim == 2 else rows.reshape(-1, self.in_features)
        bias = None if self.bias is None else self.bias.data
        y, saved = linear.forward(flat, weight, bias, saving())
        if rows.ndim != 2:
            y = y.reshape(*rows.shape[:-1], self.out_features)
        return _in_form_of(input, y), Context(self, saved and (saved, y.shape, _packing(input)))

    def backward(self, ctx: Context, dy: Any) -> Any:
        """Add to the parameters' gradients and return that of `input`.

        Parameters
        ----------
        ctx : Context
        dy : array, or PackedSequence, like `y`

        Returns
        -------
        array, or PackedSequence, like `input`
        """
        saved, shape, packing = self._saved(ctx)
        rows = _check_gradient(dy, shape, saved.weight, packing)
        dx, dweight, dbias = linear.backward(saved, rows.reshape(-1, self.out_features))
        self.weight.grad += dweight
        if self.bias is not None:
            self.bias.grad += dbias
        return _in_form_of(dy, dx if len(shape) == 2 else dx.reshape(*shape[:-1], self.in_features))

    def _describe(self) -> str:
        bias = "" if self.bias is not None else ", bias=False"
        return f"{self.in_features}, {self.out_features}{bias}"


class Embedding(Module):
    """A table of vectors, looked up by token.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
    padding_idx : int, optional
        The token whose row starts at zero and never gets a gradient; negative counts from the end.
    dtype : dtype, keyword-only
    rng : seed or Generator, keyword-only
        For the initial weights, standard normal.

    Attributes
    ----------
    weight : Parameter of shape (num_embeddings, embedding_dim)

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html

    Examples
    --------
    >>> import minirnn, numpy as np
    >>> minirnn.Embedding(11, 4, padding_idx=10)(np.array([[1, 2], [3, 10]])).shape
    (2, 2, 4)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: DTypeLike = np.float32,
        rng: RNG = None,
    ) -> None:
        checks.positive(num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None:
            whole = isinstance(padding_idx, int | np.integer)
            if not whole or not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(
                    f"padding_idx: expected a token of {num_embeddings}, got {padding_idx}"
                )
            padding_idx %= num_embeddings
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx
        values = generator(rng).standard_normal((num_embeddings, embedding_dim)).astype(dtype)
        if padding_idx is not None:
            values[padding_idx] = 0
        self.weight = Parameter(default_xp().asarray(values))

    def forward(self, input: Any) -> tuple[Any, Context]:
        """Look up.

        Parameters
        ----------
        input : array of int of any shape, or PackedSequence of ints

        Returns
        -------
        y, ctx : array of shape (..., embedding_dim), or PackedSequence; Context

        Raises
        ------
        IndexError
            If a token is outside ``[0, num_embeddings)``: the first, with its position.
        """
        index = _data(input)
        checks.integers("input", index)
        checks.array_module(input=index, weight=self.weight.data)
        if reads_values(index):
            _check_range("token", index, self.num_embeddings)
        y, saved = embedding.forward(
            index.reshape(-1), self.weight.data, self.padding_idx, saving()
        )
        if index.ndim != 1:
            y = y.reshape(*index.shape, self.embedding_dim)
        return _in_form_of(input, y), Context(self, saved and (saved, y.shape, _packing(input)))

    def backward(self, ctx: Context, dy: Any) -> None:
        """Add to the table's gradient; tokens have none.

        Parameters
        ----------
        ctx : Context
        dy : array, or PackedSequence, like `y`
        """
        saved, shape, packing = self._saved(ctx)
        rows = _check_gradient(dy, shape, self.weight.data, packing)
        self.weight.grad += embedding.backward(saved, rows.reshape(-1, self.embedding_dim))

    def _describe(self) -> str:
        return describe(self, ("num_embeddings", "embedding_dim"), {"padding_idx": None})


def _in_range(index: Array, limit: int) -> bool:
    bits = 8 * index.dtype.itemsize
    if index.dtype.kind == "i" and limit > 2 ** (bits - 1):
        return bool(index.min() >= 0)  # the dtype has no number beyond the limit
    # Read without its sign, a negative number is larger than the limit: one reduction, not two.
    return bool(index.view(index.dtype.str.replace("i", "u")).max() < limit)


def _check_range(what: str, index: Array, limit: int) -> None:
    if index.size and not _in_range(index, limit):
        xp = get_array_module(index)
        index = xp.atleast_1d(index)
        where = tuple(int(axis[0]) for axis in xp.nonzero((index < 0) | (index >= limit)))
        raise IndexError(
            f"{what}: expected 0 <= {what} < {limit}, got {int(index[where])} at position "
            f"{where[0] if len(where) == 1 else where}"
        )


class Dropout(Module):
    r"""Drop entries with probability `p` in training, and scale up the others.

    .. math::  y = x \odot m / (1 - p), \qquad P(m = 0) = p

    Parameters
    ----------
    p : float
    rng : seed or Generator, keyword-only

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout.html

    Examples
    --------
    >>> import minirnn, numpy as np
    >>> minirnn.Dropout(0.5, rng=0)(np.ones(4))
    array([2., 2., 2., 0.])
    """

    def __init__(self, p: float = 0.5, *, rng: RNG = None) -> None:
        checks.probability("p", p)
        self.p = p
        self._rng = None if rng is None else generator(rng)

    def forward(self, input: Any) -> tuple[Any, Context]:
        """Return `input` with entries dropped; in evaluation, `input` itself.

        Parameters
        ----------
        input : array of floating point, or PackedSequence

        Returns
        -------
        y, ctx : array, or PackedSequence, like `input`; Context
        """
        rows = _data(input)
        checks.floating("input", rows)
        if not self.training or self.p == 0:
            like = get_array_module(rows).empty(0, rows.dtype)
            nothing = (None, rows.shape, _packing(input), like)
            return input, Context(self, nothing if saving() else None)
        y, saved = dropout.forward(rows, self.p, self._rng, saving())
        ctx = Context(self, saved and (saved, rows.shape, _packing(input), saved.mask))
        return _in_form_of(input, y), ctx

    def backward(self, ctx: Context, dy: Any) -> Any:
        """Return the gradient of `input`, through the same mask.

        Parameters
        ----------
        ctx : Context
        dy : array, or PackedSequence, like `y`

        Returns
        -------
        array, or PackedSequence, like `input`
        """
        saved, shape, packing, like = self._saved(ctx)
        rows = _check_gradient(dy, shape, like, packing)
        return dy if saved is None else _in_form_of(dy, dropout.backward(saved, rows))

    def _describe(self) -> str:
        return str(self.p)


class _Loss(Module):
    def __init__(self, reduction: str) -> None:
        checks.choice("reduction", reduction, ("mean", "sum", "none"))
        self.reduction = reduction

    def _incoming(self, dloss: Any, like: Array, shape: tuple[int, ...]) -> Any:
        """Return `dloss`, checked, of the dtype of `like`; `shape` is that of the unreduced loss."""
        if self.reduction == "none":
            checks.floating("dloss", dloss, like)
            checks.shape("dloss", dloss, shape, "that of the loss")
        elif getattr(dloss, "shape", ()) != ():
            raise ValueError(f"dloss: expected a scalar, got shape {dloss.shape}")
        elif isinstance(dloss, checks.NUMBER):
            # A number of another precision would promote the gradient.
            return like.dtype.type(dloss)
        else:
            checks.floating("dloss", dloss, like)
        return dloss


class CrossEntropyLoss(_Loss):
    r"""Cross entropy of a softmax over logits with integer classes.

    :math:`\ell_n = -w_{t_n} \log p_{n, t_n}, \; p = \mathrm{softmax}(z)`; see
    :mod:`minirnn.functional.loss` for it with label smoothing, and for its derivative.

    Parameters
    ----------
    weight : array of shape (C,), optional
        Weight of each class; the mean is taken over the weights of the targets.
    ignore_index : int
        Targets of this value count for nothing.
    reduction : {"mean", "sum", "none"}
    label_smoothing : float
        In [0, 1]: how much of the target is spread over all classes (Szegedy et al., "Rethinking
        the Inception architecture for computer vision", CVPR 2016).

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html

    Examples
    --------
    >>> import minirnn, numpy as np
    >>> criterion = minirnn.CrossEntropyLoss()
    >>> loss, ctx = criterion.forward(np.zeros((2, 4)), np.array([0, 3]))
    >>> criterion.backward(ctx)
    array([[-0.375,  0.125,  0.125,  0.125],
           [ 0.125,  0.125,  0.125, -0.375]])
    """

    def __init__(
        self,
        weight: Array | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        checks.probability("label_smoothing", label_smoothing)
        if weight is not None:
            checks.array_module(weight=weight)
        self.weight, self.ignore_index = weight, ignore_index
        self.label_smoothing = label_smoothing

    def _move_arrays(self, move: Callable[[Array], Array]) -> None:
        self.weight = None if self.weight is None else move(self.weight)

    def forward(self, input: Array, target: Array) -> tuple[Array, Context]:
        """Return the loss.

        Parameters
        ----------
        input : array of shape (N, C), (C,) or (N, C, d1, ...)
            Logits.
        target : array of int, shape (N,), () or (N, d1, ...)
            Classes in [0, C), or `ignore_index`.

        Returns
        -------
        loss, ctx : scalar array, or one of the shape of `target` with reduction "none"; Context

        Raises
        ------
        IndexError
            If a class is outside ``[0, C)`` and not `ignore_index`: the first, with its position.

        Warns
        -----
        RuntimeWarning
            If all targets are ignored and the mean of none, NaN, is returned.
        """
        xp = checks.array_module(input=input, target=target)
        checks.integers("target", target)
        checks.floating("input", input)
        if input.ndim < 1:
            raise ValueError(f"input: expected shape (N, C), got {input.shape}")
        axis = min(1, input.ndim - 1)
        C = input.shape[axis]
        expected = input.shape[:axis] + input.shape[axis + 1 :]
        checks.shape("target", target, expected, "that of the input without the classes")
        if C == 0 or target.size == 0:
            raise ValueError(f"input: expected at least one row and class, got {input.shape}")
        if self.weight is not None:
            checks.floating("weight", self.weight, input, "input")
            checks.shape("weight", self.weight, (C,), "(C,)")
        ignore: int | None = self.ignore_index
        if reads_values(target):
            # On the host a look at the targets tells whether any is ignored at all.
            if self.ignore_index < 0 and _in_range(target, C):
                ignore = None
            else:
                self._check_classes(target, C)
        rows = input if input.ndim == 2 else xp.moveaxis(input, axis, -1).reshape(-1, C)
        value, saved = loss.cross_entropy_forward(
            rows,
            target.reshape(-1),
            self.weight,
            ignore,
            self.reduction,
            self.label_smoothing,
            saving(),
        )
        if self.reduction == "none":
            value = value.reshape(target.shape)
        return value, Context(self, saved and (saved, input.shape, target.shape))

    def _check_classes(self, target: Array, C: int) -> None:
        ignored = target == self.ignore_index
        _check_range("class", get_array_module(target).where(ignored, 0, target), C)
        if self.reduction == "mean" and bool(ignored.all()):
            warnings.warn(
                f"all targets are ignored (ignore_index={self.ignore_index}): the mean loss is NaN",
                RuntimeWarning,
                stacklevel=3,
            )

    def backward(self, ctx: Context, dloss: Any = 1.0) -> Array:
        """Return the gradient of the logits.

        Parameters
        ----------
        ctx : Context
        dloss : number or scalar array, or with reduction "none" an array of the shape of the loss

        Returns
        -------
        array of the shape of `input`
        """
        saved, shape, loss_shape = self._saved(ctx)
        dloss = self._incoming(dloss, saved.p, loss_shape)
        if self.reduction == "none":
            dloss = dloss.reshape(-1)
        dlogits = loss.cross_entropy_backward(saved, dloss)
        if len(shape) <= 2:
            return dlogits.reshape(shape)
        xp = get_array_module(dlogits)
        return xp.moveaxis(dlogits.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def _check_pair(input: Array, target: Array) -> None:
    checks.array_module(input=input, target=target)
    checks.floating("input", input)
    checks.floating("target", target, input, "input")
    checks.shape("target", target, input.shape, "that of the input")
    if input.size == 0:
        raise ValueError(f"input: expected at least one entry, got shape {input.shape}")


class MSELoss(_Loss):
    r"""Mean squared error, :math:`\ell = (x - t)^2`.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.MSELoss.html
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Array, target: Array) -> tuple[Array, Context]:
        """Return the loss.

        Parameters
        ----------
        input, target : arrays of floating point, of one shape

        Returns
        -------
        loss, ctx : scalar array, or one of the shape of `input` with reduction "none"; Context
        """
        _check_pair(input, target)
        value, saved = loss.mse_forward(input, target, self.reduction, saving())
        return value, Context(self, saved)

    def backward(self, ctx: Context, dloss: Any = 1.0) -> Array:
        """Return the gradient of `input`; that of `target` is its negative.

        Parameters
        ----------
        ctx : Context
        dloss : number or scalar array, or with reduction "none" an array of the shape of the loss
        """
        saved = self._saved(ctx)
        dloss = self._incoming(dloss, saved.residual, saved.residual.shape)
        return loss.mse_backward(saved, dloss)


class BCEWithLogitsLoss(_Loss):
    r"""Binary cross entropy of a sigmoid over logits.

    :math:`\ell = -w \big(q\, t \log \sigma(z) + (1 - t) \log(1 - \sigma(z))\big)`, q the positive
    weight; see :mod:`minirnn.functional.loss` for the form that does not overflow.

    Parameters
    ----------
    weight : array that broadcasts to the input, optional
    reduction : {"mean", "sum", "none"}
    pos_weight : array that broadcasts to the input, optional
        Weight of the positive class.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html
    """

    def __init__(
        self,
        weight: Array | None = None,
        reduction: str = "mean",
        pos_weight: Array | None = None,
    ) -> None:
        super().__init__(reduction)
        for name, w in (("weight", weight), ("pos_weight", pos_weight)):
            if w is not None:
                checks.array_module(**{name: w})
        self.weight, self.pos_weight = weight, pos_weight

    def _move_arrays(self, move: Callable[[Array], Array]) -> None:
        self.weight = None if self.weight is None else move(self.weight)
        self.pos_weight = None if self.pos_weight is None else move(self.pos_weight)

    def forward(self, input: Array, target: Array) -> tuple[Array, Context]:
        """Return the loss.

        Parameters
        ----------
        input : array of floating point
            Logits.
        target : array of the same shape and dtype
            In [0, 1].

        Returns
        -------
        loss, ctx : scalar array, or one of the shape of `input` with reduction "none"; Context
        """
        _check_pair(input, target)
        for name, w in (("weight", self.weight), ("pos_weight", self.pos_weight)):
            if w is None:
                continue
            checks.floating(name, w, input, "input")
            fits = all(n in (1, m) for n, m in zip(w.shape[::-1], input.shape[::-1], strict=False))
            if w.ndim > input.ndim or not fits:
                raise ValueError(
                    f"{name}: expected a shape that broadcasts to the input's, {input.shape}, "
                    f"got {w.shape}"
                )
        value, saved = loss.bce_with_logits_forward(
            input, target, self.weight, self.pos_weight, self.reduction, saving()
        )
        return value, Context(self, saved)

    def backward(self, ctx: Context, dloss: Any = 1.0) -> Array:
        """Return the gradient of the logits.

        Parameters
        ----------
        ctx : Context
        dloss : number or scalar array, or with reduction "none" an array of the shape of the loss
        """
        saved = self._saved(ctx)
        dloss = self._incoming(dloss, saved.logits, saved.logits.shape)
        return loss.bce_with_logits_backward(saved, dloss)
