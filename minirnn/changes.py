"""What was found or made once and is good until a model changes, or how it runs."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Last:
    """The last change to what models own, where its arrays lie, what is frozen of it, and how layers run."""

    stamp = object()


_last = _Last()


def happened() -> None:
    """Say that something has changed: whatever was kept under the stamp before is good no more."""
    _last.stamp = object()


def stamp() -> object:
    """Return what stands for the last change: another object after each."""
    return _last.stamp


class Kept(Generic[T]):
    """A value, and the key for which it is good; a copy of its owner goes without it, as ``None``."""

    __slots__ = ("key", "value")

    def __init__(self, key: Any, value: T) -> None:
        self.key, self.value = key, value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()
