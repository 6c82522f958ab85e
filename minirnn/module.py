"""Module: who owns the weights, and nothing that remembers a forward pass."""

from __future__ import annotations

import threading
from collections import deque
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


class IncompatibleKeys(NamedTuple):
    """What :meth:`Module.load_state_dict` returns.

    Attributes
    ----------
    missing_keys : list of str
        Names of parameters that the state dict does not have; these were left as they were.
    unexpected_keys : list of str
        Names in the state dict that no parameter has.
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


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

    Modules and parameters in a list, tuple or dict that is an attribute are found too, however deep, under
    ``name.index`` or ``name.key``. In a set or another container they would not be, so that is refused.

    A subclass defines the pair

        ``y, ctx = forward(x, ...)``    and    ``dx = backward(ctx, dy)``

    where `ctx` is whatever its backward needs; most often the tuple of its layers' contexts.
    Nothing of a forward pass stays in the module: a layer may be called twice, in several threads,
    backward passes may run in any order (one at a time, as they add to the same gradients), and to
    drop `ctx` is to free the memory. A context refers to the weights: step the optimiser after backward,
    not before. An output that backward reads is a view that cannot be written to (on the host); of an
    input that could be changed recurrent layers, cells and Linear keep a copy, but where `checkpoint` has
    to save memory and on the GPU: there leave it as it is until backward.

    ``model(x)`` is inference: it returns `y` alone, and no layer inside it saves a context, also in a
    module of your own.

    Raises
    ------
    TypeError
        By an assignment, if it hides modules or parameters where nothing finds them; by ``model(x)``, if
        ``forward`` does not return ``(y, ctx)``.
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
            result = self.forward(*args, **kwargs)
        finally:
            _inference.active = before
        if not isinstance(result, tuple) or len(result) != 2:
            name = type(self).__name__
            got = f"a tuple of {len(result)}" if type(result) is tuple else type(result).__name__
            raise TypeError(
                f"{name}.forward: expected it to return the pair (y, ctx), got {got}. End forward with "
                "`return y, ctx`, ctx being what backward needs (None if nothing): then "
                "`y, ctx = model.forward(x)` is training, and `y = model(x)` inference"
            )
        return result[0]

    def _saved(self, ctx: Any) -> Any:
        """Return what `ctx` saved, if it is this layer's."""
        if type(ctx) is not Context:
            raise ValueError(
                f"ctx: expected the context that {type(self).__name__}.forward returned, "
                f"got {type(ctx).__name__}; `y, ctx = layer.forward(x)` returns one, `layer(x)` does not"
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
        if isinstance(value, set | frozenset | deque):
            for item in value:
                if _found_in("", item):
                    raise TypeError(
                        f"{name}: expected modules and parameters as attributes or in a list, tuple or "
                        f"dict, where they are found and trained; got a {type(value).__name__} of them"
                    )
        object.__setattr__(self, name, value)
        for found_name, found in _found_in(name, value):
            if isinstance(found, Parameter):
                found.name = found_name
            elif self not in found.modules():  # else it holds this one: its parent keeps its names
                for inner, parameter in found.named_parameters():
                    parameter.name = f"{found_name}.{inner}"

    def _owned(self) -> list[tuple[str, Module | Parameter]]:
        owned: list[tuple[str, Module | Parameter]] = []
        for name, value in vars(self).items():
            if isinstance(value, _OWNED):
                owned.append((name, value))
            elif isinstance(value, _CONTAINERS):
                owned += _found_in(name, value)
        return owned

    def _children(self) -> Iterator[tuple[str, Module]]:
        return ((name, found) for name, found in self._owned() if isinstance(found, Module))

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
            if parameter.name != name and not parameter.name.endswith(f".{name}"):
                parameter.name = name
        return ((name, parameter) for parameter, name in first.items())

    def _all_names(
        self, prefix: str, above: tuple[Module, ...] = ()
    ) -> list[tuple[str, Parameter]]:
        """Return the names of all parameters, more than one of what is shared; `above` are its parents."""
        own, below = [], []
        for name, found in self._owned():
            if isinstance(found, Parameter):
                own.append((prefix + name, found))
            elif found is not self and found not in above:
                below += found._all_names(f"{prefix}{name}.", (*above, self))
        return own + below

    def parameters(self) -> Iterator[Parameter]:
        """Iterate over the parameters, in the order of definition, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Set all gradients to zero.

        Parameters
        ----------
        set_to_none : bool
            As in torch, and without effect: a gradient is never ``None`` here.
        """
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

        parameters, modules = list(self.parameters()), list(self.modules())
        buffer = shared_buffer(parameters)
        # All is converted before anything is changed: where warnings are errors, an overflow raises.
        moved = [(move(p._data), None if p._grad is None else move(p._grad)) for p in parameters]
        before = [dict(vars(module)) for module in modules]
        try:
            for module in modules:
                module._move_arrays(move)
        except BaseException:
            for module, attributes in zip(modules, before, strict=True):
                vars(module).update(attributes)
            raise
        for p, (data, grad) in zip(parameters, moved, strict=True):
            p._move(data, grad, None)
        if buffer is not None:
            ParameterBuffer(parameters)
        return self

    def _move_arrays(self, move: Callable[[Array], Array]) -> None:
        """Move what else the module computes with, beside its parameters."""

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of every parameter's value under its dotted name, those of torch."""
        return {name: p.data.copy() for name, p in self._all_names("")}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> IncompatibleKeys:
        """Copy values into the parameters, by name.

        Parameters
        ----------
        state_dict : mapping from str to array-like
            What :meth:`state_dict` returned, an ``.npz`` file opened by NumPy, or a torch
            ``state_dict`` of CPU tensors. Values are converted to the parameters' dtype.
        strict : bool
            With ``False``, names that are missing or unexpected are passed over.

        Returns
        -------
        IncompatibleKeys
            The names that were missing and unexpected: look at them if not `strict`.

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
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        problems = []
        if strict:
            problems += [f"missing: {name}" for name in missing]
            problems += [f"unexpected: {name}" for name in unexpected]
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
            else:
                values[name] = get_array_module(parameter.data).asarray(value, parameter.dtype)
        if problems:
            raise ValueError(
                f"state_dict does not fit {type(self).__name__}:\n  " + "\n  ".join(problems)
            )
        for name, value in values.items():
            own[name].data = value
        return IncompatibleKeys(missing, unexpected)

    def _describe(self) -> str:
        """Return the constructor's arguments as ``repr`` shows them."""
        return ""

    def __repr__(self) -> str:
        inner = [
            # A child that holds its parent would be shown without end.
            f"({name}): {type(child).__name__}(...)"
            if self in child.modules()
            else f"({name}): {child!r}".replace("\n", "\n  ")
            for name, child in self._children()
        ]
        body = "\n  " + "\n  ".join(inner) + "\n" if inner else self._describe()
        return f"{type(self).__name__}({body})"


# What a module owns, and what it may lie in; names lead there.
_OWNED = (Module, Parameter)
_CONTAINERS = (list, tuple, dict)
_HOLDERS = _OWNED + _CONTAINERS


def _found_in(
    name: str, value: Any, above: tuple[Any, ...] = ()
) -> list[tuple[str, Module | Parameter]]:
    """Return the modules and parameters in an attribute's value, with their names."""
    if isinstance(value, _OWNED):
        return [(name, value)]
    found: list[tuple[str, Module | Parameter]] = []
    if isinstance(value, Context) or any(value is one for one in above):
        return found
    if isinstance(value, _CONTAINERS):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(item, _HOLDERS):
                found += _found_in(f"{name}.{key}", item, (*above, value))
    return found


def describe(module: Module, sizes: tuple[str, ...], defaults: Mapping[str, Any]) -> str:
    """Return the sizes, and all options that are there and not at their default, for ``repr``."""
    shown = [str(getattr(module, name)) for name in sizes]
    for name, default in defaults.items():
        value = getattr(module, name, default)
        if value != default:
            shown.append(f"{name}={value!r}")
    return ", ".join(shown)
