"""Parameter, Module and Sequential: who owns the weights, and nothing that remembers a forward pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from . import checks
from .backend import BACKENDS, Array, asnumpy, get_array_module, load_backend

M = TypeVar("M", bound="Module")


_first_grad = threading.Lock()


class Parameter:
    """A weight and its gradient.

    Parameters
    ----------
    data : array of floating point
        The initial value. The array is owned by the parameter from then on.

    Attributes
    ----------
    data : array
        The value. Assigning copies *into* the array that is there, so that a parameter that is a
        view of a :class:`ParameterBuffer` stays one. An array that is not floating point, or lies on
        another device, is refused with a TypeError, one of another shape with a ValueError.
    grad : array
        The gradient, of the shape of `data`; zeros until a backward pass adds to it. Never ``None``.
    name : str
        The dotted name of the parameter in the model that owns it, for messages.
    """

    __slots__ = ("_data", "_grad", "buffer", "name")

    def __init__(self, data: Array) -> None:
        checks.floating("data", data)
        # The reshape since NumPy makes a vector of an array without dimensions.
        self._data: Array = get_array_module(data).ascontiguousarray(data).reshape(data.shape)
        # Made at the first look: a model that only answers never pays for gradients.
        self._grad: Array | None = None
        self.buffer: ParameterBuffer | None = None
        self.name = "parameter"

    @property
    def data(self) -> Array:
        """The value, an array."""
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        # `p.data *= x` works in place and then assigns the array to itself, as `p.grad += x` does.
        if value is not self._data:
            self._data[...] = self._fitting("data", value)

    @property
    def grad(self) -> Array:
        """The gradient, an array of the shape of `data`."""
        if self._grad is None:
            with _first_grad:  # two threads must not make one each
                if self._grad is None:
                    self._grad = get_array_module(self._data).zeros_like(self._data)
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not self._grad:
            self.grad[...] = self._fitting("grad", value)

    def _fitting(self, what: str, value: Any) -> Array:
        """Return `value`, floating point of any precision or a list of numbers, if it fits."""
        name = f"{self.name}.{what}"
        if not hasattr(value, "dtype"):
            value = get_array_module(self._data).asarray(value, self.dtype)
        checks.array_module(**{name: value, "parameter": self._data})
        checks.floating(name, value)
        if value.shape != self.shape:
            raise ValueError(f"{name}: expected shape {self.shape}, got {value.shape}")
        return value

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `data`."""
        return tuple(self._data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of `data`."""
        dtype: np.dtype[Any] = self._data.dtype
        return dtype

    @property
    def size(self) -> int:
        """The number of entries of `data`."""
        return int(self._data.size)

    def zero_grad(self) -> None:
        """Set the gradient to zero."""
        if self._grad is not None:
            self._grad.fill(0)

    def __getstate__(self) -> tuple[Array, Array | None, str]:
        # A copy has arrays of its own, and so leaves the buffer.
        return self._data, self._grad, self.name

    def __setstate__(self, state: tuple[Array, Array | None, str]) -> None:
        self._data, self._grad, self.name = state
        self.buffer = None

    def _move(self, data: Array, grad: Array | None, buffer: ParameterBuffer | None) -> None:
        if self.buffer is not None:
            self.buffer.complete = False
        self._data, self._grad, self.buffer = data, grad, buffer

    def __repr__(self) -> str:
        return f"Parameter({self.name}, shape={self.shape}, dtype={self.dtype})"


class ParameterBuffer:
    """All parameters of a model in one contiguous array, and their gradients in another.

    The parameters become views of the two arrays, so that clearing the gradients, clipping them
    and an optimiser step are a handful of array operations whatever the number of layers.

    Parameters
    ----------
    parameters : iterable of Parameter
        All of one dtype and on one device. Values and gradients are kept.

    Attributes
    ----------
    data, grad : array of shape (sum of sizes,)
    parameters : list of Parameter
        In the order in which they lie in the arrays.
    complete : bool
        Whether all of them are still here, and none has moved to another buffer, device or dtype.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = listed("parameters", parameters)
        if len(set(self.parameters)) < len(self.parameters):
            raise ValueError("parameters: expected every parameter once, got one of them twice")
        xp = require_one_kind("parameters", self.parameters)
        self.data: Array = xp.concatenate([p.data.ravel() for p in self.parameters])
        self.grad: Array = xp.concatenate([p.grad.ravel() for p in self.parameters])
        self.complete = True
        start = 0
        for p in self.parameters:
            span = slice(start, start + p.size)
            p._move(self.data[span].reshape(p.shape), self.grad[span].reshape(p.shape), self)
            start = span.stop

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        self.grad.fill(0)


def listed(name: str, parameters: Any) -> list[Parameter]:
    """Return `parameters`, an iterable or a single one, as a list; `name` is the argument's.

    Raises
    ------
    ValueError
        If there are none.
    TypeError
        If `parameters` holds something else.
    """
    if isinstance(parameters, Parameter):
        return [parameters]
    if not isinstance(parameters, Iterable):
        raise TypeError(f"{name}: expected Parameters, got {type(parameters).__name__}")
    found = list(parameters)
    if not found:
        raise ValueError(
            f"{name}: expected at least one parameter, got none (an iterator used up?)"
        )
    for p in found:
        if not isinstance(p, Parameter):
            raise TypeError(f"{name}: expected Parameters, got {type(p).__name__}")
    return found


def require_one_kind(name: str, parameters: list[Parameter]) -> ModuleType:
    """Return the array module of `parameters`, which must be of one dtype and on one device."""
    kinds = {f"{p.dtype} in {get_array_module(p.data).__name__}" for p in parameters}
    if len(kinds) > 1:
        found = ", ".join(sorted(kinds))
        raise TypeError(f"{name}: expected one dtype and one device, got {found}")
    return get_array_module(parameters[0].data)


def pieces(parameters: list[Parameter]) -> list[Parameter] | list[ParameterBuffer]:
    """Return what holds `parameters` in as few arrays as there are: their buffer, or themselves."""
    buffer = shared_buffer(parameters)
    return parameters if buffer is None else [buffer]


def shared_buffer(parameters: list[Parameter]) -> ParameterBuffer | None:
    """Return the buffer that holds exactly `parameters`, in that order, if there is one."""
    buffer = parameters[0].buffer if parameters else None
    if buffer is None or not buffer.complete or buffer.parameters != parameters:
        return None
    return buffer


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


class Sequential(Module):
    """Layers one after the other: forward in order, backward in the reverse order.

    From a layer that returns a pair ``(output, state)``, as the recurrent ones do, the output goes
    on to the next layer; its backward's input gradient likewise.

    Parameters
    ----------
    *layers : Module

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> model = minirnn.Sequential(minirnn.Linear(4, 8), minirnn.Dropout(0.5), minirnn.Linear(8, 2))
    >>> y, ctx = model.forward(np.ones((3, 4), np.float32))
    >>> model.backward(ctx, np.ones_like(y)).shape
    (3, 4)
    """

    def __init__(self, *layers: Module) -> None:
        for index, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise TypeError(f"layer {index}: expected a Module, got {type(layer).__name__}")
            setattr(self, str(index), layer)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Module]:
        return (layer for _, layer in self._children())

    def __getitem__(self, index: int) -> Module:
        return list(self)[index]

    def forward(self, input: Any) -> tuple[Any, tuple[Any, ...]]:
        """Return the last layer's output and the contexts of all layers."""
        x, contexts = input, []
        for layer in self:
            x, ctx = layer.forward(x)
            x = x[0] if type(x) is tuple else x
            contexts.append(ctx)
        return x, tuple(contexts)

    def backward(self, ctx: tuple[Any, ...], dy: Any) -> Any:
        """Return the gradient of the first layer's input."""
        layers = list(self)
        if not isinstance(ctx, tuple) or len(ctx) != len(layers):
            raise ValueError(f"ctx: expected a tuple of {len(layers)} contexts, one a layer")
        for layer, layer_ctx in zip(layers, ctx, strict=True):
            if isinstance(layer_ctx, Context):
                layer._saved(layer_ctx)  # before the first of them adds to a gradient
        for layer, layer_ctx in zip(reversed(layers), reversed(ctx), strict=True):
            dy = layer.backward(layer_ctx, dy)
            dy = dy[0] if type(dy) is tuple else dy
        return dy
