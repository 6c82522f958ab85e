"""RMSprop: a step along the gradient, divided by the root of the running mean of its square."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from .backend import Array, get_array_module
from .optimizer import Optimizer, numbers
from .parameter import Parameter


class RMSprop(Optimizer):
    r"""RMSprop, with momentum and centred if asked for, as in torch.

    .. math::
        g &\leftarrow g + \mathrm{weight\_decay} \cdot \theta \\
        v &\leftarrow \alpha v + (1 - \alpha)\, g^2 \\
        d &= \sqrt{v} + \epsilon
            \qquad \text{(centered: } a \leftarrow \alpha a + (1 - \alpha)\, g, \;
            d = \sqrt{v - a^2} + \epsilon) \\
        m &\leftarrow \mu m + g / d, \qquad \theta \leftarrow \theta - \eta m

    Parameters
    ----------
    params : iterable of Parameter, or of dict
        A dict is a group, ``{"params": ..., "lr": ...}``, with settings of its own.
    lr : float
        The rate :math:`\eta`.
    alpha : float
        What the running means keep of the past.
    eps : float
        Keeps the quotient finite.
    weight_decay : float
        The factor of an L2 penalty.
    momentum : float
        The share :math:`\mu` of m that is kept; 0 for none.
    centered : bool
        Divide by the root of the variance, not of the mean square.
    maximize : bool, keyword-only
        Step along the gradient, not against it.

    Raises
    ------
    ValueError
        If a number is out of its range, a parameter comes twice, or there is none.
    TypeError
        If `params` holds something else, or a group mixes dtypes or devices.

    See Also
    --------
    Adam : With a mean of the gradients too.

    References
    ----------
    A. Graves, "Generating sequences with recurrent neural networks", arXiv:1308.0850 (2013);
    https://docs.pytorch.org/docs/stable/generated/torch.optim.RMSprop.html

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.parameter import Parameter
    >>> w = Parameter(np.array([1.0, 2.0]))
    >>> w.grad = [1e-3, -1e3]
    >>> RMSprop([w], lr=0.1).step()  # the first step goes by the sign: 1 / sqrt(1 - alpha) = 10
    >>> w.data.round(3)
    array([0., 3.])
    """

    _slots = ("square_avg", "grad_avg", "momentum_buffer")
    _scratch = 2
    _ranges: ClassVar[Mapping[str, str]] = {
        **Optimizer._ranges,
        "alpha": "[0, 1]",
        "eps": "[0, inf)",
        "momentum": "[0, inf)",
    }
    _switches = (*Optimizer._switches, "centered")

    def __init__(
        self,
        params: Iterable[Parameter | dict[str, Any]],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        own = {"alpha": alpha, "eps": eps, "momentum": momentum, "centered": centered}
        super().__init__(params, lr=lr, weight_decay=weight_decay, maximize=maximize, **own)

    def needed_under(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return what the formula reads under these settings."""
        used = True, settings["centered"], settings["momentum"]
        return tuple(name for name, needed in zip(self._slots, used, strict=True) if needed)

    def _update(
        self, group: dict[str, Any], data: Array, grad: Array, state: Sequence[Array], t: int
    ) -> None:
        xp, (v, a, m, spare, _) = get_array_module(data), state
        lr, alpha, eps, mu = numbers(group, "lr", "alpha", "eps", "momentum")
        root = _running_root(xp, grad, (v, a if group["centered"] else None, spare), alpha)
        root += eps
        step = xp.divide(grad, root, spare)
        if mu:
            m *= mu
            m += step
            step = xp.multiply(m, lr, spare)
        else:
            step *= lr
        data -= step


def _running_root(
    xp: Any, g: Array, state: tuple[Array, Array | None, Array], alpha: float
) -> Array:
    """Return the root of v, after it has taken in g; with the mean a, that of the variance."""
    v, a, spare = state
    if a is not None:
        a *= alpha  # first, so that at no moment is the mean's square above the mean square
    v *= alpha
    # (1 - alpha) g^2 by its root, which is squared last: so it overflows for larger gradients only.
    xp.multiply(g, (1 - alpha) ** 0.5, spare)
    spare *= spare
    v += spare
    if a is None:
        return xp.sqrt(v, spare)
    a += xp.multiply(g, 1 - alpha, spare)
    xp.multiply(a, a, spare)
    xp.subtract(v, spare, spare)
    xp.maximum(spare, 0, out=spare)  # of a steady gradient rounding may leave less than nothing
    return xp.sqrt(spare, spare)
