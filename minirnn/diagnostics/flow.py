"""How much of the loss arrives at each step."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import checks
from ..backend import Array, asnumpy, quiet
from ..bptt.traces import Trace
from ..packed_sequence import PackedSequence


@quiet
def gradient_flow(trace: Trace, *, batch_first: bool = False) -> Array:
    r"""Return :math:`\lVert dL/dh_t \rVert` for each layer and step, over batch and features.

    In float64, since the square of what has vanished underflows in float32. Of a packed batch, only steps
    that are there count.

    Parameters
    ----------
    trace : Trace
        What ``layer.backward(..., trace=True)`` returned; one of ``forward`` gives the norms of the states.
    batch_first : bool, keyword-only
        Whether the layer is; packed and unbatched traces need no telling.

    Returns
    -------
    array of float64 on the host, shape (num_layers, T)
        Directions count together.

    Raises
    ------
    TypeError
        If `trace` is no Trace.

    See Also
    --------
    plot_gradient_flow, plot_gradient_curves : Draw it.

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> from minirnn.diagnostics import gradient_flow
    >>> rnn = minirnn.RNN(4, 8, num_layers=2, rng=0)
    >>> (_, h_n), ctx = rnn.forward(np.ones((20, 3, 4), np.float32))
    >>> _, _, trace = rnn.backward(ctx, None, np.ones_like(h_n), trace=True)
    >>> flow = gradient_flow(trace)
    >>> flow.shape, bool(flow[1, 0] < 1e-4 * flow[1, -1])
    ((2, 20), True)
    """
    if not isinstance(trace, Trace):
        raise TypeError(
            f"trace: expected what backward(..., trace=True) returns last, got {type(trace).__name__}"
        )
    checks.flags(batch_first=batch_first)
    return np.stack([_norms(h, batch_first) for h in trace.h])


def _norms(h: Any, batch_first: bool) -> Array:
    if isinstance(h, PackedSequence):
        squares = (asnumpy(h.data).astype(np.float64) ** 2).sum(1)
        return np.sqrt([squares[rows].sum() for rows in map(slice, *_bounds(h))])
    wide = asnumpy(h).astype(np.float64)
    if wide.ndim == 2:
        return np.sqrt((wide**2).sum(1))
    return np.sqrt((wide**2).sum((0, 2) if batch_first else (1, 2)))


def _bounds(packed: PackedSequence) -> tuple[list[int], list[int]]:
    starts = packed.layout.starts
    return starts, [*starts[1:], packed.layout.rows]
