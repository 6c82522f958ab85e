"""What a recurrent layer and a cell own: the weights of a recurrence, their names and first values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from . import changes, init
from .backend import RNG, Array, generator, get_array_module, quiet, uniform
from .changes import Kept
from .functional import recurrence as contract
from .module import Module
from .parameter import Parameter


class RecurrentWeights(Module):
    """A module around a recurrence, with weights for each of its passes.

    A pass is one layer in one direction; a cell has one. Its weights are those that the recurrence names; the
    pass's suffix makes them attributes of one module.
    """

    recurrence: ClassVar[Any]  # a functional.recurrence.Recurrence
    hidden_size: int
    output_size: int  # features of h: the hidden size, or that of its projection
    bias: bool
    _names: tuple[tuple[str | None, ...], ...]  # each pass's attributes, None for what it lacks
    _kept_gradients: Kept[list[list[Any]]] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if value is None and isinstance(vars(self).get(name), Parameter):
            raise TypeError(
                f"{name}: expected a Parameter, got None; a layer without biases is made with bias=False"
            )
        super().__setattr__(name, value)
        changes.happened()  # to its settings, too: they decide what runs

    @property
    def _options(self) -> dict[str, Any]:
        """Further arguments of the recurrence's forward and step."""
        return {}

    @property
    def _states(self) -> int:
        """How many arrays the state is made of."""
        return len(contract.state_names(self.recurrence))

    def _add_pass(self, features: int, suffix: str, dtype: DTypeLike, rng: RNG) -> None:
        """Draw the weights of one more pass, uniform on ``+-1/sqrt(hidden_size)`` as torch's."""
        bound, names = 1 / math.sqrt(self.hidden_size), list[str | None]()
        sizes = features, self.hidden_size, self.output_size, self.bias
        for kind, shape in contract.shapes_of(self.recurrence, *sizes).items():
            names.append(None if shape is None else kind + suffix)
            if shape is not None:
                setattr(self, kind + suffix, Parameter(uniform(rng, -bound, bound, shape, dtype)))
        self._names += (tuple(names),)

    def _orthogonalize(self, rng: RNG) -> None:
        """Start anew with orthogonal W_hh (each gate's by itself) and W_hr, Xavier W_ih and zero biases."""
        draw = generator(rng)
        for w_ih, w_hh, b_ih, b_hh, *projection in map(self._weights, range(len(self._names))):
            init.xavier_uniform_(w_ih, rng=draw)
            init.orthogonal_(w_hh, blocks=len(self.recurrence.GATES), rng=draw)
            for b in (b_ih, b_hh):
                if b is not None:
                    init.zeros_(b)
            for w in projection:
                if w is not None and w.data.ndim > 1:
                    init.orthogonal_(w, rng=draw)

    def _weights(self, k: int) -> list[Any]:
        """Return pass `k`'s weights, in order, None for what it lacks."""
        own = vars(self)
        return [None if name is None else own[name] for name in self._names[k]]

    def _values(self, k: int) -> list[Array | None]:
        own = vars(self)
        return [None if name is None else own[name]._data for name in self._names[k]]

    def _gradients(self) -> list[list[Any]]:
        """Return each pass's gradients, in the order of its weights."""
        kept, stamp = self._kept_gradients, changes.stamp()
        if kept is None or kept.key is not stamp:
            own = vars(self)
            found = [[None if n is None else own[n].grad for n in names] for names in self._names]
            kept = Kept(stamp, found)
            object.__setattr__(self, "_kept_gradients", kept)
        return kept.value

    @property
    def _like(self) -> Array:
        """An array of the dtype and device of the weights."""
        own: dict[Any, Any] = vars(self)
        like: Array = own[self._names[0][0]]._data  # W_ih, which every pass has
        return like


def wide_biases(gradients: Sequence[Any]) -> list[Any]:
    """Return arrays to add to: those of matrices themselves, for each of biases zeros in float64.

    A bias's gradient is a sum of many spans' sums, of one sign if it goes badly: in float32 each addition
    would round it.
    """
    return [
        d if d is None or d.ndim > 1 else get_array_module(d).zeros(d.shape, np.float64)
        for d in gradients
    ]


@quiet
def add_biases(gradients: Sequence[Sequence[Any]], wide: Sequence[Sequence[Any]]) -> None:
    """Add what :func:`wide_biases` returned for each of `gradients` and was added up since."""
    for own, sums in zip(gradients, wide, strict=True):
        for d, total in zip(own, sums, strict=True):
            if total is not d:
                d += total
