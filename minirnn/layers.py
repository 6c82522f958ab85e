"""The layers beside the recurrent ones: parameters and checks around the pairs.

What acts on each step by itself (Linear, Embedding, Dropout) takes a PackedSequence as it is and
returns one: pack the tokens, then embed them, and no padding is ever looked up.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from . import checks
from .backend import RNG, Array, default_xp, generator, get_array_module, reads_values, uniform
from .functional import dropout, embedding, linear
from .module import Context, Module, describe, saving
from .packed_sequence import PackedSequence, Packing
from .parameter import Parameter


def data_of(x: Any) -> Any:
    """Return the array of `x`, packed or not."""
    return x.data if isinstance(x, PackedSequence) else x


def packing_of(x: Any) -> Packing | None:
    """Return how `x` is packed, or None."""
    return x.packing if isinstance(x, PackedSequence) else None


def in_form_of(x: Any, rows: Array) -> Any:
    """Return `rows` in the form of `x`: packed in the same way, or as they are."""
    return x._with(rows) if isinstance(x, PackedSequence) else rows


def check_gradient(dy: Any, shape: tuple[int, ...], like: Array, packing: Packing | None) -> Array:
    """Return the rows of `dy`, if it is like the output."""
    if packing is not None:
        packing.check("dy", dy)
    elif isinstance(dy, PackedSequence):
        raise TypeError("dy: expected an array like the output, got PackedSequence")
    rows = data_of(dy)
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
        checks.flags(bias=bias)
        in_features, out_features = int(in_features), int(out_features)
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
        rows = data_of(input)
        weight = self.weight.data
        checks.floating("input", rows, weight)
        least = 2 if isinstance(input, PackedSequence) else 1
        if rows.ndim < least or rows.shape[-1] != self.in_features:
            raise ValueError(f"input: expected shape (..., {self.in_features}), got {rows.shape}")
        flat = rows if rows.ndim == 2 else rows.reshape(-1, self.in_features)
        bias = None if self.bias is None else self.bias.data
        save = saving()
        y, saved = linear.forward(checks.kept(flat) if save else flat, weight, bias, save)
        if rows.ndim != 2:
            y = y.reshape(*rows.shape[:-1], self.out_features)
        return in_form_of(input, y), Context(self, saved and (saved, y.shape, packing_of(input)))

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
        rows = check_gradient(dy, shape, saved.weight, packing)
        dx, dweight, dbias = linear.backward(saved, rows.reshape(-1, self.out_features))
        self.weight.grad += dweight
        if self.bias is not None:
            self.bias.grad += dbias
        return in_form_of(dy, dx if len(shape) == 2 else dx.reshape(*shape[:-1], self.in_features))

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
        index = data_of(input)
        checks.integers("input", index)
        checks.array_module(input=index, weight=self.weight.data)
        if reads_values(index):
            checks.index("token", index, self.num_embeddings)
        y, saved = embedding.forward(
            index.reshape(-1), self.weight.data, self.padding_idx, saving()
        )
        if index.ndim != 1:
            y = y.reshape(*index.shape, self.embedding_dim)
        return in_form_of(input, y), Context(self, saved and (saved, y.shape, packing_of(input)))

    def backward(self, ctx: Context, dy: Any) -> None:
        """Add to the table's gradient; tokens have none.

        Parameters
        ----------
        ctx : Context
        dy : array, or PackedSequence, like `y`
        """
        saved, shape, packing = self._saved(ctx)
        rows = check_gradient(dy, shape, self.weight.data, packing)
        self.weight.grad += embedding.backward(saved, rows.reshape(-1, self.embedding_dim))

    def _describe(self) -> str:
        return describe(self, ("num_embeddings", "embedding_dim"), {"padding_idx": None})


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
        rows = data_of(input)
        checks.floating("input", rows)
        if not self.training or self.p == 0:
            like = get_array_module(rows).empty(0, rows.dtype)
            nothing = (None, rows.shape, packing_of(input), like)
            return input, Context(self, nothing if saving() else None)
        y, saved = dropout.forward(rows, self.p, self._rng, saving())
        ctx = Context(self, saved and (saved, rows.shape, packing_of(input), saved.mask))
        return in_form_of(input, y), ctx

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
        rows = check_gradient(dy, shape, like, packing)
        return dy if saved is None else in_form_of(dy, dropout.backward(saved, rows))

    def _describe(self) -> str:
        return str(self.p)
