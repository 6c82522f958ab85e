"""Layers one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .module import Context, Module
from .torch_hints import SEQUENTIAL


class Sequential(Module, hints=SEQUENTIAL):
    """Layers one after the other: forward in order, backward in the reverse order.

    From a layer that returns a pair ``(output, state)``, as the recurrent ones do, the output goes
    on to the next layer; its backward's input gradient likewise.

    Parameters
    ----------
    *layers : Module, or one dict of them by name
        Their names are 0, 1, ..., or the dict's: ``"0.weight"``, ``"head.weight"``.

    Raises
    ------
    TypeError
        If one is no Module.
    ValueError
        If a name is no identifier, or one that a Sequential has already.

    See Also
    --------
    Module : Models that are no chain.

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> model = minirnn.Sequential(minirnn.Linear(4, 8), minirnn.Dropout(0.5), minirnn.Linear(8, 2))
    >>> y, ctx = model.forward(np.ones((3, 4), np.float32))
    >>> model.backward(ctx, np.ones_like(y)).shape
    (3, 4)
    """

    def __init__(self, *layers: Module | Mapping[str, Module]) -> None:
        named: dict[Any, Any] = {str(index): layer for index, layer in enumerate(layers)}
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            named = dict(layers[0])
            if not named:
                raise ValueError("layers: expected at least one in the mapping, got none")
            for name in named:
                taken = hasattr(type(self), name) if isinstance(name, str) else True
                if taken or not name.isidentifier():
                    raise ValueError(f"layers: expected names of their own, got {name!r}")
        for name, layer in named.items():
            if not isinstance(layer, Module):
                raise TypeError(f"layer {name}: expected a Module, got {type(layer).__name__}")
        for name, layer in named.items():
            setattr(self, name, layer)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Module]:
        return (layer for _, layer in self._children())

    def __getitem__(self, index: int) -> Module:
        return list(self)[index]

    def forward(self, input: Any) -> tuple[Any, tuple[Any, ...]]:
        """Run the layers in order.

        Parameters
        ----------
        input
            What the first layer takes.

        Returns
        -------
        y, ctx : the last layer's output; the contexts of all layers
        """
        x, contexts = input, []
        for layer in self:
            x, ctx = layer.forward(x)
            x = x[0] if type(x) is tuple else x
            contexts.append(ctx)
        return x, tuple(contexts)

    def backward(self, ctx: tuple[Any, ...], dy: Any) -> Any:
        """Run the layers back, each of which adds to its parameters' gradients.

        Parameters
        ----------
        ctx : tuple
        dy
            Gradient of the last layer's output.

        Returns
        -------
        The gradient of the first layer's input.

        Raises
        ------
        ValueError
            If `ctx` is not what forward returned; no gradient is changed.
        """
        layers = list(self)
        if not isinstance(ctx, tuple) or len(ctx) != len(layers):
            raise ValueError(self._no_context(ctx, f"the {len(layers)} contexts, one a layer,"))
        for layer, layer_ctx in zip(layers, ctx, strict=True):
            # Before the first of them adds to a gradient; a module of the user's may have no context.
            own = type(layer).__module__.startswith(f"{__package__}.")
            if isinstance(layer_ctx, Context) or (own and not isinstance(layer, Sequential)):
                layer._saved(layer_ctx)
        for layer, layer_ctx in zip(reversed(layers), reversed(ctx), strict=True):
            dy = layer.backward(layer_ctx, dy)
            dy = dy[0] if type(dy) is tuple else dy
        return dy
