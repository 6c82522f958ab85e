"""The rooms of the package: who may import whom."""

import ast
from pathlib import Path

import pytest

import minirnn

PACKAGE = Path(minirnn.__file__).parent
FILES = sorted(p for p in PACKAGE.rglob("*.py") if "build" not in p.parts)

# From the ground up; a folder is a room. A room imports only from floors below, and within a folder.
FLOORS = [
    ["backend"],
    ["layout", "checks", "places", "atomic"],
    ["functional", "packing", "parameter", "init", "threads"],
    ["bptt", "forms", "module", "outputs", "cuda", "native", "optimizer", "clip"],
    ["layers", "losses", "weights", "lr_scheduler", "sequential", "optim", "rmsprop", "data"],
    ["activations", "lr_schedules", "plateau", "stepper"],
    ["recurrent", "cells", "files"],
    ["truncated", "export", "diagnostics", "parallel"],
    ["__init__", "__main__"],
]
HEIGHT = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# What else is closed to the rooms of the mathematics.
CLOSED = {
    "functional": {"functional", "backend", "layout"},
    "bptt": {"bptt", "backend", "layout", "threads", "functional"},
}


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(path):
    """Return the rooms that a file imports, wherever in it."""
    package = path.relative_to(PACKAGE).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) - node.level + 1]
        inner = [*base, *(node.module or "").split(".")] if node.module else list(base)
        for alias in node.names:
            yield (inner or [alias.name])[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_from_below(path):
    own = room_of(path)
    for other in set(imported_rooms(path)) - {own, "__version__"}:
        assert HEIGHT[other] < HEIGHT[own], f"{own} imports {other}, which is not below it"
        assert other in CLOSED.get(own, {other}), f"{other} is closed to {own}"


def test_every_room_has_its_floor():
    assert {room_of(p) for p in FILES} == set(HEIGHT)
