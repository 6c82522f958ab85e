"""What the pretended GPU has to catch: without this the tests that run on it prove little."""

import contextlib
import importlib.util
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from emu import KernelError
from strict_cupy import COUNTS, FROZEN, Refused, waiting_for_nothing

HERE = Path(__file__).parent


def ones(xp, *shape):
    return xp.asarray(np.ones(shape, np.float32))


REFUSED = {
    "host array on the right": lambda xp, a: a + np.ones(4, np.float32),
    "host array on the left": lambda xp, a: np.ones(4, np.float32) + a,
    "host array in place": lambda xp, a: a.__iadd__(np.ones(4, np.float32)),
    "conversion": lambda xp, a: np.asarray(a),
    "host array as index": lambda xp, a: a[np.array([0, 1])],
    "host array in a function": lambda xp, a: xp.concatenate([a, np.ones((3, 4), np.float32)]),
    "host value assigned": lambda xp, a: a.__setitem__(0, np.ones(4)),
    "NumPy function": lambda xp, a: np.concatenate([a, a]),
    "float64 scalar": lambda xp, a: a * np.float64(2),
    "product into a strided array": lambda xp, a: xp.matmul(a, a.T, out=ones(xp, 3, 6)[:, :3]),
    "dot into a strided array": lambda xp, a: xp.dot(a, a.T, ones(xp, 3, 6)[:, :3]),
    "product into float64": lambda xp, a: xp.matmul(a, a.T, out=xp.zeros((3, 3), np.float64)),
    "product in place": lambda xp, a: a.__imatmul__(ones(xp, 4, 4)),
    "ufunc.at of multiply": lambda xp, a: xp.multiply.at(a, 0, 1.0),
    "take with a mode": lambda xp, a: xp.take(a, xp.asarray([0]), axis=0, mode="clip"),
    "duplicate indices": lambda xp, a: a.__setitem__(xp.asarray([0, 0]), 1.0),
    "asarray of device arrays": lambda xp, a: xp.asarray([a, a]),
    "ufunc where=": lambda xp, a: xp.tanh(a, where=a > 0),
    "ufunc of the host": lambda xp, a: xp.tanh(np.ones(3)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refuses(double, what):
    with pytest.raises(Refused):
        REFUSED[what](double, ones(double, 3, 4))


@pytest.mark.parametrize("name", ["insert", "errstate", "add_reduce"])
def test_has_only_the_names_of_cupy(double, name):
    with pytest.raises(AttributeError):
        getattr(double, name)
    with pytest.raises(AttributeError):
        _ = ones(double, 1).newbyteorder


def test_counts_what_waits(double):
    a = ones(double, 3, 4)
    b = double.tanh(a @ a.T) + 1.0
    b.sum(0)
    a[1:] *= 2.0
    assert isinstance(a.sum(), double.ndarray)
    assert COUNTS["syncs"] == 0
    waits = [
        lambda: a[a > 0],
        lambda: float(a.sum()),
        lambda: bool(a.sum() > 0),
        lambda: f"{a.sum()}",
        lambda: a.get(),
        lambda: double.nonzero(a),
        lambda: [0, 1][double.asarray(1)],
    ]
    for n, wait in enumerate(waits, 1):
        wait()
        assert COUNTS["syncs"] == n


def test_waiting_is_noticed(double):
    """On the stand-in."""
    a = ones(double, 3)
    with waiting_for_nothing(double):
        a += 1.0
    with pytest.raises(AssertionError), waiting_for_nothing(double):
        a.get()


def test_waiting_is_refused_by_the_real_cupy(monkeypatch):
    """The real CuPy refuses to wait in there, and only there, and its warning is no error."""
    allowed = [True]

    @contextlib.contextmanager
    def allow_synchronize(allow):
        warnings.warn("will be removed", stacklevel=2)
        allowed.append(allow)
        yield
        allowed.pop()

    real = types.ModuleType("cupyx")
    real.allow_synchronize = allow_synchronize
    monkeypatch.setitem(sys.modules, "cupyx", real)
    with waiting_for_nothing(types.ModuleType("cupy")):
        assert allowed[-1] is False
        with pytest.raises(UserWarning):
            warnings.warn("still an error in there", stacklevel=1)
    assert allowed[-1] is True


def test_places(double):
    cuda = double.cuda
    a = ones(double, 3)
    assert cuda.runtime.getDevice() == 0
    with cuda.Device(1):
        assert cuda.runtime.getDevice() == cuda.Device().id == 1
        b = ones(double, 3) + 1.0
        for use in (lambda: a + 1.0, lambda: b.__iadd__(a), lambda: double.concatenate([a[1:], a])):
            with pytest.raises(Refused, match="device 0"):
                use()
    for use in (b.sum, b.copy, lambda: b.fill(0), lambda: b.__setitem__(0, 1.0)):
        with pytest.raises(Refused, match="device 1"):
            use()
    with cuda.Stream(non_blocking=True) as stream:
        assert cuda.get_current_stream().ptr == stream.ptr != 0
        with pytest.raises(Refused, match="may not have arrived"):
            a[1:] + 1.0
        c = ones(double, 3) * 2.0
        cuda.Device().synchronize()
        assert ((a + c).get() == 3).all()
    assert cuda.get_current_stream().ptr == cuda.runtime.getDevice() == 0
    c += a


def test_counts_what_is_launched(double):
    a, b = ones(double, 3, 3), double.empty((3, 3), np.float32)
    free = [
        lambda: a[1:],
        lambda: a.T.reshape(3, 3),
        lambda: double.empty_like(a),
        lambda: double.ascontiguousarray(a),
        lambda: double.asarray(a),
    ]
    products = [lambda: a @ a, lambda: a.dot(a), lambda: double.dot(a, a, b)]
    products.append(lambda: double.matmul(a, a, out=b))
    others = [
        lambda: a + 1.0,
        lambda: double.add(a, a, out=b),
        lambda: a.__imul__(1.0),
        lambda: a.__setitem__(0, 1.0),
        lambda: a.fill(0),
        lambda: a.copy(),
        lambda: double.ascontiguousarray(a.T),
        lambda: a.take(double.asarray([0]), axis=0),
        lambda: a.sum(0),
        lambda: double.zeros_like(a),
        lambda: double.concatenate([a, a]),
        lambda: double.add.at(a, 0, 1.0),
    ]
    for kind, calls in ((None, free), ("products", products), ("others", others)):
        for k, call in enumerate(calls):
            before = dict(COUNTS)
            call()
            now = {name: COUNTS[name] - before[name] for name in ("products", "others")}
            expected = {"products": 0, "others": 0} | ({kind: 1} if kind else {})
            assert now == expected, (kind, k)


def test_products_in_tf32(double):
    """10 bits of mantissa, in products of float32 matrices and nothing else."""
    entries = np.array([[1 + 2**-10, 1 + 2**-12, -(1 + 2**-11), 3]])
    rounded = np.array([[1 + 2**-10, 1, -(1 + 2**-10), 3]])
    linalg = double._core._routines_linalg
    linalg.set_compute_type(np.float32, linalg.COMPUTE_TYPE_TF32)
    for dtype, expected in [(np.float32, rounded), (np.float64, entries)]:
        a, one = double.asarray(entries, dtype), double.asarray(np.eye(4), dtype)
        b = double.empty((1, 4), dtype)
        double.dot(a, one, b)
        for product in (a @ one, double.matmul(a, one), a.dot(one), (one @ a.T).T, b):
            assert (product.get() == expected).all()
        assert ((a[None] @ one).get() == entries).all()
        assert ((a * 1.0).get() == entries).all()


def test_empty_is_poisoned(double):
    assert np.isnan(double.empty((2, 2), np.float32).get()).all()


SOURCE = """
extern "C" __global__ void __launch_bounds__(64, 1) barrier_skipped(float* y, int n) {
  if (threadIdx.x < n) __syncthreads();
  y[threadIdx.x] = 1.f;
}
extern "C" __global__ void two_barriers(float* y, int n) {
  if (threadIdx.x < n) {
    __syncthreads();
  } else
    __syncthreads();
  y[threadIdx.x] = 1.f;
}
extern "C" __global__ void shared_unwritten(float* y, int n) {
  DYNAMIC_SHARED(float, shared);
  if (threadIdx.x < n) shared[threadIdx.x] = 1.f;
  __syncthreads();
  y[threadIdx.x] = shared[threadIdx.x];
}
extern "C" __global__ void race(float* y, int n) {
  DYNAMIC_SHARED(float, shared);
  shared[threadIdx.x] = threadIdx.x;
  if (n) __syncthreads();
  y[threadIdx.x] = shared[(threadIdx.x + 32) % 64];
}
extern "C" __global__ void lanes_apart(float* y, int n) {
  float v = 0.f;
  if (threadIdx.x % 2 < n) v = __shfl_xor_sync(0xffffffffu, 1.f, 1);
  y[threadIdx.x] = v;
}
extern "C" __global__ void shared_beyond(float* y, int n) {
  DYNAMIC_SHARED(float, shared);
  shared[threadIdx.x + n] = y[threadIdx.x] = 1.f;
}
extern "C" __global__ void beyond(float* y, int n) { y[(int)threadIdx.x + n] = 1.f; }
"""


def run(xp, name, n, size=64, dtype=np.float32, number=np.int32):
    y = xp.empty(size, dtype)
    kernel = xp.RawModule(code=SOURCE).get_function(name)
    kernel((1,), (64,), (y, number(n)), shared_mem=256)
    return y.get()


@pytest.mark.parametrize(
    ("name", "right", "wrong", "message"),
    [
        ("barrier_skipped", 64, 40, "deadlock|divergent"),
        ("two_barriers", 64, 40, "divergent"),
        ("lanes_apart", 2, 1, "deadlock|absent"),
    ],
)
def test_threads_that_do_not_meet(double, name, right, wrong, message):
    run(double, name, right)
    if name == "barrier_skipped":  # threads that have ended need not come
        run(double, name, wrong)
        return
    with pytest.raises(KernelError, match=message):
        run(double, name, wrong)


def test_shared_memory_is_poisoned(double):
    assert np.isfinite(run(double, "shared_unwritten", 64)).all()
    assert np.isnan(run(double, "shared_unwritten", 63)[63])


def test_shared_memory_ends(double):
    run(double, "shared_beyond", 0)
    with pytest.raises(KernelError, match="beyond the end of shared memory"):
        run(double, "shared_beyond", 1)


def test_a_race_shows(double):
    expected = (np.arange(64) + 32) % 64
    assert (run(double, "race", 1) == expected).all()
    assert (run(double, "race", 0) != expected).any()


@pytest.mark.parametrize("n", [1, -1, 100])
def test_guard_bands(double, n):
    run(double, "beyond", 0)
    with pytest.raises(AssertionError, match="a kernel wrote"):
        run(double, "beyond", n)
    kernel = double.RawModule(code=SOURCE).get_function("beyond")
    a = double.ones(64, np.float32)
    for made in (
        a + 1.0,
        a.copy(),
        a.take(double.asarray(np.arange(64)), axis=0),
        a @ ones(double, 64, 64),
    ):
        with pytest.raises(AssertionError, match="a kernel wrote"):
            kernel((1,), (64,), (made, np.int32(n)))


def test_arguments_are_compared_with_parameters(double):
    with pytest.raises(KernelError, match="expected an array of float32, got float64"):
        run(double, "beyond", 0, dtype=np.float64)
    with pytest.raises(KernelError, match="expected int32, got int64"):
        run(double, "beyond", 0, number=np.int64)
    kernel = double.RawModule(code=SOURCE).get_function("beyond")
    with pytest.raises(KernelError, match="takes 2 arguments, got 1"):
        kernel((1,), (64,), (double.empty(64, np.float32),))
    with pytest.raises(KernelError, match="contiguous"):
        kernel((1,), (32,), (double.empty((64, 2), np.float32)[:, 0], np.int32(0)))
    with pytest.raises(Refused, match="array on the host"):
        kernel((1,), (64,), (np.empty(64, np.float32), np.int32(0)))


def test_names_are_those_of_the_installed_cupy():
    """Where CuPy is installed, of whatever version: the names that the stand-in has are there."""
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed")
    code = "import json, cupy\nprint(json.dumps([dir(cupy), dir(cupy._core._routines_linalg)]))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, check=True
    )
    import json

    names, linalg = json.loads(done.stdout)
    assert set(FROZEN["names"]) - set(names) == set()
    assert set(FROZEN["linalg"]) - set(linalg) == set()
