"""A model's weights as a file, in the format that its suffix names.

It holds the names and arrays of :meth:`minirnn.Module.state_dict`, which are torch's. The model changes only
when all of a file fits.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import checks
from .archive import (
    CHECKPOINT,
    FLOATS,
    MADE_BY,
    check_entry,
    check_names,
    converted,
    host_arrays,
    opened,
    opened_zip,
    read_weights,
    version,
    write_zip,
)
from .atomic import PathLike, atomic_write
from .backend import Array
from .module import Module

_A_RUN = "what save_checkpoint wrote is read by load_checkpoint(path, model=model)"


def save_weights(model: Module, path: PathLike) -> None:
    """Write the model's weights, under torch's names, as ``.safetensors`` or ``.npz``.

    Parameters
    ----------
    model : Module
        Whose parameters are meant.
    path : path
        Its suffix chooses the format: ``.safetensors`` is what others read, and needs the library of that
        name; ``.npz`` is NumPy's own.

    Raises
    ------
    TypeError
        If `model` is no module, or `path` no path.
    ValueError
        If the suffix is neither of the two.
    ImportError
        If the safetensors library is asked for and not installed.

    See Also
    --------
    load_weights, save_checkpoint : Of the same kind.

    Examples
    --------
    >>> import minirnn, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "weights.npz"
    >>> layer = minirnn.GRU(3, 4)
    >>> minirnn.save_weights(layer, path)
    >>> other = minirnn.GRU(3, 4)
    >>> minirnn.load_weights(other, path)
    >>> bool((other.weight_hh_l0.data == layer.weight_hh_l0.data).all())
    True
    """
    checks.having("model", model, "a Module", "state_dict")
    suffix = _suffix(path)
    arrays = host_arrays(model.state_dict())
    about = {**MADE_BY, "version": version()}
    if suffix == ".safetensors":
        # The format has no checksum of its own, so each array's goes into the metadata, which are strings.
        sums = {name: zlib.crc32(a.data.cast("B") if a.size else b"") for name, a in arrays.items()}
        content = _safetensors().numpy.save(arrays, {**about, "crc32": json.dumps(sums)})
        with atomic_write(path) as file:
            file.write(content)
    else:
        with atomic_write(path) as file:
            write_zip(file, arrays, {}, json.dumps(about))


def load_weights(model: Module, path: PathLike) -> None:
    """Read weights that :func:`save_weights`, torch's side of safetensors, or ``numpy.savez`` wrote.

    Parameters
    ----------
    model : Module
        Its names and shapes are what the file has to hold; values are converted to its dtype.
    path : path
        A ``.safetensors`` or ``.npz`` file.

    Raises
    ------
    TypeError
        If `model` is no module, or `path` no path.
    ValueError
        If the file is damaged, or its names, shapes or dtypes are not the model's, or a value is not finite:
        with file and entry, before memory is taken for values of another shape, and the model unchanged.
    FileNotFoundError
        If there is no such file.
    ImportError
        If the safetensors library is needed and not installed.

    See Also
    --------
    save_weights, load_checkpoint : Of the same kind.

    Examples
    --------
    >>> import numpy as np, minirnn, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "weights.npz"
    >>> np.savez(path, weight=np.ones((1, 2)), bias=np.zeros(1))
    >>> layer = minirnn.Linear(2, 1)
    >>> minirnn.load_weights(layer, path)
    >>> layer.weight.data
    array([[1., 1.]], dtype=float32)
    """
    checks.having("model", model, "a Module", "load_state_dict")
    suffix = _suffix(path, f"; {_A_RUN}")
    own = model.state_dict()
    if suffix == ".safetensors":
        values = _read_safetensors(path, own)
    else:
        with opened(path) as file, opened_zip(path, file) as archive:
            if CHECKPOINT in archive.namelist():
                raise ValueError(f"{path}: expected weights alone, got a whole run: {_A_RUN}")
            values = read_weights(path, archive, own, "")
    model.load_state_dict(values)


def _suffix(path: PathLike, hint: str = "") -> str:
    checks.path("path", path)
    suffix = Path(path).suffix
    if suffix not in (".safetensors", ".npz"):
        raise ValueError(
            f"path: expected a name that ends in .safetensors or .npz, got {path}{hint}"
        )
    return suffix


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "a .safetensors file needs the library of that name: pip install 'minirnn[safetensors]', "
            "or give the file the suffix .npz"
        ) from error
    return safetensors


def _read_safetensors(path: PathLike, own: Mapping[str, Array]) -> dict[str, Array]:
    library = _safetensors()
    header = _safetensors_header(path, 2**20 + 1024 * len(own))
    about = header.pop("__metadata__", {})
    check_names(path, list(header), own)
    for name, entry in header.items():
        shape, kind = entry["shape"], entry["dtype"]
        check_entry(path, name, tuple(shape), FLOATS.get(kind, kind), own[name])
    sums = json.loads(about.get("crc32", "{}"))
    values = {}
    try:
        with library.safe_open(path, framework="numpy") as file:
            for name in header:
                values[name] = file.get_tensor(name)
    except (library.SafetensorError, OSError, TypeError) as error:
        raise ValueError(f"{path}: no whole .safetensors file: {error}") from None
    for name, value in values.items():
        if name in sums and zlib.crc32(value.tobytes()) != sums[name]:
            raise ValueError(
                f"{path}: {name}: damaged, its checksum is not the one it was saved with"
            )
        values[name] = converted(path, name, value, own[name])
    return values


def _safetensors_header(path: PathLike, limit: int) -> dict[str, Any]:
    """Return the header of a .safetensors file, which is checked as far as the library does not."""
    text = _header_text(path, limit)
    try:
        header = json.loads(text.decode(), object_pairs_hook=_each_once)
        about = header.get("__metadata__", {})
        sums = json.loads(about.get("crc32", "{}"))
        for name, entry in header.items():
            if name != "__metadata__":
                whole = all(type(n) is int for n in (*entry["shape"], *entry["data_offsets"]))
                if not whole or type(entry["dtype"]) is not str or len(entry["data_offsets"]) != 2:
                    raise ValueError(f"{name[:200]!r} is described by {str(entry)[:200]}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: no .safetensors header: {error}") from None
    if type(sums) is not dict:
        raise ValueError(f"{path}: crc32: expected the checksums of the arrays")
    if about.get("made_by") == "minirnn" and sums.keys() != header.keys() - {"__metadata__"}:
        raise ValueError(f"{path}: crc32: expected a checksum for each array")
    return dict(header)


def _header_text(path: PathLike, limit: int) -> bytes:
    with opened(path) as file:
        size = int.from_bytes(file.read(8), "little")
        rest = os.fstat(file.fileno()).st_size - 8
        if not 2 <= size <= rest:
            raise ValueError(
                f"{path}: no whole .safetensors file: a header of {size} bytes in {rest}"
            )
        if size > limit:
            raise ValueError(f"{path}: expected a header of at most {limit} bytes, got {size}")
        return file.read(size)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, whose names may not repeat."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"duplicate name {twice[:200]!r}")
    return found
