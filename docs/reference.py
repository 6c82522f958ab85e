"""The pages of the API reference: every public name, grouped by the room that it lives in."""

import importlib
import inspect
import pkgutil

import minirnn

# What is written over the names of which rooms; rooms that are not named here come last.
GROUPS = {
    "Recurrent layers": ("recurrent", "normalized", "cells", "bptt"),
    "Around them": ("outputs", "stepper", "streaming", "truncated"),
    "Other layers": ("layers", "sequential", "activations"),
    "Losses": ("losses", "functional"),
    "Packed sequences": ("packing", "packed_sequence"),
    "Modules and parameters": ("module", "parameter", "weights"),
    "Optimisers and clipping": ("optim", "rmsprop", "clip"),
    "Schedules": ("lr_scheduler", "lr_schedules", "lr_combined", "plateau"),
    "Training": ("fit", "resume"),
    "Files and export": ("weight_files", "export"),
    "Where and how it computes": ("backend", "pairs", "threads"),
}
# Modules of their own, each a page's section with its public functions and classes.
MODULES = ("data", "trackers", "diagnostics", "parallel", "init")
# What optimisers and schedules share, for those who write their own.
BASES = (("minirnn.optimizer", ["Optimizer"]), ("minirnn.lr_scheduler", ["LRScheduler"]))


def room(name):
    """Return the room in which a public object is written."""
    home = getattr(minirnn, name).__module__.split(".")
    return home[1] if len(home) > 1 else home[0]


def public(module):
    """Return the names that a module offers: those of its own, or what it says."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    )


def summary(module, names):
    """Return a table of the names with a link to a page for each."""
    lines = [f".. currentmodule:: {module}", "", ".. autosummary::"]
    lines += ["   :toctree: generated", "   :nosignatures:", ""]
    return "\n".join([*lines, *(f"   {name}" for name in sorted(names)), ""])


def heading(text, mark):
    """Return a heading of reStructuredText."""
    return f"{text}\n{mark * len(text)}\n"


def index():
    """Return the page that lists every public name."""
    parts = [heading("API reference", "=")]
    names = {n for n in minirnn.__all__ if not inspect.ismodule(getattr(minirnn, n))}
    rest = {room(name) for name in names}.difference(*GROUPS.values())
    for title, rooms in {**GROUPS, "More": tuple(sorted(rest))}.items():
        found = [name for name in names if room(name) in rooms]
        if found:
            parts += [heading(title, "-"), summary("minirnn", found)]
    parts += [heading("What they share", "-"), *(summary(*base) for base in BASES)]
    for name in MODULES:
        if importlib.util.find_spec(f"minirnn.{name}"):
            module = importlib.import_module(f"minirnn.{name}")
            parts += [heading(module.__name__, "-"), summary(module.__name__, public(module))]
    parts += [
        heading("minirnn.functional", "-"),
        "The pairs of pure functions, :doc:`a file of the package each <functional>`.\n",
        ".. toctree::\n   :hidden:\n\n   functional\n",
    ]
    return "\n".join(parts)


def functional():
    """Return the page of the mathematics: whole files, with their equations, the contract first."""
    parts = [heading("The mathematics: minirnn.functional", "=")]
    files = {found.name for found in pkgutil.iter_modules(minirnn.functional.__path__)}
    for name in ["recurrence", *sorted(files - {"recurrence", "shared"})]:
        module = f"minirnn.functional.{name}"
        parts += [heading(module, "-"), f".. automodule:: {module}\n   :members:\n"]
    return "\n".join(parts)


def write(folder):
    """Write both pages; summaries and their own pages are made of them."""
    folder.mkdir(exist_ok=True)
    for name, text in {"index": index(), "functional": functional()}.items():
        (folder / f"{name}.rst").write_text(text, encoding="utf-8")
