"""One step of a recurrence as a layer of its own, for loops written by the user."""

from __future__ import annotations

from typing import Any, ClassVar, Never

import numpy as np
from numpy.typing import DTypeLike

from . import changes, checks
from .backend import RNG, Array, generator, get_array_module, quiet
from .bptt.passes import Pass
from .changes import Kept
from .forms import nothing_in, pack_state, too_many, unpack_state
from .functional import gru, gru_before, lstm, rnn
from .functional.recurrence import Recurrence
from .layout import equal_lengths
from .module import Context, saving
from .pairs import pair_for
from .weights import RecurrentWeights


class _Cell(RecurrentWeights):
    """What the three cells share: a pass over a batch of length one."""

    _result: ClassVar[str] = "h"
    _kept_pass: Kept[Pass] | None = None

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
        checks.flags(bias=bias)
        # NumPy's integers of few bits would overflow in the weights' shapes.
        input_size, hidden_size = int(input_size), int(hidden_size)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        self.output_size, self._names = hidden_size, ()
        self._add_pass(input_size, "", dtype, generator(rng))

    @quiet
    def forward(self, input: Array, hx: Any = None, *more: Never) -> tuple[Any, Context]:
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
        if more:
            raise too_many(self, more)
        like = self._like
        checks.floating("input", input, like)
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size or not input.size:
            raise ValueError(
                f"input: expected shape (B, {self.input_size}) or ({self.input_size},), "
                f"got {input.shape}"
            )
        batched = input.ndim == 2
        x = input.reshape(-1, self.input_size)
        p = self._pass(len(x), like)
        states = self._enter("hx", hx, p, batched, like)
        if saving():
            _, saved = p.forward(checks.unshared(x), states)
            return self._leave(states, batched), Context(self, (p, saved, batched, like))
        new = [s.copy() for s in states]
        p.recurrence.step(x, states, p.weights, new, **p.options)
        return self._leave(new, batched), Context(self, None)

    def _pass(self, B: int, like: Array) -> Pass:
        """Return the pass over so many sequences: that of the call before, if it is still good."""
        key, kept = (changes.stamp(), B), self._kept_pass
        if kept is None or kept.key != key:
            recurrence, layout = pair_for(self.recurrence, like), equal_lengths(1, B)
            kept = Kept(key, Pass(recurrence, self._values(0), self._options, layout, None))
            object.__setattr__(self, "_kept_pass", kept)
        return kept.value

    def _enter(self, name: str, state: Any, p: Pass, batched: bool, like: Array) -> list[Array]:
        """Return the state's arrays, or those of its gradient; of what is not given they are zero."""
        B, H = p.layout.batch_size, self.hidden_size
        arrays = []
        for label, x in unpack_state(name, state, self._states):
            if x is None:
                arrays.append(get_array_module(like).zeros((B, H), like.dtype))
                continue
            shape = (B, H) if batched else (H,)
            checks.floating(label, x, like)
            checks.shape(label, x, shape, "that of the input with hidden_size features")
            arrays.append(x.reshape(B, H).copy())
        return arrays

    def _leave(self, arrays: list[Array], batched: bool) -> Any:
        return pack_state(arrays if batched else [x[0] for x in arrays])

    @quiet
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
            As :meth:`forward`, and ValueError if `ctx` is another cell's, or no gradient is given.
        """
        p, saved, batched, like = self._saved(ctx)
        if nothing_in(dh):
            raise ValueError("backward: expected dh, the gradient of a loss, got none")
        dstates = self._enter("dh", dh, p, batched, like)
        dx = p.backward(saved, None, dstates, self._gradients()[0])
        return dx if batched else dx[0], self._leave(dstates, batched)


class RNNCell(_Cell):
    r"""One step of :class:`~minirnn.RNN`.

    :math:`h' = \phi(W_{ih} x + b_{ih} + W_{hh} h + b_{hh})`.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of the input and of the state.
    bias : bool
        Whether there are biases.
    nonlinearity : {"tanh", "relu"}
    dtype, rng : dtype, seed or Generator
        Keyword-only, as for the layers.

    Attributes
    ----------
    weight_ih, weight_hh : Parameter of shape (G * H, I) and (G * H, H)
        G is the number of gates, 1 for this cell.
    bias_ih, bias_hh : Parameter of shape (G * H,), if there are biases

    Raises
    ------
    ValueError
        If a size is no positive integer, or `nonlinearity` another.
    TypeError
        If `dtype` is neither float32 nor float64, or `bias` neither True nor False.

    See Also
    --------
    RNN : All steps at once.

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

    recurrence: ClassVar[Recurrence] = rnn

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

    Raises
    ------
    ValueError, TypeError
        As :class:`RNNCell`.

    See Also
    --------
    LSTM : All steps at once.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTMCell.html

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> cell, state = minirnn.LSTMCell(3, 4), None
    >>> for x_t in np.ones((5, 2, 3), np.float32):
    ...     state, ctx = cell.forward(x_t, state)
    >>> h, c = state
    >>> dx, (dh, dc) = cell.backward(ctx, (np.ones_like(h), None))  # the loss does not see c
    >>> dx.shape, dh.shape, dc.shape
    ((2, 3), (2, 4), (2, 4))
    """

    recurrence: ClassVar[Recurrence] = lstm
    _result: ClassVar[str] = "(h, c)"


class GRUCell(_Cell):
    """One step of :class:`~minirnn.GRU`.

    Arguments and attributes are those of :class:`RNNCell`, without `nonlinearity`, and `reset_after`,
    keyword-only, that of :class:`~minirnn.GRU`.

    Raises
    ------
    ValueError, TypeError
        As :class:`RNNCell`.

    See Also
    --------
    GRU : All steps at once.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.GRUCell.html

    Examples
    --------
    In a loop it is the layer, whose weights it takes without their ``_l0``:

    >>> import numpy as np, minirnn
    >>> gru, cell = minirnn.GRU(3, 4), minirnn.GRUCell(3, 4)
    >>> weights = {name.removesuffix("_l0"): p.data for name, p in gru.named_parameters()}
    >>> _ = cell.load_state_dict(weights)
    >>> x, h = np.ones((5, 2, 3), np.float32), None
    >>> for x_t in x:
    ...     h = cell(x_t, h)
    >>> bool(np.allclose(h, gru(x)[0][-1], atol=1e-6))
    True
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        reset_after: bool = True,
        dtype: DTypeLike = np.float32,
        rng: RNG = None,
    ) -> None:
        checks.flags(reset_after=reset_after)
        self.reset_after = reset_after
        super().__init__(input_size, hidden_size, bias, dtype=dtype, rng=rng)

    @property
    def recurrence(self) -> Recurrence:
        """The pair of functions that computes it."""
        return gru if self.reset_after else gru_before
