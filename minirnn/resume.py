"""A run that goes on where it was cut off: model, optimiser, schedule and generators in one file.

The file is a zip of NumPy arrays and one JSON text, in which ``{"__array__": name}`` stands for an array.
All of it is restored, or nothing is changed.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import checks
from .archive import (
    CHECKPOINT,
    MADE_BY,
    entries,
    host_arrays,
    opened,
    opened_zip,
    read_array,
    read_weights,
    version,
    write_zip,
)
from .atomic import PathLike, atomic_write
from .backend import Array, asnumpy, get_rng_state, set_rng_state
from .module import Module, generators_of

_ARRAY = "__array__"
_WEIGHTS = "a file of weights alone is read by load_weights(model, path)"


def _encode(value: Any, arrays: dict[str, Array], name: str) -> Any:
    """Return `value` as JSON holds it, its arrays moved to `arrays`."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.bool_ | np.integer | np.floating):
        return value.item()
    if isinstance(value, list | tuple):
        return [_encode(item, arrays, f"{name}.{k}") for k, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or key == _ARRAY:
                raise TypeError(f"{name}: expected names as keys, got {key!r}")
        return {key: _encode(item, arrays, f"{name}.{key}") for key, item in value.items()}
    try:
        array = asnumpy(value)
        if array.dtype.kind not in "biufc":
            raise TypeError(array.dtype)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name}: expected arrays, numbers, strings, lists and dicts, got {type(value).__name__}"
        ) from None
    entry = f"arrays/{len(arrays)}"
    arrays[entry] = np.ascontiguousarray(array).reshape(array.shape)
    return {_ARRAY: entry}


def _decode(value: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(value, list):
        return [_decode(item, arrays) for item in value]
    if isinstance(value, dict):
        if value.keys() == {_ARRAY}:
            return arrays[value[_ARRAY]]
        return {key: _decode(item, arrays) for key, item in value.items()}
    return value


def _states(model: Module) -> dict[str, Any]:
    own = [dict(g.bit_generator.state) for g in generators_of(model)]
    return {"global": get_rng_state(), "layers": own}


def _set_states(model: Module, states: Mapping[str, Any]) -> None:
    own = generators_of(model)
    if len(states["layers"]) != len(own):
        raise ValueError(
            f"generators: expected {len(own)}, those of the model's layers, got {len(states['layers'])}"
        )
    for generator, state in zip(own, states["layers"], strict=True):
        generator.bit_generator.state = state
    set_rng_state(states["global"])


def save_checkpoint(
    path: PathLike,
    *,
    model: Module,
    optimizer: Any = None,
    scheduler: Any = None,
    step: int = 0,
    extra: Any = None,
) -> None:
    """Write all that a run needs to go on, into one file: :func:`load_checkpoint` reads it.

    Beside what is given these are the states of the generators: the library's own and each layer's.

    Parameters
    ----------
    path : path
        The file.
    model : Module
        Whose parameters are meant.
    optimizer, scheduler : object with ``state_dict`` and ``load_state_dict``, optional
        Whose states are kept too.
    step : int
        How many steps have been taken.
    extra : optional
        What else the run needs, a data position, say: numbers, strings, arrays, lists and dicts of such.

    Raises
    ------
    TypeError
        If a state or `extra` holds something else; no file is written.
    ValueError
        If `step` is negative or no integer.

    See Also
    --------
    load_checkpoint, save_weights : Of the same kind.

    Examples
    --------
    >>> import minirnn, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.ckpt"
    >>> model = minirnn.Linear(2, 1)
    >>> optimizer = minirnn.Adam(model.parameters())
    >>> extra = {"lost": [0.7, 0.5], "seen": 128}
    >>> minirnn.save_checkpoint(path, model=model, optimizer=optimizer, step=2, extra=extra)
    >>> minirnn.load_checkpoint(path, model=model, optimizer=optimizer)
    {'step': 2, 'extra': {'lost': [0.7, 0.5], 'seen': 128}}
    """
    if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 0:
        raise ValueError(f"step: expected an integer >= 0, got {step!r:.80}")
    arrays: dict[str, Array] = {}
    parts = {"optimizer": optimizer, "scheduler": scheduler}
    _check(path, model, parts)
    content = {
        **MADE_BY,
        "version": version(),
        "step": int(step),
        "extra": _encode(extra, arrays, "extra"),
        "generators": _encode(_states(model), arrays, "generators"),
        **{k: p and _encode(p.state_dict(), arrays, k) for k, p in parts.items()},
    }
    arrays |= {f"model/{name}": a for name, a in host_arrays(model.state_dict()).items()}
    with atomic_write(path) as file:
        write_zip(file, arrays, {CHECKPOINT: json.dumps(content)})


def load_checkpoint(
    path: PathLike, *, model: Module, optimizer: Any = None, scheduler: Any = None
) -> dict[str, Any]:
    """Go on from what :func:`save_checkpoint` wrote: all of it is restored, or nothing is changed.

    Parameters
    ----------
    path : path
        The file.
    model, optimizer, scheduler : objects
        Made as those of the run that saved.

    Returns
    -------
    dict
        With ``"step"`` and ``"extra"``.

    Raises
    ------
    ValueError
        If the file is damaged or does not fit; nothing is changed.

    See Also
    --------
    save_checkpoint, load_weights : Of the same kind.

    Examples
    --------
    >>> import numpy as np, minirnn, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.ckpt"
    >>> model = minirnn.Sequential(minirnn.Linear(2, 3), minirnn.Dropout(0.5, rng=0))
    >>> minirnn.save_checkpoint(path, model=model)
    >>> x = np.ones((4, 2), np.float32)
    >>> y = model(x)
    >>> _ = minirnn.load_checkpoint(path, model=model)
    >>> bool((model(x) == y).all())  # dropout goes on from where it was, too
    True
    """
    parts = {k: p for k, p in (("optimizer", optimizer), ("scheduler", scheduler)) if p is not None}
    _check(path, model, parts)
    if Path(path).suffix == ".safetensors":
        raise ValueError(f"{path}: no checkpoint of minirnn; {_WEIGHTS}")
    with opened(path) as file, opened_zip(path, file) as archive:
        weights, content = _read(path, archive, model, ("step", "extra", "generators", *parts))
    if type(content["step"]) is not int or content["step"] < 0:
        raise ValueError(f"{path}: step: expected an integer >= 0, got {content['step']!r:.200}")
    if missing := [k for k in parts if content[k] is None]:
        raise ValueError(f"{path}: expected the state of the {missing[0]}, which was not saved")
    before = {k: p.state_dict() for k, p in parts.items()}
    before_model, before_states = model.state_dict(), _states(model)
    try:
        _set_states(model, content["generators"])
        for k, p in parts.items():
            p.load_state_dict(content[k])
        model.load_state_dict(weights)
    except BaseException as error:
        model.load_state_dict(before_model)
        for k, p in parts.items():
            p.load_state_dict(before[k])
        _set_states(model, before_states)
        if not isinstance(error, Exception):
            raise
        raise ValueError(f"{path}: does not fit: {error}") from error
    return {"step": content["step"], "extra": content["extra"]}


def _check(path: PathLike, model: Module, parts: Mapping[str, Any]) -> None:
    checks.path("path", path)
    for name, part in {"model": model, **parts}.items():
        if part is not None or name == "model":
            checks.having(name, part, "an object with a state", "state_dict", "load_state_dict")


def _json(path: PathLike, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise ValueError(f"{path}: {CHECKPOINT}: expected JSON: {error}") from None


def _read(
    path: PathLike, archive: zipfile.ZipFile, model: Module, keys: tuple[str, ...]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the weights, which have to be the model's, and what the file holds under `keys`."""
    members = entries(path, archive)
    for name, info in members.items():
        # As stored, nothing takes more memory than the file takes on the disk.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError(f"{path}: {name[:200]}: expected it stored, got it compressed")
    if CHECKPOINT not in members:
        raise ValueError(f"{path}: no checkpoint of minirnn: {CHECKPOINT} is missing; {_WEIGHTS}")
    weights = read_weights(path, archive, model.state_dict(), "model/")
    try:
        text = _json(path, archive.read(CHECKPOINT))
        arrays = {
            name.removesuffix(".npy"): read_array(path, archive, info)
            for name, info in members.items()
            if name.startswith("arrays/")
        }
        return weights, {k: _decode(text[k], arrays) for k in keys}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: no checkpoint of minirnn: {error} is missing") from None
