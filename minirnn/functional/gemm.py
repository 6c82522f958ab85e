"""Matrix products of the recurrences, and the one place that knows how to make them fast."""

from __future__ import annotations

from ..backend import Array, get_array_module


def step_product(w_hh: Array, gates: int = 1) -> Array:
    """Return `w_hh`, shape ``(gates * H, P)``, transposed for ``h @ w`` step after step.

    Returns
    -------
    array of shape (P, H) for one gate, (gates, P, H) for several
        Contiguous: the transposition is paid once, not at every step.
    """
    xp = get_array_module(w_hh)
    if gates == 1:
        return xp.ascontiguousarray(w_hh.T)
    return xp.ascontiguousarray(w_hh.reshape(gates, -1, w_hh.shape[1]).transpose(0, 2, 1))


def column_sums(rows: Array) -> Array:
    """Return ``rows.sum(0)`` as a matrix-vector product, 3 to 10 times as fast on the CPU."""
    xp = get_array_module(rows)
    return xp.dot(xp.ones(len(rows), rows.dtype), rows)
