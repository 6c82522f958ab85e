"""The GPU, pretended or real, as fixtures."""

import importlib.util
import sys

import emu
import pytest
import strict_cupy

import minirnn
from minirnn import layout
from minirnn.cuda import launch


def gpu_missing():
    """Return why there is no GPU to test on, or None."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed"
    import cupy

    return None if cupy.cuda.is_available() else "CuPy finds no CUDA device"


def _forget():
    """Drop what was kept for one backend under a name that the next one shares."""
    layout.kept.clear()
    for cached in (launch._module, launch.function, launch.multiprocessors):
        cached.cache_clear()


@pytest.fixture
def double(monkeypatch):
    """The strict stand-in, in CuPy's place."""
    if not emu.available():
        pytest.skip("g++ is not installed: kernels cannot be emulated")
    module = strict_cupy.make()
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(strict_cupy.RawModule, "seed", 0)
    monkeypatch.delenv("CUPY_TF32", raising=False)
    _forget()
    for name in strict_cupy.COUNTS:
        strict_cupy.COUNTS[name] = 0
    yield module
    minirnn.set_backend("numpy")
    _forget()


@pytest.fixture
def gpu():
    """The real CuPy."""
    if reason := gpu_missing():
        pytest.skip(reason)
    import cupy

    _forget()
    yield cupy
    minirnn.set_backend("numpy")
    _forget()


@pytest.fixture(params=["double", "gpu"])
def xp(request):
    """CuPy: once the stand-in, once the real one."""
    return request.getfixturevalue(request.param)
