"""RNN, LSTM and GRU: the modules around :mod:`minirnn.bptt`, which own the weights and check the input."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Never, TypedDict, Unpack

import numpy as np
from numpy.typing import DTypeLike

from . import changes, checks, forms
from .backend import RNG, Array, generator, shown
from .bptt import checkpoints, execution, traces
from .bptt.stack import Stack, stack_of
from .changes import Kept
from .functional import dropout as dropout_pair
from .functional import gru, gru_before, lstm, rnn
from .functional.recurrence import Recurrence
from .layout import Layout
from .module import Context, saving
from .packed_sequence import PackedSequence, Packing
from .pairs import pair_for
from .streaming import Streaming
from .weights import add_biases, wide_biases


class Options(TypedDict, total=False):
    """What the three layers' constructors take by keyword beside torch's arguments; see :class:`RNN`."""

    recurrent_dropout: float
    checkpoint: bool
    init: str
    dtype: DTypeLike
    rng: RNG


class _Saved(NamedTuple):
    """What one forward pass of a recurrent layer leaves for backward."""

    form: forms.Form
    stack: Stack
    contexts: list[Any]  # for each layer and direction
    like: Array
    x: Array
    sealed: Array | None  # of x, if there is no copy of it


class _Ready(NamedTuple):
    """What runs over a batch, and would over another one of its form."""

    form: forms.Form
    stack: Stack
    like: Array
    shape: tuple[int, ...]  # of the input, or of its rows, if it is packed
    packing: Packing | None

    def takes(self, input: Any) -> bool:
        """Tell whether `input` is one that has the same form for certain, and needs no more checks."""
        packed = type(input) is PackedSequence
        x, packing = (input.data, input.packing) if packed else (input, None)
        same = packing is self.packing and type(x) is type(self.like)
        return same and x.shape == self.shape and x.dtype == self.like.dtype


# A layer keeps what ran last, and with it a layout, of so many rows at most: where there are more, to make it
# takes no time beside what it does.
_KEPT_ROWS = 4096


class Recurrent(Streaming):
    """What RNN, LSTM and GRU share; a new cell is a subclass with a recurrence of its own.

    Arguments are those of :class:`RNN`, without `nonlinearity`.

    Attributes
    ----------
    recurrence : module or object
        The pure pair, with the contract of :mod:`minirnn.functional.recurrence`. If it has
        ``forward_together`` and ``backward_together`` as :mod:`minirnn.cuda.gru` has, they run both
        directions.

    Raises
    ------
    ValueError
        By the constructor, if a size is no positive integer, a probability outside [0, 1], or `init` none
        of the two.
    TypeError
        By the constructor, if `dtype` is no floating-point one, or a switch neither True nor False.

    See Also
    --------
    RNN, LSTM, GRU : The layers that are made of it.

    Examples
    --------
    >>> import minirnn
    >>> model = minirnn.Sequential(minirnn.Embedding(5, 3), minirnn.GRU(3, 4, 2), minirnn.Linear(4, 5))
    >>> for layer in model.modules():
    ...     if isinstance(layer, minirnn.Recurrent):
    ...         print(layer.recurrence.__name__, layer.num_layers)
    minirnn.functional.gru 2
    """

    _result: ClassVar[str] = "(output, h_n)"
    _kept_ready: Kept[_Ready] | None = None
    proj_size: int = 0  # the LSTM's: features of its projected state, 0 for none

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        recurrent_dropout: float = 0.0,
        checkpoint: bool = False,
        init: str = "torch",
        dtype: DTypeLike = np.float32,
        rng: RNG = None,
    ) -> None:
        checks.positive(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        checks.flags(bias=bias, batch_first=batch_first, bidirectional=bidirectional)
        checks.flags(checkpoint=checkpoint)
        checks.probability("dropout", dropout)
        checks.probability("recurrent_dropout", recurrent_dropout)
        checks.choice("init", init, ("torch", "orthogonal"))
        if dropout and num_layers == 1:
            checks.warn(
                f"dropout={dropout} acts between layers, and there is only one: it does nothing"
            )
        # NumPy's integers of few bits would overflow in the weights' shapes.
        hidden_size, num_layers = int(hidden_size), int(num_layers)
        self.input_size, self.hidden_size = int(input_size), hidden_size
        self.num_layers = num_layers
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.dropout, self.recurrent_dropout = dropout, recurrent_dropout
        self.checkpoint = checkpoint
        self.num_directions = 2 if bidirectional else 1
        # Features of one direction's output, and of each array of the state.
        self.output_size = self.proj_size or hidden_size
        self._state_sizes = (self.output_size, *[hidden_size] * (self._states - 1))
        self._rng = None if rng is None else generator(rng)
        self._names = ()
        for layer in range(num_layers):
            features = self.num_directions * self.output_size if layer else input_size
            for direction in ("", "_reverse")[: self.num_directions]:
                self._add_pass(features, f"_l{layer}{direction}", dtype, self._rng)
        if init == "orthogonal":
            self._orthogonalize(self._rng)

    # -- forward -------------------------------------------------------------------------------

    def forward(
        self, input: Any, h_0: Any = None, *more: Never, trace: bool = False
    ) -> tuple[Any, Context]:
        """Run over whole sequences.

        Parameters
        ----------
        input : array or PackedSequence
            (T, B, I); (B, T, I) with `batch_first`; (T, I) unbatched; or packed.
        h_0 : array of shape (num_layers * num_directions, B, H), optional
            Initial states, zero if not given; without the axis B for unbatched input. For the LSTM a
            pair ``(h_0, c_0)``, where with a projection h_0 has `proj_size` features.
        trace : bool, keyword-only
            Return every step's states and gates too, as a :class:`Trace`.

        Returns
        -------
        (output, h_n), ctx
            The last layer's states at every step, in the form of the input and with directions
            side by side; the last states of every layer and direction in the shape of `h_0`; the
            context for :meth:`backward`. With `trace`, ``(output, h_n, trace), ctx``.

        Raises
        ------
        TypeError
            If `input` or `h_0` is not floating point, not of the weights' dtype, or on another device.
        ValueError
            If a shape does not fit.
        """
        if more:
            raise forms.too_many(self, more)
        if trace is not False:
            checks.flags(trace=trace)
        saves, sealed = saving(), None
        save = saves or trace
        form, stack, like, _, _ = self._ready(input, save, trace)
        x, states = form.flat(input), self._enter("h_0", h_0, form, like)
        if saves:
            if self.checkpoint:
                sealed = checks.seal(x)
            else:
                x = checks.unshared(x, input)
        y, contexts = stack.forward(x, states, save)
        if saves:
            y = shown(y)
        ctx = Context(self, _Saved(form, stack, contexts, like, x, sealed) if saves else None)
        result = form.restore(y), form.restore_states(states)
        if not trace:
            return result, ctx
        return (*result, traces.of_states(stack.passes, contexts, form, self.num_directions)), ctx

    def _ready(self, input: Any, save: bool, traced: bool) -> _Ready:
        """Return the input's form, and what runs over it: of the call before, if that is still good."""
        key, kept = (changes.stamp(), save, traced), self._kept_ready
        last = None if kept is None or kept.key != key else kept.value
        if last is not None and last.takes(input):
            return last
        like = self._like
        form = forms.of("input", input, self.input_size, self.batch_first, like)
        if last is not None and last.form.layout is form.layout:
            return _Ready(form, *last[1:])
        drops = bool(self.training and (self.dropout or self.recurrent_dropout))
        if last is None:
            stack = self._stack(form.layout, like, save, traced, drops)
        else:
            stack = last.stack.over(form.layout, traced)
        packing = input.packing if isinstance(input, PackedSequence) else None
        shape = input.shape if packing is None else input.data.shape
        ready = _Ready(form, stack, like, shape, packing)
        if not drops and form.layout.rows <= _KEPT_ROWS:
            object.__setattr__(self, "_kept_ready", Kept(key, ready))
        return ready

    def _stack(self, layout: Layout, like: Array, save: bool, traced: bool, drops: bool) -> Stack:
        """Return what runs: the weights as they are now, and masks drawn for this batch."""
        recurrence, options = pair_for(self.recurrence, like), self._options
        kind = checkpoints.choose(self.checkpoint, save, traced)
        masks, of_passes = self._masks(layout, like)
        passes = [
            kind(recurrence, self._values(k), options, layout, mask)
            for k, mask in enumerate(of_passes)
        ]
        how = execution.choose(passes[: self.num_directions], traced)
        return stack_of(passes, masks, how, drops or recurrence is self.recurrence)

    def _masks(self, layout: Layout, like: Array) -> tuple[list[Array | None], list[Array | None]]:
        """Draw dropout's masks, of each layer's input and of each pass's state; None for none."""
        of_inputs: list[Array | None] = [None] * self.num_layers
        of_states: list[Array | None] = [None] * len(self._names)
        if not self.training or not (self.dropout or self.recurrent_dropout):
            return of_inputs, of_states
        D, P = self.num_directions, self.output_size
        for layer in range(self.num_layers):
            if layer and self.dropout:
                shape = layout.rows, D * P
                of_inputs[layer] = dropout_pair.draw_mask(shape, self.dropout, self._rng, like)
            for k in range(layer * D, (layer + 1) * D):
                if self.recurrent_dropout:
                    shape = layout.batch_size, P
                    p = self.recurrent_dropout
                    of_states[k] = dropout_pair.draw_mask(shape, p, self._rng, like)
        return of_inputs, of_states

    # -- backward ------------------------------------------------------------------------------

    def backward(
        self, ctx: Context, doutput: Any = None, dh_n: Any = None, *, trace: bool = False
    ) -> Any:
        """Run backward through time: add the weights' gradients into their ``grad``.

        Parameters
        ----------
        ctx : Context
            From this layer's :meth:`forward`.
        doutput : array or PackedSequence, optional
            Gradient of `output`, in its form; ``None`` if the loss does not depend on it.
        dh_n : array of the shape of `h_n`, optional
            Gradient of the last states; for the LSTM a pair ``(dh_n, dc_n)``, each of which may be
            ``None``.
        trace : bool, keyword-only
            Return dL/dh_t (and dL/dc_t) of every step and layer too, as a :class:`Trace`: where they
            shrink or grow with the distance to the loss, gradients vanish or explode.

        Returns
        -------
        dinput, dh_0
            Gradients of the input, in its form, and of the initial states. With `trace`,
            ``dinput, dh_0, trace``.

        Raises
        ------
        TypeError
            If a gradient is not floating point, not of the weights' dtype, or on another device.
        ValueError
            If `ctx` is another layer's, no gradient is given, or the shape of one does not fit.
        """
        if trace is not False:
            checks.flags(trace=trace)
        form, stack, contexts, like, x, sealed = self._saved(ctx)
        if doutput is None and forms.nothing_in(dh_n):
            raise ValueError(
                "backward: expected doutput or dh_n, the gradient of a loss, got neither"
            )
        checks.unbroken("input", x, sealed)
        D, dy = self.num_directions, None
        if doutput is not None:
            dy = form.rows("doutput", doutput, D * self.output_size, like)
        dstates = self._enter("dh_n", dh_n, form, like)
        dweights = self._gradients()
        # Over few spans float32 loses nothing that counts, and sums in float64 would be one more pass.
        long = len(form.layout.spans) > 8
        sums = [wide_biases(own) for own in dweights] if long else dweights
        filled: list[Any] = traces.to_fill(stack.passes, self._state_sizes, like) if trace else []
        dx = stack.backward(contexts, dy, dstates, sums, filled or [None] * len(sums))
        if long:
            add_biases(dweights, sums)
        result = form.restore(dx), form.restore_states(dstates)
        return (*result, traces.of_gradients(filled, form, D)) if filled else result


class RNN(Recurrent):
    r"""Elman network, stacked and in both directions if asked for: torch's ``nn.RNN``.

    :math:`h_t = \phi(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})`; see
    :mod:`minirnn.functional.rnn` for it and its derivatives.

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
        Features of a step of the input and of the state; layers, each over the output of the one before.
    nonlinearity : {"tanh", "relu"}
    bias : bool
        Whether there are biases.
    batch_first : bool
        Padded input and output are (B, T, ...). States are not affected.
    dropout : float
        Probability to drop an entry of each layer's output but the last one's, in training.
    bidirectional : bool
        Whether a second set of weights reads each sequence from its end.
    recurrent_dropout : float, keyword-only
        Probability to drop an entry of the state that enters the recurrent product, in training;
        one mask a sequence (Gal and Ghahramani, "A theoretically grounded application of dropout
        in recurrent neural networks", NeurIPS 2016).
    checkpoint : bool, keyword-only
        Keep one state in every sqrt(T) steps for backward, or in every 256 if that is more and the batch
        is small, and compute the others again. Gradients are the same bit for bit. It saves the
        gates and cells of LSTM and GRU; the states of an RNN are its output and are kept anyway. Nor is the
        input copied: to change it before backward is an error.
    init : {"torch", "orthogonal"}, keyword-only
        Uniform on ``+-1/sqrt(hidden_size)``; or orthogonal W_hh, Xavier W_ih and zero biases.
    dtype : dtype, keyword-only
        Of the parameters: float32 or float64.
    rng : seed or Generator, keyword-only
        For the weights and for dropout.

    Attributes
    ----------
    weight_ih_l{k} : Parameter of shape (G * H, I)
        Of layer k; with ``_reverse``, as all of them, for the reverse direction. G is the number of gates, 1
        for the RNN; of a layer above another I is that one's output, D * H.
    weight_hh_l{k} : Parameter of shape (G * H, H)
    bias_ih_l{k}, bias_hh_l{k} : Parameter of shape (G * H,), if there are biases

    Raises
    ------
    ValueError
        If a size is no positive integer, a probability outside [0, 1], or `nonlinearity` or `init` another.
    TypeError
        If `dtype` is neither float32 nor float64, or a switch neither True nor False.

    See Also
    --------
    GRU, LSTM : Cells with gates, through which gradients go farther.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.RNN.html

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> rnn = minirnn.RNN(4, 8, num_layers=2, rng=0)
    >>> x = np.ones((5, 3, 4), np.float32)
    >>> (output, h_n), ctx = rnn.forward(x)
    >>> output.shape, h_n.shape
    ((5, 3, 8), (2, 3, 8))
    >>> dx, dh_0 = rnn.backward(ctx, None, np.ones_like(h_n))
    >>> dx.shape, rnn.weight_hh_l0.grad.shape
    ((5, 3, 4), (8, 8))
    """

    recurrence: ClassVar[Recurrence] = rnn

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        **options: Unpack[Options],
    ) -> None:
        checks.choice("nonlinearity", nonlinearity, ("tanh", "relu"))
        self.nonlinearity = nonlinearity
        sizes = input_size, hidden_size, num_layers
        super().__init__(*sizes, bias, batch_first, dropout, bidirectional, **options)

    @property
    def _options(self) -> dict[str, Any]:
        return {"nonlinearity": self.nonlinearity}


class GRU(Recurrent):
    r"""Gated recurrent unit: torch's ``nn.GRU``, gates in the order r, z, n.

    :math:`h_t = (1 - z) \odot n + z \odot h_{t-1}`; see :mod:`minirnn.functional.gru` for it and its
    derivatives. Arguments, attributes and calls are those of :class:`RNN`, without `nonlinearity`.

    Parameters
    ----------
    reset_after : bool, keyword-only
        Whether the reset gate multiplies the recurrent product, as in torch and cuDNN, or what enters it:
        :math:`n = \tanh(W_{in} x_t + b_{in} + W_{hn} (r \odot h_{t-1}) + b_{hn})`, Keras'
        ``reset_after=False`` and ONNX's ``linear_before_reset=0``; see :mod:`minirnn.functional.gru_before`.
        The names and shapes of the weights are the same, what they mean is not.

    Raises
    ------
    ValueError, TypeError
        As :class:`RNN`.

    See Also
    --------
    LSTM, RNN : The other cells, in the same layers.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> output, h_n = minirnn.GRU(4, 8)(np.ones((5, 3, 4), np.float32))
    >>> output.shape
    (5, 3, 8)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reset_after: bool = True,
        **options: Unpack[Options],
    ) -> None:
        checks.flags(reset_after=reset_after)
        self.reset_after = reset_after
        sizes = input_size, hidden_size, num_layers
        super().__init__(*sizes, bias, batch_first, dropout, bidirectional, **options)

    @property
    def recurrence(self) -> Recurrence:
        """The pair of functions that computes it."""
        return gru if self.reset_after else gru_before


class LSTM(Recurrent):
    r"""Long short-term memory: torch's ``nn.LSTM``, gates in the order i, f, g, o.

    :math:`c_t = f \odot c_{t-1} + i \odot g`, :math:`h_t = o \odot \tanh c_t`; see
    :mod:`minirnn.functional.lstm` for it and its derivatives. Arguments, attributes and calls are those
    of :class:`RNN`, without `nonlinearity`; the state is the pair ``(h, c)`` everywhere.

    Parameters
    ----------
    proj_size : int
        If positive, :math:`h_t` is projected to this size by ``weight_hr_l{k}``; smaller than
        `hidden_size`.
    forget_bias : float, optional, keyword-only
        Initial sum of the forget gate's two biases (Jozefowicz et al., "An empirical exploration
        of recurrent network architectures", ICML 2015, recommend 1). As drawn if not given.

    Attributes
    ----------
    weight_hr_l{k} : Parameter of shape (proj_size, H), if there is a projection
        The other weights are those of :class:`RNN`, with proj_size instead of H where they meet h.

    Raises
    ------
    ValueError
        As :class:`RNN`; if `proj_size` is not below `hidden_size`, or a `forget_bias` is for no bias.
    TypeError
        As :class:`RNN`.

    See Also
    --------
    GRU, RNN : The other cells, in the same layers.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> lstm = minirnn.LSTM(4, 8)
    >>> (output, (h_n, c_n)), ctx = lstm.forward(np.ones((5, 3, 4), np.float32))
    >>> dx, (dh_0, dc_0) = lstm.backward(ctx, np.ones_like(output))
    """

    recurrence: ClassVar[Recurrence] = lstm
    _result: ClassVar[str] = "(output, (h_n, c_n))"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        forget_bias: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        checks.positive(hidden_size=hidden_size)
        if not isinstance(proj_size, int | np.integer) or proj_size != 0:
            checks.positive(proj_size=proj_size)
        if proj_size >= hidden_size:
            raise ValueError(
                f"proj_size: expected 0 <= proj_size < hidden_size = {hidden_size}, got {proj_size}"
            )
        if forget_bias is not None:
            forget_bias = checks.number("forget_bias", forget_bias)
        if forget_bias is not None and not bias:
            raise ValueError("forget_bias: expected None for a layer without biases")
        hidden_size, self.proj_size = int(hidden_size), int(proj_size)
        sizes = input_size, hidden_size, num_layers
        super().__init__(*sizes, bias, batch_first, dropout, bidirectional, **options)
        if forget_bias is not None:
            forget = slice(hidden_size, 2 * hidden_size)
            for k in range(len(self._names)):
                _, _, b_ih, b_hh, _ = self._weights(k)
                b_ih.data[forget] = forget_bias
                b_hh.data[forget] = 0
