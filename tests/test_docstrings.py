"""Docstrings of public objects are complete, by numpydoc's own checks; they show and name what is raised."""

import ast
import builtins
import importlib
import inspect
import re
import runpy
import textwrap
from pathlib import Path

import pytest

import minirnn
from minirnn import checks

validate = pytest.importorskip("numpydoc.validate").validate
parsed = pytest.importorskip("numpydoc.docscrape").NumpyDocString
REFERENCE = runpy.run_path(str(Path(__file__).parent.parent / "docs" / "reference.py"))

# No docstring, no parameter, type or description, or one of another name; no result described; no See Also.
CHECKED = {"GL08", "PR02", "PR04", "PR07", "PR08", "PR10", "RT01", "RT03", "SA01", "SA03", "SA04"}
# What the API reference lists, but for minirnn.functional: files that are read whole, whose equations and
# contract stand once, at their top.
NAMES = [
    *(f"minirnn.{n}" for n in minirnn.__all__ if not inspect.ismodule(getattr(minirnn, n))),
    *(f"{module}.{name}" for module, names in REFERENCE["BASES"] for name in names),
    *(
        f"minirnn.{module}.{name}"
        for module in REFERENCE["MODULES"]
        for name in REFERENCE["public"](importlib.import_module(f"minirnn.{module}"))
    ),
]
# Options that are taken on to the base are described where they are used; generators yield.
LEFT_OUT = {
    ("minirnn.RNN", "PR02"),
    ("minirnn.truncated_bptt", "RT01"),
    ("minirnn.windows", "RT01"),
}
# What a function returns or keeps, and its example shows.
SHOWN_BY = {
    "minirnn.TruncatedWindow": "minirnn.truncated_bptt",
    "minirnn.Window": "minirnn.windows",
    "minirnn.data.Batches": "minirnn.data.batches",
    "minirnn.diagnostics.Alarm": "minirnn.diagnostics.GradientMonitor",
    "minirnn.diagnostics.NoiseScale": "minirnn.diagnostics.noise_scale",
    "minirnn.diagnostics.Observation": "minirnn.diagnostics.GradientMonitor",
    # Protocols: what has their methods.
    "minirnn.parallel.Communicator": "minirnn.parallel.Alone",
    "minirnn.trackers.Tracker": "minirnn.trackers.JSONLines",
}
# What does nothing on the host, or needs a package that the doctests do without.
NOT_SHOWN = {
    "minirnn.set_checks",
    "minirnn.set_tf32",
    "minirnn.trackers.SwanLab",
    "minirnn.trackers.TensorBoard",
}


def found(name):
    """Return the object of this dotted name."""
    room, _, own = name.rpartition(".")
    return getattr(importlib.import_module(room), own)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_docstring_is_complete(name):
    said = [f"{code}: {text}" for code, text in validate(name)["errors"] if code in CHECKED]
    assert not [line for line in said if (name, line[:4]) not in LEFT_OUT]


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_that_is_not_described_is_said_to_be_another_ones(name):
    said = dict(validate(name)["errors"]).get("PR01", "*")
    value = found(name)
    told = any(words in value.__doc__ for words in ("those of", "As for", "as for"))
    made_by_another = hasattr(value, "_fields") or name in SHOWN_BY
    assert "*" in said or told or made_by_another, said


@pytest.mark.parametrize("name", NAMES)
def test_a_public_docstring_shows_an_example(name):
    example = "".join(parsed(inspect.getdoc(found(name)))["Examples"])
    if name in NOT_SHOWN:
        assert not example, "it shows one: take it off the list"
    elif name in SHOWN_BY:
        assert not example, "it shows one: take it off the list"
        assert parsed(inspect.getdoc(found(SHOWN_BY[name])))["Examples"]
    else:
        assert ">>> " in example


def exceptions_in(function):
    """Return the names of the exceptions that the body of a function raises, and its calls of `checks`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            name = ast.unparse(getattr(node.exc, "func", node.exc))
            if inspect.isclass(getattr(builtins, name, None)):
                names.add(name)
        if isinstance(node, ast.Call):
            module, _, name = ast.unparse(node.func).rpartition(".")
            if module == "checks" or (not module and function.__module__ == checks.__name__):
                check = getattr(checks, name, None)
                names |= exceptions_in(check) if inspect.isfunction(check) else set()
    return names - {"NotImplementedError"}  # which says that a subclass has it


def described(docstring):
    """Return the names of the exceptions in a docstring."""
    raised = parsed(inspect.cleandoc(docstring or ""))["Raises"]
    return {name for entry in raised for name in re.findall(r"\w+", entry.type)}


def functions_of(name):
    """Yield what can be called of an object: its functions, each with all docstrings that are its own."""
    value = found(name)
    if inspect.isfunction(value):
        yield name, value, [value.__doc__]
    if not inspect.isclass(value) or getattr(value, "_is_protocol", False):
        return
    for attribute in dir(value):
        given = inspect.getattr_static(value, attribute)
        function = inspect.unwrap(getattr(given, "fget", getattr(given, "__func__", given)))
        # Beside other packages' functions, what Python raises itself, for an argument that there is not.
        home = getattr(function, "__module__", None) or ""
        if not home.startswith("minirnn.") or home == "minirnn.torch_hints":
            continue
        if attribute in ("__init__", "__new__", "__call__"):
            yield f"{name}.{attribute}", function, [value.__doc__, function.__doc__]
        elif not attribute.startswith("_"):
            bases = [getattr(base, attribute, None) for base in value.__mro__]
            yield f"{name}.{attribute}", function, [base.__doc__ for base in bases if base]


FUNCTIONS = {name: rest for owner in NAMES for name, *rest in functions_of(owner)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_raised_is_described(name):
    function, docstrings = FUNCTIONS[name]
    assert exceptions_in(function) <= set().union(*map(described, docstrings))


def test_what_is_raised_is_found():
    assert exceptions_in(minirnn.data.Batches.__init__) == {"TypeError", "ValueError"}
    assert exceptions_in(minirnn.Linear.forward) == {"TypeError"}  # by checks.floating
    assert exceptions_in(minirnn.Module.forward) == set()
    assert described(minirnn.RNN.backward.__doc__) == {"TypeError", "ValueError"}
    assert len(FUNCTIONS) > 3 * len(NAMES)
