"""Compiling the kernels, choosing their launch shapes, and launching them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import resources
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..backend import Array, get_array_module
from ..functional.shared import column_sums
from ..layout import Layout, Span, equal_lengths

# A kernel takes the address 0 for an argument that is not there.
_NULL = np.uintp(0)
_THREADS = 256

# What C calls the dtypes that there are kernels for.
_REAL = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}

# The largest hidden size whose recurrent matrix fits the registers of a multiprocessor.
LARGEST = {"rnn": 192, "lstm": 96, "gru": 112}

# One direction of a layer: x, states, weights, mask; and ctx, dy, dstates, dweights, trace.
Pass: TypeAlias = tuple[Array, Sequence[Array], Sequence[Any], Array | None]
PassBack: TypeAlias = tuple[
    Any, Array | None, Sequence[Array], Sequence[Any], Sequence[Array] | None
]


class Shape(NamedTuple):
    """How a persistent kernel is compiled and launched.

    Attributes
    ----------
    macros : tuple of (str, value)
        See ``tile.h``.
    blocks, threads : int
        `blocks` are those of one direction.
    shared : int
        Bytes of shared memory.
    """

    macros: tuple[tuple[str, Any], ...]
    blocks: int
    threads: int
    shared: int


def shape(
    cell: str, hidden_size: int, batch_size: int, multiprocessors: int, directions: int = 1
) -> Shape | None:
    """Return the shape of a persistent kernel's launch, or None if the size does not fit.

    Few sequences a group spread the batch over the whole GPU; many share the reading of shared
    memory. So a group gets more than one only when the GPU is full.

    Parameters
    ----------
    cell : {"rnn", "lstm", "gru"}
    hidden_size, batch_size, multiprocessors : int
    directions : {1, 2}
        How many share the launch, and so the GPU.
    """
    if hidden_size > LARGEST[cell]:
        return None
    macros: dict[str, Any] = {"H": hidden_size, "AHEAD": 4}
    if cell == "rnn":
        split = 4 if hidden_size <= 128 else 8
        padded = -(-hidden_size // (4 * split)) * 4 * split
        group, vector = padded // 4 * split, padded
        macros["SPLIT"] = split
        most = 4 if hidden_size <= 128 else 2
    else:
        padded = -(-hidden_size // 16) * 16
        group, vector = 4 * padded, 4 * padded
        # Close to the limit registers are short: fewer sequences, and shorter looks ahead.
        most = 4 if hidden_size <= 64 else 2 if hidden_size <= 96 else 1
        if hidden_size > 64:
            macros["AHEAD"] = 3 if hidden_size <= 96 else 2
    groups = 2 if group % 32 else 1  # whole warps
    rows = -(-batch_size * directions // (multiprocessors * groups))
    sequences = min(most, 1 if rows <= 2 else 2 if rows <= 4 else 4)
    macros |= {"R": sequences, "GROUPS": groups}
    return Shape(
        macros=tuple(sorted(macros.items())),
        blocks=-(-batch_size // (sequences * groups)),
        threads=group * groups,
        shared=2 * groups * sequences * vector * 4,
    )


@cache
def source(*names: str) -> str:
    """Return the text of CUDA source files of this package, one after the other."""
    folder = resources.files(__package__)
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


@cache
def _module(xp: ModuleType, names: tuple[str, ...], macros: tuple[tuple[str, Any], ...]) -> Any:
    options = ("-std=c++17", *(f"-D{name}={value}" for name, value in macros))
    return xp.RawModule(code=source(*names), options=options)


@cache
def _function(
    xp: ModuleType, names: tuple[str, ...], macros: tuple[tuple[str, Any], ...], kernel: str
) -> Any:
    return _module(xp, names, macros).get_function(kernel)


@cache
def _multiprocessors(xp: ModuleType, device: int) -> int:
    return int(xp.cuda.Device(device).attributes["MultiProcessorCount"])


def _arguments(arrays: Iterable[Any]) -> list[Any]:
    return [_NULL if x is None else x for x in arrays]


class Persistent:
    """The persistent kernels of a cell, for one size and layout.

    Parameters
    ----------
    cell : {"rnn", "lstm", "gru"}
    shape : Shape
    xp : module
    layout : Layout
    """

    def __init__(self, cell: str, shape: Shape, xp: ModuleType, layout: Layout) -> None:
        self._xp, self._shape = xp, shape
        self._files = ("tile.h", f"{cell}.cu")
        self._last = (
            layout.index("state_starts", xp),
            layout.index("lengths", xp),
            np.int32(layout.batch_size),
        )

    def run(self, kernel: str, passes: Sequence[Sequence[Any]], *others: Any) -> None:
        """Launch over all steps of the passes; the arguments that say where they lie are added.

        Parameters
        ----------
        kernel : str
        passes : one or two sequences of arrays
            Of each direction the kernel's arrays.
        others : NumPy scalars
            Arguments for both.
        """
        macros, blocks, threads, shared = self._shape
        function = _function(self._xp, self._files, macros, kernel)
        forward, reverse = passes if len(passes) == 2 else (passes[0], [None] * len(passes[0]))
        arguments = (*_arguments(forward), *_arguments(reverse), *others, *self._last)
        function((blocks, len(passes)), (threads,), arguments, shared_mem=shared)


def persistent(
    cell: str, states: Array, layout: Layout, directions: int, projected: bool = False
) -> Persistent | None:
    """Return the persistent kernels for ``states``, (B + N, H), or None where there are none.

    Raises
    ------
    TypeError
        If `states` are neither float32 nor float64: no kernel of any kind computes with them.
    """
    if _real(states) != "float" or projected:
        return None
    xp = get_array_module(states)
    multiprocessors = _multiprocessors(xp, xp.cuda.runtime.getDevice())
    chosen = shape(cell, states.shape[1], layout.batch_size, multiprocessors, directions)
    return None if chosen is None else Persistent(cell, chosen, xp, layout)


def _real(states: Array) -> str:
    """Return what C calls the dtype."""
    if states.dtype not in _REAL:
        raise TypeError(
            f"states: expected dtype float32 or float64 for a recurrence on the GPU, got {states.dtype}"
        )
    return _REAL[states.dtype]


class Stepwise:
    """A kernel that runs one step, over a packed batch.

    The products between the steps are ``xp.dot(a, b, out)``: in CuPy it refuses an `out` that it cannot write
    into directly, where ``matmul`` would make a copy.

    Parameters
    ----------
    kernel : str
    states : array of shape (B + N, H), float32 or float64
        For the dtype and the number of units.
    layout : Layout
    arguments : arrays and NumPy scalars
        The same for all steps; those that say where a step lies are added.

    Raises
    ------
    TypeError
        If `states` are of another dtype.
    """

    def __init__(self, kernel: str, states: Array, layout: Layout, *arguments: Any) -> None:
        macros = (("real", _real(states)),)
        self._function = _function(get_array_module(states), ("steps.cu",), macros, kernel)
        self._arguments = _arguments(arguments)
        self._steps, self._units = layout.once(_places), states.shape[1]
        self._sizes = np.int32(layout.batch_size), np.int32(self._units)

    def run(self, t: int) -> None:
        """Launch for step `t`."""
        _, _, n, _ = place = self._steps[t]
        blocks = -(-int(n) * self._units // _THREADS)
        self._function((blocks,), (_THREADS,), (*self._arguments, *place, *self._sizes))


def forward_steps(
    kernel: str,
    arrays: Sequence[Array],
    h: Array,
    w_hh: Array,
    b_ih: Array | None,
    b_hh: Array | None,
    mask: Array | None,
    layout: Layout,
    *others: Any,
) -> None:
    """Run all steps of one direction forward, one product and one launch each.

    Parameters
    ----------
    kernel : str
        It takes `arrays`, ``masked, mask, product, b_ih, b_hh`` and `others`; see ``steps.cu``.
    arrays : sequence of arrays
    h : array of shape (B + N, H)
        Filled by the kernel.
    w_hh, b_ih, b_hh : arrays
        The biases may be None.
    mask : array of shape (B, H), optional
    layout : Layout
    others : NumPy scalars
    """
    xp, B = get_array_module(h), layout.batch_size
    masked = None if mask is None else h[:B] * mask  # what enters the next step's product
    product, w = xp.empty((B, len(w_hh)), h.dtype), w_hh.T
    step = Stepwise(kernel, h, layout, *arrays, masked, mask, product, b_ih, b_hh, *others)
    entering = layout.transitions(h)[0] if masked is None else layout.running(masked)
    for t, (h_in, product_t) in enumerate(zip(entering, layout.running(product), strict=True)):
        xp.dot(h_in, w, product_t)
        step.run(t)


def _places(layout: Layout) -> list[tuple[Any, ...]]:
    """Return for every step the kernel's arguments ``row, before, n, later``; see ``steps.cu``."""
    sizes = np.array([*layout.sizes, 0], np.int32)
    rows = layout.state_starts[1:] - layout.batch_size
    # An array's items are NumPy scalars, as a kernel takes them.
    return list(zip(rows, layout.state_starts, sizes, sizes[1:], strict=False))


def by_gate(gates: Array, names: Sequence[str]) -> dict[str, Array]:
    """Return the gates' values out of ``gates``, (N, G * H), by name: arrays of shape (N, H)."""
    blocks = gates.reshape(len(gates), len(names), gates.shape[1] // len(names))
    return {name: blocks[:, k] for k, name in enumerate(names)}


def contiguous(dy: Array | None) -> Array | None:
    """Return `dy` as a kernel can read it: kernels know no strides."""
    return None if dy is None else get_array_module(dy).ascontiguousarray(dy)


def add_weight_gradients(
    dweights: Sequence[Any],
    dz_ih: Array,
    dz_hh: Array,
    x: Array,
    h: Array,
    mask: Array | None,
    layout: Layout,
) -> None:
    """Add to ``dw_ih, dw_hh, db_ih, db_hh``, each a product over the rows of all steps.

    Parameters
    ----------
    dweights : (dw_ih, dw_hh, db_ih, db_hh)
        The biases' may be None.
    dz_ih, dz_hh : arrays of shape (N, G * H)
        Gradients of ``W_ih x_t + b_ih`` and of ``W_hh h_{t-1} + b_hh``; for all cells but the GRU one
        and the same array.
    x : array of shape (N, I)
    h : array of shape (B + N, P)
    mask : array of shape (B, P), optional
    layout : Layout
    """
    dw_ih, dw_hh, db_ih, db_hh = dweights
    whole = Span(slice(0, layout.steps), slice(0, layout.rows))
    h_prev = layout.previous_rows(h, whole)
    if mask is not None:
        h_prev = h_prev * layout.of_sequence(mask, whole)
    dw_ih += dz_ih.T @ x
    dw_hh += dz_hh.T @ h_prev
    if db_ih is not None and db_hh is not None:
        db = column_sums(dz_ih)
        db_ih += db
        db_hh += db if dz_hh is dz_ih else column_sums(dz_hh)


def one_step(
    forward: Callable[..., Any],
    x: Array,
    states: Sequence[Array],
    weights: Sequence[Any],
    new: Sequence[Array],
    **options: Any,
) -> None:
    """Fill `new` with the states after one step from `states`, all of B rows: a pass of length one."""
    B = len(x)
    both = [get_array_module(s).concatenate([s, s]) for s in states]
    forward(x, both, weights, equal_lengths(1, B), save=False, **options)
    for s, s_both in zip(new, both, strict=True):
        s[...] = s_both[B:]
