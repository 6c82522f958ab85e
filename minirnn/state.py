"""The parameters of a model as its state: zeroed, moved, saved and loaded, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Never, Self

import numpy as np
from numpy.typing import DTypeLike

from . import checks
from .backend import BACKENDS, Array, asnumpy, float_dtype, get_array_module, load_backend, quiet
from .parameter import Parameter, ParameterBuffer, flat_pieces
from .torch_hints import MODULE, Hints, of_to


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


class Stateful(Hints, hints=MODULE):
    """What a module does with its parameters, wherever in it they lie."""

    # Attributes that are arrays, or None: part of the state though not trained, as a loss's weights are.
    _buffers: ClassVar[tuple[str, ...]] = ()

    def modules(self) -> Iterator[Any]:
        """Iterate over this module and all modules inside it, each once."""
        raise NotImplementedError

    def parameters(self) -> Iterator[Parameter]:
        """Iterate over the parameters, in the order of definition, each once."""
        raise NotImplementedError

    def _all_names(self, prefix: str) -> list[tuple[str, Parameter]]:
        """Return the names of all parameters, more than one of what is shared."""
        raise NotImplementedError

    def _all_buffers(self, prefix: str) -> list[tuple[str, Any, str]]:
        """Return name, owner and attribute of all arrays that are part of the state beside parameters."""
        raise NotImplementedError

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Set all gradients to zero.

        Parameters
        ----------
        set_to_none : bool
            As in torch, and without effect: a gradient is never ``None`` here.

        Raises
        ------
        TypeError
            If `set_to_none` is neither True nor False.
        """
        checks.flags(set_to_none=set_to_none)
        for piece in flat_pieces(list(self.parameters())):
            piece.zero_grad()

    def flatten_parameters(self) -> ParameterBuffer:
        """Move all parameters and gradients into one contiguous buffer each, and return it.

        Optimisers do so with what they train. Values do not change; arrays taken from ``parameter.data``
        earlier are no longer the parameter's.
        """
        return ParameterBuffer(self.parameters())

    @quiet
    def to(self, target: str | DTypeLike | None = None, **options: Never) -> Self:
        """Move the parameters to a backend (``"numpy"``, ``"cupy"``) or convert them to a dtype.

        Values and gradients go along; parameter buffers are made anew. The module is changed in
        place and returned. There are no `options`; torch's are refused with what to write instead.

        Raises
        ------
        TypeError
            If `target` is neither a backend nor float32 or float64.
        ImportError
            If CuPy is asked for and not installed.

        Examples
        --------
        >>> import minirnn
        >>> minirnn.Linear(3, 2).to("float64").weight.dtype
        dtype('float64')
        """
        for name in options:
            raise TypeError(f"{name}: .to has no such option{of_to(name)}")
        move = _mover(target)
        parameters, modules = list(self.parameters()), list(self.modules())
        buffers = [piece for piece in flat_pieces(parameters) if isinstance(piece, ParameterBuffer)]
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
        for buffer in buffers:
            ParameterBuffer(buffer.parameters)
        return self

    def _move_arrays(self, move: Callable[[Array], Array]) -> None:
        """Move what else the module computes with, beside its parameters."""
        for name in self._buffers:
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, move(value))

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of every parameter's value under its dotted name, those of torch.

        A loss's ``weight`` and ``pos_weight`` are there too.
        """
        return {name: value.copy() for name, value in self._state().items()}

    def _state(self) -> dict[str, Array]:
        own = {name: p.data for name, p in self._all_names("")}
        return own | {name: getattr(owner, key) for name, owner, key in self._all_buffers("")}

    @quiet
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
        checks.flags(strict=strict)
        own = self._state()
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        problems = []
        if strict:
            problems += [f"missing: {name}" for name in missing]
            problems += [f"unexpected: {name}" for name in unexpected]
        values = {}
        for name in own:
            if name not in state_dict:
                continue
            try:
                values[name] = _value_like(state_dict[name], own[name])
            except ValueError as problem:
                problems.append(f"{name}: {problem}")
        if problems:
            raise ValueError(
                f"state_dict does not fit {type(self).__name__}:\n  " + "\n  ".join(problems)
            )
        for name, owner, key in self._all_buffers(""):
            if name in values:
                setattr(owner, key, values.pop(name).copy())
        parameters = dict(self._all_names(""))
        for name, value in values.items():
            parameters[name].data = value
        return IncompatibleKeys(missing, unexpected)


def _mover(target: Any) -> Callable[[Array], Array]:
    """Return what moves an array to a backend, or converts it to a dtype."""
    if isinstance(target, str) and target in BACKENDS:
        xp = load_backend(target)
        return asnumpy if xp is np else xp.asarray
    try:
        dtype = float_dtype(target)
    except TypeError:
        raise TypeError(
            "to: expected 'numpy', 'cupy' or a floating-point dtype, float32 or float64 in native byte "
            f"order, got {checks.got(target)}"
        ) from None
    return lambda x: x.astype(dtype, copy=False)


def _value_like(value: Any, like: Array) -> Array:
    """Return `value` as an array of the kind of `like`, if it is one of floating point and of its shape."""
    try:
        value = asnumpy(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"expected what NumPy makes an array of, {error}") from None
    if value.shape != like.shape:
        raise ValueError(f"expected shape {like.shape}, got {value.shape}")
    if value.dtype.kind != "f":
        raise ValueError(f"expected floating point, got dtype {value.dtype}")
    array: Array = get_array_module(like).asarray(value, like.dtype)
    return array
