"""No two files of the package repeat each other: what two have in common stands in a third."""

import ast
import re
from collections import defaultdict

import pytest
from test_architecture import FILES, PACKAGE

RUN = 6  # lines
# Comments, and in docstrings headings and arguments with their types: the contract gives them the same names.
FURNITURE = re.compile(
    r"#|(Parameters|Returns|Raises|Examples|References|See Also|Attributes)$|[\w, ]+ : "
)


def lines_that_count(source):
    """Return the lines but for comments, imports, signatures, and what every docstring has."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for k in range(node.lineno - 1, node.end_lineno):
                lines[k] = ""
        if isinstance(node, ast.FunctionDef):
            for k in range(node.lineno - 1, node.body[0].lineno - 1):
                lines[k] = ""
    folded = (re.sub(r"\s+", " ", line).strip() for line in lines)
    return [line for line in folded if re.search(r"\w", line) and not FURNITURE.match(line)]


def repeats(sources):
    """Return the pairs of names whose sources have `RUN` lines in a row in common, with the first of them."""
    places = defaultdict(set)
    for name, source in sources.items():
        code = lines_that_count(source)
        for k in range(len(code) - RUN + 1):
            places[tuple(code[k : k + RUN])].add(name)
    return sorted((sorted(names), run[0]) for run, names in places.items() if len(names) > 1)


ROOMS = ("functional", "bptt", "native", "cuda")


@pytest.mark.parametrize("room", ROOMS)
def test_the_mathematics_stands_once(room):
    sources = {p.relative_to(PACKAGE).as_posix(): p.read_text(encoding="utf-8") for p in FILES}
    found = repeats(sources)
    assert not [pair for pair in found if any(n.split("/")[0] == room for n in pair[0])]


def test_what_is_repeated_is_found():
    code = "".join(f"x{k} = {k}\n\n" for k in range(RUN))
    one, two = f"import one\n{code}y = 1\n", f"z = 2\n{code.replace(' = ', '  =  ')}"
    assert repeats({"one": one, "two": two}) == [(["one", "two"], "x0 = 0")]
    assert not repeats({"one": one, "two": two.replace("x3", "y3")})
