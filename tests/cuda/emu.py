"""Compile CUDA C with g++ and run it on the CPU; `cuda_emu.cpp` says how, and what it can catch."""

import ctypes
import functools
import itertools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
_KERNEL = re.compile(r'extern "C" __global__ void(?: __launch_bounds__\(.*\))?\s+(\w+)\(([^)]*)\)')
_POINTER = re.compile(r"typedef (?:const )?(\w+\*) __restrict__ (\w+);")

_numbers = itertools.count()


class CompileError(RuntimeError):
    """The compiler refuses the source."""


class KernelError(RuntimeError):
    """A kernel did what would hang, race or corrupt memory on a GPU."""


def available():
    """Tell whether kernels can be compiled here."""
    return shutil.which("g++") is not None


@functools.cache
def _folder():
    return tempfile.TemporaryDirectory(prefix="cuda_emu")


def _compile(source, name, *options):
    """Compile into the folder, and return the path of the result."""
    path = Path(_folder().name) / name
    path.write_text(source)
    target = path.with_suffix(".h.gch" if path.suffix == ".h" else ".so")
    kind = ["-x", "c++-header"] if path.suffix == ".h" else ["-shared"]
    command = ["g++", "-std=c++17", "-w", "-fPIC", *options, *kind, path, "-o", target]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CompileError(done.stderr)
    return target


@functools.cache
def _runtime():
    # The header is compiled beforehand: most of the time goes into the standard headers.
    _compile((HERE / "cuda_emu.h").read_text(), "cuda_emu.h", "-O0")
    path = _compile((HERE / "cuda_emu.cpp").read_text(), "cuda_emu.cpp", "-O2")
    library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    library.emu_launch.restype = ctypes.c_char_p
    return library


@functools.cache
def _library(source, options):
    """Return the compiled source, and for each kernel the types of its parameters."""
    _runtime()
    kernels = dict(_KERNEL.findall(source))
    pointers = {name: kind for kind, name in _POINTER.findall(source)}
    text = (
        '#include "cuda_emu.h"\n' + source + "".join(f"\nEMU_EXPORT({k})" for k in kernels) + "\n"
    )
    path = _compile(text, f"kernels{next(_numbers)}.cpp", "-O0", *options)

    def kind(parameter):
        found = re.sub(r"\b(const|__restrict__)\b|\w+$| ", "", parameter.strip())
        return pointers.get(found, found)

    types = {
        kernel: [kind(p) for p in parameters.split(",")] for kernel, parameters in kernels.items()
    }
    return ctypes.CDLL(path), types


class Module:
    """Compiled kernels, like a `cupy.RawModule` for NumPy arrays.

    The types of the arguments are compared with those of the kernel's parameters, which a GPU would not do.
    """

    def __init__(self, code, options=(), seed=0):
        self.options = tuple(o for o in options if o.startswith("-D"))
        self.library, self.types = _library(code, self.options)
        self.seed = seed
        names = dict(o.removeprefix("-D").split("=") for o in self.options)
        floating = {"float": np.float32, "double": np.float64}
        real = floating.get(names.get("real"))
        self.dtypes = {"float": np.float32, "real": real, "int": np.int32, "int64": np.int64}

    def launch(self, kernel, grid, block, arguments, shared_mem=0, seed=None):
        """Run a kernel; arrays have to be contiguous, numbers NumPy scalars."""
        types = self.types[kernel]
        if len(types) != len(arguments):
            raise KernelError(f"{kernel} takes {len(types)} arguments, got {len(arguments)}")
        held = [
            self._argument(f"{kernel}, argument {k}", kind, a)
            for k, (kind, a) in enumerate(zip(types, arguments, strict=True))
        ]
        pointers = (ctypes.c_void_p * len(held))(*[ctypes.addressof(h) for h in held])
        three = ctypes.c_uint * 3
        message = _runtime().emu_launch(
            getattr(self.library, f"emu_run_{kernel}"),
            pointers,
            three(*(*grid, 1, 1)[:3]),
            three(*(*block, 1, 1)[:3]),
            ctypes.c_size_t(shared_mem),
            self.seed if seed is None else seed,
        )
        if message:
            raise KernelError(f"{kernel}: {message.decode()}")

    def _argument(self, what, kind, value):
        dtype = self.dtypes[kind.rstrip("*")]
        if not kind.endswith("*"):
            if type(value) is not dtype:
                raise KernelError(f"{what}: expected {dtype.__name__}, got {type(value).__name__}")
            return {4: ctypes.c_int32, 8: ctypes.c_int64}[value.nbytes](int(value))
        if isinstance(value, np.uintp) and value == 0:
            return ctypes.c_void_p(0)
        if not isinstance(value, np.ndarray) or value.dtype != dtype:
            got = getattr(value, "dtype", type(value).__name__)
            raise KernelError(f"{what}: expected an array of {dtype.__name__}, got {got}")
        if not value.flags.c_contiguous:
            raise KernelError(f"{what}: expected a contiguous array, kernels ignore strides")
        return ctypes.c_void_p(value.ctypes.data)
