"""Running the kernels over arrays, and what the pairs on the GPU have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from ..backend import Array, get_array_module
from ..functional.recurrence import Mask, States, Traces, Weights
from ..functional.shared import masked, masked_
from ..layout import Layout, Span, equal_lengths
from . import launch

# A kernel takes the address 0 for an argument that is not there.
_NULL = np.uintp(0)
_THREADS = 256

# One direction of a layer: x, states, weights, mask; and ctx, dy, dstates, dweights, trace.
Pass: TypeAlias = tuple[Array, States, Weights, Mask]
PassBack: TypeAlias = tuple[Any, Array | None, States, Weights, Traces]


def of_one(
    forward_together: Callable[..., list[Any]], backward_together: Callable[..., list[Array]]
) -> tuple[Callable[..., Any], Callable[..., Array], Callable[..., None]]:
    """Return a recurrence's `forward`, `backward` and `step`: one pass by itself is both with one.

    With the contract of :class:`minirnn.functional.recurrence.Recurrence`.
    """

    def forward(x: Array, states: States, weights: Weights, layout: Layout, **more: Any) -> Any:
        save, mask = more.pop("save", True), more.pop("mask", None)
        ctx = forward_together([(x, states, weights, mask)], layout, **more)[0]
        return ctx if save else None

    def backward(
        ctx: Any, dy: Array | None, dstates: States, dweights: Weights, trace: Traces = None
    ) -> Array:
        return backward_together([(ctx, dy, dstates, dweights, trace)])[0]

    def step(x: Array, states: States, weights: Weights, new: States, **options: Any) -> None:
        B = len(x)
        both = [get_array_module(s).concatenate([s, s]) for s in states]
        forward(x, both, weights, equal_lengths(1, B), save=False, **options)
        for s, s_both in zip(new, both, strict=True):
            s[...] = s_both[B:]

    return forward, backward, step


def over_steps(
    kernels: Persistent | None,
    kernel: str,
    passes: Sequence[Sequence[Any]],
    one_by_one: Callable[..., None],
    *others: Any,
) -> None:
    """Run all steps of the passes: in one launch, or where there is none step by step, pass by pass.

    Parameters
    ----------
    kernels : Persistent, optional
    kernel : str
        Of those.
    passes : one or two sequences of arrays
        Of each direction what the kernel and `one_by_one` take.
    one_by_one : callable
    others : NumPy scalars
        Arguments for both.
    """
    if kernels is not None:
        kernels.run(kernel, passes, *others)
        return
    for arrays in passes:
        one_by_one(*arrays, *others)


def end_backward(
    passes: Sequence[PassBack], dzs: Sequence[Any], add_gradients: Callable[..., None]
) -> list[Array]:
    """Return each pass's dx, and add to the weights' gradients, from each pass's `dzs`.

    All steps are one span here, since a product over more rows is the faster one.
    """
    dxs = []
    for (ctx, _, _, dweights, _), dz in zip(passes, dzs, strict=True):
        dx = get_array_module(ctx.x).empty(ctx.x.shape, ctx.x.dtype)
        span = Span(slice(0, ctx.layout.steps), slice(0, ctx.layout.rows))
        add_gradients(ctx, span, dz, dx, dweights)
        dxs.append(dx)
    return dxs


class Persistent:
    """The persistent kernels of a cell, for one size and layout.

    Parameters
    ----------
    cell : {"rnn", "lstm", "gru"}
    shape : launch.Shape
    xp : module
    layout : Layout
    """

    def __init__(self, cell: str, shape: launch.Shape, xp: ModuleType, layout: Layout) -> None:
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
        function = launch.function(self._xp, self._files, macros, kernel)
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
    multiprocessors = launch.multiprocessors(xp, xp.cuda.runtime.getDevice())
    chosen = launch.shape(cell, states.shape[1], layout.batch_size, multiprocessors, directions)
    return None if chosen is None else Persistent(cell, chosen, xp, layout)


def _real(states: Array) -> str:
    """Return what C calls the dtype."""
    if states.dtype not in launch.REAL:
        raise TypeError(
            f"states: expected dtype float32 or float64 for a recurrence on the GPU, got {states.dtype}"
        )
    return launch.REAL[states.dtype]


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
        self._function = launch.function(get_array_module(states), ("steps.cu",), macros, kernel)
        self._arguments = _arguments(arguments)
        self._steps, self._units = layout.once(_places), states.shape[1]
        self._sizes = np.int32(layout.batch_size), np.int32(self._units)

    def run(self, t: int) -> None:
        """Launch for step `t`."""
        _, _, n, _ = place = self._steps[t]
        blocks = -(-int(n) * self._units // _THREADS)
        self._function((blocks,), (_THREADS,), (*self._arguments, *place, *self._sizes))


def _places(layout: Layout) -> list[tuple[Any, ...]]:
    """Return for every step the kernel's arguments ``row, before, n, later``; see ``steps.cu``."""
    sizes = np.array([*layout.sizes, 0], np.int32)
    rows = layout.state_starts[1:] - layout.batch_size
    # An array's items are NumPy scalars, as a kernel takes them.
    return list(zip(rows, layout.state_starts, sizes, sizes[1:], strict=False))


def _arguments(arrays: Iterable[Any]) -> list[Any]:
    return [_NULL if x is None else x for x in arrays]


def forward_steps(
    kernel: str,
    arrays: Sequence[Array],
    h: Array,
    w_hh: Array,
    b_ih: Array | None,
    b_hh: Array | None,
    mask: Mask,
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
    h_in = None if mask is None else masked(h[:B], mask)  # what enters the next step's product
    product, w = xp.empty((B, len(w_hh)), h.dtype), w_hh.T
    step = Stepwise(kernel, h, layout, *arrays, h_in, mask, product, b_ih, b_hh, *others)
    for t, (h_in_t, product_t) in enumerate(steps_in(h, h_in, product, layout)):
        xp.dot(h_in_t, w, product_t)
        step.run(t)


def steps_in(
    h: Array, h_in: Array | None, product: Array, layout: Layout
) -> Iterable[tuple[Array, Array]]:
    """Return for every step what enters its recurrent product, and where that goes."""
    entering = layout.transitions(h)[0] if h_in is None else layout.running(h_in)
    return zip(entering, layout.running(product), strict=True)


def backward_steps(
    kernel: Stepwise, dz: Array, dh: Array, w_hh: Array, mask: Mask, layout: Layout
) -> None:
    """Run all steps of one direction back, one launch and one product each, from dz_t to dh_{t-1}."""
    xp, dzs, dhs = get_array_module(dh), layout.split(dz), layout.running(dh)
    for t in reversed(range(layout.steps)):
        kernel.run(t)
        xp.dot(dzs[t], w_hh, dhs[t])  # the kernel of the step before applies the mask
    if mask is not None and dhs:
        masked_(dhs[0], mask[: len(dhs[0])])


def contiguous(dy: Array | None) -> Array | None:
    """Return `dy` as a kernel can read it: kernels know no strides."""
    return None if dy is None else get_array_module(dy).ascontiguousarray(dy)
