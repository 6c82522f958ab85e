"""Matrix products of the recurrences, and the one place that knows how to make them fast."""

from __future__ import annotations

from ..backend import Array, get_array_module


def column_sums(rows: Array) -> Array:
    """Return ``rows.sum(0)`` as a matrix-vector product, 3 to 10 times as fast on the CPU."""
    xp = get_array_module(rows)
    return xp.dot(xp.ones(len(rows), rows.dtype), rows)


def add_bias_gradient(dbs: list[Array | None], dz: Array) -> None:
    """Add ``dz.sum(0)`` to each of the biases' gradients, if there are biases."""
    if dbs[0] is not None:
        db = column_sums(dz)
        for total in dbs:
            total += db
