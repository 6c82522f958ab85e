"""Learning-rate schedules: pure functions of the step, written into the optimiser's groups.

torch derives most schedules from the rate before, step by step. Here each is a closed form, so any
step's rate can be had at any time, a run is resumed from a number, and rounding does not add up. A rate
that somebody else has written into a group (another schedule, :class:`ReduceLROnPlateau`, a user) is
multiplied by what the schedule's own rate changes by, as in torch: schedules that share an optimiser
multiply, and one that is over leaves the rate alone.

References
----------
https://docs.pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from . import checks
from .optimizer import Optimizer
from .torch_hints import SCHEDULE, Hints


class LRScheduler(Hints, hints=SCHEDULE):
    """Sets every group's rate to ``rate(base_lr, step, group)``; a subclass says what that is.

    The first rate is set here and now, so that the optimiser's first step uses it; call :meth:`step`
    after each step of the optimiser.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates it sets.
    last_epoch : int
        The step after which to go on; -1 is before the first. Groups must then have the
        ``"initial_lr"`` that an earlier schedule left there (it is in the optimiser's state dict).

    Attributes
    ----------
    last_epoch : int
        The step whose rates are in force.
    base_lrs : list of float
        Every group's rate before any schedule.

    Raises
    ------
    TypeError
        If `optimizer` is none of this library's.
    ValueError
        If a setting is out of its range.

    See Also
    --------
    LambdaLR : A schedule of one's own without a class.

    Examples
    --------
    A schedule of one's own says the rate, and has all else:

    >>> import numpy as np, minirnn
    >>> class Halving(LRScheduler):
    ...     def rate(self, base_lr, step, group):
    ...         return base_lr * 0.5**step
    >>> optimizer = minirnn.SGD([minirnn.Parameter(np.zeros(1))], lr=0.1)
    >>> schedule = Halving(optimizer)
    >>> optimizer.step()
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.05]
    """

    # The constructor's arguments beside the optimiser, which the state dict has as well, and a method that
    # checks and sets them: a state's settings are checked as the constructor's.
    _settings: ClassVar[tuple[str, ...]] = ()
    _set: Callable[..., None]

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        groups = groups_of(optimizer)
        last_epoch = checks.whole("last_epoch", last_epoch, -1)
        for k, group in enumerate(groups):
            if last_epoch >= 0 and "initial_lr" not in group:
                raise ValueError(
                    f"last_epoch: expected -1, since group {k} has no 'initial_lr', got "
                    f"{checks.got(last_epoch)}"
                )
        self.optimizer = optimizer
        self.base_lrs = [self._base(k, group, last_epoch) for k, group in enumerate(groups)]
        self.last_epoch = last_epoch + 1
        # This schedule's own rates of the step before; of a schedule that goes on, not known.
        self._rates: list[float | None] = (
            [*self.base_lrs] if last_epoch < 0 else [None] * len(groups)
        )
        with all_or_nothing(self):
            self._start()

    def _base(self, k: int, group: dict[str, Any], last_epoch: int) -> float:
        """Return the rate before any schedule: what a user has written since is a new one."""
        if "initial_lr" in group and (
            last_epoch >= 0 or group["lr"] == self.optimizer.scheduled[k]
        ):
            return float(group["initial_lr"])
        return float(group["lr"])

    def _start(self) -> None:
        """Set the first rates; if one of them cannot be had, the optimiser is as before."""
        own = self._own_rates()
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["initial_lr"] = base_lr
        self._write(own)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return the rate at `step` of the group with index `group`, whose base rate is `base_lr`."""
        raise NotImplementedError

    def _own_rates(self) -> list[float]:
        try:
            rates = [self.rate(base, self.last_epoch, k) for k, base in enumerate(self.base_lrs)]
        except OverflowError:
            rates = [math.inf]
        for k, rate in enumerate(rates):
            checks.number(f"rate of group {k} at step {self.last_epoch}", rate, "[0, inf)")
        return rates

    def _write(self, rates: list[float]) -> None:
        for k, (group, before, rate) in enumerate(
            zip(self.optimizer.param_groups, self._rates, rates, strict=True)
        ):
            if rate == before:
                continue
            checks.number(f"lr of group {k}", group["lr"], "[0, inf)")
            others = group["lr"] != before  # then it is multiplied by the change of this one
            written = group["lr"] * rate / before if before and others else rate
            group["lr"] = self.optimizer.scheduled[k] = written
        self._rates = [*rates]

    def step(self) -> None:
        """Go on by one step and set the rates that change.

        Warns
        -----
        UserWarning
            If the optimiser has taken no step before the first one here: its first rate would be passed over.
        """
        if self.last_epoch == 0 and self.optimizer.steps == 0:
            checks.warn(
                "scheduler.step() before optimizer.step(): the first rate was never used; call "
                "optimizer.step() first, then scheduler.step()"
            )
        with all_or_nothing(self):
            for group in self.optimizer.param_groups[len(self.base_lrs) :]:  # come since
                first = float(group.setdefault("initial_lr", group["lr"]))
                self.base_lrs, self._rates = [*self.base_lrs, first], [*self._rates, group["lr"]]
            self.last_epoch += 1
            self._write(self._own_rates())

    def get_last_lr(self) -> list[float]:
        """Return the rates in force, one a group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return where the schedule stands, its settings with its class's name, and the rates in force."""
        return {
            "last_epoch": self.last_epoch,
            "base_lrs": list(self.base_lrs),
            "lr": self.get_last_lr(),
            "settings": self._get_settings(),
        }

    def _get_settings(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self._settings}
        return {"schedule": type(self).__name__, **own}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned, with its settings, and set the rates.

        Raises
        ------
        ValueError
            If it is of another number of groups, of another schedule, or something in it is no number;
            nothing is changed.
        TypeError
            If it is no mapping.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict: expected a mapping, got {type(state_dict).__name__}")
        if missing := [n for n in ("last_epoch", "base_lrs") if n not in state_dict]:
            raise ValueError(f"state_dict: expected last_epoch and base_lrs, {missing} missing")
        with all_or_nothing(self):
            try:
                self._load(state_dict)
            except (ValueError, TypeError) as error:
                raise ValueError(f"state_dict: {error}") from error

    def _load(self, state_dict: Mapping[str, Any]) -> None:
        self.last_epoch = checks.whole("last_epoch", state_dict["last_epoch"], 0)
        self.base_lrs = self._numbers("base_lrs", state_dict["base_lrs"])
        # Rates are a function of the step; those in force may be a product with other schedules'.
        lrs = self._numbers("lr", state_dict["lr"]) if "lr" in state_dict else None
        self._set_settings(state_dict.get("settings"))
        self._rates = [*self._own_rates()]
        for k, group in enumerate(self.optimizer.param_groups):
            group["lr"] = self.optimizer.scheduled[k] = self._rates[k] if lrs is None else lrs[k]

    def _set_settings(self, settings: Any) -> None:
        """Check and set a state's settings, if it has them."""
        if settings is None:
            return
        own = type(self).__name__
        if not isinstance(settings, Mapping):
            raise ValueError(f"settings: expected those of {own}, got {checks.got(settings)}")
        # Two classes may have settings of the same names, which say something else in each.
        other = settings.get("schedule", own)
        if not isinstance(other, str) or other != own:
            raise ValueError(
                f"expected the state of a schedule {own}, got one of {checks.got(other)}"
            )
        values = {name: value for name, value in settings.items() if name != "schedule"}
        if values.keys() != set(self._settings):
            raise ValueError(f"settings: expected {[*self._settings]}, got {checks.got(settings)}")
        if self._settings:
            self._set(**values)

    def _numbers(self, name: str, values: Any) -> list[float]:
        if not isinstance(values, list | tuple | np.ndarray) or len(values) != len(self.base_lrs):
            groups = len(self.base_lrs)
            raise ValueError(f"{name}: expected {groups}, one a group, got {checks.got(values)}")
        return [checks.number(name, value, "[0, inf)") for value in values]


@contextmanager
def all_or_nothing(schedule: Any) -> Iterator[None]:
    """Leave a schedule and its optimiser's settings as they were if what is inside is cut off."""
    own, optimizer = dict(vars(schedule)), schedule.optimizer
    groups, scheduled = [dict(group) for group in optimizer.param_groups], [*optimizer.scheduled]
    try:
        yield
    except BaseException:
        vars(schedule).update(own)
        for group, before in zip(optimizer.param_groups, groups, strict=True):
            group.clear()
            group.update(before)
        optimizer.scheduled[:] = scheduled
        raise


def groups_of(optimizer: Any) -> list[dict[str, Any]]:
    """Return the groups of `optimizer`, which must be one."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer: expected an Optimizer, got {type(optimizer).__name__}")
    return optimizer.param_groups


def one_a_group(name: str, values: Any, optimizer: Optimizer) -> list[Any]:
    """Return `values`, of which there must be one for each of the optimizer's groups."""
    groups = len(groups_of(optimizer))
    found = checks.listed(name, values, "one a group")
    if len(found) != groups:
        raise ValueError(f"{name}: expected {groups}, one a group, got {len(found)}")
    return found


def steps_in(name: str, values: Any) -> list[int]:
    """Return `values`, steps at which something happens, as a list of Python's integers."""
    steps = checks.listed(name, values, "steps")
    return [checks.whole(f"{name}[{k}]", step, 0) for k, step in enumerate(steps)]


class LambdaLR(LRScheduler):
    """Any schedule: ``base_lr * lr_lambda(step)``.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates it sets.
    lr_lambda : callable from int to float, or list of one a group
        The factor as a function of the step, one for all groups or one for each.
    last_epoch : int
        See :class:`LRScheduler`.

    Raises
    ------
    TypeError
        If `lr_lambda` is no function, and no list of functions.
    ValueError
        If there is not one a group.

    See Also
    --------
    SequentialLR : Schedules one after the other.

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> optimizer = minirnn.SGD([minirnn.Parameter(np.zeros(1))], lr=0.1)
    >>> schedule = minirnn.LambdaLR(optimizer, lambda step: (1 + step) ** -0.5)
    >>> [round(schedule.rate(0.1, step, 0), 3) for step in (0, 3, 8)]
    [0.1, 0.05, 0.033]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        lambdas = [lr_lambda] * len(groups_of(optimizer)) if callable(lr_lambda) else lr_lambda
        self.lr_lambdas = one_a_group("lr_lambda", lambdas, optimizer)
        for k, one in enumerate(self.lr_lambdas):
            if not callable(one):
                raise TypeError(f"lr_lambda[{k}]: expected a function, got {checks.got(one)}")
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return ``base_lr * lr_lambda(step)``.

        Raises
        ------
        ValueError
            If `lr_lambda` returns no finite number, or a negative one.
        """
        return base_lr * checks.number("lr_lambda(step)", self.lr_lambdas[group](step), "[0, inf)")


class StepLR(LRScheduler):
    r"""A staircase: :math:`\eta \, \gamma^{\lfloor t / s \rfloor}`.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates it sets.
    step_size : int
        The length s of a stair.
    gamma : float
        The factor :math:`\gamma` at each.
    last_epoch : int
        See :class:`LRScheduler`.

    See Also
    --------
    MultiStepLR : At steps that you name.

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> optimizer = minirnn.SGD([minirnn.Parameter(np.zeros(1))], lr=0.1)
    >>> schedule = minirnn.StepLR(optimizer, step_size=2, gamma=0.5)
    >>> [schedule.rate(0.1, step, 0) for step in range(5)]
    [0.1, 0.1, 0.05, 0.05, 0.025]
    """

    _settings = ("step_size", "gamma")

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self._set(step_size, gamma)
        super().__init__(optimizer, last_epoch)

    def _set(self, step_size: int, gamma: float) -> None:
        checks.positive(step_size=step_size)
        self.step_size, self.gamma = int(step_size), checks.number("gamma", gamma, "[0, inf)")

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return ``base_lr * gamma ** (step // step_size)``."""
        return base_lr * self.gamma ** (step // self.step_size)


class ExponentialLR(StepLR):
    r"""A staircase of single steps: :math:`\eta \, \gamma^t`.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates it sets.
    gamma : float
        The factor of each step.
    last_epoch : int
        See :class:`LRScheduler`.

    See Also
    --------
    StepLR : Every few steps only.

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> optimizer = minirnn.SGD([minirnn.Parameter(np.zeros(1))], lr=0.1)
    >>> schedule = minirnn.ExponentialLR(optimizer, gamma=0.5)
    >>> [schedule.rate(0.1, step, 0) for step in range(3)]
    [0.1, 0.05, 0.025]
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        super().__init__(optimizer, 1, gamma, last_epoch)


class LinearLR(LRScheduler):
    r"""A straight line between two factors of the rate, then level: a warm-up.

    .. math::  \eta \, (a + (b - a) \min(t, n) / n)

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates it sets.
    start_factor : float
        The factor a at the first step, in (0, 1].
    end_factor : float
        The factor b in the end, in [0, 1].
    total_iters : int
        The number n of steps until then.
    last_epoch : int
        See :class:`LRScheduler`.

    See Also
    --------
    SequentialLR : To go on with another schedule.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.lr_scheduler import LinearLR
    >>> from minirnn.parameter import Parameter
    >>> from minirnn.optim import SGD
    >>> warmup = LinearLR(SGD([Parameter(np.zeros(1))], lr=0.1), start_factor=0.5, total_iters=2)
    >>> for _ in range(4):
    ...     print(round(warmup.get_last_lr()[0], 9))
    ...     warmup.optimizer.step()
    ...     warmup.step()
    0.05
    0.075
    0.1
    0.1
    """

    _settings = ("start_factor", "end_factor", "total_iters")

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self._set(start_factor, end_factor, total_iters)
        super().__init__(optimizer, last_epoch)

    def _set(self, start_factor: float, end_factor: float, total_iters: int) -> None:
        checks.positive(total_iters=total_iters)
        self.total_iters = int(total_iters)
        self.start_factor = checks.number("start_factor", start_factor, "(0, 1]")
        self.end_factor = checks.number("end_factor", end_factor, "[0, 1]")

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return the rate on the line."""
        done = min(step, self.total_iters) / self.total_iters
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * done)


class CosineAnnealingLR(LRScheduler):
    r"""Half a wave of the cosine, from the base rate down to `eta_min`.

    .. math::  \eta_{min} + (\eta - \eta_{min}) \, \frac{1 + \cos(\pi t / T_{max})}{2}

    Beyond `T_max` the rate rises again, with the period ``2 * T_max``, as in torch.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates it sets.
    T_max : int
        The number of steps from the highest rate to the lowest.
    eta_min : float
        The lowest rate.
    last_epoch : int
        See :class:`LRScheduler`.

    See Also
    --------
    CosineAnnealingWarmRestarts : Again and again.

    References
    ----------
    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017;
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.CosineAnnealingLR.html

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> optimizer = minirnn.SGD([minirnn.Parameter(np.zeros(1))], lr=0.1)
    >>> schedule = minirnn.CosineAnnealingLR(optimizer, T_max=4)
    >>> [round(schedule.rate(0.1, step, 0), 3) for step in range(6)]
    [0.1, 0.085, 0.05, 0.015, 0.0, 0.015]
    """

    _settings = ("T_max", "eta_min")

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self._set(T_max, eta_min)
        super().__init__(optimizer, last_epoch)

    def _set(self, T_max: int, eta_min: float) -> None:
        checks.positive(T_max=T_max)
        self.T_max, self.eta_min = int(T_max), checks.number("eta_min", eta_min, "[0, inf)")

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return the rate on the cosine."""
        wave = (1 + math.cos(math.pi * step / self.T_max)) / 2
        return self.eta_min + (base_lr - self.eta_min) * wave
