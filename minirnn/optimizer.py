"""What all optimisers share: groups of parameters, their state as flat arrays, and the checks.

An optimiser's formula runs over pieces of a group's parameters: a single piece if they fill a
:class:`~minirnn.parameter.ParameterBuffer`, into which the optimiser moves them if they are in none, else
one for each parameter. The state is flat either way, in the order of the parameters, so they may move
out of it, to another dtype or to the GPU at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from . import changes, checks, torch_state
from .backend import Array, asnumpy, get_array_module
from .changes import Kept
from .optimizer_state import fitting, plain, settings
from .parameter import (
    Parameter,
    ParameterBuffer,
    flat_pieces,
    gather,
    parameter_list,
    require_one_kind,
)
from .torch_hints import OPTIMIZER, Hints


class Piece(NamedTuple):
    """Weights in one flat array, their gradients, and the slots and scratch arrays for them."""

    data: Array
    grad: Array
    state: Sequence[Array]


class Optimizer(Hints, hints=OPTIMIZER):
    """What all optimisers share: groups of parameters, their state, and the checks.

    A gradient is never ``None`` here: a parameter that backward did not reach is stepped with the
    gradient zero, where torch would leave it out.

    The parameters of a group move into a :class:`~minirnn.parameter.ParameterBuffer`, unless they are in
    one: arrays that were taken from ``parameter.data`` before are no longer the parameter's. So make the
    optimiser after ``model.to``.

    Parameters
    ----------
    params : iterable of Parameter, or of dict
        A dict is a group: its ``"params"``, and settings that differ from `defaults`. Parameters may come
        with their names, from ``named_parameters``.
    maximize : bool
        Step along the gradient, not against it.
    **defaults
        The settings of every group that does not set its own.

    Attributes
    ----------
    param_groups : list of dict
        Every group's ``"params"``, a list, and its settings; schedules set ``"lr"`` here.

    See Also
    --------
    SGD, Adam : Two that are there.

    Examples
    --------
    An optimiser of one's own says its formula, for flat arrays, and what it remembers (here nothing):

    >>> import numpy as np, minirnn
    >>> class SignSGD(Optimizer):
    ...     _slots = ()
    ...     def _update(self, group, data, grad, state, t):
    ...         data -= group["lr"] * np.sign(grad)
    >>> w = minirnn.Parameter(np.array([1.0, 2.0]))
    >>> w.grad = [1e-3, -1e3]
    >>> SignSGD([w], lr=0.5, weight_decay=0.0).step()
    >>> w.data
    array([0.5, 2.5])
    """

    # torch's names of the arrays that the formula remembers between two steps, of the parameters' size.
    _slots: tuple[str, ...]
    # How many more arrays of that size a step needs to write to; kept, so that it allocates nothing.
    _scratch = 1
    # The range of each setting that is a number, and the settings that are True or False.
    _ranges: ClassVar[Mapping[str, str]] = {"lr": "[0, inf)", "weight_decay": "[0, inf)"}
    _switches: tuple[str, ...] = ("maximize",)
    # What torch has as a setting and here is another class.
    _implied: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        params: Iterable[Parameter | tuple[str, Parameter] | dict[str, Any]],
        *,
        maximize: bool = False,
        **defaults: Any,
    ) -> None:
        self.param_groups: list[dict[str, Any]] = []
        self._defaults = {**defaults, "maximize": maximize}
        self._steps = 0
        # For each group its slots, and after them the scratch arrays.
        self._state: list[list[Array]] = []
        self._kept_pieces: Kept[list[list[Piece]]] | None = None
        # The rate that a schedule wrote last into each group: another one is somebody else's.
        self.scheduled: list[float | None] = []
        # The step at which each group came: a mean's bias is corrected by the group's own age.
        self._started: list[int] = []
        for group in _groups_of(params):
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
        group = _filled(self, param_group)
        known = {id(p) for other in self.param_groups for p in other["params"]}
        for p in group["params"]:
            if id(p) in known:
                raise ValueError(f"params: expected every parameter once, got {p.name} twice")
            known.add(id(p))
        gather([p for p in group["params"] if p.requires_grad])
        self._state.append(_zeros(group["params"], len(self.slots_under(group)) + self._scratch))
        self.param_groups.append(group)
        self.scheduled.append(None)
        self._started.append(self._steps)
        self._kept_pieces = None

    def check(self, settings: dict[str, Any]) -> None:
        """Raise if a group's settings make no sense; a subclass checks what goes with what as well.

        Raises
        ------
        ValueError, TypeError
            If one is no number in its range, or no switch.
        """
        for name, interval in self._ranges.items():
            checks.number(name, settings[name], interval)
        for name in self._switches:
            if settings[name] is not False:
                checks.flags(**{name: settings[name]})

    def slots_under(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of what the formula remembers under these settings."""
        return self._slots

    def needed_under(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return those without which it would not go on as it was."""
        return self.slots_under(settings)

    @property
    def steps(self) -> int:
        """How many steps have been taken."""
        return self._steps

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
            If a group's settings make no sense by now, or with the state there is, or a parameter is
            read-only; nothing is changed.
        """
        loss = None if closure is None else checks.function("closure", closure)()
        work = []
        for k, (group, pieces) in enumerate(zip(self.param_groups, _pieces(self), strict=True)):
            self.check(group)
            _require_as_made(self, k)
            for data, grad, state in pieces:
                work.append((group, data, grad, state, self._steps + 1 - self._started[k]))
        self._steps += 1
        _update(self, work)
        return loss

    def _update(
        self, group: dict[str, Any], data: Array, grad: Array, state: Sequence[Array], t: int
    ) -> None:
        """Apply the formula to one piece at its step t, 1 at first, in place.

        `grad` has the penalty on the weights in it, and so may lie in the last of `state`; anywhere else
        it stays as it is.
        """
        raise NotImplementedError

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Set the gradients of all parameters to zero.

        Parameters
        ----------
        set_to_none : bool
            As in torch, and without effect: a gradient is never ``None`` here.

        Raises
        ------
        TypeError
            If `set_to_none` is neither True nor False.
        """
        if set_to_none is not False:
            checks.flags(set_to_none=set_to_none)
        for group in self.param_groups:
            for piece in flat_pieces(group["params"]):
                piece.zero_grad()

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
            "state": [get_array_module(s[0]).stack(s[: -self._scratch]) for s in self._state],
            "groups": [
                {name: plain(value) for name, value in settings(group).items()}
                for group in self.param_groups
            ],
            "names": [[p.name for p in group["params"]] for group in self.param_groups],
            "shapes": [[list(p.shape) for p in group["params"]] for group in self.param_groups],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned, or that of torch's optimiser of this name.

        Parameters
        ----------
        state_dict : mapping
            torch's, as it is or with NumPy arrays, has to be of parameters in the same groups and order, as
            those of a model that loads torch's weights are.

        Raises
        ------
        ValueError
            If it is of other groups, settings, sizes or parameters, or in another order: all that does not
            fit in one message, and the optimiser unchanged. (The states of Adam and AdamW look alike.)
        TypeError
            If `state_dict` is no mapping.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict: expected a mapping, got {type(state_dict).__name__}")
        if "param_groups" in state_dict:
            groups = _torch_groups(self, torch_state.groups_of(state_dict))
            state_dict = torch_state.from_torch(state_dict, groups)
        state = fitting(self, state_dict)
        self._steps, self._started = state.steps, state.started
        for k, (own, given, slots) in enumerate(
            zip(self.param_groups, state.groups, state.slots, strict=True)
        ):
            own.update(given)
            self.scheduled[k] = own["lr"] if "initial_lr" in own else None
            self._state[k] = [*slots, *_state_of(self, k)[-self._scratch :]]
        self._kept_pieces = None

    def torch_state_dict(self) -> dict[str, Any]:
        """Return the state as torch's optimiser of this name has it, its tensors as NumPy arrays.

        Returns
        -------
        dict
            ``"state"``, by the parameter's index, of arrays for ``torch.as_tensor``; and ``"param_groups"``.
        """
        steps = [self._steps - started for started in self._started]
        return torch_state.to_torch(
            _torch_groups(self), [s[: -self._scratch] for s in self._state], steps
        )


def numbers(group: Mapping[str, Any], *names: str) -> list[float]:
    """Return settings of a group as Python's numbers, which promote no array and are taken the fastest."""
    return [float(group[name]) for name in names]


def _require_as_made(optimizer: Optimizer, k: int) -> None:
    """Require the slots of group `k` to be those of its settings, and its parameters to take a step."""
    group, kept = optimizer.param_groups[k], len(optimizer._state[k]) - optimizer._scratch
    if len(slots := optimizer.slots_under(group)) != kept:
        raise ValueError(
            f"settings: expected those under which group {k} was made, got some under which "
            f"{slots} are remembered; make the optimiser anew"
        )
    for p in group["params"]:
        if p._requires_grad and not p.writeable:
            raise ValueError(f"{p.name}: expected an array to write to, got a read-only one")


# An error in the middle would leave a step done by half; what is not finite shows in the loss.
@np.errstate(all="ignore")
def _update(optimizer: Optimizer, work: list[tuple[Any, ...]]) -> None:
    for group, data, grad, state, t in work:
        if group["weight_decay"] or group["maximize"]:
            grad = _penalised(optimizer, group, data, grad, state[-1])
        optimizer._update(group, data, grad, state, t)


def _penalised(
    optimizer: Optimizer, group: Mapping[str, Any], data: Array, grad: Array, spare: Array
) -> Array:
    """Return what to go down along: the gradient, with that of the L2 penalty; `spare` if it has changed."""
    xp, decay, maximize = get_array_module(data), float(group["weight_decay"]), group["maximize"]
    if decay and not optimizer._implied.get("decoupled_weight_decay"):
        penalty = xp.multiply(data, decay, spare)
        return (xp.subtract if maximize else xp.add)(penalty, grad, spare)
    return xp.negative(grad, spare) if maximize else grad


def _torch_groups(
    optimizer: Optimizer, theirs: Sequence[Mapping[str, Any]] = ()
) -> list[torch_state.Group]:
    """Return the groups for torch's form, under the settings of `theirs` if there are some."""
    groups = []
    for k, group in enumerate(optimizer.param_groups):
        own = settings(group)
        under = {**own, **(torch_state.settings_of(theirs[k], own) if k < len(theirs) else {})}
        slots, needed = optimizer.slots_under(under), optimizer.needed_under(under)
        groups.append(torch_state.Group(own, group["params"], slots, needed, optimizer._implied))
    return groups


def _groups_of(params: Any) -> list[dict[str, Any]]:
    """Return the groups that `params` are, or the one that they make."""
    several = isinstance(params, Iterable) and not isinstance(params, np.ndarray)
    given: list[Any] = list(params) if several else parameter_list("params", params)
    return given if any(isinstance(entry, dict) for entry in given) else [{"params": given}]


def _filled(optimizer: Optimizer, group: Any) -> dict[str, Any]:
    """Return `group` with the defaults filled in, if it is one."""
    if not isinstance(group, dict) or "params" not in group:
        got = sorted(group) if isinstance(group, dict) else type(group).__name__
        raise TypeError(f"params: expected dicts with 'params' in them, got {got}")
    params, defaults = parameter_list("params", _unnamed(group["params"])), optimizer._defaults
    require_one_kind("params", params)
    # A schedule made on this group before leaves the rate it started from.
    known = {"params", "initial_lr", *defaults}
    if unknown := sorted(group.keys() - known):
        raise ValueError(f"params: expected settings among {sorted(defaults)}, got {unknown}")
    filled = {**defaults, **group, "params": params}
    optimizer.check(filled)
    return filled


def _state_of(optimizer: Optimizer, k: int) -> list[Array]:
    """Return the state of group `k`, where its parameters are by now and of their dtype."""
    like, state = optimizer.param_groups[k]["params"][0].data, optimizer._state[k]
    if type(state[0]) is not type(like) or state[0].dtype != like.dtype:
        xp = get_array_module(like)
        state = optimizer._state[k] = [xp.asarray(asnumpy(s), like.dtype) for s in state]
    return state


def _pieces(optimizer: Optimizer) -> list[list[Piece]]:
    """Return what each group is made of, found anew if a parameter has moved or been frozen since."""
    kept, stamp = optimizer._kept_pieces, changes.stamp()
    if kept is None or kept.key is not stamp:
        groups = range(len(optimizer.param_groups))
        kept = optimizer._kept_pieces = Kept(stamp, [_pieces_of(optimizer, k) for k in groups])
    return kept.value


def _pieces_of(optimizer: Optimizer, k: int) -> list[Piece]:
    state = _state_of(optimizer, k)
    return [
        Piece(part.data.reshape(-1), part.grad.reshape(-1), [s[span] for s in state])
        for span, part in _trained(optimizer.param_groups[k]["params"])
    ]


def _trained(params: list[Parameter]) -> Iterator[tuple[slice, Parameter | ParameterBuffer]]:
    """Iterate over what is not frozen, in as few pieces as there are, and where its state lies."""
    start = 0
    for piece in flat_pieces(params):
        held = [piece] if isinstance(piece, Parameter) else piece.parameters
        frozen = [p for p in held if not p._requires_grad]
        for part in held if frozen else [piece]:
            span = slice(start, start + part.data.size)
            if part not in frozen:
                yield span, part
            start = span.stop


def _zeros(params: list[Parameter], rows: int) -> list[Array]:
    xp, size = get_array_module(params[0].data), sum(p.size for p in params)
    return [xp.zeros(size, params[0].dtype) for _ in range(rows)]


def _unnamed(params: Any) -> Any:
    """Return `params` without the names that some of them come with."""
    if not isinstance(params, Iterable):
        return params
    return [p[1] if type(p) is tuple and len(p) == 2 else p for p in params]
