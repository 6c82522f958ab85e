"""Schedules made of schedules: one after the other, or all at once.

References
----------
https://docs.pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from copy import copy
from typing import Any

from . import checks
from .lr_scheduler import LRScheduler, groups_of, steps_in
from .optimizer import Optimizer


class Combined(LRScheduler):
    """What is made of other schedules, which are asked for their rates, and themselves not stepped."""

    def _take(self, schedulers: Any) -> None:
        self.schedulers: list[LRScheduler] = checks.listed("schedulers", schedulers, "schedules")
        if not self.schedulers:
            raise ValueError("schedulers: expected at least one, got none")
        for k, scheduler in enumerate(self.schedulers):
            if getattr(scheduler, "cycle_momentum", False):
                raise ValueError(
                    f"schedulers[{k}]: expected cycle_momentum=False, as rates alone are asked for"
                )

    def _set_schedulers(self, schedulers: Any) -> None:
        """Take the settings of the schedules, each its own."""
        count = len(self.schedulers)
        if not isinstance(schedulers, list | tuple) or len(schedulers) != count:
            raise ValueError(f"schedulers: expected {count} settings, got {checks.got(schedulers)}")
        # Copies take them: where one does not fit, none has changed.
        after = [copy(scheduler) for scheduler in self.schedulers]
        for scheduler, settings in zip(after, schedulers, strict=True):
            scheduler._set_settings(settings)
        self.schedulers = after

    def _get_settings(self) -> dict[str, Any]:
        parts = [scheduler._get_settings() for scheduler in self.schedulers]
        return {**super()._get_settings(), "schedulers": parts}

    def _start(self) -> None:
        # The schedules have each written their first rate; the first of this one counts.
        for k, base_lr in enumerate(self.base_lrs):
            self.optimizer.param_groups[k]["lr"] = base_lr
        super()._start()


class SequentialLR(Combined):
    """One schedule after another, each from its own step 0 on.

    The schedules are asked for their rates, and themselves not stepped.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates it sets.
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

    See Also
    --------
    ChainedScheduler : All at once, multiplied.

    Examples
    --------
    A warm-up of 2,000 steps, then a cosine over 18,000:

    >>> import numpy as np
    >>> from minirnn.lr_combined import SequentialLR
    >>> from minirnn.lr_scheduler import CosineAnnealingLR, LinearLR
    >>> from minirnn.parameter import Parameter
    >>> from minirnn.optim import Adam
    >>> optimizer = Adam([Parameter(np.zeros(1))], lr=0.005)
    >>> warmup = LinearLR(optimizer, 1 / 2000, total_iters=2000)
    >>> cosine = CosineAnnealingLR(optimizer, 18000)
    >>> schedule = SequentialLR(optimizer, [warmup, cosine], [2000])
    >>> [round(schedule.rate(0.005, step, 0), 9) for step in (0, 1000, 2000, 11000, 20000)]
    [2.5e-06, 0.00250125, 0.005, 0.0025, 0.0]
    """

    _settings = ("milestones", "schedulers")

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        self._take(schedulers)
        for k, scheduler in enumerate(self.schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(
                    f"schedulers[{k}]: expected a schedule by the step, got {type(scheduler).__name__}"
                )
            if scheduler.optimizer is not optimizer:
                raise ValueError(
                    f"schedulers[{k}]: expected a schedule of this optimizer, got one of another"
                )
        self._set(milestones, [scheduler._get_settings() for scheduler in self.schedulers])
        super().__init__(optimizer, last_epoch)

    def _set(self, milestones: Sequence[int], schedulers: Sequence[Any]) -> None:
        milestones, count = steps_in("milestones", milestones), len(self.schedulers)
        if len(milestones) != count - 1 or milestones != sorted(milestones):
            raise ValueError(
                f"milestones: expected {count - 1} ascending steps, one fewer than schedulers, got "
                f"{checks.got(milestones)}"
            )
        self._set_schedulers(schedulers)
        self.milestones = milestones

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return the rate of the schedule whose turn it is."""
        k = bisect_right(self.milestones, step)
        start = self.milestones[k - 1] if k else 0
        return self.schedulers[k].rate(base_lr, step - start, group)


class ChainedScheduler(Combined):
    r"""Several schedules at once, their factors multiplied: :math:`\eta \prod_k \eta_k(t) / \eta`.

    The schedules are asked for their rates, and themselves not stepped.

    Parameters
    ----------
    schedulers : list of LRScheduler
        Of one optimiser, and not stepped yet.
    optimizer : Optimizer, optional
        That one.

    Raises
    ------
    TypeError
        If one of them is no schedule.
    ValueError
        If there is none, one is of another optimiser, has been stepped, or is no function of the step, as
        :class:`ReduceLROnPlateau`.

    See Also
    --------
    SequentialLR : One schedule after the other.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ChainedScheduler.html

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> optimizer = minirnn.SGD([minirnn.Parameter(np.zeros(1))], lr=0.5)
    >>> warmup = minirnn.ConstantLR(optimizer, factor=0.1, total_iters=2)
    >>> schedule = ChainedScheduler([warmup, minirnn.ExponentialLR(optimizer, gamma=0.9)], optimizer)
    >>> for _ in range(3):
    ...     print(round(schedule.get_last_lr()[0], 9))
    ...     optimizer.step()
    ...     schedule.step()
    0.05
    0.045
    0.405
    """

    _settings = ("schedulers",)

    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
    ) -> None:
        self._take(schedulers)
        if optimizer is not None:
            groups_of(optimizer)
        for k, schedule in enumerate(self.schedulers):
            name = type(schedule).__name__
            if not hasattr(schedule, "optimizer"):
                raise TypeError(f"schedulers[{k}]: expected a schedule, got {name}")
            if not isinstance(schedule, LRScheduler):
                raise ValueError(
                    f"schedulers[{k}]: expected a schedule by the step, got {name}, whose step takes a "
                    "metric: step it by itself"
                )
            optimizer = optimizer or schedule.optimizer
            if schedule.optimizer is not optimizer:
                raise ValueError(
                    f"schedulers[{k}]: expected a schedule of this optimizer, got one of another"
                )
            if schedule.last_epoch:
                raise ValueError(
                    f"schedulers[{k}]: expected a schedule at its step 0, got one at {schedule.last_epoch}"
                )
        super().__init__(self.schedulers[0].optimizer)

    def _set(self, schedulers: Sequence[Any]) -> None:
        self._set_schedulers(schedulers)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return `base_lr` times what each schedule makes of it, as a factor."""
        lr = base_lr
        for schedule in self.schedulers:
            lr *= schedule.rate(base_lr, step, group) / base_lr if base_lr else 1
        return lr
