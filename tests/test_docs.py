"""The site: figures are what their scripts draw, and no public name is left out of the reference."""

import inspect
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import close
from test_architecture import FILES, HEIGHT, imported_rooms, room_of

import minirnn
from minirnn.bptt.stack import Stack
from minirnn.diagnostics import check_gradients
from minirnn.functional import rnn

DOCS = Path(__file__).parent.parent / "docs"


def test_the_figures_are_what_the_scripts_draw(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "figures"))
    scripts = sorted((DOCS / "figures").glob("*.py"))
    figures = {}
    for script in scripts:
        figures |= runpy.run_path(str(script))["FIGURES"]
    del sys.modules["packed"]
    assert {path.name for path in (DOCS / "figures").glob("*.svg")} == set(figures)
    for name, draw in figures.items():
        assert (DOCS / "figures" / name).read_text(encoding="utf-8") == draw()


def test_every_public_name_has_a_page(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import reference

    listed = reference.index().split()
    modules = {"functional", "init"}
    assert set(minirnn.__all__) - modules <= set(listed)
    assert {"minirnn.data", "minirnn.init", "GradientMonitor", "orthogonal_", "shard"} <= set(
        listed
    )
    assert "minirnn.functional.recurrence" in reference.functional()
    del sys.modules["reference"]


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda p: p.name)
def test_a_page_starts_with_its_title(page):
    assert page.read_text(encoding="utf-8").startswith("# ")


ROOT = DOCS.parent
# What is read on the repository's pages as well as on the site.
TEXTS = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "docs/studies/*.md",
        "examples/**/*.md",
        "benchmarks/**/*.md",
    )
    for path in ROOT.glob(pattern)
)
MADE = {DOCS / "api" / "index.rst", DOCS / "gallery" / "index.rst"}  # by the site's build


def anchors(text):
    """Return the names of a page's headings, as links have them."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_blocks(text):
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)


def dead_links(path, text):
    """Return the links of a page, read as lying at `path`, that lead to no file or heading."""
    dead = []
    for target in re.findall(r"\]\(\s*([^)\s]+)", re.sub(r"`[^`\n]*`", "", without_blocks(text))):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve()
        if there in MADE:
            continue
        page = there.read_text(encoding="utf-8") if anchor and name and there.is_file() else text
        if not there.exists() or (anchor and anchor not in anchors(page)):
            dead.append(target)
    return dead


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(path):
    assert dead_links(path, path.read_text(encoding="utf-8")) == []


def test_a_dead_link_is_found():
    text = "# A page, here\n[a](b.md) [c](README.md#none) [d](#a-page-here) `[e](f.md)` [g](docs)\n"
    assert dead_links(ROOT / "page.md", text) == ["b.md", "README.md#none"]
    assert len(TEXTS) > 30


def blocks(page):
    """Return the Python blocks of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def lines_of_code(text):
    """Return the lines that hold code, without comments and indentation."""
    return [line for raw in text.splitlines() if (line := raw.split("  #")[0].strip())]


@pytest.mark.parametrize(
    ("page", "block", "source"),
    [
        ("architecture.md", 0, Stack),
        ("bptt.md", 0, rnn),
        ("bptt.md", -1, Stack),
    ],
)
def test_a_quoted_loop_is_that_of_the_source(page, block, source):
    known = lines_of_code(inspect.getsource(source))
    quoted = [line for line in lines_of_code(blocks(page)[block]) if not line.startswith("def ")]
    assert len(quoted) > 3
    assert not [line for line in quoted if line not in known]


def test_what_is_added_on_the_page_runs_and_gives_right_gradients():
    namespace = {}
    for block in blocks("architecture.md")[1:]:
        exec(compile(block, "docs/architecture.md", "exec"), namespace)
    layer = namespace["HalfWayRNN"](3, 4, bidirectional=True, checkpoint=True, dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((20, 2, 3))
    check_gradients(layer, x)
    one_way = namespace["HalfWayRNN"](3, 4, dtype=np.float64)
    stepper = one_way.stepper(batch_size=2)
    close(np.stack([stepper(x_t) for x_t in x]), one_way(x)[0])


def test_nothing_drawn_lower_imports_what_is_drawn_higher(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "figures"))
    drawn = runpy.run_path(str(DOCS / "figures" / "rooms.py"))["FLOORS"]
    del sys.modules["packed"]
    floors = [[name.rstrip("/").removesuffix(".py") for name, _ in files] for _, files in drawn]
    floors[3] = ["bptt"]
    for path in FILES:
        for floor, rooms in enumerate(floors):
            if room_of(path) in rooms:
                higher = {room for above in floors[:floor] for room in above}
                assert not higher & set(imported_rooms(path)), path
    assert {room for rooms in floors for room in rooms} <= set(HEIGHT)
    bptt = {path.name for path in FILES if room_of(path) == "bptt"}
    assert {name for name, _ in drawn[3][1]} <= bptt
