"""Arrays in a file: what every format has to satisfy, and zip files of arrays, which NumPy reads too.

What is read is looked through first: names, dtypes and shapes are compared with the model's before memory is
taken for values. Nothing in a file is ever executed.
"""

from __future__ import annotations

import io
import math
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from .atomic import PathLike
from .backend import Array, asnumpy

MADE_BY = {"made_by": "minirnn", "format": "1"}
# By the names that safetensors gives them.
FLOATS = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
# What a checkpoint holds beside arrays, and a file of weights does not.
CHECKPOINT = "checkpoint.json"
_HEADER = 10_000  # bytes: what describes one array


@contextmanager
def opened(path: PathLike) -> Iterator[IO[bytes]]:
    """Open a regular file for reading; a pipe would be waited for without end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path}: expected a regular file")
    with open(path, "rb") as file:
        yield file


def version() -> str:
    """Return minirnn's, for whoever looks into a file."""
    from . import __version__

    return __version__


def host_arrays(state_dict: Mapping[str, Array]) -> dict[str, Array]:
    """Return the values as they lie in a file: on the host, contiguous."""
    return {
        name: np.ascontiguousarray(asnumpy(a)).reshape(a.shape) for name, a in state_dict.items()
    }


# What every format has to satisfy -------------------------------------------------------------


def check_names(path: PathLike, found: list[str], own: Mapping[str, Array]) -> None:
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


def check_entry(path: PathLike, name: str, shape: Any, dtype: Any, like: Array) -> None:
    """Require an entry's dtype to be a floating-point one, and its shape that of `like`."""
    if dtype not in FLOATS.values():
        raise ValueError(f"{path}: {name}: expected float16, float32 or float64, got {dtype}")
    if shape != like.shape:
        raise ValueError(f"{path}: {name}: expected shape {like.shape}, got {shape}")


def converted(path: PathLike, name: str, value: Array, like: Array) -> Array:
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


# Zip files of arrays: .npz and checkpoints ----------------------------------------------------


def write_zip(
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
def opened_zip(path: PathLike, file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
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


def entries(path: PathLike, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
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


def read_array(path: PathLike, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """Return an array in a zip file, after its header was looked through."""
    shape, fortran, dtype, start = _described(path, archive, info)
    with archive.open(info) as member:
        # To the end and beyond, where the checksum is compared.
        content = member.read(info.file_size + 1)
    values = np.frombuffer(content, dtype, math.prod(shape), start)
    values = values.reshape(shape, order="F" if fortran else "C")
    return values.astype(dtype.newbyteorder("="), order="C")


def read_weights(
    path: PathLike, archive: zipfile.ZipFile, own: Mapping[str, Array], folder: str
) -> dict[str, Array]:
    """Return the arrays in `folder` of a zip file, which have to be those of `own`."""
    members = {
        name.removeprefix(folder).removesuffix(".npy"): info
        for name, info in entries(path, archive).items()
        if name.startswith(folder)
    }
    check_names(path, list(members), own)
    for name, info in members.items():
        shape, _, dtype, _ = _described(path, archive, info)
        check_entry(path, name, shape, dtype.newbyteorder("="), own[name])
    return {
        name: converted(path, name, read_array(path, archive, info), own[name])
        for name, info in members.items()
    }
