"""Optimisers, from simple to less simple: each is one formula over flat arrays.

:mod:`minirnn.optimizer` has what they share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from . import checks
from .backend import Array, get_array_module
from .functional import adam
from .optimizer import Optimizer, numbers
from .pairs import pair_for
from .parameter import Parameter


class SGD(Optimizer):
    r"""Stochastic gradient descent, with momentum as in torch.

    .. math::
        g &\leftarrow g + \mathrm{weight\_decay} \cdot \theta \\
        m &\leftarrow \mu m + (1 - \mathrm{dampening})\, g
            \qquad \text{(the first step: } m \leftarrow g) \\
        \theta &\leftarrow \theta - \eta m
            \qquad \text{(nesterov: } \theta \leftarrow \theta - \eta (g + \mu m))

    Lectures tend to write :math:`m \leftarrow \lambda m - \eta g, \; \theta \leftarrow \theta + m`.
    Their m is :math:`-\eta` times this one and :math:`\lambda` is :math:`\mu`: the same steps, as long
    as :math:`\eta` stays. When a schedule changes it, the form here applies the new rate to the whole
    sum of past gradients at once; the lectures' keeps in that sum the rates that were in force.

    Parameters
    ----------
    params : iterable of Parameter, or of dict
        A dict is a group, ``{"params": ..., "lr": ...}``, with settings of its own.
    lr : float
        The rate :math:`\eta`.
    momentum : float
        The share :math:`\mu` of m that is kept; 0 for none.
    dampening : float
        Takes the gradient into m with the factor ``1 - dampening``.
    weight_decay : float
        The factor of an L2 penalty.
    nesterov : bool
        Look ahead along m; needs momentum, and no dampening.
    maximize : bool, keyword-only
        Step along the gradient, not against it.

    Raises
    ------
    ValueError
        If a number is negative, a parameter comes twice, or there is none.
    TypeError
        If `params` holds something else, or a group mixes dtypes or devices.

    See Also
    --------
    Adam : Steps that adapt to each parameter.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html;
    I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and momentum in
    deep learning", ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.parameter import Parameter
    >>> from minirnn.optim import SGD
    >>> w = Parameter(np.array([1.0, 2.0]))
    >>> optimizer = SGD([w], lr=0.5, momentum=0.5)
    >>> for _ in range(2):  # steps of 0.5 * 1, then 0.5 * (0.5 * 1 + 1)
    ...     w.grad = [1.0, 0.0]
    ...     optimizer.step()
    >>> w.data
    array([-0.25,  2.  ])
    """

    _slots = ("momentum_buffer",)
    _ranges: ClassVar[Mapping[str, str]] = {
        **Optimizer._ranges,
        "momentum": "[0, inf)",
        "dampening": "[0, inf)",
    }
    _switches = (*Optimizer._switches, "nesterov")

    def __init__(
        self,
        params: Iterable[Parameter | dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        own = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov}
        super().__init__(params, lr=lr, weight_decay=weight_decay, maximize=maximize, **own)

    def needed_under(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return what the formula reads under these settings."""
        return self._slots if settings["momentum"] else ()

    def check(self, settings: dict[str, Any]) -> None:
        """Raise if the settings make no sense."""
        super().check(settings)
        if settings["nesterov"] and (settings["momentum"] == 0 or settings["dampening"] != 0):
            raise ValueError(
                "nesterov: expected a positive momentum and no dampening with it, got momentum="
                f"{settings['momentum']!r}, dampening={settings['dampening']!r}"
            )

    def _update(
        self, group: dict[str, Any], data: Array, grad: Array, state: Sequence[Array], t: int
    ) -> None:
        xp, (m, scratch) = get_array_module(data), state
        lr, mu, damping = numbers(group, "lr", "momentum", "dampening")
        if mu:
            m *= mu
            # From m = 0, undampened, the first step makes m = g.
            m += xp.multiply(grad, 1 - damping, scratch) if damping and t > 1 else grad
        if not mu or group["nesterov"]:
            data -= xp.multiply(grad, lr, scratch)
        if mu:
            data -= xp.multiply(m, lr * mu if group["nesterov"] else lr, scratch)


class Adam(Optimizer):
    r"""Adam: steps along the running mean of the gradient over the root of that of its square.

    .. math::
        g &\leftarrow g + \mathrm{weight\_decay} \cdot \theta \\
        m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
        v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \\
        \theta &\leftarrow \theta - \eta \, \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    `weight_decay` is an L2 penalty here, so it is divided by the root as well; in :class:`AdamW` it is not.
    With `amsgrad` the root is of the largest v so far.

    Parameters
    ----------
    params : iterable of Parameter, or of dict
        A dict is a group, ``{"params": ..., "lr": ...}``, with settings of its own.
    lr : float
        The rate :math:`\eta`.
    betas : (float, float)
        What the two running means keep of the past; not to be changed between steps.
    eps : float
        Keeps the quotient finite.
    weight_decay : float
        The factor of the penalty.
    amsgrad : bool
        Let no rate grow again after a large gradient (Reddi, Kale, Kumar, "On the convergence of Adam and
        beyond", ICLR 2018).
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
    AdamW : Weight decay apart from the gradient.

    References
    ----------
    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015;
    https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.parameter import Parameter
    >>> from minirnn.optim import Adam
    >>> w = Parameter(np.array([1.0, 2.0, 3.0]))
    >>> w.grad = [1e-3, 1.0, -1e3]
    >>> Adam([w], lr=0.1).step()  # the first step goes by the gradient's sign
    >>> w.data.round(3)
    array([0.9, 1.9, 3.1])
    """

    _slots = ("exp_avg", "exp_avg_sq")
    _ranges: ClassVar[Mapping[str, str]] = {**Optimizer._ranges, "eps": "[0, inf)"}
    _switches = (*Optimizer._switches, "amsgrad")
    _implied: ClassVar[Mapping[str, Any]] = {"decoupled_weight_decay": False}

    def __init__(
        self,
        params: Iterable[Parameter | dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        own = {"betas": betas, "eps": eps, "amsgrad": amsgrad}
        super().__init__(params, lr=lr, weight_decay=weight_decay, maximize=maximize, **own)

    def slots_under(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return two running means, and with `amsgrad` the largest of the second."""
        return (*self._slots, "max_exp_avg_sq") if settings["amsgrad"] else self._slots

    def check(self, settings: dict[str, Any]) -> None:
        """Raise if the settings make no sense."""
        super().check(settings)
        betas = settings["betas"]
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ValueError(f"betas: expected two numbers, got {checks.got(betas)}")
        for name, beta in zip(("betas[0]", "betas[1]"), betas, strict=True):
            checks.number(name, beta, "[0, 1)")

    def _update(
        self, group: dict[str, Any], data: Array, grad: Array, state: Sequence[Array], t: int
    ) -> None:
        settings = group["lr"], group["betas"], group["eps"]
        pair_for(adam, data).update(data, grad, state, t, *settings)


class AdamW(Adam):
    r"""Adam with weight decay that shrinks the weights themselves, whatever the gradient.

    .. math::  \theta \leftarrow (1 - \eta \cdot \mathrm{weight\_decay})\, \theta,

    then a step of :class:`Adam` by the gradient alone.

    Parameters
    ----------
    params, lr, betas, eps : iterable, float, pair of floats, float
        As for :class:`Adam`, and with its errors.
    weight_decay : float
        Times `lr`, the share of each weight that is taken off in a step.
    amsgrad, maximize : bool
        As for :class:`Adam`.

    See Also
    --------
    Adam : Weight decay as a part of the gradient.

    References
    ----------
    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019;
    https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.parameter import Parameter
    >>> w = Parameter(np.array([1.0, 2.0]))  # whose gradient is zero
    >>> AdamW([w], lr=0.1, weight_decay=0.5).step()
    >>> w.data
    array([0.95, 1.9 ])
    """

    _implied: ClassVar[Mapping[str, Any]] = {"decoupled_weight_decay": True}

    def __init__(
        self,
        params: Iterable[Parameter | dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)

    def _update(
        self, group: dict[str, Any], data: Array, grad: Array, state: Sequence[Array], t: int
    ) -> None:
        lr, decay = numbers(group, "lr", "weight_decay")
        data *= 1 - lr * decay
        super()._update(group, data, grad, state, t)
