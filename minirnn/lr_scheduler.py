"""Learning-rate schedules: pure functions of the step, written into the optimiser's groups.

torch derives most of its schedules by recurrence from the rate before; here each is the closed form,
which agrees and does not drift.

References
----------
https://docs.pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from .optim import Optimizer


class LRScheduler:
    """Sets the rate of every group to ``rate(base rate, step)``; a subclass says which.

    The first rate is set at once, so that the optimiser's first step already uses it; call
    :meth:`step` after each of the optimiser's.

    Parameters
    ----------
    optimizer : Optimizer

    Attributes
    ----------
    last_epoch : int
        The number of calls of :meth:`step`.
    base_lrs : list of float
        Every group's rate before any schedule touched it.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected an Optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        self.base_lrs = [
            group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups
        ]
        self.last_epoch = 0
        self._apply()

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return the rate of the group with this index at this step."""
        raise NotImplementedError

    def _apply(self) -> None:
        for k, group in enumerate(self.optimizer.param_groups):
            group["lr"] = self.rate(self.base_lrs[k], self.last_epoch, k)

    def step(self) -> None:
        """Go on by one step and set the rates."""
        self.last_epoch += 1
        self._apply()

    def get_last_lr(self) -> list[float]:
        """Return the rates in force, one a group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return where the schedule stands."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.last_epoch = state_dict["last_epoch"]
        self.base_lrs = list(state_dict["base_lrs"])
        self._apply()


class LambdaLR(LRScheduler):
    """``base_lr * lr_lambda(step)``.

    Parameters
    ----------
    optimizer : Optimizer
    lr_lambda : callable, or list of callables, one a group
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
    ) -> None:
        groups = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise ValueError(
                f"lr_lambda: expected {groups}, one a group, got {len(self.lr_lambdas)}"
            )
        super().__init__(optimizer)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return ``base_lr * lr_lambda(step)``."""
        return base_lr * self.lr_lambdas[group](step)


class StepLR(LRScheduler):
    """``base_lr * gamma ** (step // step_size)``.

    Parameters
    ----------
    optimizer : Optimizer
    step_size : int
    gamma : float
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        if step_size < 1:
            raise ValueError(f"step_size: expected a positive integer, got {step_size!r}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return ``base_lr * gamma ** (step // step_size)``."""
        return base_lr * self.gamma ** (step // self.step_size)


class ExponentialLR(StepLR):
    """``base_lr * gamma ** step``.

    Parameters
    ----------
    optimizer : Optimizer
    gamma : float
    """

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        super().__init__(optimizer, 1, gamma)


class LinearLR(LRScheduler):
    """From ``base_lr * start_factor`` in a straight line to ``base_lr * end_factor``: a warm-up.

    Parameters
    ----------
    optimizer : Optimizer
    start_factor, end_factor : float
    total_iters : int
        Steps until the end factor is reached; it stays from then on.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ) -> None:
        if not 0 < start_factor <= 1:
            raise ValueError(f"start_factor: expected a number in (0, 1], got {start_factor!r}")
        if not 0 <= end_factor <= 1:
            raise ValueError(f"end_factor: expected a number in [0, 1], got {end_factor!r}")
        if total_iters < 1:
            raise ValueError(f"total_iters: expected a positive integer, got {total_iters!r}")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return the rate on the line."""
        done = min(step, self.total_iters) / self.total_iters
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * done)


class CosineAnnealingLR(LRScheduler):
    r""":math:`\eta_{min} + (\eta - \eta_{min}) (1 + \cos(\pi t / T_{max})) / 2`.

    Beyond `T_max` the rate rises again, with period ``2 * T_max``, as in torch.

    Parameters
    ----------
    optimizer : Optimizer
    T_max : int
        Steps from the highest rate to the lowest.
    eta_min : float
        The lowest rate.

    References
    ----------
    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        if T_max < 1:
            raise ValueError(f"T_max: expected a positive integer, got {T_max!r}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return the rate on the cosine."""
        wave = (1 + math.cos(math.pi * step / self.T_max)) / 2
        return self.eta_min + (base_lr - self.eta_min) * wave


class SequentialLR(LRScheduler):
    """One schedule after another, each starting from its own step 0 at its milestone.

    Parameters
    ----------
    optimizer : Optimizer
    schedulers : list of LRScheduler
        All of this optimiser.
    milestones : list of int
        The steps at which the second, third, ... schedule takes over; ascending.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]
    ) -> None:
        if len(milestones) != len(schedulers) - 1 or list(milestones) != sorted(milestones):
            raise ValueError(
                f"milestones: expected {len(schedulers) - 1} ascending steps, one fewer than "
                f"schedulers, got {list(milestones)}"
            )
        for k, scheduler in enumerate(schedulers):
            if scheduler.optimizer is not optimizer:
                raise ValueError(f"schedulers[{k}]: expected a schedule of this optimizer")
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        super().__init__(optimizer)

    def rate(self, base_lr: float, step: int, group: int) -> float:
        """Return the rate of the schedule in force."""
        k = bisect_right(self.milestones, step)
        start = self.milestones[k - 1] if k else 0
        return self.schedulers[k].rate(base_lr, step - start, group)


class ReduceLROnPlateau:
    """Lower the rate when a metric has stopped improving.

    Parameters
    ----------
    optimizer : Optimizer
    mode : {"min", "max"}
        Whether a smaller or a larger metric is better.
    factor : float
        What the rate is multiplied by.
    patience : int
        How many steps without improvement are let pass.
    threshold : float
        How much counts as improvement.
    threshold_mode : {"rel", "abs"}
        Whether `threshold` is a fraction of the best metric or an amount.
    cooldown : int
        Steps after a reduction in which nothing is counted.
    min_lr : float or list of float, one a group
    eps : float
        A reduction by no more than this is not made.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode: expected 'min' or 'max', got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold_mode: expected 'rel' or 'abs', got {threshold_mode!r}")
        if not factor < 1:
            raise ValueError(f"factor: expected a number below 1, got {factor!r}")
        groups = len(optimizer.param_groups)
        self.min_lrs = [min_lr] * groups if isinstance(min_lr, int | float) else list(min_lr)
        if len(self.min_lrs) != groups:
            raise ValueError(f"min_lr: expected {groups}, one a group, got {len(self.min_lrs)}")
        self.optimizer = optimizer
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.eps = cooldown, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self.last_epoch = 0

    def _improves(self, metric: float) -> bool:
        sign = -1 if self.mode == "min" else 1
        if self.threshold_mode == "abs":
            return sign * metric > sign * self.best + self.threshold
        return sign * metric > sign * self.best * (1 + sign * self.threshold)

    def step(self, metrics: float) -> None:
        """Take note of the metric, and lower the rates if it has been bad for too long."""
        metric = float(metrics)
        self.last_epoch += 1
        if self._improves(metric):
            self.best = metric
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, min_lr in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                lowered = max(group["lr"] * self.factor, min_lr)
                if group["lr"] - lowered > self.eps:
                    group["lr"] = lowered
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0

    def get_last_lr(self) -> list[float]:
        """Return the rates in force, one a group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the best metric, the counters and the settings."""
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        vars(self).update(state_dict)
