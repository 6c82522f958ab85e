r"""More schedules in closed form; :mod:`minirnn.lr_scheduler` says what they have in common.

References
----------
https://docs.pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from . import checks
from .lr_scheduler import LRScheduler, groups_of, steps_in
from .optimizer import Optimizer


class ConstantLR(LRScheduler):
    r"""A factor for a while: :math:`\eta f` before step n, :math:`\eta` from it on.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates it sets.
    factor : float
        The f, in [0, 1].
    total_iters : int
        The n.
    last_epoch : int
        See :class:`~minirnn.lr_scheduler.LRScheduler`.

    See Also
    --------
    LinearLR : A rate that grows in steps.

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> optimizer = minirnn.SGD([minirnn.Parameter(np.zeros(1))], lr=0.1)
    >>> schedule = minirnn.ConstantLR(optimizer, factor=0.5, total_iters=2)
    >>> [schedule.rate(0.1, step, 0) for step in range(4)]
    [0.05, 0.05, 0.1, 0.1]
    """

    _settings = ("factor", "total_iters")

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self._set(factor, total_iters)
        super().__init__(optimizer, last_epoch)

    def _set(self, factor: float, total_iters: int) -> None:
        checks.positive(total_iters=total_iters)
        self.factor, self.total_iters = checks.number("factor", factor, "[0, 1]"), int(total_iters)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return ``base_lr``, before `total_iters` times `factor`."""
        return base_lr * (self.factor if step < self.total_iters else 1)


class MultiStepLR(LRScheduler):
    r"""A staircase with stairs where one wants them: :math:`\eta \, \gamma^{\#\{s: s \le t\}}`.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates it sets.
    milestones : list of int
        The steps s at which the rate is multiplied.
    gamma : float
        By what.
    last_epoch : int
        See :class:`~minirnn.lr_scheduler.LRScheduler`.

    See Also
    --------
    StepLR : At equal distances.

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> optimizer = minirnn.SGD([minirnn.Parameter(np.zeros(1))], lr=0.1)
    >>> schedule = minirnn.MultiStepLR(optimizer, milestones=[1, 3], gamma=0.5)
    >>> [schedule.rate(0.1, step, 0) for step in range(5)]
    [0.1, 0.05, 0.05, 0.025, 0.025]
    """

    _settings = ("milestones", "gamma")

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self._set(milestones, gamma)
        super().__init__(optimizer, last_epoch)

    def _set(self, milestones: Sequence[int], gamma: float) -> None:
        self.milestones = sorted(steps_in("milestones", milestones))
        self.gamma = checks.number("gamma", gamma, "[0, inf)")

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return ``base_lr * gamma ** (number of milestones reached)``."""
        reached: int = bisect_right(self.milestones, step)
        return base_lr * self.gamma**reached


class PolynomialLR(LRScheduler):
    r"""Down to zero in n steps along a power: :math:`\eta \, (1 - \min(t, n) / n)^p`.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates it sets.
    total_iters : int
        The n.
    power : float
        The p; 1 is a straight line.
    last_epoch : int
        See :class:`~minirnn.lr_scheduler.LRScheduler`.

    See Also
    --------
    LinearLR : In a straight line.

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> optimizer = minirnn.SGD([minirnn.Parameter(np.zeros(1))], lr=0.1)
    >>> schedule = minirnn.PolynomialLR(optimizer, total_iters=4, power=2)
    >>> [round(schedule.rate(0.1, step, 0), 4) for step in range(6)]
    [0.1, 0.0563, 0.025, 0.0063, 0.0, 0.0]
    """

    _settings = ("total_iters", "power")

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        self._set(total_iters, power)
        super().__init__(optimizer, last_epoch)

    def _set(self, total_iters: int, power: float) -> None:
        checks.positive(total_iters=total_iters)
        self.total_iters, self.power = int(total_iters), checks.number("power", power, "[0, inf)")

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return the rate on the power's curve."""
        left: float = 1 - min(step, self.total_iters) / self.total_iters
        return base_lr * float(left**self.power)


class CosineAnnealingWarmRestarts(LRScheduler):
    r"""Half waves of the cosine, each from the base rate down to `eta_min`, then up at once.

    .. math::  \eta_{min} + (\eta - \eta_{min}) \, \frac{1 + \cos(\pi T_{cur} / T_i)}{2}

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates it sets.
    T_0 : int
        The length :math:`T_i` of the first wave, in steps.
    T_mult : int
        By how much each is longer than the one before.
    eta_min : float
        The lowest rate.
    last_epoch : int
        See :class:`~minirnn.lr_scheduler.LRScheduler`.

    See Also
    --------
    CosineAnnealingLR : Once.

    References
    ----------
    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> optimizer = minirnn.SGD([minirnn.Parameter(np.zeros(1))], lr=0.1)
    >>> schedule = minirnn.CosineAnnealingWarmRestarts(optimizer, T_0=2, T_mult=2)
    >>> [round(schedule.rate(0.1, step, 0), 3) for step in range(7)]
    [0.1, 0.05, 0.1, 0.085, 0.05, 0.015, 0.1]
    """

    _settings = ("T_0", "T_mult", "eta_min")

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        self._set(T_0, T_mult, eta_min)
        super().__init__(optimizer, last_epoch)

    def _set(self, T_0: int, T_mult: int, eta_min: float) -> None:
        checks.positive(T_0=T_0, T_mult=T_mult)
        self.T_0, self.T_mult = int(T_0), int(T_mult)
        self.eta_min = checks.number("eta_min", eta_min, "[0, inf)")

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return the rate on the wave that `step` lies in."""
        T_i, T_cur = self.T_0, step
        if self.T_mult == 1:
            T_cur = step % T_i
        while T_cur >= T_i:
            T_cur, T_i = T_cur - T_i, T_i * self.T_mult
        wave = (1 + math.cos(math.pi * T_cur / T_i)) / 2
        return self.eta_min + (base_lr - self.eta_min) * wave


class OneCycleLR(LRScheduler):
    r"""One cycle: from a low rate up to `max_lr`, then down to almost nothing.

    From :math:`\eta_{max} / \mathrm{div\_factor}` the rate rises to :math:`\eta_{max}` in the share
    `pct_start` of the steps, and falls to the first one over `final_div_factor` in the others; with three
    phases it first falls as slowly as it rose. Between a and b it follows :math:`b + (a - b)(1 + \cos \pi
    s) / 2`, s from 0 to 1, or a straight line. The momentum, of Adam the first of `betas`, goes the other
    way: down from `max_momentum` to `base_momentum` while the rate rises, and up again.

    ``step`` may be called `total_steps` times, once after each batch. What the last call sets is used by no
    batch: of the cosine what it is one step beyond its end, of the straight line what it ends with.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates it sets.
    max_lr : float
        The highest rate, of every group.
    total_steps : int, optional
        The number of steps of the cycle; if not given, ``epochs * steps_per_epoch``.
    epochs, steps_per_epoch : int, optional
        How many epochs the cycle has, of how many steps.
    pct_start : float
        The share of the steps in which the rate rises.
    anneal_strategy : {"cos", "linear"}
    cycle_momentum : bool
        Whether momentum takes part.
    base_momentum, max_momentum : float
        Its lowest and highest value.
    div_factor, final_div_factor : float
        The highest rate by the first, and the first by the last.
    three_phase : bool
        Whether the way down is as long as the way up, and the rest a phase of its own.
    last_epoch : int
        See :class:`~minirnn.lr_scheduler.LRScheduler`.

    Raises
    ------
    ValueError
        If a setting is out of its range, or the optimiser has no momentum to cycle; by ``step``, at the call
        after `total_steps` of them.

    See Also
    --------
    CosineAnnealingLR : Only the way down.

    References
    ----------
    L. Smith, N. Topin, "Super-convergence: very fast training of neural networks using large learning
    rates", arXiv:1708.07120 (2017)

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> optimizer = minirnn.Adam([minirnn.Parameter(np.zeros(1))])
    >>> schedule = minirnn.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    >>> [round(schedule.rate(0.1, step, 0), 4) for step in (0, 2, 9)]
    [0.004, 0.1, 0.0]
    >>> [round(schedule.momentum(step), 3) for step in (0, 2, 9)]
    [0.95, 0.85, 0.95]
    """

    _settings = (
        "max_lr",
        "total_steps",
        "pct_start",
        "anneal_strategy",
        "cycle_momentum",
        "base_momentum",
        "max_momentum",
        "div_factor",
        "final_div_factor",
        "three_phase",
    )

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None and not epochs is steps_per_epoch is None:
            checks.positive(epochs=epochs, steps_per_epoch=steps_per_epoch)
            total_steps = int(epochs or 0) * int(steps_per_epoch or 0)
        self._set(
            max_lr,
            total_steps,
            pct_start,
            anneal_strategy,
            cycle_momentum,
            base_momentum,
            max_momentum,
            div_factor,
            final_div_factor,
            three_phase,
        )
        for k, group in enumerate(groups_of(optimizer)):
            if self.cycle_momentum and not {"momentum", "betas"} & group.keys():
                raise ValueError(
                    f"cycle_momentum: expected False for group {k}, which has neither momentum nor betas"
                )
        super().__init__(optimizer, last_epoch)

    def _set(
        self,
        max_lr: float,
        total_steps: int | None,
        pct_start: float,
        anneal_strategy: str,
        cycle_momentum: bool,
        base_momentum: float,
        max_momentum: float,
        div_factor: float,
        final_div_factor: float,
        three_phase: bool,
    ) -> None:
        checks.positive(total_steps=total_steps)
        checks.choice("anneal_strategy", anneal_strategy, ("cos", "linear"))
        checks.flags(cycle_momentum=cycle_momentum, three_phase=three_phase)
        self.max_lr = checks.number("max_lr", max_lr, "[0, inf)")
        self.total_steps = int(total_steps or 0)
        self.pct_start = checks.number("pct_start", pct_start, "[0, 1]")
        self.base_momentum = checks.number("base_momentum", base_momentum, "[0, 1)")
        self.max_momentum = checks.number("max_momentum", max_momentum, "[0, 1)")
        self.div_factor = checks.number("div_factor", div_factor, "(0, inf)")
        self.final_div_factor = checks.number("final_div_factor", final_div_factor, "(0, inf)")
        self.anneal_strategy, self.three_phase = anneal_strategy, bool(three_phase)
        self.cycle_momentum = bool(cycle_momentum)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return the rate in `step`'s phase; the cycle has a rate of its own, whatever `base_lr`."""
        high, low = self.max_lr, self.max_lr / self.div_factor
        last = low / self.final_div_factor
        return self._between(step, [low, high, *[low] * self.three_phase, last])

    def momentum(self, step: int) -> float:
        """Return the momentum in `step`'s phase."""
        high, low = self.max_momentum, self.base_momentum
        return self._between(step, [high, low, *[high] * self.three_phase, high])

    def _between(self, step: int, turns: list[float]) -> float:
        """Return the value at `step` of what goes from one of the `turns` to the next, a phase each."""
        last, rise = self.total_steps - 1.0, self.pct_start * self.total_steps - 1
        if step > self.total_steps:
            raise ValueError(
                f"step: expected at most {self.total_steps}, the total_steps of the cycle, got {step}; make "
                "the schedule with a larger total_steps, or take no more steps of it"
            )
        ends = [rise, 2 * rise, last] if self.three_phase else [rise, last]
        k, first = 0, 0.0
        while step > ends[k] and k + 1 < len(ends):
            k, first = k + 1, ends[k]
        share = (
            (step - first) / (ends[k] - first) if ends[k] > first else 1.0
        )  # no step: it is over
        a, b = turns[k : k + 2]
        if self.anneal_strategy == "linear":
            # The call after the last batch is one beyond the end, where a line would fall below zero.
            return a + (b - a) * min(share, 1.0)
        return b + (a - b) * (1 + math.cos(math.pi * share)) / 2

    def _write(self, rates: list[float]) -> None:
        super()._write(rates)
        self._write_momentum()

    def _write_momentum(self) -> None:
        for group in self.optimizer.param_groups if self.cycle_momentum else ():
            momentum = self.momentum(self.last_epoch)
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum

    def _load(self, state_dict: Mapping[str, Any]) -> None:
        super()._load(state_dict)
        self._write_momentum()
