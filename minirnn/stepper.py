"""A recurrent layer that runs on every sample of a stream: prepared once, then called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import checks
from .backend import Array, get_array_module
from .forms import pack_state
from .functional.recurrence import stepper_of


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
