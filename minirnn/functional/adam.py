r"""Adam's step, over flat arrays.

.. math::
    m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\
    v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \\
    \theta &\leftarrow \theta - \eta \, \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

With AMSGrad the root is of the largest v so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..backend import Array, get_array_module


def update(
    data: Array,
    grad: Array,
    state: Sequence[Array],
    t: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """Step the weights once, in place.

    Parameters
    ----------
    data, grad : array of shape (n,)
        The gradient may lie in the scratch space; anywhere else it stays as it is.
    state : m, v, with AMSGrad the largest v so far, and scratch space; arrays of shape (n,)
    t : int
        The step, 1 at first.
    lr, betas, eps : float, pair of floats, float
    """
    xp, (m, v, *largest, scratch) = get_array_module(data), state
    # Python's numbers promote no array.
    lr, beta1, beta2, eps = map(float, (lr, *betas, eps))
    m *= beta1
    v *= beta2
    g = xp.multiply(grad, 1 - beta1, scratch)
    m += g
    # (1 - beta2) g^2 by its root, which is squared last: so it overflows for larger gradients only.
    g *= math.sqrt(1 - beta2) / (1 - beta1)
    g *= g
    v += g
    if largest:
        v = xp.maximum(v, largest[0], out=largest[0])
    # Both bias corrections go into two numbers, not into passes over arrays.
    root = math.sqrt(1 - beta2**t)
    denominator = xp.sqrt(v, scratch)
    denominator += eps * root
    step = xp.divide(m, denominator, scratch)
    step *= lr * root / (1 - beta1**t)
    data -= step
