"""Docstrings of public objects are complete, by numpydoc's own checks."""

import inspect

import pytest

import minirnn
from minirnn import diagnostics

validate = pytest.importorskip("numpydoc.validate").validate

# No docstring, no parameter, type or description, or one of another name; no result described; no See Also.
CHECKED = {"GL08", "PR02", "PR04", "PR07", "PR08", "PR10", "RT01", "RT03", "SA01", "SA03", "SA04"}
NAMES = [
    *(f"minirnn.{n}" for n in minirnn.__all__ if not inspect.ismodule(getattr(minirnn, n))),
    *(f"minirnn.diagnostics.{name}" for name in diagnostics.__all__),
]
# Options that are taken on to the base are described where they are used; generators yield.
LEFT_OUT = {
    ("minirnn.RNN", "PR02"),
    ("minirnn.truncated_bptt", "RT01"),
    ("minirnn.windows", "RT01"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_public_docstring_is_complete(name):
    found = [f"{code}: {said}" for code, said in validate(name)["errors"] if code in CHECKED]
    assert not [line for line in found if (name, line[:4]) not in LEFT_OUT]


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_that_is_not_described_is_said_to_be_another_ones(name):
    said = dict(validate(name)["errors"]).get("PR01", "*")
    room, _, own = name.rpartition(".")
    value = getattr(diagnostics if room.endswith("diagnostics") else minirnn, own)
    told = any(words in value.__doc__ for words in ("those of", "As for", "as for"))
    assert "*" in said or told or hasattr(value, "_fields"), said
