"""Module: who owns the weights, and nothing that remembers a forward pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from .backend import BACKENDS, Array, asnumpy, get_array_module, load_backend
from .parameter import Parameter, ParameterBuffer, pieces, shared_buffer

M = TypeVar("M", bound="Module")


class _Inference(threading.local):
    """Whether this thread is inside ``model(x)``, where no layer saves anything for backward."""

    active = False


_inference = _Inference()


def saving() -> bool:
    """Tell whether ``forward`` has to save a context: not inside ``model(x)``."""
    return not _inference.active


class Context(NamedTuple):
    """What a layer's ``forward`` hands to its ``backward``.

    Attributes
    ----------
    layer : Module
        The layer that made it, and the only one whose ``backward`` takes it.
    saved : NamedTuple or tuple, or None
        What backward needs: what the functional pair saved, and the form of the result. ``None`` if the
        forward pass ran inside ``model(x)``.
    """

    layer: Module
    saved: Any


class Module:
    """A piece of a model: it owns :class:`Parameter` and other modules, found by attribute.

    Modules in a list or tuple that is an attribute are found too, under ``name.index``; a parameter, as
    in torch, needs an attribute of its own.

    A subclass defines the pair

        ``y, ctx = forward(x, ...)``    and    ``dx = backward(ctx, dy)``

    where `ctx` is whatever its backward needs; most often the tuple of its layers' contexts.
    Nothing of a forward pass stays in the module: a layer may be called twice, in several threads,
    backward passes may run in any order (one at a time, as they add to the same gradients), and to
    drop `ctx` is to free the memory. A context refers to the weights, the input and the output, it
    does not copy them: step the optimiser, reuse the input's memory and change the output in place
    after backward, not before.

    ``model(x)`` is inference: it returns `y` alone, and no layer inside it saves a context, also in a
    module of your own.
    """

    training: bool = True

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Compute ``(y, ctx)``; every subclass has its own."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, ctx: Any, *args: Any, **kwargs: Any) -> Any:
        """Add the parameters' gradients into their ``grad`` and return the inputs' gradients."""
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return ``forward(...)`` without its context, saving nothing for backward."""
        before, _inference.active = _inference.active, True
        try:
            return self.forward(*args, **kwargs)[0]
        finally:
            _inference.active = before

    def _saved(self, ctx: Any) -> Any:
        """Return what `ctx` saved, if it is this layer's."""
        if type(ctx) is not Context:
            raise ValueError(
                f"ctx: expected the context that {type(self).__name__}.forward returned, "
                f"got {type(ctx).__name__}"
            )
        if ctx.layer is not self:
            raise ValueError(
                f"ctx: expected a context of this {type(self).__name__}, "
                f"got one that another {type(ctx.layer).__name__} made"
            )
        if ctx.saved is None:
            raise ValueError(
                "ctx: expected a context of a training forward pass, got one that was made inside "
                "model(x), which saves nothing; call model.forward(x)"
            )
        return ctx.saved

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            value.name = name
        elif value is not None and isinstance(vars(self).get(name), Parameter):
            raise TypeError(
                f"{name}: expected a Parameter or None, got {type(value).__name__}; "
                f"to change the values assign to {name}.data"
            )
        object.__setattr__(self, name, value)
        for child_name, child in self._children_in(name, value):
            for inner, parameter in child.named_parameters():
                parameter.name = f"{child_name}.{inner}"

    @staticmethod
    def _children_in(name: str, value: Any) -> Iterator[tuple[str, Module]]:
        if isinstance(value, Module):
            yield name, value
        elif type(value) in (list, tuple):
            for index, item in enumerate(value):
                if isinstance(item, Module):
                    yield f"{name}.{index}", item

    def _children(self) -> Iterator[tuple[str, Module]]:
        for name, value in vars(self).items():
            if isinstance(value, Module) or type(value) in (list, tuple):
                yield from self._children_in(name, value)

    def modules(self) -> Iterator[Module]:
        """Iterate over this module and all modules inside it, each once."""
        seen: set[int] = set()

        def walk(module: Module) -> Iterator[Module]:
            if id(module) not in seen:
                seen.add(id(module))
                yield module
                for _, child in module._children():
                    yield from walk(child)

        return walk(self)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Iterate over ``(dotted name, Parameter)``, in the order of definition, each once."""
        first: dict[Parameter, str] = {}
        for name, parameter in self._all_names(""):
            first.setdefault(parameter, name)
        for parameter, name in first.items():
            # Of a module that was put into a list later, the parameters do not know it yet.
            if not parameter.name.endswith(name):
                parameter.name = name
        return ((name, parameter) for parameter, name in first.items())

    def _all_names(self, prefix: str) -> list[tuple[str, Parameter]]:
        own = [(prefix + n, p) for n, p in vars(self).items() if type(p) is Parameter]
        for name, child in self._children():
            own += child._all_names(f"{prefix}{name}.")
        return own

    def parameters(self) -> Iterator[Parameter]:
        """Iterate over the parameters, in the order of definition, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        for piece in pieces(list(self.parameters())):
            piece.zero_grad()

    def flatten_parameters(self) -> ParameterBuffer:
        """Move all parameters and gradients into one contiguous buffer each, and return it.

        Values do not change. Do it after ``to`` and before training starts; arrays taken from
        ``parameter.data`` earlier are no longer the parameter's.
        """
        return ParameterBuffer(self.parameters())

    def train(self: M, mode: bool = True) -> M:
        """Switch this module and all inside it to training (dropout on), or with ``False`` off."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Switch this module and all inside it to evaluation: dropout is off."""
        return self.train(False)

    def to(self: M, target: str | DTypeLike) -> M:
        """Move the parameters to a backend (``"numpy"``, ``"cupy"``) or convert them to a dtype.

        Values and gradients go along; a parameter buffer is made anew. The module is changed in
        place and returned.

        Raises
        ------
        TypeError
            If `target` is neither a backend nor a floating-point dtype.
        ImportError
            If CuPy is asked for and not installed.

        Examples
        --------
        >>> import minirnn
        >>> minirnn.Linear(3, 2).to("float64").weight.dtype
        dtype('float64')
        """
        move: Callable[[Array], Array]
        if isinstance(target, str) and target in BACKENDS:
            xp = load_backend(target)
            move = asnumpy if xp is np else xp.asarray
        else:
            try:
                dtype = np.dtype(target)
            except TypeError:
                dtype = np.dtype(object)
            if target is None or dtype.kind != "f":
                raise TypeError(
                    f"to: expected 'numpy', 'cupy' or a floating-point dtype, got {target!r}"
                )

            def move(x: Array) -> Array:
                return x.astype(dtype, copy=False)

        parameters = list(self.parameters())
        buffer = shared_buffer(parameters)
        for p in parameters:
            p._move(move(p._data), None if p._grad is None else move(p._grad), None)
        for module in self.modules():
            module._move_arrays(move)
        if buffer is not None:
            ParameterBuffer(parameters)
        return self

    def _move_arrays(self, move: Callable[[Array], Array]) -> None:
        """Move what else the module computes with, beside its parameters."""

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of every parameter's value under its dotted name, those of torch."""
        return {name: p.data.copy() for name, p in self._all_names("")}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Copy values into the parameters, by name.

        Parameters
        ----------
        state_dict : mapping from str to array-like
            What :meth:`state_dict` returned, an ``.npz`` file opened by NumPy, or a torch
            ``state_dict`` of CPU tensors. Values are converted to the parameters' dtype.
        strict : bool
            With ``False``, names that are missing or unexpected are passed over.

        Raises
        ------
        ValueError
            If entries are missing, unexpected, of another shape or not floating point: all of them
            in one message, and the module unchanged.
        TypeError
            If `state_dict` is no mapping.
        """
        if not hasattr(state_dict, "keys"):
            raise TypeError(f"state_dict: expected a mapping, got {type(state_dict).__name__}")
        own = dict(self._all_names(""))
        problems = []
        if strict:
            problems += [f"missing: {name}" for name in own if name not in state_dict]
            problems += [f"unexpected: {name}" for name in state_dict if name not in own]
        values = {}
        for name, parameter in own.items():
            if name not in state_dict:
                continue
            try:
                value = asnumpy(state_dict[name])
            except (TypeError, ValueError, RuntimeError) as error:
                problems.append(f"{name}: expected what NumPy makes an array of, {error}")
                continue
            if value.shape != parameter.shape:
                problems.append(f"{name}: expected shape {parameter.shape}, got {value.shape}")
            elif value.dtype.kind != "f":
                problems.append(f"{name}: expected floating point, got dtype {value.dtype}")
            values[name] = value
        if problems:
            raise ValueError(
                f"state_dict does not fit {type(self).__name__}:\n  " + "\n  ".join(problems)
            )
        for name, value in values.items():
            own[name].data = get_array_module(own[name].data).asarray(value)

    def _describe(self) -> str:
        """Return the constructor's arguments as ``repr`` shows them."""
        return ""

    def __repr__(self) -> str:
        inner = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self._children()]
        body = "\n  " + "\n  ".join(inner) + "\n" if inner else self._describe()
        return f"{type(self).__name__}({body})"


def describe(module: Module, sizes: tuple[str, ...], defaults: Mapping[str, Any]) -> str:
    """Return the sizes, and all options that are there and not at their default, for ``repr``."""
    shown = [str(getattr(module, name)) for name in sizes]
    for name, default in defaults.items():
        value = getattr(module, name, default)
        if value != default:
            shown.append(f"{name}={value!r}")
    return ", ".join(shown)
