"""What bad input gets: an error that says what was expected and what came, before anything is changed."""

from __future__ import annotations

import math
import os
import reprlib
import sys
import warnings
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
from numpy import ndarray

from .backend import FLOATS, Array, asnumpy, get_array_module

NUMBER = int | float | np.integer | np.floating
_FLAG = bool, np.bool_

_SHOWN = 8
_short = reprlib.Repr()
_short.maxlist = _short.maxtuple = _short.maxdict = _short.maxset = _SHOWN
_short.maxstring = _short.maxlong = _short.maxother = 80


def array_module(**arrays: Any) -> Any:
    """Return the module on which all given arrays lie.

    Raises
    ------
    TypeError
        If one of them is no array, or if some lie on the host and some on the GPU.
    """
    for x in arrays.values():
        if type(x) is not np.ndarray:
            return _common_module(arrays)
    return np


def _common_module(arrays: dict[str, Any]) -> Any:
    places = {}
    for name, x in arrays.items():
        try:
            places[name] = get_array_module(x)
        except TypeError as error:
            raise TypeError(f"{name}: {error}{instead_of(x)}") from None
        if isinstance(x, np.ndarray) and type(x) not in (np.ndarray, np.memmap):
            # A matrix multiplies where an array takes products of entries, a mask gets lost on the way.
            raise TypeError(
                f"{name}: expected a plain array, got {type(x).__name__}, whose arithmetic differs; "
                "pass numpy.asarray of it, masked entries filled"
            )
    if len(set(places.values())) > 1:
        where = ", ".join(f"{name} lies in {xp.__name__}" for name, xp in places.items())
        raise TypeError(f"arrays of both NumPy and CuPy: {where}; move one with .to() or asnumpy()")
    return next(iter(places.values()))


def instead_of(x: Any) -> str:
    """Return what to pass instead of an object that is no array, by what the object is, or ``""``."""
    if isinstance(x, tuple) and hasattr(x, "batch_sizes"):
        if hasattr(x, "packing"):
            return (
                "; of what is packed .data is the array of all rows, as a loss takes them; "
                "minirnn.pad_packed_sequence makes a padded one; forward, not step, runs over it as it is"
            )
        return (
            "; of a packed sequence of torch's make minirnn's: "
            "minirnn.PackedSequence(x.data.numpy(), x.batch_sizes, x.sorted_indices)"
        )
    if isinstance(x, tuple) and len(x) == 2 and all(hasattr(part, "shape") for part in x):
        return (
            "; of an LSTM's state (h, c) pass h, the first of the two; what a recurrent layer returned, "
            "take apart: `output, h_n = layer(x)`"
        )
    if isinstance(x, tuple):
        return (
            "; if it is what a layer's .forward returned, the pair of result and context, take it "
            "apart: `y, ctx = layer.forward(x)`, for a recurrent layer `(output, h_n), ctx = ...`"
        )
    return "; pass numpy.asarray of it" if hasattr(x, "__array__") or isinstance(x, list) else ""


def floating(name: str, x: Any, like: Array | None = None, of: str = "parameters") -> None:
    """Require `x` to be a float32 or float64 array, of the dtype and on the device of `like` if given."""
    if like is None:
        if type(x) is not np.ndarray:
            array_module(**{name: x})
        like = x
    if type(x) is type(like) and x.dtype == like.dtype and x.dtype in FLOATS:
        return
    array_module(**{name: x, of: like})
    if x.dtype.kind != "f":
        hint = ""
        if x.dtype.kind in "biu":  # of these the numbers stay what they are
            hint = f"; convert it with .astype(np.{'float32' if like is x else like.dtype})"
        raise TypeError(f"{name}: expected a floating-point array, got dtype {x.dtype}{hint}")
    if x.dtype not in FLOATS:
        raise TypeError(
            f"{name}: expected float32 or float64 in native byte order, got dtype {x.dtype}; "
            "convert it with .astype(np.float32)"
        )
    if x.dtype != like.dtype:
        raise TypeError(
            f"{name}: expected dtype {like.dtype}, that of the {of}, got {x.dtype}; "
            f"convert it with .astype(np.{like.dtype})"
            + (f", or make the layer with dtype=np.{x.dtype}" if of == "parameters" else "")
        )


def integers(name: str, x: Any) -> None:
    """Require `x` to be an array of integers."""
    if type(x) is np.ndarray and x.dtype.kind in "iu":
        return
    array_module(**{name: x})
    if x.dtype.kind not in "iu":
        hint = (
            "; if they are indices, convert them with .astype(np.int64)"
            if x.dtype.kind in "bf"
            else ""
        )
        raise TypeError(f"{name}: expected an integer array, got dtype {x.dtype}{hint}")


def storable(name: str, x: Any) -> None:
    """Require `x` to be an array of numbers that minirnn computes or looks up with, or of booleans."""
    if type(x) is not np.ndarray:
        array_module(**{name: x})
    dtype = x.dtype
    if dtype in FLOATS if dtype.kind == "f" else dtype.kind in "biu" and dtype.isnative:
        return
    raise TypeError(
        f"{name}: expected float32, float64, integers or booleans in native byte order, got dtype {x.dtype}; "
        "convert it with .astype"
    )


def brief(values: Any) -> str:
    """Return the numbers as a message shows them: of many only the first and the last."""
    values = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if len(values) <= _SHOWN:
        return str(values)
    head = ", ".join(map(str, values[: _SHOWN - 2]))
    return f"[{head}, ..., {values[-1]}] ({len(values)} in all)"


def got(value: Any) -> str:
    """Return `value` as a message shows it: some eighty characters of it, however long it is."""
    try:
        return _short.repr(value)
    except Exception:  # an integer of more digits than Python prints, an object that has no repr
        return type(value).__name__


def shape(name: str, x: Array, expected: tuple[int, ...], axes: str) -> None:
    """Require `x` to have exactly the shape `expected`; `axes` says what the axes mean."""
    if x.shape != expected:
        raise ValueError(f"{name}: expected shape {axes} = {expected}, got {x.shape}")


def positive(**sizes: Any) -> None:
    """Require every given size to be a positive integer."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise ValueError(f"{name}: expected a positive integer, got {got(size)}")
        if size > sys.maxsize:
            raise ValueError(f"{name}: expected at most {sys.maxsize}, got {got(size)}")


def is_number(value: Any) -> bool:
    """Tell whether `value` is a number; True and False are none."""
    return isinstance(value, NUMBER) and not isinstance(value, bool)


def function(name: str, value: Any) -> Any:
    """Return `value`, if it can be called."""
    if not callable(value):
        raise TypeError(f"{name}: expected a function, got {got(value)}")
    return value


def having(name: str, value: Any, kind: str, *methods: str) -> None:
    """Require `value` to be a `kind`, whatever its class is: an object that has these methods."""
    if isinstance(value, type) or not all(hasattr(value, method) for method in methods):
        raise TypeError(f"{name}: expected {kind}, got {got(value)}")


def path(name: str, value: Any) -> None:
    """Require the name of a file or folder."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name}: expected a path, got {got(value)}")


def listed(name: str, values: Any, of: str) -> list[Any]:
    """Return as a list what is a list, tuple, vector or iterator: no string, and nothing without an order."""
    unordered = isinstance(values, str | bytes | Mapping | Set)
    if unordered or not isinstance(values, Iterable) or len(getattr(values, "shape", (1,))) != 1:
        raise TypeError(f"{name}: expected a list of {of}, got {got(values)}")
    return list(values)


def flags(**values: Any) -> None:
    """Require every given value to be True or False: any string, ``"False"`` too, counts as true."""
    for name, value in values.items():
        if not isinstance(value, _FLAG):
            raise TypeError(f"{name}: expected True or False, got {got(value)}")


def may_change(x: Array) -> bool:
    """Tell whether somebody could write to the memory of `x`: through it, or through what it is a view of.

    Memory that no array owns counts as written to, since a file may be mapped twice; that of bytes never is.
    On the GPU arrays have no such mark.
    """
    owner = x
    while isinstance(owner, ndarray):
        if owner.flags.writeable:
            return True
        owner = owner.base
    return owner is not None and owner is not x and type(owner) is not bytes


def unshared(x: Array, given: Any = None) -> Array:
    """Return `x` for a context to keep: a copy, if whoever passed it could change it before backward.

    None of an `x` that was copied out of what was `given`, to have it in another order.
    """
    source = given if isinstance(given, ndarray) else x
    if not may_change(source):
        return x
    if x is source or x.base is source or np.may_share_memory(x, source):
        return x.copy()
    return x


def seal(x: Array) -> Array | None:
    """Return a number for each row of `x`, which a change would change: where a copy takes too much memory.

    ``None`` of what nobody can write to, and on the GPU, where to compare is to wait.
    """
    if not may_change(x):
        return None
    with np.errstate(all="ignore"):
        sealed: Array = x.dot(_weights_of_a_seal(x))
    return sealed


def unbroken(name: str, x: Array, sealed: Array | None) -> None:
    """Require `x` to be as it was when it was sealed."""
    if sealed is None:
        return
    with np.errstate(all="ignore"):
        w = _weights_of_a_seal(x)
        now = x.dot(w)
        changed = np.flatnonzero((now != sealed) & ~(np.isnan(now) & np.isnan(sealed)))
        if changed.size:
            # A product may be rounded in another way when it is taken again.
            rounding = 1e-4 * abs(x[changed]).dot(abs(w))
            changed = changed[~(abs(now - sealed)[changed] <= rounding)]
    if changed.size:
        raise ValueError(
            f"{name}: expected as it was in forward, got it changed since (row {changed[0]}); to save memory "
            "a layer with checkpoint=True keeps no copy of it: change it after backward, or pass a copy"
        )


def _weights_of_a_seal(x: Array) -> Array:
    return np.sin(np.arange(1, x.shape[1] + 1)).astype(x.dtype)


_SAID = {
    "(-inf, inf)": "a finite number",
    "[0, inf)": "a finite number >= 0",
    "[0, inf]": "a number >= 0",
    "(0, inf)": "a finite number > 0",
    "(0, inf]": "a number > 0",
}


def number(name: str, value: Any, interval: str = "(-inf, inf)") -> float:
    """Require `value` to be a number in `interval`, and return it as Python's."""
    number = value if type(value) is float else _as_float(value)
    low, high = _bounds(interval)
    if not low <= number <= high:
        said = _SAID.get(interval, f"a number in {interval}")
        raise ValueError(f"{name}: expected {said}, got {got(value)}")
    return number


def _as_float(value: Any) -> float:
    if is_number(value):
        with suppress(OverflowError):  # an integer beyond all floating point
            return float(value)
    return math.nan


@cache
def _bounds(interval: str) -> tuple[float, float]:
    """Return the smallest and the largest number in an interval as one writes it, ``"[0, 1)"``."""
    low, high = map(float, interval[1:-1].split(","))
    if interval[0] == "(":
        low = math.nextafter(low, math.inf)
    if interval[-1] == ")":
        high = math.nextafter(high, -math.inf)
    return low, high


def norms(name: str, values: Any) -> Array:
    """Return `values` on the host in float64, if they are norms: numbers that are not negative."""
    try:
        found = asnumpy(values)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    except ValueError:  # lists of several lengths
        raise TypeError(f"{name}: expected numbers, got {got(values)}") from None
    if found.dtype.kind not in "fiu" or isinstance(found, np.matrix):
        raise TypeError(f"{name}: expected numbers, got {got(values)}")
    if (found < 0).any():
        raise ValueError(f"{name}: expected numbers >= 0, got {found.min()}")
    return found.astype(np.float64)


def whole(name: str, value: Any, least: int | None = None) -> int:
    """Require an integer, of at least `least`, and return it as Python's, which no sum overflows."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an integer, got {got(value)}")
    if least is not None and value < least:
        raise ValueError(f"{name}: expected an integer >= {least}, got {got(value)}")
    if least is not None and value > sys.maxsize:
        raise ValueError(f"{name}: expected at most {sys.maxsize}, got {got(value)}")
    return int(value)


def probability(name: str, p: Any) -> None:
    """Require `p` to lie in ``[0, 1]``."""
    if not is_number(p) or not 0 <= p <= 1:
        raise ValueError(f"{name}: expected a probability in [0, 1], got {got(p)}")


def choice(name: str, value: Any, options: tuple[str, ...]) -> None:
    """Require `value` to be one of `options`."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name}: expected one of {options}, got {got(value)}")


def outside(what: str, index: Array, limit: int) -> IndexError:
    """Return the error that tells of the first integer outside ``[0, limit)``, of which there is one."""
    xp = get_array_module(index)
    index = xp.atleast_1d(index)
    where = tuple(int(axis[0]) for axis in xp.nonzero((index < 0) | (index >= limit)))
    return IndexError(
        f"{what}: expected 0 <= {what} < {limit}, got {int(index[where])} at position "
        f"{where[0] if len(where) == 1 else where}"
    )


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn the user: at the line that called into the package, however far in the call has come by now.

    Of a model's own forward that is the line in it, where the call in question is written.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back and f"{frame.f_globals.get('__name__')}.".startswith(f"{__package__}."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
