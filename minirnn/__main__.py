"""What computes here: ``python -m minirnn``, or with ``--json`` for a program to read."""

from __future__ import annotations

import argparse
import json
import os
import platform
from importlib import import_module, metadata
from typing import Any

import numpy as np

from . import __version__
from .backend import default_xp, load_backend
from .functional import gru, lstm, rnn
from .pairs import native_available, pair_for
from .threads import BLAS_THREADS, num_threads


def report() -> dict[str, Any]:
    """Return versions, where arrays are made, BLAS, threads, and which pair runs a layer on the host."""
    config: Any = np.show_config(mode="dicts")
    blas = config["Build Dependencies"]["blas"]
    return {
        "minirnn": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
        "cupy": _cupy(),
        "gpu": _gpu(),
        "new arrays": default_xp().__name__,
        "blas": f"{blas['name']} {blas['version']}",
        "blas threads": {name: os.environ[name] for name in BLAS_THREADS if name in os.environ},
        "threads": num_threads(),
        "native": _native(),
        "layers": {
            f"{cell} {dtype}": pair_for(pair, np.empty(0, dtype)).__name__
            for cell, pair in {"RNN": rnn, "LSTM": lstm, "GRU": gru}.items()
            for dtype in ("float32", "float64")
        }
        | {"LSTM with proj_size": lstm.__name__},
    }


def _cupy() -> str | None:
    """Return CuPy's version, whatever its distribution for this CUDA is called."""
    names = metadata.packages_distributions().get("cupy")
    return metadata.version(names[0]) if names else None


def _gpu() -> str | None:
    """Return the names of the GPUs, None without CuPy, or why there are none: a report never fails."""
    if _cupy() is None:
        return None
    try:
        runtime = load_backend("cupy").cuda.runtime
        devices = [runtime.getDeviceProperties(i) for i in range(runtime.getDeviceCount())]
    except Exception as error:
        return f"not usable: {error}"
    return ", ".join(device["name"].decode() for device in devices) or None


def _native() -> str | None:
    """Return the instruction set of the loops in C, or None where they were not built."""
    if not native_available():
        return None
    name: str = import_module("minirnn.native._loops").instruction_sets()[-1]
    return name


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(prog="python -m minirnn", description=__doc__)
    parser.add_argument("--json", action="store_true", help="for a program to read")
    values = report()
    if parser.parse_args().json:
        print(json.dumps(values, indent=2))
        return
    for name, value in values.items():
        if isinstance(value, dict):
            value = "".join(f"\n  {k:20} {v}" for k, v in value.items()) or "as BLAS decides"
        print(f"{name:14} {'none' if value is None else value}")


if __name__ == "__main__":
    main()
