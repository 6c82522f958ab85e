"""The array backend: which module computes, where an array lies, and where random numbers come from.

Everything in minirnn is written once, against ``xp``: NumPy for arrays on the host, CuPy for arrays
on the GPU. A function asks its *arguments* where they lie (:func:`get_array_module`); only a function
that makes arrays out of nothing (a new layer's weights, say) asks the default (:func:`set_backend`).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

# A NumPy or a CuPy array. Typed as Any: the stubs of the one refuse arrays of the other.
Array: TypeAlias = Any
RNG: TypeAlias = int | np.random.Generator | None

BACKENDS = ("numpy", "cupy")

# What is too small for the dtype is zero, also for those who trap floating-point errors: a decorator.
quiet = np.errstate(under="ignore")

# What minirnn computes in. Half precision loses the small terms of every sum over time, and no processor
# computes in longdouble or in foreign byte order at speed.
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

# The largest block of memory that malloc(3) of glibc still puts on the heap, less what it adds to it.
_LARGEST_ON_HEAP = (32 << 20) - (1 << 16)


def _let_freed_memory_stay() -> None:
    """Have glibc keep the memory that a pass has freed for the next one, if its environment says nothing.

    What is free at the heap's end beyond a threshold it gives back to the system, which hands it out again
    page by page, each cleared: that takes as long as a small pass. It moves the threshold up to twice the
    largest block it has seen freed, so it is shown one; what is never written to takes no memory, but of
    addresses there may be too few, where they are limited.
    """
    with suppress(MemoryError):
        np.empty(_LARGEST_ON_HEAP, np.uint8)


_let_freed_memory_stay()


def load_backend(name: str) -> ModuleType:
    """Import and return the backend `name`; the errors are those of :func:`set_backend`."""
    if name not in BACKENDS:
        raise ValueError(f"backend: expected one of {BACKENDS}, got {name!r}")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            "the cupy backend needs CuPy and a CUDA GPU: pip install 'minirnn[cupy]'"
        ) from error


_default: ModuleType = load_backend(os.environ.get("MINIRNN_BACKEND", "numpy"))
_checks = os.environ.get("MINIRNN_CHECKS", "0") == "1"
_generator = np.random.default_rng()


def set_backend(name: str) -> None:
    """Choose where new layers and arrays are made: ``"numpy"`` (the default) or ``"cupy"``.

    The environment variable ``MINIRNN_BACKEND`` sets it at import.

    Parameters
    ----------
    name : str
        ``"numpy"`` or ``"cupy"``.

    Raises
    ------
    ValueError
        If `name` is neither of the two.
    ImportError
        If CuPy is asked for and not installed.

    See Also
    --------
    get_array_module : Where an array lies.

    Examples
    --------
    >>> set_backend("numpy")  # what is made from here on lies on the host
    >>> set_backend("torch")
    Traceback (most recent call last):
        ...
    ValueError: backend: expected one of ('numpy', 'cupy'), got 'torch'
    """
    global _default
    _default = load_backend(name)


def default_xp() -> ModuleType:
    """Return the module in which new arrays are made; see :func:`set_backend`."""
    return _default


def is_array(x: object) -> bool:
    """Tell whether `x` is a NumPy or a CuPy array, without importing CuPy."""
    if isinstance(x, np.ndarray):
        return True
    # An array of CuPy's can only exist if somebody has imported CuPy already.
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(x, cupy.ndarray)


def get_array_module(x: Any) -> ModuleType:
    """Return the module (``numpy`` or ``cupy``) that computes on the array `x`.

    CuPy is never imported for the question.

    Parameters
    ----------
    x : array or number
        Wherever it lies.

    Returns
    -------
    module
        ``numpy``, for numbers too, or ``cupy``.

    Raises
    ------
    TypeError
        If `x` is an array of neither.

    See Also
    --------
    set_backend : Where new arrays are made.

    Examples
    --------
    >>> import numpy as np
    >>> get_array_module(np.zeros(3)).__name__
    'numpy'
    """
    # By itself, and first: nearly all are of this class, every layer asks, and a second class costs time.
    if isinstance(x, np.ndarray):
        return np
    if is_array(x):
        return sys.modules["cupy"]
    if isinstance(x, np.generic):
        return np
    raise TypeError(f"expected a NumPy or CuPy array, got {type(x).__module__}.{type(x).__name__}")


def asnumpy(x: Any) -> Array:
    """Return `x` as a NumPy array, copied to the host if it lies on the GPU.

    Parameters
    ----------
    x : array or array-like
        A CuPy array is copied; anything else goes through ``numpy.asarray``.

    Returns
    -------
    array
        On the host; `x` itself, if it is one.

    Raises
    ------
    TypeError
        If `x` is a masked array.

    See Also
    --------
    get_array_module : Where an array lies.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.zeros(3)
    >>> asnumpy(x) is x
    True
    >>> asnumpy([1.0, 2.0])
    array([1., 2.])
    """
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            "expected a plain array, got MaskedArray, whose mask would be lost; fill it first"
        )
    if is_array(x) and not isinstance(x, np.ndarray):
        return np.asarray(x.get())
    return np.asarray(x)


def set_checks(enabled: bool) -> None:
    """Switch the checks that read array *values* on for GPU arrays (off at first).

    Such checks (is every token in the vocabulary, every class in range) need the values on the host,
    which would stall a GPU; on the host they always run. ``MINIRNN_CHECKS=1`` sets it at import.

    Parameters
    ----------
    enabled : bool
        On or off.

    Raises
    ------
    TypeError
        If `enabled` is no bool.

    See Also
    --------
    set_backend : Where arrays lie.
    """
    global _checks
    if not isinstance(enabled, bool):
        raise TypeError(f"enabled: expected True or False, got {type(enabled).__name__}")
    _checks = enabled


def set_tf32(enabled: bool) -> None:
    """Let cuBLAS compute products of float32 matrices on the GPU in TF32 (off at first).

    TF32 rounds what enters a product to 10 bits of mantissa instead of 23, a relative error of up to
    5e-4 in each factor, and adds up in float32; GPUs from Ampere on (compute capability 8.0) have units
    for it that are several times as fast. It acts on all products outside the persistent kernels: the layers'
    input products and weight gradients, biases' included, and each step of the sizes that run step by step.
    The persistent kernels, everything that is no product, and float64 stay as they are. See docs/gpu.md.

    The switch is CuPy's own and holds for the whole process, for products of others too. Until this function
    is called the environment variable ``CUPY_TF32`` decides: off, unless it is 1.

    Parameters
    ----------
    enabled : bool
        On or off.

    Raises
    ------
    ImportError
        If CuPy is not installed.
    TypeError
        If `enabled` is no bool.

    See Also
    --------
    set_backend : Compute on the GPU.

    References
    ----------
    https://docs.nvidia.com/cuda/cublas/, ``CUBLAS_COMPUTE_32F_FAST_TF32``.
    """
    if not isinstance(enabled, bool):
        raise TypeError(f"enabled: expected True or False, got {type(enabled).__name__}")
    linalg = load_backend("cupy")._core._routines_linalg
    kind = linalg.COMPUTE_TYPE_TF32 if enabled else linalg.COMPUTE_TYPE_DEFAULT
    linalg.set_compute_type(np.float32, kind)


def reads_values(x: Array) -> bool:
    """Tell whether checks may read the values of `x`: always on the host, on request on the GPU."""
    return _checks or isinstance(x, np.ndarray)


def manual_seed(seed: int) -> None:
    """Restart the generator behind every draw that is given no ``rng=`` of its own.

    Parameters
    ----------
    seed : int
        From which the draws follow.

    See Also
    --------
    get_rng_state : To go on later.

    Examples
    --------
    >>> manual_seed(0)
    >>> a = generator().random()
    >>> manual_seed(0)
    >>> a == generator().random()
    True
    """
    global _generator
    _generator = _seeded("seed", seed)


def get_rng_state() -> dict[str, Any]:
    """Return the state of the generator that :func:`manual_seed` restarts: numbers, strings, dicts.

    Returns
    -------
    dict
        As JSON can hold it.

    See Also
    --------
    set_rng_state : Go back to it.

    Examples
    --------
    >>> state = get_rng_state()
    >>> a = generator().random()
    >>> set_rng_state(state)
    >>> a == generator().random()
    True
    """
    return dict(_generator.bit_generator.state)


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Go on drawing from where :func:`get_rng_state` was called.

    Parameters
    ----------
    state : dict
        What :func:`get_rng_state` returned.

    Raises
    ------
    ValueError
        If `state` is no such state; the generator is left as it is.

    See Also
    --------
    get_rng_state : What it takes.

    Examples
    --------
    >>> import json
    >>> text = json.dumps(get_rng_state())
    >>> a = generator().random()
    >>> set_rng_state(json.loads(text))
    >>> a == generator().random()
    True
    """
    try:
        trial: Any = np.random.PCG64()
        trial.state = state
    except Exception as error:
        raise ValueError(f"state: expected what get_rng_state() returned: {error}") from None
    _generator.bit_generator.state = trial.state


def generator(rng: RNG = None) -> np.random.Generator:
    """Return the NumPy generator meant by `rng`: itself, one seeded by it, or the library's own.

    Random numbers are drawn on the host on every backend, so that a seed means the same
    everywhere.

    Raises
    ------
    TypeError
        If `rng` is neither ``None`` nor an integer nor a ``numpy.random.Generator``.
    """
    if rng is None:
        return _generator
    if isinstance(rng, np.random.Generator):
        return rng
    return _seeded("rng", rng, "None, a numpy.random.Generator or ")


def _seeded(name: str, seed: Any, others: str = "") -> np.random.Generator:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"{name}: expected {others}a seed, an integer, got {type(seed).__name__}")
    if seed < 0:
        raise ValueError(f"{name}: expected {others}a seed >= 0, got {seed}")
    return np.random.default_rng(int(seed))


def float_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the dtype meant by `dtype`, if minirnn computes in it.

    Raises
    ------
    TypeError
        If it is neither float32 nor float64, in native byte order.
    """
    try:
        # NumPy reads None as float64, torch as float32: nobody's wish.
        found = np.dtype(object if dtype is None else dtype)
    except TypeError:
        found = np.dtype(object)
    if found not in FLOATS:
        got = f"{dtype!r:.60}" if not isinstance(dtype, int) else type(dtype).__name__
        raise TypeError(
            "dtype: expected a floating-point one, float32 or float64 in native byte order, in which "
            f"minirnn computes, got {got}"
        )
    return found


def uniform(rng: RNG, low: float, high: float, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Draw from the uniform distribution on ``[low, high)``, as an array of the default backend.

    Raises
    ------
    TypeError
        If `dtype` is neither float32 nor float64.
    """
    dtype = float_dtype(dtype)
    values = generator(rng).uniform(low, high, shape).astype(dtype)
    return _default.asarray(values)


def shown(x: Array) -> Array:
    """Return `x`, with whose memory backward computes, for the user: from here on nobody can write to it.

    On the host; CuPy's arrays have no such mark.
    """
    if isinstance(x, np.ndarray):
        base = x.base
        (x if base is None else base).setflags(write=False)
        x.setflags(write=False)
    return x
