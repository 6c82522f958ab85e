"""Optimisers, from simple to less simple. Each is one formula over flat arrays.

A step runs over pieces of the parameters: one piece if they all lie in one
:class:`~minirnn.module.ParameterBuffer`, else one for each parameter. The optimiser's own state is flat
either way, so parameters may be moved into a buffer at any time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from .backend import Array, get_array_module
from .module import Parameter, shared_buffer


class Optimizer:
    """What all optimisers share: parameter groups, state and their checks.

    Attributes
    ----------
    param_groups : list of dict
        ``"params"`` and the hyperparameters of each group; schedulers set ``"lr"`` here.
    """

    # How many state arrays of the parameters' size a formula keeps.
    _slots = 0

    def __init__(
        self, params: Iterable[Parameter] | Iterable[dict[str, Any]], **defaults: Any
    ) -> None:
        given: list[Any] = list(params)
        if not given:
            raise ValueError("params: expected at least one parameter, got none")
        groups = given if isinstance(given[0], dict) else [{"params": given}]
        self.param_groups: list[dict[str, Any]] = []
        seen: set[int] = set()
        for group in groups:
            group = {**defaults, **group, "params": list(group["params"])}
            for p in group["params"]:
                if not isinstance(p, Parameter):
                    raise TypeError(f"params: expected Parameters, got {type(p).__name__}")
                if id(p) in seen:
                    raise ValueError(f"params: {p.name} is given twice")
                seen.add(id(p))
            if not group["params"]:
                raise ValueError("params: expected at least one parameter in every group")
            if unknown := group.keys() - defaults.keys() - {"params"}:
                raise ValueError(f"params: a group has unknown settings {sorted(unknown)}")
            self._check(group)
            self.param_groups.append(group)
        self._steps = 0
        self._state: list[Array] = []

    def _check(self, group: dict[str, Any]) -> None:
        for name in ("lr", "weight_decay", "eps"):
            if name in group and not group[name] >= 0:
                raise ValueError(f"{name}: expected a number >= 0, got {group[name]!r}")

    def _pieces(self, g: int) -> Iterator[tuple[Array, Array, Array]]:
        """Iterate over flat ``(data, grad, (slots + 1, size) state and scratch)`` of group `g`."""
        params: list[Parameter] = self.param_groups[g]["params"]
        if len(self._state) <= g:
            size = sum(p.size for p in params)
            xp = get_array_module(params[0].data)
            self._state.append(xp.zeros((self._slots + 1, size), params[0].dtype))
        state = self._state[g]
        buffer = shared_buffer(params)
        if buffer is not None:
            yield buffer.data, buffer.grad, state
            return
        start = 0
        for p in params:
            stop = start + p.size
            yield p.data.reshape(-1), p.grad.reshape(-1), state[:, start:stop]
            start = stop

    def step(self) -> None:
        """Change the parameters, once, by their gradients."""
        self._steps += 1
        for g, group in enumerate(self.param_groups):
            for data, grad, state in self._pieces(g):
                self._update(group, data, grad, state)

    def _update(self, group: dict[str, Any], data: Array, grad: Array, state: Array) -> None:
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to zero."""
        for group in self.param_groups:
            buffer = shared_buffer(group["params"])
            if buffer is not None:
                buffer.grad[...] = 0
                continue
            for p in group["params"]:
                p.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the step count, a copy of the state and every group's hyperparameters."""
        return {
            "steps": self._steps,
            "state": [s.copy() for s in self._state],
            "groups": [
                {name: value for name, value in group.items() if name != "params"}
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned, bit for bit.

        Raises
        ------
        ValueError
            If it comes from an optimiser of other groups or sizes; this one is unchanged.
        """
        groups, state = state_dict["groups"], state_dict["state"]
        if len(groups) != len(self.param_groups) or len(state) not in (0, len(groups)):
            raise ValueError(
                f"state_dict: expected {len(self.param_groups)} groups, got {len(groups)}"
            )
        for group, s in zip(self.param_groups, state, strict=False):
            shape = (self._slots + 1, sum(p.size for p in group["params"]))
            if s.shape != shape:
                raise ValueError(f"state_dict: expected state of shape {shape}, got {s.shape}")
        for group, settings in zip(self.param_groups, groups, strict=True):
            group.update(settings)
        self._steps = state_dict["steps"]
        self._state = [s.copy() for s in state]


class SGD(Optimizer):
    r"""Stochastic gradient descent, with momentum as in torch.

    .. math::
        g &\leftarrow g + \mathrm{weight\_decay} \cdot \theta \\
        m &\leftarrow \mu m + (1 - \mathrm{dampening})\, g \qquad (m = g \text{ at the first step}) \\
        \theta &\leftarrow \theta - \eta m \qquad (\text{nesterov: } \theta - \eta (g + \mu m))

    The form of many lectures, :math:`m \leftarrow \lambda m - \eta g, \; \theta \leftarrow \theta + m`,
    keeps :math:`-\eta m` instead of :math:`m`. The two agree as long as :math:`\eta` does not change; when it
    does, torch's form applies the new rate to all of the past gradients at once, the lectures'
    only to those to come.

    Parameters
    ----------
    params : iterable of Parameter, or of dict with ``"params"`` and settings of its own
    lr, momentum, dampening, weight_decay : float
    nesterov : bool

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html;
    I. Sutskever et al., "On the importance of initialization and momentum in deep learning",
    ICML 2013.
    """

    _slots = 1

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
        )

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if not group["momentum"] >= 0:
            raise ValueError(f"momentum: expected a number >= 0, got {group['momentum']!r}")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("nesterov: expected a positive momentum and zero dampening with it")

    def _update(self, group: dict[str, Any], data: Array, grad: Array, state: Array) -> None:
        xp = get_array_module(data)
        m, scratch = state
        lr, momentum = group["lr"], group["momentum"]
        g = grad
        if group["weight_decay"]:
            g = grad + group["weight_decay"] * data
        step = g
        if momentum:
            if self._steps == 1:
                m[...] = g
            else:
                m *= momentum
                m += xp.multiply(g, 1 - group["dampening"], scratch)
            step = g + momentum * m if group["nesterov"] else m
        data -= xp.multiply(step, lr, scratch)


class Adam(Optimizer):
    r"""Adam: steps of the gradient's running mean over the root of its running square.

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        \theta &\leftarrow \theta - \eta \frac{m / (1 - \beta_1^t)}
                                            {\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    `weight_decay` is added to the gradient, as an L2 penalty; :class:`AdamW` takes it off the weights.

    Parameters
    ----------
    params : iterable of Parameter, or of dict with ``"params"`` and settings of its own
    lr : float
    betas : (float, float)
    eps, weight_decay : float

    References
    ----------
    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015;
    https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html
    """

    _slots = 2
    _decoupled = False

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay)

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        for k, beta in enumerate(group["betas"]):
            if not 0 <= beta < 1:
                raise ValueError(f"betas[{k}]: expected a number in [0, 1), got {beta!r}")

    def _update(self, group: dict[str, Any], data: Array, grad: Array, state: Array) -> None:
        xp = get_array_module(data)
        m, v, scratch = state
        lr, (beta1, beta2), decay = group["lr"], group["betas"], group["weight_decay"]
        g = grad
        if decay and self._decoupled:
            data *= 1 - lr * decay
        elif decay:
            g = grad + decay * data
        m *= beta1
        m += xp.multiply(g, 1 - beta1, scratch)
        v *= beta2
        xp.multiply(g, g, scratch)
        scratch *= 1 - beta2
        v += scratch
        # Both bias corrections as factors of the scalars: m / (sqrt(v) + eps') with
        # eps' = eps * correction, so the arrays are not touched for them.
        correction = math.sqrt(1 - beta2**self._steps)
        xp.sqrt(v, scratch)
        scratch += group["eps"] * correction
        xp.divide(m, scratch, scratch)
        scratch *= lr * correction / (1 - beta1**self._steps)
        data -= scratch


class AdamW(Adam):
    r"""Adam with weight decay that shrinks the weights themselves.

    .. math::  \theta \leftarrow (1 - \eta\,\mathrm{weight\_decay})\,\theta, \quad\text{then as } Adam

    Parameters
    ----------
    params, lr, betas, eps
        As for :class:`Adam`.
    weight_decay : float

    References
    ----------
    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019;
    https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html
    """

    _decoupled = True

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
