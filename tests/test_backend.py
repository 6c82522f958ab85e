"""Backends and seeds, and what an import loads."""

import os
import platform
import subprocess
import sys
import types

import numpy as np
import pytest

import minirnn
from minirnn import backend


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_import_loads_numpy_and_the_standard_library_only():
    code = (
        "import sys, numpy.random; before = set(sys.modules); import minirnn;"
        "new = {m.split('.')[0] for m in set(sys.modules) - before};"
        "print(sorted(new - sys.stdlib_module_names - {'numpy', 'minirnn'}))"
    )
    assert run(code).strip() == "[]"


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries have other thresholds"
)
@pytest.mark.skipif(
    any(name.startswith("MALLOC_") for name in os.environ), reason="the environment sets thresholds"
)
@pytest.mark.parametrize("native", [False, True])
def test_a_pass_asks_the_system_for_no_memory_that_the_pass_before_had(native):
    """A new process gives back what a pass has freed, and gets it again page by page."""
    if native and not minirnn.native_available():
        pytest.skip("the loops in C were not built")
    code = f"""
import resource, numpy as np, minirnn
minirnn.set_native({native})
lstm, x = minirnn.LSTM(64, 64), np.ones((50, 32, 64), np.float32)
def run():
    (output, _), ctx = lstm.forward(x)
    lstm.backward(ctx, output)
for _ in range(5):
    run()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    run()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)
"""
    assert int(run(code)) < 20


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process's addresses have no limit")
def test_an_import_needs_no_room_for_memory_that_is_to_stay():
    """As where ``ulimit -v`` leaves a process little more than it has."""
    code = """
import resource, numpy as np
from minirnn import backend
with open("/proc/self/statm") as file:
    has = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (has + (16 << 20), resource.RLIM_INFINITY))
try:
    np.empty(backend._LARGEST_ON_HEAP, np.uint8)
except MemoryError:
    backend._let_freed_memory_stay()
    print("went on")
"""
    assert run(code).strip() == "went on"


def test_the_environment_sets_the_backend():
    code = "import os; os.environ['MINIRNN_BACKEND'] = 'jax'; import minirnn"
    with pytest.raises(subprocess.CalledProcessError) as error:
        run(code)
    assert "expected one of ('numpy', 'cupy'), got 'jax'" in error.value.stderr


def test_backends():
    with pytest.raises(ValueError, match="expected one of"):
        minirnn.set_backend("torch")
    try:
        import cupy  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"pip install 'minirnn\[cupy\]'"):
            minirnn.set_backend("cupy")
        with pytest.raises(ImportError, match=r"minirnn\[cupy\]"):
            minirnn.Linear(2, 2).to("cupy")
        with pytest.raises(ImportError, match=r"minirnn\[cupy\]"):
            minirnn.set_tf32(True)
    minirnn.set_backend("numpy")
    assert minirnn.get_array_module(np.ones(2)) is np
    with pytest.raises(TypeError, match=r"got builtins\.list"):
        minirnn.get_array_module([1.0])


def test_arrays_of_two_devices_are_refused(monkeypatch):
    class FakeArray:
        dtype = np.dtype(np.float32)
        shape = (2, 3)
        ndim = 2

        def get(self):
            return np.ones(self.shape, self.dtype)

    fake = types.ModuleType("cupy")
    fake.ndarray = FakeArray
    monkeypatch.setitem(sys.modules, "cupy", fake)
    with pytest.raises(TypeError, match="input lies in cupy, parameters lies in numpy"):
        minirnn.Linear(3, 2)(FakeArray())
    np.testing.assert_array_equal(minirnn.asnumpy(FakeArray()), np.ones((2, 3)))
    assert not backend.reads_values(FakeArray())
    minirnn.set_checks(True)
    try:
        assert backend.reads_values(FakeArray())
    finally:
        minirnn.set_checks(False)


def test_seeds():
    layers = []
    for _ in range(2):
        minirnn.manual_seed(3)
        layers.append(minirnn.LSTM(2, 3))
    other = minirnn.LSTM(2, 3)
    np.testing.assert_array_equal(layers[0].weight_hh_l0.data, layers[1].weight_hh_l0.data)
    assert (other.weight_hh_l0.data != layers[0].weight_hh_l0.data).any()
    a, b = minirnn.GRU(2, 3, rng=1), minirnn.GRU(2, 3, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(a.weight_ih_l0.data, b.weight_ih_l0.data)
    with pytest.raises(TypeError, match="rng: expected"):
        minirnn.GRU(2, 3, rng="seed")
