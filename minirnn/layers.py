"""The layers beside the recurrent ones: parameters and checks around the pairs.

What acts on each step by itself (Linear, Embedding, Dropout) takes a PackedSequence as it is and
returns one: pack the tokens, then embed them, and no padding is ever looked up.
"""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from . import checks, forms
from .backend import (
    RNG,
    Array,
    asnumpy,
    default_xp,
    float_dtype,
    generator,
    get_array_module,
    is_array,
    quiet,
    reads_values,
    uniform,
)
from .functional import dropout, embedding, indices, linear, zoneout
from .module import Context, Module, saving
from .pairs import pair_for
from .parameter import Parameter


class Linear(Module):
    r"""The affine map :math:`y = x W^\top + b`.

    Parameters
    ----------
    in_features, out_features : int
        Features that come in and go out.
    bias : bool
        Whether there are biases.
    dtype : dtype, keyword-only
        Of the parameters: float32 or float64.
    rng : seed or Generator, keyword-only
        For the initial weights, uniform on ``+-1/sqrt(in_features)``.

    Attributes
    ----------
    weight : Parameter of shape (out_features, in_features)
    bias : Parameter of shape (out_features,), or None

    Raises
    ------
    ValueError
        If a size is no positive integer.
    TypeError
        If `dtype` is neither float32 nor float64, or `bias` neither True nor False.

    See Also
    --------
    Sequential : Layers in a chain.

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

        Raises
        ------
        TypeError
            If `input` is not floating point, or not of the weight's dtype.
        ValueError
            If its last axis is another.
        """
        form, x = forms.per_row("input", input, (self.in_features,))
        weight, bias = self.weight.data, None if self.bias is None else self.bias.data
        checks.floating("input", x, weight)
        save = saving()
        own = checks.unshared(x) if save else x
        y, saved = pair_for(linear, weight).forward(own, weight, bias, save)
        return form.restore(y), self._context(saved, form)

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
        saved, form = self._saved(ctx)
        rows = form.gradient("dy", dy, (self.out_features,), saved.weight)
        dweight, dbias = self.weight.grad, None if self.bias is None else self.bias.grad
        return form.restore(pair_for(linear, saved.weight).backward(saved, rows, dweight, dbias))


class Embedding(Module):
    """A table of vectors, looked up by token.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        How many tokens there are, and how many features each gets.
    padding_idx : int, optional
        The token whose row starts at zero and never gets a gradient; negative counts from the end.
    dtype : dtype, keyword-only
        Of the parameters: float32 or float64.
    rng : seed or Generator, keyword-only
        For the initial weights, standard normal.

    Attributes
    ----------
    weight : Parameter of shape (num_embeddings, embedding_dim)

    Raises
    ------
    ValueError
        If a size is no positive integer, or `padding_idx` no token.
    TypeError
        If `dtype` is neither float32 nor float64.

    See Also
    --------
    PackedSequence : Tokens that are packed first are looked up without padding.

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
        dtype = float_dtype(dtype)
        num_embeddings, embedding_dim = int(num_embeddings), int(embedding_dim)
        padding_idx = _token("padding_idx", padding_idx, num_embeddings)
        values = generator(rng).standard_normal((num_embeddings, embedding_dim)).astype(dtype)
        if padding_idx is not None:
            values[padding_idx] = 0
        self._hold(Parameter(default_xp().asarray(values)), padding_idx)

    def _hold(self, weight: Parameter, padding_idx: int | None) -> None:
        self.num_embeddings, self.embedding_dim = weight.shape
        self.padding_idx = padding_idx
        self.weight = weight

    @classmethod
    def from_pretrained(
        cls, embeddings: Any, freeze: bool = True, padding_idx: int | None = None
    ) -> Self:
        """Return a layer that looks up in vectors that there are already.

        Parameters
        ----------
        embeddings : array of floating point, shape (num_embeddings, embedding_dim)
            Copied; a torch tensor on the CPU will do too.
        freeze : bool
            Whether the vectors stay as they are, as ``weight.requires_grad = False`` does.
        padding_idx : int, optional
            The token whose row never gets a gradient; it keeps its values.

        Returns
        -------
        Embedding

        Raises
        ------
        TypeError
            If `embeddings` is neither float32 nor float64.
        ValueError
            If it has not two axes, or `padding_idx` is no token.

        Examples
        --------
        >>> import minirnn, numpy as np
        >>> layer = minirnn.Embedding.from_pretrained(np.array([[1.0, 2.0], [3.0, 4.0]]))
        >>> layer(np.array([1]))
        array([[3., 4.]])
        """
        checks.flags(freeze=freeze)
        table = embeddings if is_array(embeddings) else asnumpy(embeddings)
        checks.floating("embeddings", table)
        if table.ndim != 2 or 0 in table.shape:
            raise ValueError(
                f"embeddings: expected shape (num_embeddings, embedding_dim), got {table.shape}"
            )
        layer = cls.__new__(cls)
        padding_idx = _token("padding_idx", padding_idx, len(table))
        layer._hold(Parameter(table.copy(), requires_grad=not freeze), padding_idx)
        return layer

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
        TypeError
            If tokens are no integers.
        """
        form, tokens = forms.per_row("input", input, ())
        checks.integers("input", tokens)
        checks.array_module(input=tokens, weight=self.weight.data)
        V, found = self.num_embeddings, reads_values(tokens) and tokens.size > 0
        if found and not pair_for(indices, tokens).within(tokens, V):
            raise checks.outside("token", tokens.reshape(form.axes), V)
        save = saving()
        index = checks.unshared(tokens) if save else tokens
        y, saved = embedding.forward(index, self.weight.data, self.padding_idx, save)
        return form.restore(y), self._context(saved, form)

    def backward(self, ctx: Context, dy: Any) -> None:
        """Add to the table's gradient; tokens have none.

        Parameters
        ----------
        ctx : Context
        dy : array, or PackedSequence, like `y`
        """
        saved, form = self._saved(ctx)
        rows = form.gradient("dy", dy, (self.embedding_dim,), self.weight.data)
        pair_for(embedding, rows).backward(saved, rows, self.weight.grad)


def _token(name: str, token: Any, count: int) -> int | None:
    """Return `token` of `count`, of which a negative one counts from the end, or None."""
    if token is None:
        return None
    whole = isinstance(token, int | np.integer) and not isinstance(token, bool)
    if not whole or not -count <= token < count:
        raise ValueError(f"{name}: expected a token of {count}, got {checks.got(token)}")
    return int(token) % count


class Dropout(Module):
    r"""Drop entries with probability `p` in training, and scale up the others.

    .. math::  y = x \odot m / (1 - p), \qquad P(m = 0) = p

    Parameters
    ----------
    p : float
        The probability of dropping an entry.
    rng : seed or Generator, keyword-only
        For the draws; the library's own generator if not given.

    Raises
    ------
    ValueError
        If `p` is outside [0, 1].

    See Also
    --------
    Zoneout, RNN : What is dropped within the recurrence.

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

    @quiet
    def forward(self, input: Any) -> tuple[Any, Context]:
        """Return `input` with entries dropped; in evaluation, `input` itself.

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
        if not self.training or self.p == 0:
            one = dropout.DropoutContext(get_array_module(x).ones((), x.dtype))
            return input, self._context(one if saving() else None, form)
        y, saved = dropout.forward(x, self.p, self._rng, saving())
        return form.restore(y), self._context(saved, form)

    @quiet
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
        saved, form = self._saved(ctx)
        return form.restore(dropout.backward(saved, form.gradient("dy", dy, saved.mask)))


class Zoneout(Module):
    r"""Let units keep their state with probability `p` in training, for a loop over a cell.

    .. math::  h_t = k \odot h_{t-1} + (1 - k) \odot \tilde h_t, \qquad P(k = 1) = p

    In evaluation k is p. See :mod:`minirnn.functional.zoneout`.

    Parameters
    ----------
    p : float
        The probability of dropping an entry.
    rng : seed or Generator, keyword-only
        For the draws; the library's own generator if not given.

    Raises
    ------
    ValueError
        If `p` is outside [0, 1].

    See Also
    --------
    GRU : A layer with recurrent dropout.

    References
    ----------
    D. Krueger et al., "Zoneout: regularizing RNNs by randomly preserving hidden activations", ICLR 2017

    Examples
    --------
    >>> import minirnn, numpy as np
    >>> cell, zoneout = minirnn.GRUCell(3, 4), minirnn.Zoneout(0.1)
    >>> h, x_t = np.zeros((2, 4), np.float32), np.ones((2, 3), np.float32)
    >>> after, ctx_cell = cell.forward(x_t, h)
    >>> h, ctx = zoneout.forward(h, after)
    >>> dbefore, dafter = zoneout.backward(ctx, np.ones_like(h))
    >>> dx, dh = cell.backward(ctx_cell, dafter)
    >>> dh += dbefore
    """

    def __init__(self, p: float = 0.1, *, rng: RNG = None) -> None:
        checks.probability("p", p)
        self.p = p
        self._rng = None if rng is None else generator(rng)

    @quiet
    def forward(self, before: Array, after: Array) -> tuple[Array, Context]:
        """Return what the next step begins with.

        Parameters
        ----------
        before, after : array of the same shape
            A state, h or c, before a step and after it.

        Returns
        -------
        h, ctx : array like both; Context

        Raises
        ------
        TypeError
            If a state is not floating point, or both differ in dtype.
        ValueError
            If they differ in shape.
        """
        checks.floating("before", before)
        checks.floating("after", after, before, "before")
        checks.shape("after", after, before.shape, "that of before")
        kept = get_array_module(before).asarray(self.p, before.dtype)
        if self.training:
            draw = generator(self._rng).random(before.shape, np.float32) < self.p
            kept = get_array_module(before).asarray(draw.astype(before.dtype))
        h, saved = zoneout.forward(before, after, kept)
        return h, Context(self, (saved, before.shape) if saving() else None)

    @quiet
    def backward(self, ctx: Context, dh: Array) -> tuple[Array, Array]:
        """Return the gradients of both states.

        Parameters
        ----------
        ctx : Context
        dh : array like `h`

        Returns
        -------
        dbefore, dafter

        Raises
        ------
        TypeError
            If `dh` is not of the states' dtype.
        ValueError
            If it is not of their shape, or `ctx` another layer's.
        """
        saved, shape = self._saved(ctx)
        checks.floating("dh", dh, saved.kept)
        checks.shape("dh", dh, shape, "that of the state")
        return zoneout.backward(saved, dh)
