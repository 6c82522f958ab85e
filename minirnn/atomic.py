"""Files that are whole or not there."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows, which itself refuses to delete a file that another process has open
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]


@contextmanager
def atomic_write(path: PathLike) -> Iterator[IO[bytes]]:
    """Open a binary file that takes the name `path` only when it is whole and on the disk.

    If the block raises, or the process dies in it, what was at `path` stays as it is. What a process that was
    killed has left beside it, a file whose name ends in ``.tmp``, the next one to write there removes.

    Raises
    ------
    ValueError
        If there is something at `path` that is no regular file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "notes.txt"
    >>> with atomic_write(path) as file:
    ...     _ = file.write(b"whole")
    >>> path.read_bytes()
    b'whole'
    """
    final = Path(os.path.realpath(path))  # a link stays one, and what it points to is replaced
    if final.exists() and not final.is_file():
        raise ValueError(f"path: expected the name of a file, got {path}, which is none")
    _remove_leftovers(final)
    try:
        partial, file = _created(final)
    except OSError as error:  # which names a file that nobody has asked for
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is not None:  # as long as it is locked
                os.replace(partial, final)
        if fcntl is None:
            os.replace(partial, final)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name, too, has to reach the disk
        folder = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _created(final: Path) -> tuple[Path, IO[bytes]]:
    """Return a new file beside `final`, locked for as long as this process has it open."""
    while True:
        partial = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
        file = open(partial, "xb")  # noqa: SIM115
        with suppress(OSError):  # a file system without locks
            _lock(file, wait=True)
        if partial.exists():
            return partial, file
        file.close()  # somebody took it for a leftover before it was locked


def _remove_leftovers(final: Path) -> None:
    """Remove what processes that died in the middle of writing `final` have left: what nobody has locked."""
    name = re.compile(re.escape(f".{final.name}.") + "[0-9a-f]{8}[.]tmp")
    with suppress(OSError):
        for entry in os.scandir(final.parent):
            if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError), open(entry.path, "rb") as file:
                    _lock(file, wait=False)
                    os.unlink(entry.path)


def _lock(file: IO[bytes], wait: bool) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
