"""One step of a recurrence as a layer of its own, for loops written by the user."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from . import checks
from .backend import RNG, Array, generator, get_array_module, uniform
from .cuda import pair_for
from .functional import gru, lstm, rnn
from .module import Context, Module, Parameter, describe, saving
from .packing import equal_lengths
from .state import pack_state, unpack_state


class _Cell(Module):
    """What the three cells share: a recurrence over a batch of length one."""

    recurrence: ClassVar[Any]
    _states = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
        rng: RNG = None,
    ) -> None:
        checks.positive(input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows = len(self.recurrence.GATES) * hidden_size
        bound = 1 / math.sqrt(hidden_size)
        rng = generator(rng)

        def draw(*shape: int) -> Parameter:
            return Parameter(uniform(rng, -bound, bound, shape, dtype))

        self.weight_ih = draw(rows, input_size)
        self.weight_hh = draw(rows, hidden_size)
        self.bias_ih = draw(rows) if bias else None
        self.bias_hh = draw(rows) if bias else None

    @property
    def _parameters(self) -> tuple[Parameter | None, ...]:
        """The weights as the recurrence takes them, None for what the cell lacks."""
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return weights if self._states == 1 else (*weights, None)  # the LSTM's projection

    @property
    def _options(self) -> dict[str, Any]:
        return {}

    def _check_state(self, name: str, state: Any, shape: tuple[int, ...]) -> list[Array]:
        """Return the state's arrays, or those of its gradient; of what is not given they are zero."""
        like = self.weight_ih.data
        arrays = []
        for label, x in unpack_state(name, state, self._states):
            if x is None:
                x = get_array_module(like).zeros(shape, like.dtype)
            checks.floating(label, x, like)
            checks.shape(label, x, shape, "that of the input with hidden_size features")
            arrays.append(x)
        return arrays

    def _pack(self, arrays: list[Array], batched: bool) -> Any:
        return pack_state(arrays if batched else [x[0] for x in arrays])

    def forward(self, input: Array, hx: Any = None) -> tuple[Any, Context]:
        """Take one step.

        Parameters
        ----------
        input : array of shape (B, input_size) or (input_size,)
        hx : array of shape (B, hidden_size) or (hidden_size,), optional
            The state before, zero if not given; for the LSTM a pair ``(h, c)``.

        Returns
        -------
        h, ctx
            The state after, for the LSTM a pair ``(h, c)``; the context for :meth:`backward`.

        Raises
        ------
        TypeError
            If an array is not floating point, not of the weights' dtype, or on another device.
        ValueError
            If a shape does not fit.
        """
        weights = tuple(None if p is None else p.data for p in self._parameters)
        checks.floating("input", input, self.weight_ih.data)
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            raise ValueError(
                f"input: expected shape (B, {self.input_size}) or ({self.input_size},), "
                f"got {input.shape}"
            )
        batched = input.ndim == 2
        H = self.hidden_size
        given = self._check_state("hx", hx, (*input.shape[:-1], H))
        x = input.reshape(-1, self.input_size)
        B = len(x)
        if B == 0:
            raise ValueError(f"input: expected at least one row, got shape {input.shape}")
        states = [get_array_module(x).empty((2 * B, H), x.dtype) for _ in given]
        for s, s_0 in zip(states, given, strict=True):
            s[:B] = s_0
        before, new = [s[:B] for s in states], [s[B:] for s in states]
        pair = pair_for(self.recurrence, x)
        if not saving():
            pair.step(x, before, weights, new, **self._options)
            return self._pack(new, batched), Context(self, None)
        saved = pair.forward(x, states, weights, equal_lengths(1, B), **self._options)
        return self._pack(new, batched), Context(self, (saved, batched))

    def backward(self, ctx: Context, dh: Any) -> tuple[Array, Any]:
        """Add the weights' gradients into their ``grad``.

        Parameters
        ----------
        ctx : Context
        dh : array of the shape of the state; for the LSTM a pair, either of which may be ``None``
            Gradient of the state after.

        Returns
        -------
        dinput, dhx
            Gradients of the input and of the state before.

        Raises
        ------
        TypeError, ValueError
            As :meth:`forward`, and ValueError if `ctx` is another cell's.
        """
        saved, batched = self._saved(ctx)
        B, H = len(saved.x), self.hidden_size
        shape = (B, H) if batched else (H,)
        dstates = [d.reshape(B, H).copy() for d in self._check_state("dh", dh, shape)]
        dweights = tuple(None if p is None else p.grad for p in self._parameters)
        pair = pair_for(self.recurrence, saved.x)
        dx = pair.backward(saved, None, tuple(dstates), dweights)
        return dx if batched else dx[0], self._pack(list(dstates), batched)

    def _describe(self) -> str:
        defaults = {"bias": True, "nonlinearity": "tanh"}
        return describe(self, ("input_size", "hidden_size"), defaults)


class RNNCell(_Cell):
    r"""One step of :class:`~minirnn.RNN`: :math:`h' = \phi(W_{ih} x + b_{ih} + W_{hh} h + b_{hh})`.

    Parameters
    ----------
    input_size, hidden_size : int
    bias : bool
    nonlinearity : {"tanh", "relu"}
    dtype, rng
        Keyword-only, as for the layers.

    Attributes
    ----------
    weight_ih, weight_hh, bias_ih, bias_hh : Parameter

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.RNNCell.html

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> cell = minirnn.RNNCell(3, 4)
    >>> h, ctx = cell.forward(np.ones((2, 3), np.float32))
    >>> dx, dh = cell.backward(ctx, np.ones_like(h))
    >>> dx.shape, dh.shape
    ((2, 3), (2, 4))
    """

    recurrence: ClassVar[Any] = rnn

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        dtype: DTypeLike = np.float32,
        rng: RNG = None,
    ) -> None:
        checks.choice("nonlinearity", nonlinearity, ("tanh", "relu"))
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, bias, dtype=dtype, rng=rng)

    @property
    def _options(self) -> dict[str, Any]:
        return {"nonlinearity": self.nonlinearity}


class LSTMCell(_Cell):
    """One step of :class:`~minirnn.LSTM`, without projection; the state is a pair ``(h, c)``.

    Arguments and attributes are those of :class:`RNNCell`, without `nonlinearity`.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTMCell.html
    """

    recurrence: ClassVar[Any] = lstm
    _states = 2


class GRUCell(_Cell):
    """One step of :class:`~minirnn.GRU`.

    Arguments and attributes are those of :class:`RNNCell`, without `nonlinearity`.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.GRUCell.html
    """

    recurrence: ClassVar[Any] = gru
