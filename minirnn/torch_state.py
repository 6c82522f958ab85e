"""The state of an optimiser as torch lays it out, to and from the flat arrays of minirnn's; no torch needed.

torch has for each parameter, by its index over all groups, a dict of ``step`` and arrays; minirnn for each
group one array, (slots, weights), and one step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import checks
from .backend import Array, asnumpy


class Group(NamedTuple):
    """A group as its optimiser has it.

    Attributes
    ----------
    settings : dict
        Without the parameters.
    params : list of Parameter
    slots : tuple of str
        torch's names of the arrays that the formula remembers, in minirnn's order.
    needed : tuple of str
        Those of them that torch has to have remembered, under such settings.
    implied : dict
        What torch writes down as a setting, and here is another class.
    """

    settings: dict[str, Any]
    params: Sequence[Any]
    slots: tuple[str, ...]
    needed: tuple[str, ...]
    implied: Mapping[str, Any]


def groups_of(state_dict: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the groups in torch's ``state_dict``, if it has its form.

    Raises
    ------
    ValueError
        If it has not.
    """
    groups, state = state_dict["param_groups"], state_dict.get("state", ())
    whole = isinstance(groups, list | tuple) and isinstance(state, Mapping)
    if not whole or not all(isinstance(g, Mapping) and "params" in g for g in groups):
        raise ValueError(
            "state_dict: expected torch's, param_groups with params in them and state by parameter, got "
            f"param_groups={type(groups).__name__}, state={type(state).__name__}"
        )
    for index, arrays in state.items():
        if not isinstance(arrays, Mapping):
            raise ValueError(
                f"state_dict: state[{index}]: expected a dict, got {checks.got(arrays)}"
            )
    found = list[int]()
    for k, group in enumerate(groups):
        own = group["params"]
        if not isinstance(own, list | tuple) or not all(type(n) is int for n in own):
            raise ValueError(
                f"state_dict: param_groups[{k}]: expected integers as params, got {checks.got(own)}"
            )
        found += own
    if len(set(found)) < len(found) or state.keys() - found:
        raise ValueError(
            f"state_dict: expected params that are each in one group, and state of no others, got "
            f"{checks.brief(found)} and state of {checks.brief(state)}"
        )
    return list(groups)


def settings_of(group: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of torch's settings that `own` has too, as numbers; a switch that is missing is off."""
    found = {}
    for name, mine in own.items():
        if name in group:
            value = group[name]
            found[name] = [_number(v) for v in value] if type(value) in (tuple, list) else value
            found[name] = _number(found[name])
            if hasattr(found[name], "item"):
                raise ValueError(f"state_dict: {name}: expected a number, got {checks.got(value)}")
        elif isinstance(mine, bool):
            found[name] = False
    if "initial_lr" in group:
        found["initial_lr"] = _number(group["initial_lr"])
    return found


def _number(value: Any) -> Any:
    """Return what a tensor of one entry holds; what is no number is left to whoever checks it."""
    try:
        return value.item() if hasattr(value, "item") else value
    except (ValueError, RuntimeError):
        return value


def from_torch(state_dict: Mapping[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
    """Return what torch's ``state_dict`` says, in the form of minirnn's.

    Raises
    ------
    ValueError
        For all that has no counterpart here, in one message.
    """
    problems: list[str] = []
    given = groups_of(state_dict)
    if len(given) != len(groups):
        problems.append(f"param_groups: expected {len(groups)}, got {len(given)}")
    states, steps = [], []
    for k, (group, theirs) in enumerate(zip(groups, given, strict=False)):
        indices = list(theirs["params"])
        problems += [
            f"param_groups[{k}]: expected {name}={value}, got {theirs[name]}"
            for name, value in group.implied.items()
            if type(theirs.get(name, value)) is not bool or theirs.get(name, value) != value
        ]
        if len(indices) != len(group.params):
            wanted = len(group.params)
            problems.append(f"param_groups[{k}]: expected {wanted} parameters, got {len(indices)}")
            continue
        own = {index: state_dict["state"].get(index) or {} for index in indices}
        steps.append(_common_step(k, group, own, problems))
        states.append(_slots(group, own, bool(steps[-1]), problems))
    if problems:
        raise ValueError("torch's state_dict does not fit:\n  " + "\n  ".join(problems))
    # Of an optimiser that was made of named_parameters.
    names = [theirs.get("param_names") for theirs in given]
    return {
        **({"names": names} if all(names) else {}),
        "steps": max(steps),
        "started": [max(steps) - step for step in steps],
        "state": states,
        "groups": [settings_of(t, g.settings) for t, g in zip(given, groups, strict=True)],
    }


def _common_step(
    k: int, group: Group, own: Mapping[Any, Mapping[str, Any]], problems: list[str]
) -> int:
    """Return how many steps the group has behind it; its parameters must agree, frozen ones apart."""
    found = set()
    for p, (index, state) in zip(group.params, own.items(), strict=True):
        # SGD counts no steps; it has a past if it has a buffer.
        step = _number(state.get("step", any(value is not None for value in state.values())))
        if not isinstance(step, checks.NUMBER):
            problems.append(f"state[{index}]: step: expected a number, got {checks.got(step)}")
        elif state or p.requires_grad:
            found.add(float(min(step, 1e300)))
    if len(found) > 1 or not all(math.isfinite(n) and n == int(n) and n >= 0 for n in found):
        problems.append(
            f"param_groups[{k}]: expected all its parameters at the same step, got steps {sorted(found)}; "
            "put those that were left out meanwhile into a group of their own"
        )
        return 0
    return int(max(found, default=0))


def _slots(
    group: Group, own: Mapping[Any, Mapping[str, Any]], past: bool, problems: list[str]
) -> Array:
    """Return for each slot the arrays of all parameters one after the other; zeros without a past."""
    size, dtype = sum(p.size for p in group.params), group.params[0].dtype
    slots = np.zeros((len(group.slots), size), dtype)
    for name, slot in zip(group.slots, slots, strict=True):
        end = 0
        for p, (index, state) in zip(group.params, own.items(), strict=True):
            start, end = end, end + p.size
            value, where = state.get(name), f"state[{index}]: {name} of {p.name}"
            if value is None:
                if past and name in group.needed and (state or p.requires_grad):
                    problems.append(f"{where}: missing")
                continue
            try:
                value = asnumpy(value)
            except (TypeError, ValueError, RuntimeError) as error:
                problems.append(f"{where}: expected what NumPy makes an array of, {error}")
                continue
            if value.shape != p.shape or value.dtype.kind != "f":
                got = f"{value.dtype} of {value.shape}"
                problems.append(f"{where}: expected floating point of {p.shape}, got {got}")
            else:
                slot[start:end] = value.reshape(-1)
    return slots


def to_torch(
    groups: Sequence[Group], states: Sequence[Sequence[Array]], steps: Sequence[int]
) -> dict[str, Any]:
    """Return the state as torch lays it out, in NumPy arrays.

    Parameters
    ----------
    groups : sequence of Group
    states : for each group the arrays of its slots
    steps : sequence of int
        How many steps each group has behind it.
    """
    state: dict[int, dict[str, Any]] = {}
    theirs, first = [], 0
    for group, slots, step in zip(groups, states, steps, strict=True):
        indices = range(first, first + len(group.params))
        start, first = 0, indices.stop
        for index, p in zip(indices, group.params, strict=True):
            span = slice(start, start + p.size)
            start = span.stop
            if step:
                arrays = {
                    name: asnumpy(slot[span]).reshape(p.shape).copy()
                    for name, slot in zip(group.slots, slots, strict=True)
                    if name in group.needed
                }
                state[index] = {"step": np.float32(step), **arrays}
        theirs.append({**group.settings, **group.implied, "params": list(indices)})
    return {"state": state, "param_groups": theirs}
