"""Parameter, and the buffer that holds all of a model's in one piece."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from . import changes, checks, torch_hints
from .backend import Array, get_array_module, quiet

# Reentrant: a signal's handler may look at a gradient too.
_first_grad = threading.RLock()


def _renew_lock() -> None:
    global _first_grad
    _first_grad = threading.RLock()


if hasattr(os, "register_at_fork"):
    # A child process has the lock as it was, and not the thread that would open it.
    os.register_at_fork(after_in_child=_renew_lock)


class Parameter(NDArrayOperatorsMixin):
    """A weight and its gradient.

    Parameters
    ----------
    data : array of floating point
        The initial value. The array is owned by the parameter from then on.
    requires_grad : bool
        See below.

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
    requires_grad : bool
        ``False`` freezes the parameter: optimisers leave it as it is, and clipping leaves its gradient
        out. Backward passes still add to the gradient.

    Raises
    ------
    TypeError
        If `data` is not floating point, or `requires_grad` neither True nor False.

    See Also
    --------
    ParameterBuffer : All of a model's in one array.

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> w = minirnn.Parameter(np.array([1.0, 2.0]))
    >>> w.grad
    array([0., 0.])
    >>> array = w.data
    >>> w.data = [3.0, 4.0]  # into the array that is there
    >>> array
    array([3., 4.])
    """

    __slots__ = ("_data", "_grad", "_requires_grad", "buffer", "name")

    def __init__(self, data: Array, requires_grad: bool = True) -> None:
        checks.floating("data", data)
        # The reshape since NumPy makes a vector of an array without dimensions.
        whole: Array = get_array_module(data).ascontiguousarray(data).reshape(data.shape)
        # As loops in C read it. CuPy's are aligned, and do not say so.
        self._data: Array = whole if getattr(whole.flags, "aligned", True) else whole.copy()
        # Made at the first look: a model that only answers never pays for gradients.
        self._grad: Array | None = None
        self.buffer: ParameterBuffer | None = None
        self.name = "parameter"
        self.requires_grad = requires_grad

    @property
    def data(self) -> Array:
        """The value, an array."""
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        # `p.data *= x` works in place and then assigns the array to itself, as `p.grad += x` does.
        if value is not self._data:
            self._assign(self._data, "data", value)

    @property
    def grad(self) -> Array:
        """The gradient, an array of the shape of `data`."""
        if self._grad is None:
            with _first_grad:  # two threads must not make one each
                zeros = get_array_module(self._data).zeros_like(self._data)
                if self._grad is None:
                    self._grad = zeros
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is None or value is not self._grad:
            self._assign(self.grad, "grad", value)

    @quiet
    def _assign(self, into: Array, what: str, value: Any) -> None:
        into[...] = self._checked_value(what, value)

    def _checked_value(self, what: str, value: Any) -> Array:
        """Return `value`, floating point of any precision or a list of numbers, if it fits."""
        name = f"{self.name}.{what}"
        if value is None:
            hint = "; zero_grad() clears a gradient, which is never None" if what == "grad" else ""
            raise TypeError(f"{name}: expected an array, got None{hint}")
        if not hasattr(value, "dtype"):
            try:
                value = get_array_module(self._data).asarray(value, self.dtype)
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"{name}: expected an array or a list of numbers, {error}"
                ) from None
        checks.array_module(**{name: value, "parameter": self._data})
        checks.floating(name, value)
        if value.shape != self.shape:
            raise ValueError(f"{name}: expected shape {self.shape}, got {value.shape}")
        return value

    @property
    def requires_grad(self) -> bool:
        """Whether optimisers change the value."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        checks.flags(requires_grad=value)
        self._requires_grad = bool(value)
        changes.happened()

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
    def writeable(self) -> bool:
        """Whether `data` may be written to; NumPy's arrays can be read-only."""
        writeable: bool = getattr(self._data.flags, "writeable", True)
        return writeable

    @property
    def size(self) -> int:
        """The number of entries of `data`."""
        return int(self._data.size)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"{self.name}: a Parameter is no array, it has two: write .data for its values, an array, "
            "or .grad for its gradient"
        )

    def __array_ufunc__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__array__()

    # A parameter is itself, whatever its values: not an array of comparisons.
    __eq__, __ne__, __hash__ = object.__eq__, object.__ne__, object.__hash__

    def __getitem__(self, index: Any) -> Any:
        return self.__array__()

    def __setitem__(self, index: Any, value: Any) -> None:
        self.__array__()

    if not TYPE_CHECKING:  # else every attribute would be known, of any type

        def __getattr__(self, name: str) -> Any:
            hint = torch_hints.of_parameter(name)
            raise AttributeError(f"'Parameter' object has no attribute {name!r}{hint}")

    def zero_grad(self) -> None:
        """Set the gradient to zero."""
        if self._grad is not None:
            self._grad.fill(0)

    def __getstate__(self) -> tuple[Array, Array | None, str, bool]:
        # A copy has arrays of its own, and so leaves the buffer.
        return self._data, self._grad, self.name, self.requires_grad

    def __setstate__(self, state: tuple[Array, Array | None, str, bool]) -> None:
        self._data, self._grad, self.name, self.requires_grad = state
        self.buffer = None

    def _move(self, data: Array, grad: Array | None, buffer: ParameterBuffer | None) -> None:
        if self.buffer is not None:
            self.buffer.complete = False
        self._data, self._grad, self.buffer = data, grad, buffer
        changes.happened()

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

    Raises
    ------
    ValueError
        If there is none, or one comes twice.
    TypeError
        If they are of several dtypes or devices, or something else is among them.

    See Also
    --------
    Parameter : What it holds.

    Examples
    --------
    >>> import minirnn
    >>> layer = minirnn.Linear(2, 1)
    >>> buffer = minirnn.ParameterBuffer(layer.parameters())
    >>> buffer.data[...] = 0.5  # all of the model's weights
    >>> layer.weight.data, layer.bias.data
    (array([[0.5, 0.5]], dtype=float32), array([0.5], dtype=float32))
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = parameter_list("parameters", parameters)
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

    def __setstate__(self, state: dict[str, Any]) -> None:
        # The parameters of a copy have arrays of their own, and come together anew in its buffer.
        self.__dict__.update(state)
        if self.complete:
            self.__init__(self.parameters)  # type: ignore[misc]


def parameter_list(name: str, parameters: Any) -> list[Parameter]:
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
    if not isinstance(parameters, Iterable) or isinstance(parameters, np.ndarray):
        raise _no_parameter(name, parameters)
    found = list(parameters)
    if not found:
        raise ValueError(
            f"{name}: expected at least one parameter, got none (an iterator used up?)"
        )
    for p in found:
        if not isinstance(p, Parameter):
            raise _no_parameter(name, p)
    return found


def _no_parameter(name: str, given: Any) -> TypeError:
    """Return the error that tells what was given in place of a parameter, and what to pass for a model."""
    kind, hint = type(given), ""
    got = kind.__name__
    if got == Parameter.__name__:  # another library's, whose class has the same name
        got = f"{kind.__module__}.{got}"
    if not isinstance(given, type) and callable(getattr(given, "parameters", None)):
        hint = "; pass model.parameters(), not the model"
    elif getattr(given, "__name__", None) == "parameters":
        hint = "; call it: model.parameters()"
    return TypeError(f"{name}: expected Parameters, got {got}{hint}")


def require_one_kind(name: str, parameters: list[Parameter]) -> ModuleType:
    """Return the array module of `parameters`, which must be of one dtype and on one device."""
    kinds = {f"{p.dtype} in {get_array_module(p.data).__name__}" for p in parameters}
    if len(kinds) > 1:
        found = ", ".join(sorted(kinds))
        raise TypeError(f"{name}: expected one dtype and one device, got {found}")
    return get_array_module(parameters[0].data)


def flat_pieces(parameters: list[Parameter]) -> list[Parameter | ParameterBuffer]:
    """Return what holds `parameters`, in their order, in as few arrays as there are.

    Where all parameters of a buffer follow each other it stands for them, elsewhere each for itself.
    """
    found: list[Parameter | ParameterBuffer] = []
    k = 0
    while k < len(parameters):
        buffer = parameters[k].buffer
        size = 0 if buffer is None else len(buffer.parameters)
        if buffer is not None and shared_buffer(parameters[k : k + size]) is buffer:
            found.append(buffer)
        else:
            found.append(parameters[k])
            size = 1
        k += size
    return found


def gather(parameters: list[Parameter]) -> None:
    """Move `parameters` into a buffer together, those left out that are in one already or read-only.

    They must be of one dtype and on one device. Values and gradients are kept.
    """
    loose = [p for p in parameters if p.writeable and (p.buffer is None or not p.buffer.complete)]
    if len(loose) > 1:
        ParameterBuffer(loose)


def shared_buffer(parameters: list[Parameter]) -> ParameterBuffer | None:
    """Return the buffer that holds exactly `parameters`, in that order, if there is one."""
    buffer = parameters[0].buffer if parameters else None
    if buffer is None or not buffer.complete or buffer.parameters != parameters:
        return None
    return buffer
