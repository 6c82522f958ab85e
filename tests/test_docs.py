"""The site: figures are what their scripts draw, and no public name is left out of the reference."""

import runpy
import sys
from pathlib import Path

import pytest

import minirnn

DOCS = Path(__file__).parent.parent / "docs"


def test_the_figures_are_what_the_script_draws():
    figures = runpy.run_path(str(DOCS / "figures" / "packed.py"))["FIGURES"]
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
