"""The site: ``docs/build`` makes it, strictly, and what it makes needs no network."""

import importlib.util
import re
import shutil
import sys
import tomllib
from pathlib import Path

from sphinx.util.nodes import make_refnode

import minirnn

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))
import reference

reference.write(DOCS / "api")

# Signatures are the constructors' own, not those of what looks for torch's options first.
del minirnn.torch_hints.Hints.__new__

ROOT = DOCS.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCE = PROJECT["urls"]["Source"]

project = "minirnn"
author = copyright = PROJECT["authors"][0]["name"]
version = release = minirnn.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
smartquotes_action = "qe"  # quotes and dots, not dashes: --carry is a flag
exclude_patterns = ["_build", "node_modules", "gallery/*.py", "gallery/*.ipynb"]
templates_path = ["_templates"]
nitpicky = True
suppress_warnings = ["config.cache"]  # sphinx-gallery's configuration holds functions

# Pages in Markdown, links of which are checked.
myst_enable_extensions = ["colon_fence", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

# The reference, from the docstrings.
autosummary_generate = True
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"
autodoc_typehints = "none"  # the docstrings say dtype and shape, which the types do not
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
numpydoc_xref_param_type = False

# The examples: shown, not run, since they train for minutes. Their pictures are in pictures/. A file
# without a title is a part of an example, not one of its own.
parts = [p for p in (ROOT / "examples").rglob("*.py") if "\n====" not in p.read_text("utf-8")[:200]]
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "^$",
    "ignore_pattern": "|".join(["__init__", "studies", *(re.escape(p.name) for p in parts)]),
    "copyfile_regex": "",
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": 10**6,
    "write_computation_times": False,
    "show_signature": False,
    "remove_config_comments": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "minirnn"
html_static_path = ["_static"]
html_css_files = ["minirnn.css"]
html_theme_options = {
    "external_links": [{"name": "Source", "url": SOURCE}],
    "header_links_before_dropdown": 7,
    "navbar_align": "left",  # from the name on: in one row on a narrow desktop
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {key: [] for key in ("index", "start", "architecture")}
html_context = {"default_mode": "auto"}
html_show_sourcelink = False

mathjax_path = "mathjax/tex-svg-full.js"  # all of it and its glyphs in one file
mathjax3_config = {
    "options": {"enableMenu": False},  # whose entries would load more
    "svg": {"displayAlign": "left", "displayIndent": "1em"},
}


# What pages run in the browser, by folder of _static: out of which npm packages.
COPIED = {
    "mathjax": ["mathjax/es5/tex-svg-full.js"],
    "ort": [
        "onnxruntime-web/dist/ort.wasm.min.mjs",
        "onnxruntime-web/dist/ort-wasm-simd-threaded.mjs",
        "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
    ],
}


def copy_packages(app):
    """Copy what pages run out of the npm packages, to where they look for it."""
    for folder, files in COPIED.items():
        target = Path(app.outdir) / "_static" / folder
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            path = DOCS / "node_modules" / file
            if not path.exists():
                raise FileNotFoundError(f"{path}: expected it; run: npm install --prefix docs")
            shutil.copy(path, target)


def link_to_source(app, docname, text):
    """Lead links to files that are not on the site to the repository, if there are such files."""
    folder = (DOCS / docname).parent

    def absolute(match):
        path = (folder / match[1]).resolve()
        if path.is_relative_to(DOCS) or not path.exists():
            return match[0]  # left to the build, which refuses a link that leads nowhere
        return f"]({SOURCE}/blob/main/{path.relative_to(ROOT).as_posix()}{match[2] or ''})"

    text[0] = re.sub(r"\]\((\.\./[^)#\s]+)(#[^)]*)?\)", absolute, text[0])


def list_the_rest(app, docname, text):
    """Put pages that no list of contents names into the guide's, so that a new page is on the site."""
    if docname == "guide":
        named = {"index", "guide"}
        for page in ("index", "learn", "guide"):
            named.update((DOCS / f"{page}.md").read_text(encoding="utf-8").split())
        rest = sorted({path.stem for path in DOCS.glob("*.md")} - named)
        text[0] = text[0].replace("\n*\n", "\n".join(["", *rest, ""]))


def find_by_last_name(app, env, node, contnode):
    """Resolve a name that is said without its module, or with the module that it is written in."""
    domain = env.domains.python_domain
    last = node.get("reftarget", "").rpartition(".")[2]
    found = [name for name in domain.objects if name.rpartition(".")[2] == last]
    if len(found) == 1 and node.get("refdomain") == "py":
        entry = domain.objects[found[0]]
        target = (app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, found[0])
        return make_refnode(*target)
    if node.get("reftype") == "mod" and importlib.util.find_spec(node["reftarget"]):
        return contnode  # a module without a page of its own
    # numpydoc makes a reference of every attribute that is a property, also where none is documented.
    return contnode if node.get("reftype") == "obj" else None


def setup(app):
    """Register what is above."""
    app.connect("missing-reference", find_by_last_name)
    app.connect("builder-inited", copy_packages)
    app.connect("source-read", link_to_source)
    app.connect("source-read", list_the_rest)
