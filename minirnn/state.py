"""The state of a recurrence as its users see it: an array h, or for the LSTM a pair (h, c)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .backend import Array


def unpack_state(name: str, state: Any, count: int) -> list[tuple[str, Array | None]]:
    """Return the `count` arrays that make up `state`, each with its name for messages.

    Parameters
    ----------
    name : str
        The argument's name.
    state : array, or a pair of arrays if `count` is 2; or None
    count : {1, 2}

    Raises
    ------
    TypeError
        If a pair is expected, and `state` is none.
    """
    if count == 1:
        return [(name, state)]
    if state is None:
        state = (None, None)
    if not isinstance(state, tuple | list) or len(state) != 2:
        raise TypeError(f"{name}: expected a pair of h and c, got {type(state).__name__}")
    h, c = state
    if "h_" in name:
        return [(name, h), (name.replace("h_", "c_"), c)]
    return [(f"{name}[0]", h), (f"{name}[1]", c)]


def pack_state(arrays: Sequence[Array]) -> Any:
    """Return the arrays as the state that they make up."""
    return arrays[0] if len(arrays) == 1 else tuple(arrays)
