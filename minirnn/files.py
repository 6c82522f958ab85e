"""Weights and checkpoints as files: whole or not there, and nothing in them is ever executed.

A file is written beside its final name, flushed to the disk and renamed, so that whoever looks finds the old
one or the new one. What is read is looked through first: names, dtypes and shapes are compared with the
model's before memory is taken for values, and the model changes only when all of it fits.

A weights file holds the names and arrays of :meth:`minirnn.Module.state_dict`, which are torch's.
A checkpoint is a zip file of NumPy arrays and one JSON text, in which
``{"__array__": name}`` stands for an array.
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from .atomic import PathLike, atomic_write
from .backend import Array, asnumpy, get_rng_state, set_rng_state
from .module import Module

_MADE_BY = {"made_by": "minirnn", "format": "1"}
_SAFETENSORS = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
_HEADER = 10_000  # bytes: what describes one array
_ARRAY = "__array__"


@contextmanager
def _opened(path: PathLike) -> Iterator[IO[bytes]]:
    """Open a regular file for reading; a pipe would be waited for without end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path}: expected a regular file")
    with open(path, "rb") as file:
        yield file


def _version() -> str:
    from . import __version__

    return __version__


def _host_arrays(state_dict: Mapping[str, Array]) -> dict[str, Array]:
    return {
        name: np.ascontiguousarray(asnumpy(a)).reshape(a.shape) for name, a in state_dict.items()
    }


def save_weights(model: Module, path: PathLike) -> None:
    """Write the model's weights, under torch's names, as ``.safetensors`` or ``.npz``.

    Parameters
    ----------
    model : Module
    path : path
        Its suffix chooses the format: ``.safetensors`` is what others read, and needs the library of that
        name; ``.npz`` is NumPy's own.

    Raises
    ------
    ValueError
        If the suffix is neither of the two.
    ImportError
        If the safetensors library is asked for and not installed.

    See Also
    --------
    load_weights, save_checkpoint

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
    suffix = _suffix(path)
    arrays = _host_arrays(model.state_dict())
    about = {**_MADE_BY, "version": _version()}
    if suffix == ".safetensors":
        # The format has no checksum of its own, so each array's goes into the metadata, which are strings.
        sums = {name: zlib.crc32(a.data.cast("B") if a.size else b"") for name, a in arrays.items()}
        content = _safetensors().numpy.save(arrays, {**about, "crc32": json.dumps(sums)})
        with atomic_write(path) as file:
            file.write(content)
    else:
        with atomic_write(path) as file:
            _write_zip(file, arrays, {}, json.dumps(about))


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
    ValueError
        If the file is damaged, or its names, shapes or dtypes are not the model's, or a value is not finite:
        with file and entry, before memory is taken for values of another shape, and the model unchanged.
    FileNotFoundError
        If there is no such file.
    ImportError
        If the safetensors library is needed and not installed.

    See Also
    --------
    save_weights, load_checkpoint
    """
    suffix = _suffix(path)
    own = model.state_dict()
    if suffix == ".safetensors":
        values = _read_safetensors(path, own)
    else:
        with _opened(path) as file, _zip(path, file) as archive:
            values = _read_weights(path, archive, own, "")
    model.load_state_dict(values)


def _suffix(path: PathLike) -> str:
    suffix = Path(path).suffix
    if suffix not in (".safetensors", ".npz"):
        raise ValueError(f"path: expected a name that ends in .safetensors or .npz, got {path}")
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


# What every format has to satisfy -------------------------------------------------------------


def _check_names(path: PathLike, found: list[str], own: Mapping[str, Array]) -> None:
    """Require the names in a file to be those of the model, each once."""
    known = set(found)
    problems = (
        [f"duplicate: {name!r}" for name in known if found.count(name) > 1]
        if len(known) < len(found)
        else []
    )
    problems += [f"missing: {name}" for name in own if name not in known]
    problems += [f"unexpected: {name[:200]!r}" for name in found if name not in own]
    if problems:
        cut = problems[:20] + [f"and {len(problems) - 20} more"] * (len(problems) > 20)
        raise ValueError(f"{path} does not fit the model:\n  " + "\n  ".join(cut))


def _check_entry(path: PathLike, name: str, shape: Any, dtype: Any, like: Array) -> None:
    if dtype not in _SAFETENSORS.values():
        raise ValueError(f"{path}: {name}: expected float16, float32 or float64, got {dtype}")
    if shape != like.shape:
        raise ValueError(f"{path}: {name}: expected shape {like.shape}, got {shape}")


def _converted(path: PathLike, name: str, value: Array, like: Array) -> Array:
    """Return `value` in the dtype of `like`, if it is all finite there."""
    with np.errstate(over="ignore"):
        value = value.astype(like.dtype, copy=False)
    bad = value.size - np.count_nonzero(np.isfinite(value))
    if bad:
        raise ValueError(
            f"{path}: {name}: expected finite values, got {bad} of {value.size} "
            f"that are NaN or infinite in {like.dtype}"
        )
    return value


# safetensors ----------------------------------------------------------------------------------


def _read_safetensors(path: PathLike, own: Mapping[str, Array]) -> dict[str, Array]:
    library = _safetensors()
    header = _safetensors_header(path, 2**20 + 1024 * len(own))
    about = header.pop("__metadata__", {})
    _check_names(path, list(header), own)
    for name, entry in header.items():
        shape, kind = entry["shape"], entry["dtype"]
        _check_entry(path, name, tuple(shape), _SAFETENSORS.get(kind, kind), own[name])
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
        values[name] = _converted(path, name, value, own[name])
    return values


def _safetensors_header(path: PathLike, limit: int) -> dict[str, Any]:
    """Return the header of a .safetensors file, which is checked as far as the library does not."""
    with _opened(path) as file:
        size = int.from_bytes(file.read(8), "little")
        room = os.fstat(file.fileno()).st_size - 8
        if not 2 <= size <= room:
            raise ValueError(
                f"{path}: no whole .safetensors file: a header of {size} bytes in {room}"
            )
        if size > limit:
            raise ValueError(f"{path}: expected a header of at most {limit} bytes, got {size}")
        text = file.read(size)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"duplicate name {twice[:200]!r}")
        return found

    try:
        header = json.loads(text.decode(), object_pairs_hook=once)
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


# zip files of arrays: .npz and checkpoints ----------------------------------------------------


def _write_zip(
    file: IO[bytes], arrays: Mapping[str, Array], texts: Mapping[str, str], comment: str = ""
) -> None:
    """Write arrays, as ``numpy.savez`` does, and texts; always the same bytes for the same content."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = comment.encode()
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name), text)
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


@contextmanager
def _zip(path: PathLike, file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """Open a zip file; whatever is wrong with it, here and in the block, is a ValueError with its name."""
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        UnicodeError,
        RecursionError,
        OverflowError,
        OSError,
        RuntimeError,
    ) as error:
        raise ValueError(f"{path}: damaged, or no file of arrays: {error}") from None


def _members(path: PathLike, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return what is in a zip file by name, each name once, stored or deflated."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if info.filename in found:
            raise ValueError(f"{path}: duplicate entry {info.filename[:200]!r}")
        if (
            info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            or info.flag_bits & 1
        ):
            raise ValueError(f"{path}: {info.filename[:200]!r}: expected it stored or deflated")
        found[info.filename] = info
    return found


def _described(path: PathLike, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[Any, ...]:
    """Return shape, order, dtype and where the values begin, of an array in a zip file."""
    with archive.open(info) as member:
        head = io.BytesIO(member.read(_HEADER))
    name = info.filename.removesuffix(".npy")
    try:
        version = np.lib.format.read_magic(head)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(head)
    except KeyError:
        raise ValueError(f"{path}: {name}: an .npy of unknown version") from None
    except Exception as error:  # whatever the parser of a header made by a stranger runs into
        raise ValueError(f"{path}: {name}: no .npy header: {str(error)[:200]}") from None
    if dtype.hasobject:
        raise ValueError(
            f"{path}: {name}: expected numbers, got Python objects, which are not loaded"
        )
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or info.file_size != head.tell() + size:
        raise ValueError(
            f"{path}: {name}: expected {head.tell() + size} bytes for shape {shape}, got {info.file_size}"
        )
    return shape, fortran, dtype, head.tell()


def _read_array(path: PathLike, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    shape, fortran, dtype, start = _described(path, archive, info)
    with archive.open(info) as member:
        content = member.read(
            info.file_size + 1
        )  # to the end and beyond, where the checksum is compared
    values = np.frombuffer(content, dtype, math.prod(shape), start)
    values = values.reshape(shape, order="F" if fortran else "C")
    return values.astype(dtype.newbyteorder("="), order="C")


def _read_weights(
    path: PathLike, archive: zipfile.ZipFile, own: Mapping[str, Array], folder: str
) -> dict[str, Array]:
    """Return the arrays in `folder` of a zip file, which have to be those of `own`."""
    members = {
        name.removeprefix(folder).removesuffix(".npy"): info
        for name, info in _members(path, archive).items()
        if name.startswith(folder)
    }
    _check_names(path, list(members), own)
    for name, info in members.items():
        shape, _, dtype, _ = _described(path, archive, info)
        _check_entry(path, name, shape, dtype.newbyteorder("="), own[name])
    return {
        name: _converted(path, name, _read_array(path, archive, info), own[name])
        for name, info in members.items()
    }


# Checkpoints ----------------------------------------------------------------------------------


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


def _generators(model: Module) -> list[np.random.Generator]:
    """Return the generators that the model's layers own, each once, in the order of definition."""
    found: dict[int, np.random.Generator] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, np.random.Generator):
                found.setdefault(id(value), value)
    return list(found.values())


def _states(model: Module) -> dict[str, Any]:
    own = [dict(g.bit_generator.state) for g in _generators(model)]
    return {"global": get_rng_state(), "layers": own}


def _set_states(model: Module, states: Mapping[str, Any]) -> None:
    own = _generators(model)
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
    model : Module
    optimizer, scheduler : object with ``state_dict`` and ``load_state_dict``, optional
    step : int
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
    load_checkpoint, save_weights
    """
    if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 0:
        raise ValueError(f"step: expected an integer >= 0, got {step!r}")
    arrays: dict[str, Array] = {}
    parts = {"optimizer": optimizer, "scheduler": scheduler}
    content = {
        **_MADE_BY,
        "version": _version(),
        "step": int(step),
        "extra": _encode(extra, arrays, "extra"),
        "generators": _encode(_states(model), arrays, "generators"),
        **{k: p and _encode(p.state_dict(), arrays, k) for k, p in parts.items()},
    }
    arrays |= {f"model/{name}": a for name, a in _host_arrays(model.state_dict()).items()}
    with atomic_write(path) as file:
        _write_zip(file, arrays, {"checkpoint.json": json.dumps(content)})


def load_checkpoint(
    path: PathLike, *, model: Module, optimizer: Any = None, scheduler: Any = None
) -> dict[str, Any]:
    """Go on from what :func:`save_checkpoint` wrote: all of it is restored, or nothing is changed.

    Parameters
    ----------
    path : path
    model, optimizer, scheduler
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
    save_checkpoint, load_weights
    """
    parts = {k: p for k, p in (("optimizer", optimizer), ("scheduler", scheduler)) if p is not None}
    with _opened(path) as file, _zip(path, file) as archive:
        members = _members(path, archive)
        for name, info in members.items():
            # As stored, nothing takes more memory than the file takes on the disk.
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ValueError(f"{path}: {name[:200]}: expected it stored, got it compressed")
        weights = _read_weights(path, archive, model.state_dict(), "model/")
        try:
            text = json.loads(archive.read("checkpoint.json"))
            arrays = {
                name.removesuffix(".npy"): _read_array(path, archive, info)
                for name, info in members.items()
                if name.startswith("arrays/")
            }
            content = {k: _decode(text[k], arrays) for k in ("step", "extra", "generators", *parts)}
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: no checkpoint of minirnn: {error} is missing") from None
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
