"""What all optimisers share: groups of parameters, their state as flat arrays, and the checks.

An optimiser's formula runs over pieces of a group's parameters: a single piece if they fill a
:class:`~minirnn.module.ParameterBuffer`, else one for each parameter. The state is flat either way, in
the order of the parameters, so they may move into a buffer, to another dtype or to the GPU at any time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import checks
from .backend import Array, asnumpy, get_array_module
from .parameter import Parameter, listed, pieces, require_one_kind


class _Groups:
    """Groups of parameters, and what an optimiser remembers of each between two steps."""

    # How many arrays of the parameters' size the formula remembers between two steps.
    _slots: int

    def __init__(self, params: Iterable[Parameter | dict[str, Any]], **defaults: Any) -> None:
        given: list[Any] = (
            list(params) if isinstance(params, Iterable) else listed("params", params)
        )
        groups = given if any(isinstance(entry, dict) for entry in given) else [{"params": given}]
        self.param_groups: list[dict[str, Any]] = []
        self._defaults = defaults
        self._steps = 0
        # For each group its slots and, last, a scratch array, so that a step allocates nothing.
        self._state: list[list[Array]] = []
        # The rate that a schedule wrote last into each group: another one is somebody else's.
        self.scheduled: list[float | None] = []
        # The step at which each group came: a mean's bias is corrected by the group's own age.
        self._started: list[int] = []
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, whose parameters start without a past, as after unfreezing.

        Parameters
        ----------
        param_group : dict
            Its ``"params"``, and settings that differ from the constructor's.

        Raises
        ------
        ValueError, TypeError
            As the constructor; the optimiser is unchanged.
        """
        group = self._checked(param_group, self._defaults)
        known = {id(p) for other in self.param_groups for p in other["params"]}
        for p in group["params"]:
            if id(p) in known:
                raise ValueError(f"params: expected every parameter once, got {p.name} twice")
            known.add(id(p))
        self._state.append(self._zeros(group["params"]))
        self.param_groups.append(group)
        self.scheduled.append(None)
        self._started.append(self._steps)

    def _checked(self, group: Any, defaults: dict[str, Any]) -> dict[str, Any]:
        """Return `group` with the defaults filled in, if it is one."""
        if not isinstance(group, dict) or "params" not in group:
            got = sorted(group) if isinstance(group, dict) else type(group).__name__
            raise TypeError(f"params: expected dicts with 'params' in them, got {got}")
        params = listed("params", group["params"])
        require_one_kind("params", params)
        # A schedule made on this group before leaves the rate it started from.
        known = {"params", "initial_lr", *defaults}
        if unknown := sorted(group.keys() - known):
            raise ValueError(f"params: expected settings among {sorted(defaults)}, got {unknown}")
        settings = {**defaults, **group, "params": params}
        self._check(settings)
        return settings

    def _check(self, settings: dict[str, Any]) -> None:
        """Raise if a group's settings make no sense; a subclass checks its own as well."""
        for name in ("lr", "weight_decay"):
            check_number(name, settings[name])

    def _zeros(self, params: list[Parameter]) -> list[Array]:
        xp, size = get_array_module(params[0].data), sum(p.size for p in params)
        return [xp.zeros(size, params[0].dtype) for _ in range(self._slots + 1)]

    def _located(self, k: int) -> list[Array]:
        """Return the state of group `k`, where its parameters are by now and of their dtype."""
        like, state = self.param_groups[k]["params"][0].data, self._state[k]
        if type(state[0]) is not type(like) or state[0].dtype != like.dtype:
            xp = get_array_module(like)
            state = self._state[k] = [xp.asarray(asnumpy(s), like.dtype) for s in state]
        return state

    def state_dict(self) -> dict[str, Any]:
        """Return all that a run needs to go on bit for bit, the parameters themselves apart.

        Returns
        -------
        dict
            ``"steps"``, an int; ``"started"``, at which of them each group came; ``"state"``, a copy of
            every group's state, an array of shape (slots, number of weights); ``"groups"``, every group's
            settings; ``"names"`` and ``"shapes"`` of its parameters. Arrays, numbers, strings, lists and
            dicts, nothing else.
        """
        return {
            "steps": self._steps,
            "started": list(self._started),
            "state": [get_array_module(s[0]).stack(s[:-1]) for s in self._state],
            "groups": [
                {
                    name: list(value) if isinstance(value, tuple) else value
                    for name, value in group.items()
                    if name != "params"
                }
                for group in self.param_groups
            ],
            "names": [[p.name for p in group["params"]] for group in self.param_groups],
            "shapes": [[list(p.shape) for p in group["params"]] for group in self.param_groups],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned.

        Raises
        ------
        ValueError
            If it is of other groups, settings, sizes or parameters, or in another order: all that does not
            fit in one message, and the optimiser unchanged. (The states of Adam and AdamW look alike.)
        """
        if missing := sorted({"steps", "state", "groups"} - state_dict.keys()):
            raise ValueError(f"state_dict: expected steps, state and groups, {missing} missing")
        groups, steps = list(state_dict["groups"]), state_dict["steps"]
        state, problems = list(state_dict["state"]), []
        if not _is_step(steps):
            problems.append(f"steps: expected an integer >= 0, got {steps!r}")
        count = len(self.param_groups)
        problems += [
            f"{name}: expected {count} groups, got {len(entries)}"
            for name, entries in (("state", state), ("groups", groups))
            if len(entries) != count
        ]
        started = list(state_dict.get("started", [0] * count))
        if len(started) != count or not all(map(_is_step, started)):
            problems.append(f"started: expected a step for each group, got {started!r}")
        located = []
        for k, (own, s, settings) in enumerate(zip(self.param_groups, state, groups, strict=False)):
            located.append(self._fitting_state(k, s, problems))
            self._check_group(k, own, settings, problems)
            self._check_order(k, own["params"], state_dict, problems)
        if problems:
            raise ValueError(
                f"state_dict does not fit {type(self).__name__}:\n  " + "\n  ".join(problems)
            )
        self._steps, self._started = int(steps), started
        for k, own in enumerate(self.param_groups):
            own.update(groups[k])
            self.scheduled[k] = own["lr"] if "initial_lr" in own else None
            for slot, values in zip(self._located(k), located[k], strict=False):
                slot[...] = values

    def _fitting_state(self, k: int, values: Any, problems: list[str]) -> Any:
        """Return group `k`'s state where its parameters are and of their dtype."""
        like = self.param_groups[k]["params"][0].data
        expected = (self._slots, self._state[k][0].size)
        try:
            array = asnumpy(values)
            if array.shape != expected:
                problems.append(f"state[{k}]: expected shape {expected}, got {array.shape}")
                return None
            if array.dtype.kind != "f":
                problems.append(f"state[{k}]: expected floating point, got dtype {array.dtype}")
                return None
            if not np.isfinite(array).all():
                problems.append(f"state[{k}]: expected finite numbers")
            return get_array_module(like).asarray(array, like.dtype)
        except (TypeError, ValueError, RuntimeWarning) as error:
            problems.append(f"state[{k}]: {error}")
            return None

    def _check_group(self, k: int, own: dict[str, Any], settings: Any, problems: list[str]) -> None:
        names = sorted(own.keys() - {"params", "initial_lr"})
        if not isinstance(settings, Mapping) or sorted(settings.keys() - {"initial_lr"}) != names:
            got = sorted(settings) if isinstance(settings, Mapping) else type(settings).__name__
            problems.append(f"groups[{k}]: expected {names}, got {got}")
            return
        try:
            self._check({**own, **settings})
            check_number("initial_lr", settings.get("initial_lr", 0))
        except (TypeError, ValueError) as error:
            problems.append(f"groups[{k}]: {error}")

    def _check_order(
        self, k: int, params: list[Parameter], state_dict: Mapping[str, Any], problems: list[str]
    ) -> None:
        """Compare shapes and names; a name may be that of the parameter in a part of the model."""
        shapes = [list(p.shape) for p in params]
        compared: tuple[tuple[str, list[Any], Callable[[Any, Any], bool]], ...] = (
            ("shapes", shapes, lambda a, b: list(a) == b),
            ("names", [p.name for p in params], _same_name),
        )
        for what, own, same in compared:
            saved = state_dict.get(what)
            if saved is None:
                continue
            fits = len(saved) == len(self.param_groups) and len(saved[k]) == len(own)
            if not fits or not all(map(same, saved[k], own)):
                problems.append(f"{what}[{k}]: expected {own}, got {saved[k] if fits else saved}")


class Optimizer(_Groups):
    """What all optimisers share: groups of parameters, their state, and the checks.

    A gradient is never ``None`` here: a parameter that backward did not reach is stepped with the
    gradient zero, where torch would leave it out.

    Parameters
    ----------
    params : iterable of Parameter, or of dict
        A dict is a group: its ``"params"``, and settings that differ from `defaults`.
    **defaults
        The settings of every group that does not set its own.

    Attributes
    ----------
    param_groups : list of dict
        Every group's ``"params"``, a list, and its settings; schedules set ``"lr"`` here.
    """

    def _pieces(self, k: int) -> Iterator[tuple[Array, Array, Sequence[Array]]]:
        """Iterate over flat ``(data, grad, (*slots, scratch))`` that make up group `k`."""
        params: list[Parameter] = self.param_groups[k]["params"]
        state = self._located(k)
        start = 0
        trained = all(p.requires_grad for p in params)
        for piece in pieces(params) if trained else params:
            data, grad = piece.data.reshape(-1), piece.grad.reshape(-1)
            span = slice(start, start + data.size)
            if trained or (isinstance(piece, Parameter) and piece.requires_grad):
                yield data, grad, [s[span] for s in state]
            start = span.stop

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change the parameters by their gradients, once.

        A context still refers to the weights: call this after backward, never between forward and
        backward.

        Parameters
        ----------
        closure : callable, optional
            Called first; computes the gradients and returns the loss, as in torch.

        Returns
        -------
        What `closure` returned, or ``None``.

        Raises
        ------
        ValueError, TypeError
            If a group's settings make no sense by now, or a parameter is read-only; nothing is changed.
        """
        loss = None if closure is None else closure()
        work = []
        for k, group in enumerate(self.param_groups):
            self._check(group)
            for data, grad, state in self._pieces(k):
                if not getattr(data.flags, "writeable", True):
                    raise ValueError(
                        "params: expected arrays that can be written to, got a read-only one"
                    )
                work.append((group, data, grad, state, self._steps + 1 - self._started[k]))
        self._steps += 1
        # What is too small for the dtype is zero, whatever the user wants to hear of elsewhere.
        with np.errstate(under="ignore"):
            for one in work:
                self._update(*one)
        return loss

    def _update(
        self, group: dict[str, Any], data: Array, grad: Array, state: Sequence[Array], t: int
    ) -> None:
        """Apply the formula to one piece at its step t, 1 at first, in place, leaving `grad` as it is."""
        raise NotImplementedError

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Set the gradients of all parameters to zero.

        Parameters
        ----------
        set_to_none : bool
            As in torch, and without effect: a gradient is never ``None`` here.
        """
        for group in self.param_groups:
            for piece in pieces(group["params"]):
                piece.zero_grad()


def _is_step(n: Any) -> bool:
    return not isinstance(n, bool) and isinstance(n, int | np.integer) and bool(n >= 0)


def _same_name(a: str, b: str) -> bool:
    return f".{a}".endswith(f".{b}") or f".{b}".endswith(f".{a}")


def check_number(name: str, value: Any) -> None:
    """Require a finite number that is not negative."""
    checks.at_least_zero(name, value)
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
