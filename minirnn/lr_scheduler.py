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
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from . import checks
from .optimizer import Optimizer


class LRScheduler:
    """Sets every group's rate to ``rate(base_lr, step, group)``; a subclass says what that is.

    The first rate is set here and now, so that the optimiser's first step uses it; call :meth:`step`
    after each step of the optimiser.

    Parameters
    ----------
    optimizer : Optimizer
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
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        groups = groups_of(optimizer)
        if last_epoch < -1:
            raise ValueError(f"last_epoch: expected an integer >= -1, got {last_epoch!r}")
        for k, group in enumerate(groups):
            if last_epoch >= 0 and "initial_lr" not in group:
                raise ValueError(
                    f"last_epoch: expected -1, since group {k} has no 'initial_lr', got {last_epoch}"
                )
        self.optimizer = optimizer
        self.base_lrs = [self._base(k, group, last_epoch) for k, group in enumerate(groups)]
        self.last_epoch = last_epoch + 1
        # This schedule's own rates of the step before; of a schedule that goes on, not known.
        self._rates: list[float | None] = (
            [*self.base_lrs] if last_epoch < 0 else [None] * len(groups)
        )
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
        rates = [self.rate(base, self.last_epoch, k) for k, base in enumerate(self.base_lrs)]
        for k, rate in enumerate(rates):
            if not math.isfinite(rate):
                raise ValueError(
                    f"rate: expected a finite one for group {k} at step {self.last_epoch}, got {rate}"
                )
        return rates

    def _write(self, rates: list[float]) -> None:
        for k, (group, before, rate) in enumerate(
            zip(self.optimizer.param_groups, self._rates, rates, strict=True)
        ):
            if rate == before:
                continue
            others = group["lr"] != before  # then it is multiplied by the change of this one
            written = group["lr"] * rate / before if before and others else rate
            group["lr"] = self.optimizer.scheduled[k] = written
        self._rates = [*rates]

    def step(self) -> None:
        """Go on by one step and set the rates that change."""
        for group in self.optimizer.param_groups[len(self.base_lrs) :]:  # come since
            self.base_lrs.append(float(group.setdefault("initial_lr", group["lr"])))
            self._rates.append(group["lr"])
        self.last_epoch += 1
        try:
            rates = self._own_rates()
        except BaseException:
            self.last_epoch -= 1
            raise
        self._write(rates)

    def get_last_lr(self) -> list[float]:
        """Return the rates in force, one a group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    # The constructor's arguments beside the optimiser, which the state dict has as well.
    _settings: ClassVar[tuple[str, ...]] = ()

    def state_dict(self) -> dict[str, Any]:
        """Return where the schedule stands, its settings, and the rates in force: numbers and lists."""
        return {
            "last_epoch": self.last_epoch,
            "base_lrs": list(self.base_lrs),
            "rates": list(self._rates),
            "lr": self.get_last_lr(),
            "settings": {name: getattr(self, name) for name in self._settings},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned, with its settings, and set the rates.

        Raises
        ------
        ValueError
            If it is of another number of groups, of another schedule, or something in it is no number;
            nothing is changed.
        """
        if missing := [n for n in ("last_epoch", "base_lrs") if n not in state_dict]:
            raise ValueError(f"state_dict: expected last_epoch and base_lrs, {missing} missing")
        last_epoch = state_dict["last_epoch"]
        if isinstance(last_epoch, bool) or not isinstance(last_epoch, int | np.integer):
            raise ValueError(f"state_dict: expected an integer as last_epoch, got {last_epoch!r}")
        if last_epoch < 0:
            raise ValueError(f"state_dict: expected last_epoch >= 0, got {last_epoch}")
        base_lrs = self._numbers("base_lrs", state_dict["base_lrs"])
        settings = state_dict.get("settings")
        if settings is not None and settings.keys() != set(self._settings):
            raise ValueError(
                f"state_dict: expected settings {list(self._settings)}, got {list(settings)}"
            )
        for name, value in (settings or {}).items():
            if not isinstance(value, type(getattr(self, name))) or value != value:
                raise ValueError(f"state_dict: settings: {name}: got {value!r}")
        # Rates are a function of the step; those in force may be a product with other schedules'.
        lrs = self._numbers("lr", state_dict["lr"]) if "lr" in state_dict else None
        before = self.last_epoch, self.base_lrs, {n: getattr(self, n) for n in settings or {}}
        try:
            self.last_epoch, self.base_lrs = int(last_epoch), base_lrs
            vars(self).update(settings or {})
            rates = self._own_rates()
        except BaseException:
            self.last_epoch, self.base_lrs = before[:2]
            vars(self).update(before[2])
            raise
        self._rates = [*rates]
        for k, group in enumerate(self.optimizer.param_groups):
            group["lr"] = self.optimizer.scheduled[k] = rates[k] if lrs is None else lrs[k]

    def _numbers(self, name: str, values: Any) -> list[float]:
        if not isinstance(values, Sequence | np.ndarray) or len(values) != len(self.base_lrs):
            raise ValueError(
                f"state_dict: expected {name} of {len(self.base_lrs)} groups, got {values!r}"
            )
        for value in values:
            number = isinstance(value, checks.NUMBER) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0:
                raise ValueError(f"state_dict: expected numbers >= 0 as {name}, got {value!r}")
        return [float(value) for value in values]


def groups_of(optimizer: Any) -> list[dict[str, Any]]:
    """Return the groups of `optimizer`, which must be one."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer: expected an Optimizer, got {type(optimizer).__name__}")
    return optimizer.param_groups


def one_a_group(name: str, values: Sequence[Any], optimizer: Optimizer) -> list[Any]:
    """Return `values`, of which there must be one for each of the optimizer's groups."""
    groups = len(groups_of(optimizer))
    if len(values) != groups:
        raise ValueError(f"{name}: expected {groups}, one a group, got {len(values)}")
    return list(values)


class LambdaLR(LRScheduler):
    """Any schedule: ``base_lr * lr_lambda(step)``.

    Parameters
    ----------
    optimizer : Optimizer
    lr_lambda : callable from int to float, or list of one a group
    last_epoch : int
        See :class:`LRScheduler`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        lambdas = [lr_lambda] * len(groups_of(optimizer)) if callable(lr_lambda) else lr_lambda
        self.lr_lambdas = one_a_group("lr_lambda", lambdas, optimizer)
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return ``base_lr * lr_lambda(step)``."""
        return base_lr * float(self.lr_lambdas[group](step))


class StepLR(LRScheduler):
    r"""A staircase: :math:`\eta \, \gamma^{\lfloor t / s \rfloor}`.

    Parameters
    ----------
    optimizer : Optimizer
    step_size : int
        The length s of a stair.
    gamma : float
        The factor :math:`\gamma` at each.
    last_epoch : int
        See :class:`LRScheduler`.
    """

    _settings = ("step_size", "gamma")

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        checks.positive(step_size=step_size)
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return ``base_lr * gamma ** (step // step_size)``."""
        return base_lr * self.gamma ** (step // self.step_size)


class ExponentialLR(StepLR):
    r"""A staircase of single steps: :math:`\eta \, \gamma^t`.

    Parameters
    ----------
    optimizer : Optimizer
    gamma : float
    last_epoch : int
        See :class:`LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        super().__init__(optimizer, 1, gamma, last_epoch)


class LinearLR(LRScheduler):
    r"""A straight line between two factors of the rate, then level: a warm-up.

    .. math::  \eta \, (a + (b - a) \min(t, n) / n)

    Parameters
    ----------
    optimizer : Optimizer
    start_factor : float
        The factor a at the first step, in (0, 1].
    end_factor : float
        The factor b in the end, in [0, 1].
    total_iters : int
        The number n of steps until then.
    last_epoch : int
        See :class:`LRScheduler`.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.lr_scheduler import LinearLR
    >>> from minirnn.parameter import Parameter
    >>> from minirnn.optim import SGD
    >>> warmup = LinearLR(SGD([Parameter(np.zeros(1))], lr=0.1), start_factor=0.5, total_iters=2)
    >>> for _ in range(4):
    ...     print(round(warmup.get_last_lr()[0], 9))
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
        if not 0 < start_factor <= 1:
            raise ValueError(f"start_factor: expected a number in (0, 1], got {start_factor!r}")
        if not 0 <= end_factor <= 1:
            raise ValueError(f"end_factor: expected a number in [0, 1], got {end_factor!r}")
        checks.positive(total_iters=total_iters)
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

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
    T_max : int
        The number of steps from the highest rate to the lowest.
    eta_min : float
        The lowest rate.
    last_epoch : int
        See :class:`LRScheduler`.

    References
    ----------
    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017;
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.CosineAnnealingLR.html
    """

    _settings = ("T_max", "eta_min")

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        checks.positive(T_max=T_max)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return the rate on the cosine."""
        wave = (1 + math.cos(math.pi * step / self.T_max)) / 2
        return self.eta_min + (base_lr - self.eta_min) * wave


class SequentialLR(LRScheduler):
    """One schedule after another, each from its own step 0 on.

    The schedules are asked for their rates, and themselves not stepped.

    Parameters
    ----------
    optimizer : Optimizer
    schedulers : list of LRScheduler
        All of this optimiser.
    milestones : list of int
        The steps at which the second, third, ... schedule begins; ascending.
    last_epoch : int
        See :class:`LRScheduler`.

    Raises
    ------
    TypeError
        If one of the schedules is no function of the step, as :class:`ReduceLROnPlateau`.
    ValueError
        If one is of another optimiser, or the milestones do not fit.

    Examples
    --------
    A warm-up of 2,000 steps, then a cosine over 18,000:

    >>> import numpy as np
    >>> from minirnn.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
    >>> from minirnn.parameter import Parameter
    >>> from minirnn.optim import Adam
    >>> optimizer = Adam([Parameter(np.zeros(1))], lr=0.005)
    >>> warmup = LinearLR(optimizer, 1 / 2000, total_iters=2000)
    >>> cosine = CosineAnnealingLR(optimizer, 18000)
    >>> schedule = SequentialLR(optimizer, [warmup, cosine], [2000])
    >>> [round(schedule.rate(0.005, step, 0), 9) for step in (0, 1000, 2000, 11000, 20000)]
    [2.5e-06, 0.00250125, 0.005, 0.0025, 0.0]
    """

    _settings = ("milestones",)

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        if not self.schedulers:
            raise ValueError("schedulers: expected at least one, got none")
        for k, scheduler in enumerate(self.schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(
                    f"schedulers[{k}]: expected a schedule by the step, got {type(scheduler).__name__}"
                )
            if scheduler.optimizer is not optimizer:
                raise ValueError(
                    f"schedulers[{k}]: expected a schedule of this optimizer, got one of another"
                )
        fits = len(self.milestones) == len(self.schedulers) - 1
        if not fits or self.milestones != sorted(self.milestones):
            raise ValueError(
                f"milestones: expected {len(self.schedulers) - 1} ascending steps, one fewer than "
                f"schedulers, got {self.milestones}"
            )
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return the rate of the schedule whose turn it is."""
        k = bisect_right(self.milestones, step)
        start = self.milestones[k - 1] if k else 0
        return self.schedulers[k].rate(base_lr, step - start, group)

    def _start(self) -> None:
        # The schedules have each written their first rate; the first of them counts.
        for k, base_lr in enumerate(self.base_lrs):
            self.optimizer.param_groups[k]["lr"] = base_lr
        super()._start()
