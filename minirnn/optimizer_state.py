"""What a state dict has to be to fit an optimiser: all that does not fit is found before anything changes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from . import checks
from .backend import Array, asnumpy, get_array_module

# Slots that are means of squares.
_SQUARES = ("exp_avg_sq", "max_exp_avg_sq", "square_avg")


class Owner(Protocol):
    """What is asked of the optimiser."""

    param_groups: list[dict[str, Any]]

    def slots_under(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of what the formula remembers under these settings."""
        ...

    def check(self, settings: dict[str, Any]) -> None:
        """Raise if a group's settings make no sense."""
        ...


class State(NamedTuple):
    """A state that fits.

    Attributes
    ----------
    steps : int
    started : list of int
    groups : list of dict
    slots : list of arrays of shape (slots, weights), of the groups' dtypes and where they lie
    """

    steps: int
    started: list[int]
    groups: list[dict[str, Any]]
    slots: list[Array]


def settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a group holds beside its parameters."""
    return {name: value for name, value in group.items() if name != "params"}


def fitting(owner: Owner, state_dict: Mapping[str, Any]) -> State:
    """Return what `state_dict` says.

    Raises
    ------
    ValueError
        If it does not fit the optimiser: all that does not, in one message.
    """
    if missing := sorted({"steps", "state", "groups"} - state_dict.keys()):
        raise ValueError(f"state_dict: expected steps, state and groups, {missing} missing")
    own, problems = owner.param_groups, list[str]()
    steps = _count("steps", state_dict["steps"], sys.maxsize, problems)
    ages = [0] * len(own)
    if "started" in state_dict:
        given = _one_a_group("started", state_dict, len(own), problems)
        ages = [_count(f"started[{k}]", age, steps, problems) for k, age in enumerate(given)]
    state = _one_a_group("state", state_dict, len(own), problems)
    groups = _one_a_group("groups", state_dict, len(own), problems)
    slots = []
    for k, (group, values, given) in enumerate(zip(own, state, groups, strict=False)):
        if _check_settings(owner, k, given, problems):
            names = owner.slots_under({**group, **given})
            slots.append(_slots(k, values, group["params"], names, problems))
    _check_order(own, state_dict, problems)
    if problems:
        name = type(owner).__name__
        raise ValueError(f"state_dict does not fit {name}:\n  " + "\n  ".join(problems))
    return State(steps, ages, groups, slots)


def plain(value: Any) -> Any:
    """Return a setting as lists and Python's numbers, which JSON knows."""
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value


def _count(name: str, value: Any, most: int, problems: list[str]) -> int:
    """Return `value`, if it is an integer from 0 to `most`."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and 0 <= value <= most:
        return int(value)
    problems.append(f"{name}: expected an integer in [0, {most}], got {checks.got(value)}")
    return most


def _one_a_group(
    name: str, state_dict: Mapping[str, Any], groups: int, problems: list[str]
) -> list[Any]:
    """Return an entry for each group, or none if that is not what there is."""
    entries = state_dict[name]
    if isinstance(entries, list | tuple | np.ndarray) and len(entries) == groups:
        return list(entries)
    problems.append(f"{name}: expected {groups}, one a group, got {checks.got(entries)}")
    return []


def _slots(
    k: int, values: Any, params: Sequence[Any], names: Sequence[str], problems: list[str]
) -> Array | None:
    """Return group `k`'s slots where its parameters are and of their dtype."""
    like, expected = params[0].data, (len(names), sum(p.size for p in params))
    try:
        array = asnumpy(values)
    except (TypeError, ValueError, RuntimeError) as error:
        problems.append(f"state[{k}]: {error}")
        return None
    if array.shape != expected:
        problems.append(f"state[{k}]: expected shape {expected}, got {array.shape}")
        return None
    if array.dtype.kind != "f":
        problems.append(f"state[{k}]: expected floating point, got dtype {array.dtype}")
        return None
    with np.errstate(over="ignore", under="ignore"):
        array = array.astype(like.dtype)
    if not np.isfinite(array).all():
        problems.append(f"state[{k}]: expected finite numbers of {like.dtype}")
    for name, slot in zip(names, array, strict=True):
        if name in _SQUARES and (slot < 0).any():
            problems.append(f"state[{k}]: {name}: expected means of squares, got negative ones")
    return get_array_module(like).asarray(array)


def _check_settings(owner: Owner, k: int, given: Any, problems: list[str]) -> bool:
    own = settings(owner.param_groups[k])
    names = sorted(own.keys() - {"initial_lr"})
    if not isinstance(given, Mapping) or given.keys() - {"initial_lr"} != set(names):
        got = list(given) if isinstance(given, Mapping) else type(given).__name__
        problems.append(f"groups[{k}]: expected {names}, got {checks.got(got)}")
        return False
    try:
        owner.check({**own, **given})
        checks.number("initial_lr", given.get("initial_lr", 0), "[0, inf)")
    except (TypeError, ValueError) as error:
        problems.append(f"groups[{k}]: {error}")
        return False
    return True


def _check_order(
    own: list[dict[str, Any]], state_dict: Mapping[str, Any], problems: list[str]
) -> None:
    """Compare shapes and names; a name may be that of the parameter in a part of the model."""
    compared: tuple[tuple[str, Callable[[Any], Any], Callable[[Any, Any], bool]], ...] = (
        ("shapes", lambda p: list(p.shape), _same_shape),
        ("names", lambda p: p.name, _same_name),
    )
    for what, of, same in compared:
        if state_dict.get(what) is None:
            continue
        for k, saved in enumerate(_one_a_group(what, state_dict, len(own), problems)):
            mine = [of(p) for p in own[k]["params"]]
            fits = isinstance(saved, list | tuple) and len(saved) == len(mine)
            if not fits or not all(map(same, saved, mine)):
                expected, got = checks.got(mine), checks.got(saved)
                problems.append(f"{what}[{k}]: expected {expected}, got {got}")


def _same_shape(a: Any, b: list[int]) -> bool:
    return isinstance(a, list | tuple) and all(type(n) is int for n in a) and list(a) == b


def _same_name(a: Any, b: str) -> bool:
    return f".{a}".endswith(f".{b}") or f".{b}".endswith(f".{a}")
