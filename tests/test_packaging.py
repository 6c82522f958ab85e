"""What the package says of itself is what it is, in every place that says it."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import minirnn

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.fixture(scope="module")
def on_an_index():
    """Return README.md as a package index shows it."""
    pytest.importorskip("setuptools", "77")
    code = "import setuptools; setuptools.setup = lambda **k: print(k['long_description']); "
    code += f"import runpy; runpy.run_path({str(ROOT / 'setup.py')!r})"
    command = [sys.executable, "-X", "utf8", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_citation_and_metadata_agree():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^([a-z-]+): (.+)$", citation, re.M))
    assert fields["version"] == minirnn.__version__
    assert fields["license"] == PROJECT["license"] == "MIT"
    assert fields["repository-code"] == PROJECT["urls"]["Source"]
    assert PROJECT["name"] == fields["title"] == "minirnn"
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## ([0-9.]+)", changelog, re.M)[1] == minirnn.__version__


def test_the_projects_address_stands_in_one_place():
    urls = PROJECT["urls"]
    owner, name = re.fullmatch(r"https://github\.com/([\w-]+)/([\w-]+)", urls["Source"]).groups()
    assert urls == {
        "Source": urls["Source"],
        "Documentation": f"https://{owner}.github.io/{name}/",
        "Changelog": f"{urls['Source']}/blob/main/CHANGELOG.md",
        "Issues": f"{urls['Source']}/issues",
    }
    texts = {".cfg", ".cff", ".json", ".md", ".py", ".rst", ".toml", ".yaml", ".yml"}
    made = {"_build", "api", "gallery", "node_modules", "build", "dist"}
    said = set()
    for folder, inner, files in os.walk(ROOT):
        inner[:] = [name for name in inner if name not in made and not name.startswith(".")]
        for path in (Path(folder, file) for file in files):
            if path.suffix in texts and re.search(
                rf"{owner}/{name}\b|{owner}\.github\.io", path.read_text(encoding="utf-8")
            ):
                said.add(str(path.relative_to(ROOT)))
    assert said == {"pyproject.toml", "CITATION.cff"}  # which has no way to refer to the other


def test_every_supported_python_is_named():
    prefix = "Programming Language :: Python :: 3."
    minors = [int(c.removeprefix(prefix)) for c in PROJECT["classifiers"] if c.startswith(prefix)]
    assert minors == list(range(11, 15))
    assert PROJECT["requires-python"] == f">= 3.{minors[0]}"


def test_numpy_is_all_that_is_required():
    assert [re.split(r"[ <>=]", need)[0] for need in PROJECT["dependencies"]] == ["numpy"]


def test_all_that_is_not_python_is_package_data():
    config = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    patterns = re.search(r"^minirnn = (.+)$", config, re.M)[1].split(", ")
    package = ROOT / "minirnn"
    data = {path for pattern in patterns for path in package.glob(pattern)}
    found = {path for path in package.rglob("*") if path.is_file() and "build" not in path.parts}
    built = {".py", ".pyc", ".so", ".pyd"}
    assert data == {path for path in found if path.suffix not in built}
    assert {path.suffix for path in data} == {".cu", ".h", ".c", ".pyi", ".typed"}


def test_links_and_pictures_work_on_an_index(on_an_index):
    source = PROJECT["urls"]["Source"]
    targets = re.findall(r"\]\(([^)]+)\)", on_an_index)
    own = [target for target in targets if target.startswith(source)]
    assert all(re.match("https://|#", target) for target in targets)
    for target in own:
        kind, path = re.fullmatch(rf"{source}/(blob|raw)/main/([^#]+)(?:#.*)?", target).groups()
        assert (ROOT / path).exists(), target
        assert (kind == "raw") == (path.endswith(".png")), target
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", on_an_index)
    assert pictures
    assert set(pictures) <= set(own)


def test_a_bug_report_has_what_decides_a_result():
    command = [sys.executable, "-m", "minirnn", "--json"]
    report = json.loads(subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout)
    assert report["minirnn"] == minirnn.__version__
    assert report["native"] in (None, "plain", "avx2", "avx512")
    assert report["threads"] >= 1
    assert {"python", "numpy", "platform", "blas", "blas threads", "cupy", "gpu"} <= set(report)
    assert (report["gpu"] is None) or importlib.util.find_spec("cupy")


def test_hooks_and_extras_use_the_same_linters():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    pinned = dict(re.fullmatch(r"(\w+) == (.+)", p).groups() for p in EXTRAS["lint"])
    for name, version in pinned.items():
        assert re.search(
            rf"{name}\n    rev: v{version} |{name}-pre-commit\n    rev: v{version} ", hooks
        )
