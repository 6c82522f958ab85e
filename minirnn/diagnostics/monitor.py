"""Gradient norms during training, and which of them left its band first."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from .. import checks
from ..backend import Array, asnumpy, get_array_module, quiet
from ..parameter import Parameter, ParameterBuffer, parameter_list

TOTAL = "total"


class Observation(NamedTuple):
    """The gradient norms at one step.

    Attributes
    ----------
    step : int
    total : float
        The norm of all gradients as one long vector.
    norms : dict from str to float
        That of each parameter's, by the parameter's name.

    See Also
    --------
    GradientMonitor : Makes it.
    """

    step: int
    total: float
    norms: dict[str, float]


class Alarm(NamedTuple):
    """A gradient norm that is outside its healthy band.

    Attributes
    ----------
    step : int
    parameter : str
        The parameter's name, or ``"total"``.
    norm : float
    band : {"vanishing", "warning", "exploding"}

    See Also
    --------
    GradientMonitor : Sounds it.
    """

    step: int
    parameter: str
    norm: float
    band: str


class GradientMonitor:
    """Watch the gradients' norms; call :meth:`observe` between backward and the optimiser's step.

    A norm is *vanishing* below ``vanishing``, *healthy* up to ``warning``, a *warning* up to ``exploding``,
    and *exploding* above it or if it is not finite. Norms are taken in float64, of the gradients where they
    lie: those in a :class:`~minirnn.ParameterBuffer` are not copied.

    Parameters
    ----------
    parameters : iterable of Parameter, or ParameterBuffer
        Those whose gradients are meant.
    every : int, keyword-only
        Look at the steps that are multiples of it only.
    vanishing, warning, exploding : float, keyword-only
        The bands' bounds, ascending.

    Attributes
    ----------
    history : list of Observation
        What was seen, in order.
    first_alarm : Alarm or None
        The first norm outside the healthy band. If several leave it at the same step, the one that is
        farthest out by its ratio to the bound; a parameter rather than the total.

    Raises
    ------
    TypeError, ValueError
        If there are no parameters, two have one name, `every` is no positive integer, or the bounds do not
        ascend.

    See Also
    --------
    plot_gradient_norms : Draws what it saw.

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> from minirnn.diagnostics import GradientMonitor
    >>> layer = minirnn.Linear(2, 1)
    >>> monitor = GradientMonitor(layer.parameters())
    >>> layer.weight.grad, layer.bias.grad = [[3.0, 4.0]], [12.0]
    >>> monitor.observe(1).total
    13.0
    >>> monitor.first_alarm
    Alarm(step=1, parameter='bias', norm=12.0, band='exploding')
    """

    def __init__(
        self,
        parameters: Iterable[Parameter] | ParameterBuffer,
        *,
        every: int = 1,
        vanishing: float = 0.1,
        warning: float = 5.0,
        exploding: float = 10.0,
    ) -> None:
        if isinstance(parameters, ParameterBuffer):
            parameters = parameters.parameters
        self.parameters = parameter_list("parameters", parameters)
        names = [p.name for p in self.parameters]
        if len(set(names)) < len(names):
            raise ValueError(f"parameters: expected every name once, got {names}")
        checks.positive(every=every)
        bounds = {"vanishing": vanishing, "warning": warning, "exploding": exploding}
        for name, bound in bounds.items():
            checks.number(name, bound, "[0, inf]")
        if not vanishing <= warning <= exploding:
            raise ValueError(
                "vanishing, warning, exploding: expected 0 <= vanishing <= warning <= exploding, "
                f"got {vanishing}, {warning}, {exploding}"
            )
        self.every = every
        self.vanishing, self.warning, self.exploding = vanishing, warning, exploding
        self.history: list[Observation] = []
        self.first_alarm: Alarm | None = None

    @quiet
    def observe(self, step: int) -> Observation | None:
        """Look at the gradients as they are; return what was seen, or None if it is not this step's turn.

        Raises
        ------
        TypeError
            If `step` is no integer.
        ValueError
            If it is negative.
        """
        if checks.whole("step", step, 0) % self.every:
            return None
        squares = _squares([p.grad for p in self.parameters])
        norms = [math.sqrt(s) for s in squares]
        by_name = {p.name: norm for p, norm in zip(self.parameters, norms, strict=True)}
        seen = Observation(step, math.sqrt(sum(squares)), by_name)
        self.history.append(seen)
        if self.first_alarm is None:
            self.first_alarm = self._alarm(seen)
        return seen

    def band(self, norm: float) -> str:
        """Return the name of the band that a norm lies in."""
        if not norm <= self.exploding:
            return "exploding"
        if norm > self.warning:
            return "warning"
        return "vanishing" if norm < self.vanishing else "healthy"

    def _alarm(self, seen: Observation) -> Alarm | None:
        for candidates in (seen.norms, {TOTAL: seen.total}):
            out = {name: n for name, n in candidates.items() if self.band(n) != "healthy"}
            if out:
                name = max(out, key=lambda name: self._excess(out[name]))
                return Alarm(seen.step, name, out[name], self.band(out[name]))
        return None

    def _excess(self, norm: float) -> float:
        """Return how far out a norm is: the ratio of it to the bound it has passed, above 1."""
        if not math.isfinite(norm) or norm == 0:
            return math.inf
        return self.vanishing / norm if norm < self.vanishing else norm / self.warning


def _squares(gradients: list[Array]) -> list[float]:
    """Return the sum of each gradient's squares, in float64; a GPU is waited for once."""
    xp: Any = get_array_module(gradients[0])
    flat = [g.ravel() for g in gradients]  # views: gradients are contiguous
    # einsum converts as it goes along, where astype would first write a copy.
    sums = [xp.einsum("i,i->", g, g, dtype=np.float64) for g in flat]
    values: list[float] = (
        asnumpy(xp.stack(sums)).tolist() if xp is not np else list(map(float, sums))
    )
    return values
