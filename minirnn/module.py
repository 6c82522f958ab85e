"""Module: who owns the weights, and nothing that remembers a forward pass."""

from __future__ import annotations

import inspect
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from . import changes, checks
from .changes import Kept
from .parameter import Parameter
from .state import Stateful

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


class Module(Stateful):
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
    input that could be changed recurrent layers, cells and Linear keep a copy; where `checkpoint` has to
    save memory, its change before backward is an error. On the GPU leave it as it is until backward.

    ``model(x)`` is inference: it returns `y` alone, and no layer inside it saves a context, also in a
    module of your own. To write ``y, ctx = model(x)`` for ``model.forward(x)`` is a mistake that nothing can
    see where the first axis of y is 2, until backward is given half of y for a context and refuses it.

    Raises
    ------
    TypeError
        By an assignment, if it hides modules or parameters where nothing finds them; by ``model(x)``, if
        ``forward`` does not return ``(y, ctx)``.

    See Also
    --------
    Sequential : A chain of layers, without a class of one's own.

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> class Residual(minirnn.Module):
    ...     def __init__(self, layer):
    ...         self.layer = layer
    ...     def forward(self, x):
    ...         y, ctx = self.layer.forward(x)
    ...         return x + y, ctx
    ...     def backward(self, ctx, dy):
    ...         return dy + self.layer.backward(ctx, dy)
    >>> model = Residual(minirnn.Linear(2, 2, dtype=np.float64))
    >>> [name for name, _ in model.named_parameters()]
    ['layer.weight', 'layer.bias']
    >>> sorted(minirnn.diagnostics.check_gradients(model, np.ones((3, 2))))  # else an error
    ['input 0', 'layer.bias', 'layer.weight']
    """

    training: bool = True
    _walk: Kept[list[tuple[str, Parameter]]] | None = None  # through all that this one owns
    _result: ClassVar[str] = "y"  # what forward returns beside the context, for messages

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Compute ``(y, ctx)``; every subclass has its own."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, ctx: Any, *args: Any, **kwargs: Any) -> Any:
        """Add the parameters' gradients into their ``grad`` and return the inputs' gradients."""
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return ``forward(...)`` without its context, saving nothing for backward."""
        before = _inference.active
        try:
            _inference.active = True  # within, lest an interrupt leaves it so
            result = self.forward(*args, **kwargs)
        finally:
            _inference.active = before
        return _output(self, result)

    def _context(self, saved: Any, form: Any) -> Context:
        """Return the context of a forward pass: what its pair saved, and in which form the result is."""
        return Context(self, None if saved is None else (saved, form))

    def _saved(self, ctx: Any) -> Any:
        """Return what `ctx` saved, if it is this layer's."""
        if type(ctx) is not Context:
            raise ValueError(self._no_context(ctx, "the context"))
        if ctx.layer is not self:
            kind, other = type(self).__name__, type(ctx.layer).__name__
            raise ValueError(
                f"ctx: expected a context of this {kind}, got one that "
                f"{'another' if other == kind else 'a layer of class'} {other} made"
            )
        if ctx.saved is None:
            raise ValueError(
                "ctx: expected a context of a training forward pass, got one that was made inside "
                "model(x), which saves nothing; call model.forward(x)"
            )
        return ctx.saved

    def _no_context(self, ctx: Any, expected: str) -> str:
        """Return what to say of what is no context: most often one half of a result."""
        return (
            f"ctx: expected {expected} that {type(self).__name__}.forward returned, got "
            f"{type(ctx).__name__}; `{self._result}, ctx = layer.forward(x)` returns one. `layer(x)` does "
            f"not: it returns {self._result} without a context, and where that has two parts, Python assigns "
            "them to two names without an error"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            value.name = name
        elif value is not None and isinstance(vars(self).get(name), Parameter):
            raise TypeError(
                f"{name}: expected a Parameter or None, got {type(value).__name__}; "
                f"to change the values assign to {name}.data"
            )
        _refuse_hidden(name, value)
        before = vars(self).get(name)
        object.__setattr__(self, name, value)
        if isinstance(value, _HOLDERS) or isinstance(before, _HOLDERS):
            changes.happened()
        for found_name, found in _found_in(name, value):
            if isinstance(found, Parameter):
                found.name = found_name
            elif self not in found.modules():  # else it holds this one: its parent keeps its names
                for inner, parameter in found.named_parameters():
                    parameter.name = f"{found_name}.{inner}"

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        changes.happened()

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

    def children(self) -> Iterator[Module]:
        """Iterate over the modules that this one holds itself, each once."""
        return (child for _, child in self.named_children())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Iterate over ``(name, Module)`` of those that this one holds itself, each once."""
        first: dict[Module, str] = {}
        for name, child in self._children():
            first.setdefault(child, name)
        return ((name, child) for child, name in first.items())

    def modules(self) -> Iterator[Module]:
        """Iterate over this module and all modules inside it, each once."""
        return (module for _, module in self.named_modules())

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """Iterate over ``(dotted name, Module)`` of this one, whose name is empty, and all inside it."""
        seen: set[Module] = set()

        def walk(name: str, module: Module) -> Iterator[tuple[str, Module]]:
            if module not in seen:
                seen.add(module)
                yield name, module
                for inner, child in module._children():
                    yield from walk(f"{name}.{inner}" if name else inner, child)

        return walk("", self)

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call ``fn(module)`` for every module inside this one, then for it: to initialise weights, say.

        Parameters
        ----------
        fn : callable
            Takes a module, each once, inner ones before those that hold them; what it returns is dropped.

        Examples
        --------
        >>> import minirnn
        >>> model = minirnn.Sequential(minirnn.Linear(2, 3), minirnn.Tanh())
        >>> _ = model.apply(lambda module: print(type(module).__name__))
        Linear
        Tanh
        Sequential
        """
        done: set[Module] = set()

        def walk(module: Module) -> None:
            done.add(module)
            for child in module.children():
                if child not in done:
                    walk(child)
            fn(module)

        walk(self)
        return self

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Iterate over ``(dotted name, Parameter)``, in the order of definition, each once."""
        kept, stamp = self._walk, changes.stamp()
        if kept is None or kept.key is not stamp:
            kept = Kept(stamp, self._walked())
            if all(_settled(module) for module in self.modules()):
                object.__setattr__(self, "_walk", kept)
        return iter(kept.value)

    def _walked(self) -> list[tuple[str, Parameter]]:
        first: dict[Parameter, str] = {}
        for name, parameter in self._all_names(""):
            first.setdefault(parameter, name)
        for parameter, name in first.items():
            # A list tells nobody what is appended to it, so here such parameters get their full names.
            if parameter.name != name and not parameter.name.endswith(f".{name}"):
                parameter.name = name
        return [(name, parameter) for parameter, name in first.items()]

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

    def _all_buffers(
        self, prefix: str, above: tuple[Module, ...] = ()
    ) -> list[tuple[str, Module, str]]:
        """Return name, owner and attribute of all arrays that are part of the state beside parameters."""
        found = [(prefix + n, self, n) for n in self._buffers if getattr(self, n) is not None]
        for name, child in self._children():
            if child is not self and child not in above:
                found += child._all_buffers(f"{prefix}{name}.", (*above, self))
        return found

    def parameters(self) -> Iterator[Parameter]:
        """Iterate over the parameters, in the order of definition, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def train(self: M, mode: bool = True) -> M:
        """Switch this module and all inside it to training (dropout on), or with ``False`` off.

        Raises
        ------
        TypeError
            If `mode` is neither True nor False.
        """
        checks.flags(mode=mode)
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Switch this module and all inside it to evaluation: dropout is off."""
        return self.train(False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_within(self) or _described(self)})"


# What a module owns, and what it may lie in; names lead there.
_OWNED = (Module, Parameter)
_CONTAINERS = (list, tuple, dict)
_HOLDERS = _OWNED + _CONTAINERS

# Of a constructor's arguments, what `repr` shows.
_NAMED = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
_SHOWN = (bool, int, float, str, tuple, type(None))


def _output(module: Module, result: Any) -> Any:
    """Return y of the pair (y, ctx) that the forward of `module` has returned, if it is one."""
    if not isinstance(result, tuple) or len(result) != 2:
        name = type(module).__name__
        got = f"a tuple of {len(result)}" if type(result) is tuple else type(result).__name__
        raise TypeError(
            f"{name}.forward: expected it to return the pair (y, ctx), got {got}. End forward with "
            "`return y, ctx`, ctx being what backward needs (None if nothing): then "
            "`y, ctx = model.forward(x)` is training, and `y = model(x)` inference"
        )
    return result[0]


def _refuse_hidden(name: str, value: Any) -> None:
    """Refuse an attribute that has modules or parameters where nothing looks for them."""
    if isinstance(value, set | frozenset | deque) and any(_found_in("", item) for item in value):
        raise TypeError(
            f"{name}: expected modules and parameters as attributes or in a list, tuple or dict, where "
            f"they are found and trained; got a {type(value).__name__} of them"
        )


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


def _settled(module: Module) -> bool:
    """Tell whether nothing can come into a module but by an assignment: it has no lists and dicts."""
    return all(map(_fixed, vars(module).values()))


def _fixed(value: Any) -> bool:
    return (
        all(map(_fixed, value)) if isinstance(value, tuple) else not isinstance(value, list | dict)
    )


def _within(module: Module) -> str:
    """Return what a module holds, a line for each child."""
    inner = [
        # A child that holds its parent would be shown without end.
        f"({name}): {type(child).__name__}(...)"
        if module in child.modules()
        else f"({name}): {child!r}".replace("\n", "\n  ")
        for name, child in module._children()
    ]
    return "\n  " + "\n  ".join(inner) + "\n" if inner else ""


def _described(module: Module) -> str:
    """Return the constructor's arguments, of those that have a default the ones that differ from it."""
    shown = []
    for name, argument in _arguments(type(module)).items():
        value, default = vars(module).get(name, argument.default), argument.default
        if value is None and default is True:
            value = False  # such as a bias, which is there or None
        if not isinstance(value, _SHOWN):
            continue  # a Parameter that an option has made, an array, a function
        if default is argument.empty:
            shown.append(repr(value))
        elif value != default:
            shown.append(f"{name}={value!r}")
    return ", ".join(shown)


def _arguments(kind: type) -> dict[str, inspect.Parameter]:
    """Return the arguments of a constructor, and the options that it hands on to those of its bases."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__init__" in vars(base):
            given = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
            own = {p.name: p for p in given if p.kind in _NAMED}
            found |= {
                name: p
                for name, p in own.items()
                if name not in found and (not found or p.default is not p.empty)
            }
            if all(p.kind != p.VAR_KEYWORD for p in given):
                break
    return found


def generators_of(model: Module) -> list[np.random.Generator]:
    """Return the generators that the model's layers own, each once, in the order of definition."""
    found: dict[int, np.random.Generator] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, np.random.Generator):
                found.setdefault(id(value), value)
    return list(found.values())
