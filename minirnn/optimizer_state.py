"""What a state dict has to be to fit an optimiser: all that does not fit is found before anything changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from . import checks
from .backend import Array, asnumpy, get_array_module


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
    groups, state, steps = (
        list(state_dict["groups"]),
        list(state_dict["state"]),
        state_dict["steps"],
    )
    started = list(state_dict.get("started", [0] * len(own)))
    if not _counts([steps]):
        problems.append(f"steps: expected an integer >= 0, got {steps!r}")
    problems += [
        f"{name}: expected {len(own)} groups, got {len(entries)}"
        for name, entries in (("state", state), ("groups", groups))
        if len(entries) != len(own)
    ]
    if len(started) != len(own) or not _counts(started):
        problems.append(f"started: expected a step for each group, got {started!r}")
    slots = []
    for k, (group, values, given) in enumerate(zip(own, state, groups, strict=False)):
        _check_settings(owner, k, given, problems)
        under = {**group, **(given if isinstance(given, Mapping) else {})}
        slots.append(_slots(k, values, group["params"], len(owner.slots_under(under)), problems))
        _check_order(k, own, state_dict, problems)
    if problems:
        name = type(owner).__name__
        raise ValueError(f"state_dict does not fit {name}:\n  " + "\n  ".join(problems))
    return State(int(steps), [int(n) for n in started], groups, slots)


def _counts(values: Sequence[Any]) -> bool:
    """Tell whether all are integers >= 0."""
    return all(
        isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 0 for n in values
    )


def _slots(
    k: int, values: Any, params: Sequence[Any], rows: int, problems: list[str]
) -> Array | None:
    """Return group `k`'s slots where its parameters are and of their dtype."""
    like, expected = params[0].data, (rows, sum(p.size for p in params))
    try:
        array = asnumpy(values)
        if array.shape != expected:
            problems.append(f"state[{k}]: expected shape {expected}, got {array.shape}")
        elif array.dtype.kind != "f":
            problems.append(f"state[{k}]: expected floating point, got dtype {array.dtype}")
        else:
            if not np.isfinite(array).all():
                problems.append(f"state[{k}]: expected finite numbers")
            return get_array_module(like).array(array, like.dtype)
    except (TypeError, ValueError, RuntimeWarning) as error:
        problems.append(f"state[{k}]: {error}")
    return None


def _check_settings(owner: Owner, k: int, given: Any, problems: list[str]) -> None:
    own = settings(owner.param_groups[k])
    names = sorted(own.keys() - {"initial_lr"})
    if not isinstance(given, Mapping) or sorted(given.keys() - {"initial_lr"}) != names:
        got = sorted(given) if isinstance(given, Mapping) else type(given).__name__
        problems.append(f"groups[{k}]: expected {names}, got {got}")
        return
    try:
        owner.check({**own, **given})
        checks.finite("initial_lr", given.get("initial_lr", 0))
    except (TypeError, ValueError) as error:
        problems.append(f"groups[{k}]: {error}")


def _check_order(
    k: int, own: list[dict[str, Any]], state_dict: Mapping[str, Any], problems: list[str]
) -> None:
    """Compare shapes and names; a name may be that of the parameter in a part of the model."""
    params = own[k]["params"]
    compared: tuple[tuple[str, list[Any], Callable[[Any, Any], bool]], ...] = (
        ("shapes", [list(p.shape) for p in params], lambda a, b: list(a) == b),
        ("names", [p.name for p in params], _same_name),
    )
    for what, mine, same in compared:
        saved = state_dict.get(what)
        if saved is None:
            continue
        fits = len(saved) == len(own) and len(saved[k]) == len(mine)
        if not fits or not all(map(same, saved[k], mine)):
            problems.append(f"{what}[{k}]: expected {mine}, got {saved[k] if fits else saved}")


def _same_name(a: str, b: str) -> bool:
    return f".{a}".endswith(f".{b}") or f".{b}".endswith(f".{a}")
