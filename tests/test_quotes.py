"""What docs/bptt.md quotes stands in the source, line by line."""

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "bptt.md").read_text(encoding="utf-8")
# A quotation follows on a line that names its file and ends with a colon.
QUOTED = re.findall(r"`(minirnn/[\w/]+\.py)`[^\n]*:\n\n```python\n(.*?)```", PAGE, re.S)


def stands_in(code, source):
    """Tell whether the lines stand in the source one after the other, as far in as they may be."""
    lines, wanted = source.splitlines(), textwrap.dedent(code).splitlines()
    for first in range(len(lines) - len(wanted) + 1):
        found = "\n".join(lines[first : first + len(wanted)])
        if textwrap.dedent(found).splitlines() == wanted:
            return True
    return False


def test_every_piece_of_code_is_a_quotation():
    assert len(QUOTED) == PAGE.count("```") // 2 >= 3
    assert {file for file, _ in QUOTED} >= {"minirnn/bptt/stack.py", "minirnn/functional/lstm.py"}


@pytest.mark.parametrize(("file", "code"), QUOTED, ids=[file for file, _ in QUOTED])
def test_a_quotation_stands_in_its_file(file, code):
    source = (ROOT / file).read_text(encoding="utf-8")
    assert stands_in(code, source)
    assert not stands_in(code.replace("dy", "dx"), source)


@pytest.mark.parametrize("name", re.findall(r"`(tests/test_\w+\.py)`", PAGE))
def test_the_tests_that_the_page_names_exist(name):
    assert (ROOT / name).exists()
