"""The recurrences on the GPU: CUDA kernels, and what launches them.

:mod:`.rnn`, :mod:`.lstm` and :mod:`.gru` are pairs like those of :mod:`minirnn.functional`, for arrays of
CuPy's; the equations stand there. Around the loop over time they are the same few matrix products. The
loop itself is

- for float32 and sizes that fit, one launch of a *persistent kernel*, which runs all steps of a packed
  batch, in both directions if there are two, with the recurrent matrix in registers;
- for all others, float64 among them, one product and one fused elementwise kernel a step and direction
  (``steps.cu``). Other dtypes are refused: a kernel takes an address for what it expects there.

So these pairs have two functions more: ``forward_together`` and ``backward_together`` take a list with the
arguments of each direction. The reverse one is a pass like the other, over rows that were reversed
beforehand, as on the CPU. Nothing here is imported before an array on the GPU asks.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from ..backend import Array


def pair_for(recurrence: Any, x: Array) -> Any:
    """Return the pair that computes `recurrence` where the array `x` lies.

    Parameters
    ----------
    recurrence : module or object
        A pair of :mod:`minirnn.functional`, or of a user's own making.
    x : array

    Returns
    -------
    module or object
        On the host `recurrence`; on the GPU its counterpart in this package, with the same ``forward``,
        ``backward``, ``step`` and ``gates``. A pair that has none runs there as it is,
        through CuPy.
    """
    if isinstance(x, np.ndarray):
        return recurrence
    package, _, name = getattr(recurrence, "__name__", "").rpartition(".")
    return import_module(f"{__name__}.{name}") if package == "minirnn.functional" else recurrence
