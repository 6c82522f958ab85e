"""A learning rate that follows what was measured, not the step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import checks
from .backend import is_array
from .lr_scheduler import all_or_nothing, groups_of, one_a_group
from .optimizer import Optimizer


class ReduceLROnPlateau:
    """Lowers the rate when a metric has stopped improving: a function of what was measured.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates it sets.
    mode : {"min", "max"}
        Whether a smaller or a larger metric is better.
    factor : float
        What the rate is multiplied by, below 1.
    patience : int
        How many steps in a row without improvement are let pass.
    threshold : float
        How much better than the best counts as improvement.
    threshold_mode : {"rel", "abs"}
        Whether `threshold` is a fraction of the best metric or an amount.
    cooldown : int
        How many steps after a reduction are not counted.
    min_lr : float, or list of one a group
        The rate is not lowered below this.
    eps : float
        A reduction by no more than this is left out.

    Attributes
    ----------
    best : float
        The best metric so far.
    num_bad_epochs, cooldown_counter : int
        Steps without improvement since; steps of the cooldown that are left.

    Raises
    ------
    TypeError
        If `optimizer` is none of this library's.
    ValueError
        If a setting is out of its range.

    See Also
    --------
    StepLR : By the number of steps.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ReduceLROnPlateau.html

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.plateau import ReduceLROnPlateau
    >>> from minirnn.parameter import Parameter
    >>> from minirnn.optim import SGD
    >>> schedule = ReduceLROnPlateau(SGD([Parameter(np.zeros(1))], lr=0.1), patience=1)
    >>> for loss in [3.0, 2.0, 2.0, 2.0]:
    ...     schedule.step(loss)
    >>> [round(lr, 9) for lr in schedule.get_last_lr()]
    [0.01]
    """

    _STATE = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
    _settings = (
        "mode",
        "factor",
        "patience",
        "threshold",
        "threshold_mode",
        "cooldown",
        "min_lrs",
        "eps",
    )

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
        groups_of(optimizer)
        self.optimizer = optimizer
        self._set(mode, factor, patience, threshold, threshold_mode, cooldown, min_lr, eps)
        self.best = self._worst()
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self.last_epoch = 0

    def _set(
        self,
        mode: str,
        factor: float,
        patience: int,
        threshold: float,
        threshold_mode: str,
        cooldown: int,
        min_lrs: float | Sequence[float],
        eps: float,
    ) -> None:
        checks.choice("mode", mode, ("min", "max"))
        checks.choice("threshold_mode", threshold_mode, ("rel", "abs"))
        self.mode, self.threshold_mode = mode, threshold_mode
        self.factor = checks.number("factor", factor, "[0, 1)")
        self.threshold = checks.number("threshold", threshold, "[0, inf)")
        self.eps = checks.number("eps", eps, "[0, inf)")
        self.patience = checks.whole("patience", patience, 0)
        self.cooldown = checks.whole("cooldown", cooldown, 0)
        if isinstance(min_lrs, checks.NUMBER):
            min_lrs = [checks.number("min_lr", min_lrs)] * len(self.optimizer.param_groups)
        lowest = one_a_group("min_lr", min_lrs, self.optimizer)
        self.min_lrs = [checks.number("min_lr", lr, "[0, inf)") for lr in lowest]

    def _worst(self) -> float:
        return math.inf if self.mode == "min" else -math.inf

    def _improves(self, metric: float) -> bool:
        sign = -1 if self.mode == "min" else 1
        margin = self.threshold
        if self.threshold_mode == "rel":
            # Of the amount: a negative best must be beaten as well, not only reached.
            margin *= abs(self.best) if math.isfinite(self.best) else 0
        return sign * metric > sign * self.best + margin

    def step(self, metrics: Any) -> None:
        """Take note of the metric, and lower the rates if it has not improved for too long.

        Parameters
        ----------
        metrics : float or scalar array
            Read at once: a value on a GPU is waited for. NaN is no improvement.

        Raises
        ------
        ValueError
            If `metrics` is no number.
        """
        value = metrics.item() if is_array(metrics) and metrics.size == 1 else metrics
        floating = isinstance(value, float | np.floating)
        metric = float(value) if floating else checks.number("metrics", value)
        with all_or_nothing(self):
            self._take(metric)

    def _take(self, metric: float) -> None:
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
                lowered = max(checks.number("lr", group["lr"], "[0, inf)") * self.factor, min_lr)
                if group["lr"] - lowered > self.eps:
                    group["lr"] = lowered
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0

    def get_last_lr(self) -> list[float]:
        """Return the rates in force, one a group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return what the metrics so far have led to, and the settings; rates are in the optimiser's state.

        Numbers, strings and lists; ``"best"`` is ``None`` before the first metric.
        """
        state = {name: getattr(self, name) for name in self._STATE}
        if math.isinf(self.best):  # which JSON does not know
            state["best"] = None
        return {**state, "settings": {name: getattr(self, name) for name in self._settings}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned, with its settings.

        Raises
        ------
        ValueError
            If entries are missing, or something in it is no number or out of its range; nothing is changed.
        TypeError
            If it is no mapping.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict: expected a mapping, got {type(state_dict).__name__}")
        if missing := [name for name in self._STATE if name not in state_dict]:
            raise ValueError(f"state_dict: expected {list(self._STATE)}, {missing} missing")
        with all_or_nothing(self):
            try:
                self._load(state_dict)
            except (TypeError, ValueError) as error:
                raise ValueError(f"state_dict: {error}") from error

    def _load(self, state_dict: Mapping[str, Any]) -> None:
        settings = state_dict.get("settings")
        if settings is not None:
            if not isinstance(settings, Mapping) or settings.keys() != set(self._settings):
                expected = list(self._settings)
                raise ValueError(f"settings: expected {expected}, got {checks.got(settings)}")
            self._set(**settings)
        best = state_dict["best"]
        self.best = self._worst() if best is None else checks.number("best", best)
        for name in self._STATE[1:]:
            setattr(self, name, checks.whole(name, state_dict[name], 0))
