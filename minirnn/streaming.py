"""A recurrent layer on a stream: step by step, or prepared once and then called for every sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Never

from . import changes, checks, forms
from .backend import Array, get_array_module, quiet
from .changes import Kept
from .forms import pack_state
from .functional.recurrence import stepper_of
from .layout import equal_lengths
from .pairs import pair_for
from .weights import RecurrentWeights


class Stepper:
    """A layer's step with its arrays made beforehand and its state kept; see ``layer.stepper``.

    Parameters
    ----------
    recurrence : module or object
        Of the place where the arrays lie.
    weights : list, for each layer a list of arrays or None
        Copied: a stepper made before the weights change goes on with the old ones.
    options : mapping
        Further arguments of the recurrence's step.
    state : list of arrays of shape (L, B, size)
        The state at the start.

    Attributes
    ----------
    state : array of shape (L, B, H), or a pair of arrays
        As it is now; a copy.
    """

    def __init__(
        self,
        recurrence: Any,
        weights: Sequence[Sequence[Array | None]],
        options: dict[str, Any],
        state: Sequence[Array],
    ) -> None:
        xp = get_array_module(state[0])
        self._made_of = recurrence, options
        self._start = [s.copy() for s in state]
        # Before and after the step of each layer.
        self._states = [xp.stack([s, s], axis=1) for s in state]  # (L, 2, B, size)
        self._weights = [[None if w is None else w.copy() for w in own] for own in weights]
        self._steps = [
            stepper_of(recurrence, own, [s[k] for s in self._states], options)
            for k, own in enumerate(self._weights)
        ]
        self._now = [(s[:, 0], s[:, 1]) for s in self._states]
        w_ih: Any = self._weights[0][0]
        self._like, self._shape = w_ih, (state[0].shape[1], w_ih.shape[1])

    def __call__(self, x_t: Array) -> Array:
        """Take a step.

        Parameters
        ----------
        x_t : array of shape (B, input_size); for a batch of one (input_size,) too

        Returns
        -------
        array of shape (B, H) or (H,)
            The last layer's h. No later call writes to it.

        Raises
        ------
        TypeError
            If `x_t` is not floating point, not of the weights' dtype, or on another device.
        ValueError
            If its shape does not fit.
        """
        checks.floating("x_t", x_t, self._like)
        x, single = x_t, x_t.ndim == 1 and self._shape[0] == 1
        if single:
            x = x_t[None]
        if x.shape != self._shape:
            checks.shape("x_t", x_t, self._shape, "(batch_size, input_size)")
        for step in self._steps:
            x = step(x)
        for before, after in self._now:
            before[...] = after
        y: Array = x[0] if single else x
        return y.copy()

    @property
    def state(self) -> Any:
        """The state as it is now, as the layer's `h_n`."""
        return pack_state([before.copy() for before, _ in self._now])

    def reset(self) -> None:
        """Go back to the state at the start."""
        for (before, _), start in zip(self._now, self._start, strict=True):
            before[...] = start

    def __copy__(self) -> Stepper:
        """Return a stepper that goes on by itself from the state as it is: one with arrays of its own."""
        recurrence, options = self._made_of
        other = Stepper(recurrence, self._weights, options, self._start)
        for (theirs, _), (mine, _) in zip(other._now, self._now, strict=True):
            theirs[...] = mine
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Stepper:
        return self.__copy__()

    def __reduce__(self) -> Any:
        raise TypeError(
            "a stepper cannot be pickled: pickle the layer and `stepper.state`, and make another of them by "
            "`layer.stepper(batch_size, state)`"
        )


class _Ready(NamedTuple):
    """What a step found for its input: the next one of this shape finds the same, until something changes."""

    form: forms.Form
    shapes: list[tuple[int, ...]]  # of the state's arrays, (L, B, size)
    step: Callable[..., None]
    weights: list[list[Array | None]]  # of each layer
    options: dict[str, Any]


class Streaming(RecurrentWeights):
    """A stack of layers that can take one time step at a time."""

    _kept_step: Kept[_Ready] | None = None
    input_size: int
    num_layers: int
    bidirectional: bool
    _state_sizes: tuple[int, ...]  # features of each array of the state

    def _enter(
        self, name: str, state: Any, form: forms.Form, like: Array, copy: bool = True
    ) -> list[Array]:
        return form.states(name, state, len(self._names), self._state_sizes, like, copy)

    def step(self, x_t: Array, state: Any = None, *more: Never) -> tuple[Array, Any]:
        """Take one time step at inference: streaming, equal to the forward pass over all steps.

        No dropout acts, whatever `training` says.

        Parameters
        ----------
        x_t : array of shape (B, input_size) or (input_size,)
        state : array of shape (num_layers, B, H), or for the LSTM a pair, optional
            The state that the step before returned; without the axis B if `x_t` has none.

        Returns
        -------
        output, state
            The last layer's h, (B, H) or (H,), and the state for the next step.

        Raises
        ------
        ValueError
            If the layer is bidirectional: its reverse direction would have to begin at the end. If a
            shape does not fit.
        TypeError
            If an array is not floating point, not of the weights' dtype, or on another device.
        """
        if more:
            raise forms.too_many(self, more)
        if self.bidirectional:
            raise ValueError("step: a bidirectional layer cannot run step by step")
        like = self._like
        checks.floating("x_t", x_t, like)
        form, shapes, step, weights, options = self._ready_for(x_t, like)
        before = self._enter("state", state, form, like, copy=False)
        batched, empty = x_t.ndim == 2, get_array_module(like).empty
        after = [empty(shape, like.dtype) for shape in shapes]
        x = x_t if batched else x_t[None]
        for k, own in enumerate(weights):
            new = [s[k] for s in after]
            step(x, [s[k] for s in before], own, new, **options)
            x = new[0]
        return (x if batched else x[0]).copy(), form.restore_states(after)

    def _ready_for(self, x_t: Array, like: Array) -> _Ready:
        """Return what runs over an input of this shape: that of the step before, if it is still good."""
        key, kept = (changes.stamp(), x_t.shape), self._kept_step
        if kept is not None and kept.key == key:
            return kept.value
        if x_t.ndim not in (1, 2) or x_t.shape[-1] != self.input_size or not len(x_t):
            raise ValueError(
                f"x_t: expected shape (B, {self.input_size}) or ({self.input_size},), got {x_t.shape}"
            )
        batched, layers = x_t.ndim == 2, self.num_layers
        B = len(x_t) if batched else 1
        recurrence = pair_for(self.recurrence, like)
        ready = _Ready(
            (forms.Padded if batched else forms.Unbatched)(equal_lengths(1, B)),
            [(layers, B, size) for size in self._state_sizes],
            quiet(recurrence.step) if recurrence is self.recurrence else recurrence.step,
            [self._values(k) for k in range(layers)],
            self._options,
        )
        object.__setattr__(self, "_kept_step", Kept(key, ready))
        return ready

    def stepper(self, batch_size: int = 1, state: Any = None) -> Stepper:
        """Return :meth:`step` prepared for a stream: checked once, arrays made once, the state kept.

        It computes with the weights as they are now; make another one after they have changed.

        Parameters
        ----------
        batch_size : int
        state : array of shape (num_layers, B, H), or for the LSTM a pair, optional
            To start from, zero if not given.

        Returns
        -------
        callable
            From x_t, (B, input_size) or for a batch of one (input_size,), to the output. ``.state`` is the
            state as it is, ``.reset()`` goes back to the start.

        Raises
        ------
        ValueError
            If the layer is bidirectional, `batch_size` no positive integer, or a shape does not fit.
        TypeError
            If `state` is not floating point, not of the weights' dtype, or on another device.

        Examples
        --------
        >>> import numpy as np, minirnn
        >>> gru = minirnn.GRU(3, 5)
        >>> stepper = gru.stepper()
        >>> for x_t in np.ones((4, 3), np.float32):
        ...     y = stepper(x_t)
        >>> y.shape, stepper.state.shape
        ((5,), (1, 1, 5))
        """
        if self.bidirectional:
            raise ValueError("stepper: a bidirectional layer cannot run step by step")
        checks.positive(batch_size=batch_size)
        like, layers = self._like, range(self.num_layers)
        form = forms.Padded(equal_lengths(1, int(batch_size)))
        start = self._enter("state", state, form, like, copy=False)
        weights = [self._values(k) for k in layers]
        return Stepper(pair_for(self.recurrence, like), weights, self._options, start)
