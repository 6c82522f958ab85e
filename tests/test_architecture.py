"""The rooms of the package: who may import whom, and how large they may grow."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import minirnn

PACKAGE = Path(minirnn.__file__).parent
FILES = sorted(p for p in PACKAGE.rglob("*.py") if "build" not in p.parts)

# From the ground up; a folder is a room. A room imports only from floors below, and within a folder.
FLOORS = [
    ["backend", "changes"],
    ["layout", "checks", "pairs", "atomic", "torch_hints"],
    [
        "functional",
        "packed_sequence",
        "parameter",
        "init",
        "threads",
        "archive",
        "torch_state",
        "optimizer_state",
    ],
    ["bptt", "forms", "packing", "state", "outputs", "cuda", "native", "optimizer", "clip"],
    ["module", "optim", "rmsprop", "lr_scheduler"],
    ["layers", "losses", "weights", "sequential", "data"],
    ["activations", "lr_schedules", "lr_combined", "plateau", "streaming"],
    ["recurrent", "cells", "weight_files", "resume"],
    ["normalized", "truncated", "export", "diagnostics", "parallel", "trackers"],
    ["fit"],
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


def test_the_page_shows_the_floors():
    page = Path(__file__).parent.parent / "docs" / "architecture.md"
    shown = page.read_text(encoding="utf-8").split("```text\n")[1].split("```")[0]
    found = []
    for line in shown.splitlines()[::-1]:
        words = [word.rstrip("/") for word in line.split("   ")[0].split()]
        found.append(sorted(words))
    assert found == [sorted(floor) for floor in FLOORS[:-1]]


# What a reader takes in at once, in lines; of a function those of code, without docstring and comments.
FILE, CLASS, FUNCTION = 550, 260, 30
# The loop over time of a recurrence is read beside its equations, from the first line to the last.
GATED = {
    f"functional/{cell}.py:{name}"
    for cell in ("rnn", "lstm", "gru", "gru_before")
    for name in ("forward", "backward")
}


def lines_of_code(function, source):
    """Count the lines of a function's body that hold code."""
    body = function.body[ast.get_docstring(function, clean=False) is not None :]
    if not body:
        return 0
    lines = source.splitlines()[body[0].lineno - 1 : function.end_lineno]
    return sum(1 for line in lines if line.strip() and not line.strip().startswith("#"))


def too_long(name, source):
    """Return what in a file is over its limit, and by how much."""
    measured = [(name, len(source.splitlines()), FILE)]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            measured.append((node.name, node.end_lineno - node.lineno + 1, CLASS))
        if isinstance(node, ast.FunctionDef) and node.name not in ("__init__", "__new__"):
            length = 0 if f"{name}:{node.name}" in GATED else lines_of_code(node, source)
            measured.append((node.name, length, FUNCTION))
    return [
        f"{what}: {length} lines, over {most}" for what, length, most in measured if length > most
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_is_walked_in_one_breath(path):
    name = path.relative_to(PACKAGE).as_posix()
    assert not too_long(name, path.read_text(encoding="utf-8"))


def test_what_is_too_long_is_found():
    body = "    x = 1\n" * 31
    function = f'def f():\n    """One."""\n    # no code\n\n{body}'
    assert too_long("a.py", function) == ["f: 31 lines, over 30"]
    assert not too_long("a.py", function.replace("def f()", "def __init__()"))
    assert not too_long("a.py", function.replace("    x = 1\n", "", 1))
    assert too_long("a.py", "class C:\n" + "    x = 1\n" * 260) == ["C: 261 lines, over 260"]
    assert too_long("a.py", "\n" * 551) == ["a.py: 551 lines, over 550"]


# A duration, a share of the time, a ratio of speeds: it ages, and stands beside its command in docs/speed.md.
FIGURE = re.compile(
    r"\d ?(ns|us|µs|ms)\b|\d times (as|faster|slower)|[.\d]+ of the time|\d ?% (of|faster|slower|more|less)"
)


def said(source):
    """Return the comments and docstrings of a file."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [t.string for t in tokens if t.type == tokenize.COMMENT]
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return comments + [text for node in nodes if (text := ast.get_docstring(node))]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_reasons_stand_in_the_code_and_figures_in_the_docs(path):
    assert not [text for text in said(path.read_text(encoding="utf-8")) if FIGURE.search(text)]


def test_a_figure_is_found():
    for text in (
        "# takes 12 us",
        "# 1.8 times as long",
        '"""In 0.87 of the time."""',
        "# 5% faster",
    ):
        assert any(map(FIGURE.search, said(f"{text}\n"))), text
    assert not any(map(FIGURE.search, said("# T times as many rows, of which 32 are kept\n")))


# So many lines are a thought: whoever mends one of two copies will not know of the other.
REPEATED = 6


def thoughts(source):
    """Return every run of so many lines of code in a function; its signature is a contract, not a thought."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[ast.get_docstring(node, clean=False) is not None :]
            lines = source.splitlines()[body[0].lineno - 1 : node.end_lineno] if body else []
            code = [text for line in lines if (text := line.strip()) and text[0] != "#"]
            found |= {tuple(code[k : k + REPEATED]) for k in range(len(code) - REPEATED + 1)}
    return found


def test_no_two_files_think_the_same():
    first = {}
    for path in FILES:
        for run in thoughts(path.read_text(encoding="utf-8")):
            assert first.setdefault(run, path) == path, "\n".join(run)


def test_a_thought_is_found():
    body = "".join(f"    x = {k}\n" for k in range(REPEATED))
    assert len(thoughts(f"def f():\n{body}")) == 1
    assert thoughts(f"def f():\n{body}") == thoughts(f'def g(y):\n    """Two."""\n{body}')
    assert not thoughts(f"def f():\n{body}".replace("    x = 0\n", ""))
