"""Both readmes say the same: the same code, links, pictures, headings and figures."""

import io
import re
import tokenize
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGLISH, CHINESE = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")
)
NUMBER = r"(?<![\w.])\d+(?:[.,]\d+)*(?![\w.]*\w)"


def without_comments(code):
    """Return the tokens of Python code but for its comments."""
    kept = tokenize.generate_tokens(io.StringIO(code).readline)
    return [t.string for t in kept if t.type not in (tokenize.COMMENT, tokenize.NL)]


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def test_each_is_linked_at_the_top_of_the_other():
    assert "[中文](README.zh-CN.md)" in ENGLISH.splitlines()[2]
    assert "[English](README.md)" in CHINESE.splitlines()[2]


def test_the_code_is_the_same():
    assert blocks(ENGLISH, "sh") == blocks(CHINESE, "sh")
    python = [list(map(without_comments, blocks(text, "python"))) for text in (ENGLISH, CHINESE)]
    assert python[0] == python[1]
    assert python[0]


def test_the_links_pictures_and_headings_are_the_same():
    links = [re.findall(r"(!?)\[[^]]*\]\(([^)]+)\)", text)[1:] for text in (ENGLISH, CHINESE)]
    assert sorted(links[0]) == sorted(links[1])
    headings = [re.findall(r"^#+ ", text, re.M) for text in (ENGLISH, CHINESE)]
    assert headings[0] == headings[1]
    for _, target in links[0]:
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_tables_have_the_same_figures():
    rows = [re.findall(r"^\|.*\|$", text, re.M) for text in (ENGLISH, CHINESE)]
    figures = [[re.findall(NUMBER, row) for row in table] for table in rows]
    assert figures[0] == figures[1]
    assert figures[0]


def test_the_text_has_the_same_figures():
    prose = [re.sub(r"^```.*?^```", "", text, flags=re.M | re.S) for text in (ENGLISH, CHINESE)]
    figures = [sorted(re.findall(r"\d+(?:\.\d+)*(?:e-\d+)?", text)) for text in prose]
    assert figures[0] == figures[1]


@pytest.mark.parametrize(
    "said",
    [
        "eval()",
        "TypeError",
        "1.3 GB",
        "dtype=np.float64",
        "`. .venv/bin/activate`",
        "`npm`",
        "pip install -e '.[bench]'",
    ],
)
def test_what_surprises_is_said(said):
    assert said in ENGLISH
    assert said in CHINESE


def test_the_oldest_python_that_will_do_is_said():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=").strip()
    for text in (ENGLISH, CHINESE, (ROOT / "docs" / "start.md").read_text(encoding="utf-8")):
        assert re.search(rf"Python {re.escape(oldest)}\b", text)


def test_what_activates_the_environment_stands_before_the_commands_that_need_it():
    for text in (ENGLISH, CHINESE):
        before, _, after = text.partition("`. .venv/bin/activate`")
        assert "`python " not in before
        assert "`python " in after
