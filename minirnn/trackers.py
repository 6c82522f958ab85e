"""Trackers: where the numbers of a run go, so that it can be looked at later, and told from others.

A tracker is anything with the three methods of :class:`Tracker`. Those here are one for each kind of file or
program, and write nothing before they are told something; :func:`tracker` makes one by its name.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from . import checks
from .atomic import PathLike, atomic_write
from .backend import asnumpy, generator, is_array
from .module import Module


class Tracker(Protocol):
    """What a run is told to.

    See Also
    --------
    tracker : Makes one by its name.
    """

    def config(self, values: Mapping[str, Any]) -> None:
        """Take what makes the run what it is: settings and seeds. Called once, before the first step."""
        ...

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Take numbers by name, those of a step; None for one that there is not at this step."""
        ...

    def close(self) -> None:
        """Finish: no call comes after it."""
        ...


class JSONLines:
    """A text file with a JSON object a line: first the configuration, then a line for each step.

    Each line is handed to the system at once. Numbers that JSON does not have are the strings ``"NaN"``,
    ``"Infinity"`` and ``"-Infinity"``, which ``float`` reads.

    Parameters
    ----------
    path : path
        What is there is overwritten.

    See Also
    --------
    CSV : A table, for spreadsheets.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "log.jsonl"
    >>> tracker = JSONLines(path)
    >>> tracker.config({"lr": 0.1})
    >>> tracker.log(10, {"loss": 2.5})
    >>> tracker.close()
    >>> print(path.read_text().strip())
    {"config": {"lr": 0.1}}
    {"step": 10, "loss": 2.5}
    """

    def __init__(self, path: PathLike) -> None:
        self._path = path

    @cached_property
    def _file(self) -> IO[str]:
        return open(self._path, "w", encoding="utf-8")

    def config(self, values: Mapping[str, Any]) -> None:  # noqa: D102
        self._write({"config": values})

    def log(self, step: int, values: Mapping[str, Any]) -> None:  # noqa: D102
        self._write({"step": step, **values})

    def close(self) -> None:  # noqa: D102
        self._file.close()

    def _write(self, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(_plain(values)) + "\n")
        self._file.flush()


class CSV:
    """A table with a row for each step, and the configuration as JSON beside it, in ``NAME.config.json``.

    Parameters
    ----------
    path : path
        What is there is overwritten.

    See Also
    --------
    JSONLines : Line by line, for programs.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "log.csv"
    >>> tracker = CSV(path)
    >>> tracker.log(10, {"loss": 2.5})
    >>> tracker.log(20, {"loss": 1.5, "accuracy": 0.5})
    >>> tracker.close()
    >>> print(path.read_text().strip())
    step,loss,accuracy
    10,2.5,
    20,1.5,0.5
    """

    def __init__(self, path: PathLike) -> None:
        self._path, self._rows = Path(path), list[dict[str, Any]]()
        self._names = ["step"]

    @cached_property
    def _file(self) -> IO[str]:
        return self._begun()

    def config(self, values: Mapping[str, Any]) -> None:  # noqa: D102
        with atomic_write(self._path.with_suffix(".config.json")) as file:
            file.write(json.dumps(_plain(values), indent=2).encode() + b"\n")

    def log(self, step: int, values: Mapping[str, Any]) -> None:  # noqa: D102
        row = {name: _number(value) for name, value in {"step": step, **values}.items()}
        self._rows.append(row)
        if new := [name for name in row if name not in self._names]:
            self._names += new
            self._file.close()
            self._file = self._begun()  # again, with more columns
        else:
            csv.DictWriter(self._file, self._names).writerow(row)
            self._file.flush()

    def close(self) -> None:  # noqa: D102
        self._file.close()

    def _begun(self) -> IO[str]:
        """Write all that there is, and return the file to go on with."""
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, self._names)
        writer.writeheader()
        writer.writerows(self._rows)
        with atomic_write(self._path) as file:
            file.write(table.getvalue().encode())
        return open(self._path, "a", newline="", encoding="utf-8")


class SwanLab:
    """A run of SwanLab's, kept in a folder: no network and no login, ``swanlab sync`` sends it later.

    Parameters
    ----------
    folder : path
        Where the run is kept.
    **options
        Further arguments of ``swanlab.init``, such as `project`; or another `mode`.

    Raises
    ------
    ImportError
        If SwanLab is not installed.

    See Also
    --------
    tracker : Makes one that never stops a run.
    """

    def __init__(self, folder: PathLike, **options: Any) -> None:
        self._swanlab = _library("swanlab", "swanlab")
        self._options = {"project": "minirnn", "mode": "offline", "logdir": os.fspath(folder)}
        self._options |= options

    def config(self, values: Mapping[str, Any]) -> None:  # noqa: D102
        self._swanlab.init(config=_plain(values), **self._options)

    def log(self, step: int, values: Mapping[str, Any]) -> None:  # noqa: D102
        self._swanlab.log(_numbers(values), step=step)

    def close(self) -> None:  # noqa: D102
        self._swanlab.finish()


class TensorBoard:
    """Event files for TensorBoard, written by tensorboardX.

    Parameters
    ----------
    folder : path
        Where the event files go.

    Raises
    ------
    ImportError
        If tensorboardX is not installed.

    See Also
    --------
    tracker : Makes one that never stops a run.
    """

    def __init__(self, folder: PathLike) -> None:
        self._library, self._folder = _library("tensorboardX", "tensorboard"), os.fspath(folder)

    @cached_property
    def _writer(self) -> Any:
        return self._library.SummaryWriter(logdir=self._folder)

    def config(self, values: Mapping[str, Any]) -> None:  # noqa: D102
        self._writer.add_text("config", f"```json\n{json.dumps(_plain(values), indent=2)}\n```")

    def log(self, step: int, values: Mapping[str, Any]) -> None:  # noqa: D102
        for name, value in _numbers(values).items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:  # noqa: D102
        self._writer.close()


class Unfailing:
    """A tracker around another one that never stops a run: when that fails, it warns and falls silent.

    Parameters
    ----------
    tracker : Tracker
        The other one.

    Raises
    ------
    TypeError
        If `tracker` does not have the three methods.

    See Also
    --------
    tracker : Makes one by its name.

    Examples
    --------
    >>> import warnings
    >>> class Full(JSONLines):
    ...     def log(self, step, values):
    ...         raise OSError("no space left")
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     Unfailing(Full("log.jsonl")).log(10, {"loss": 2.5})
    >>> print(caught[0].message)
    Full.log failed, and nothing more is tracked: OSError('no space left')
    """

    def __init__(self, tracker: Tracker) -> None:
        for name in ("config", "log", "close"):
            if not callable(getattr(tracker, name, None)):
                raise TypeError(
                    f"tracker: expected an object with config, log and close, "
                    f"got {type(tracker).__name__} without {name}"
                )
        self._tracker, self._failed = tracker, False

    def config(self, values: Mapping[str, Any]) -> None:  # noqa: D102
        self._try("config", dict(values))

    def log(self, step: int, values: Mapping[str, Any]) -> None:  # noqa: D102
        self._try("log", step, dict(values))

    def close(self) -> None:  # noqa: D102
        self._try("close")

    def _try(self, method: str, *args: Any) -> None:
        if self._failed:
            return
        try:
            getattr(self._tracker, method)(*args)
        except (Exception, SystemExit) as error:
            self._failed = True
            checks.warn(
                f"{type(self._tracker).__name__}.{method} failed, and nothing more is tracked: {error!r}",
                RuntimeWarning,
            )


NAMES = ("jsonl", "csv", "swanlab", "tensorboard")


def tracker(name: str, folder: PathLike) -> Unfailing:
    """Return the tracker of this name, which keeps a run in a folder and never stops it.

    Parameters
    ----------
    name : {"jsonl", "csv", "swanlab", "tensorboard"}
        Which one.
    folder : path
        Of the run. There the first two write ``log.jsonl`` and ``log.csv``, the others a folder.

    Returns
    -------
    Unfailing
        Around the one of that name.

    Raises
    ------
    TypeError
        If `folder` is no path.
    ValueError
        If there is none of this name.
    ImportError
        If its library is not installed.

    See Also
    --------
    minirnn.fit : Tells it of a run.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> log = tracker("csv", folder)
    >>> log.log(10, {"loss": 2.5})
    >>> log.close()
    >>> (folder / "log.csv").read_text().split()
    ['step,loss', '10,2.5']
    """
    makers = (JSONLines, "log.jsonl"), (CSV, "log.csv"), (SwanLab, name), (TensorBoard, name)
    checks.choice("name", name, NAMES)
    checks.path("folder", folder)
    make, file = makers[NAMES.index(name)]
    return Unfailing(make(Path(folder) / file))


def seeds(**owners: Any) -> dict[str, Any]:
    """Return the seed of the library's generator, and of those that models, data and other objects own.

    Also of a generator that nobody has seeded: by ``minirnn.manual_seed(int(seed))`` its run can be repeated.

    Parameters
    ----------
    **owners : Module, or object that has generators as attributes
        Each by the name under which its seeds are returned.

    Returns
    -------
    dict
        ``"minirnn"``, the seed of the library's generator; and for each owner a list, one a generator.

    See Also
    --------
    minirnn.manual_seed : Repeats a run.

    Examples
    --------
    >>> import minirnn
    >>> minirnn.manual_seed(3)
    >>> seeds(model=minirnn.Sequential(minirnn.GRU(2, 3, rng=5)), data=[])
    {'minirnn': 3, 'model': [5], 'data': []}
    """
    found = {"minirnn": _seed(generator())}
    for name, owner in owners.items():
        parts = owner.modules() if isinstance(owner, Module) else [owner]
        values = [value for part in parts for value in getattr(part, "__dict__", {}).values()]
        found[name] = [_seed(value) for value in values if isinstance(value, np.random.Generator)]
    return found


def _seed(rng: np.random.Generator) -> Any:
    sequence: Any = rng.bit_generator.seed_seq
    entropy = getattr(sequence, "entropy", None)
    # As text if another program that reads it would round it.
    entropy = entropy if isinstance(entropy, int) and entropy < 2**53 else str(entropy)
    key = getattr(sequence, "spawn_key", ())
    return {"entropy": entropy, "spawn_key": list(key)} if key else entropy


def _library(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"this tracker needs the library {name}: pip install 'minirnn[{extra}]'"
        ) from error


def _number(value: Any) -> Any:
    """Return Python's number for NumPy's or CuPy's, and lists for arrays."""
    return asnumpy(value).tolist() if is_array(value) or isinstance(value, np.generic) else value


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _number(value) for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    """Return `value` as JSON has it."""
    value = _number(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
