"""Truncated BPTT: a long input in windows, the state carried and no gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from . import checks, forms
from .backend import is_array
from .layout import equal_lengths
from .module import Module
from .packed_sequence import PackedSequence
from .recurrent import Recurrent
from .sequential import Sequential

# From a window and the state before it to ((output, state after it), ctx).
Run: TypeAlias = Callable[[Any, Any], tuple[tuple[Any, Any], Any]]


class Window(NamedTuple):
    """One of :func:`windows`.

    Attributes
    ----------
    steps : slice
        Its time steps.
    rows : slice or None
        Of what is packed, its rows in ``.data``.
    input : array or PackedSequence
        What lies in it, in the form of the whole.

    See Also
    --------
    windows : Yields it.
    """

    steps: slice
    rows: slice | None
    input: Any


class TruncatedWindow(NamedTuple):
    """One window of :func:`truncated_bptt`.

    Attributes
    ----------
    steps : slice
        Its time steps.
    rows : slice or None
        For packed input, its rows in ``input.data``, and so in packed targets.
    output, h_n
        What the layer or model returned for the window: its output, and the state to go on from.
    ctx : Context
        For ``backward``.

    See Also
    --------
    truncated_bptt : Yields it.
    """

    steps: slice
    rows: slice | None
    output: Any
    h_n: Any
    ctx: Any


def windows(input: Any, k: int, *, batch_first: bool = False) -> Iterator[Window]:
    """Cut a long input, or its targets, into windows of `k` steps, to write the loop over them oneself.

    Parameters
    ----------
    input : array or PackedSequence
        Of shape (T, B, ...), or (B, T, ...) with `batch_first`; or packed. What has no axis B, as integers of
        shape (T,) and floats of shape (T, I), is cut along the first axis in any case.
    k : int
        Steps in a window; in the last one there may be less.
    batch_first : bool, keyword-only
        Whether padded arrays are (B, T, ...).

    Yields
    ------
    Window
        Of a packed batch all have as many sequences, some of length zero once they have ended.

    Raises
    ------
    ValueError
        If `k` is no positive integer, or the input has no axis of time.
    TypeError
        If the input is neither an array nor packed.

    See Also
    --------
    truncated_bptt : The loop over them.

    Examples
    --------
    >>> import numpy as np
    >>> for steps, _, tokens in windows(np.arange(5), k=2):
    ...     print(steps, tokens)
    slice(0, 2, None) [0 1]
    slice(2, 4, None) [2 3]
    slice(4, 5, None) [4]
    """
    checks.positive(k=k)
    checks.flags(batch_first=batch_first)
    form: forms.Form
    if isinstance(input, PackedSequence):
        form = forms.Packed(input.packing)
    elif not is_array(input):
        raise TypeError(f"input: expected an array or a PackedSequence, got {checks.got(input)}")
    elif checks.array_module(input=input) and input.ndim == 0:
        raise ValueError("input: expected an axis of time, got a number")
    else:
        batched = input.ndim > (2 if input.dtype.kind == "f" else 1)
        axis = int(batch_first and batched)
        form = (forms.BatchFirst if axis else forms.Padded)(equal_lengths(input.shape[axis], 1))
    return (Window(*window) for window in form.windows(input, k))


def truncated_bptt(
    layer: Recurrent | Module | Run,
    input: Any,
    k: int,
    h_0: Any = None,
    *,
    batch_first: bool | None = None,
) -> Iterator[TruncatedWindow]:
    """Run over a long input in windows of `k` steps, carrying the state but no gradient.

    Each window starts from the state in which the one before ended, as a constant: a gradient
    reaches back through at most `k` steps. The next window runs when it is asked for, so the
    optimiser may step in between. With ``k >= T`` there is one window, and it is plain BPTT.

    Parameters
    ----------
    layer : recurrent layer, Sequential, other Module, or function
        A function, or the ``forward`` of a module of your own, is called with a window and the state before
        it, first `h_0`, and returns ``((output, state), ctx)``. A Sequential's state is a tuple with an entry
        for each layer. Unidirectional: the reverse direction would have to begin at the end.
    input : array or PackedSequence
        In any form that it takes: floats or tokens, padded, unbatched or packed.
    k : int
        Steps in a window.
    h_0 : optional
        Initial state: an array, for the LSTM a pair.
    batch_first : bool, keyword-only, optional
        Whether padded input is (B, T, ...). As the recurrent layers have it, if not given.

    Yields
    ------
    TruncatedWindow
        In a packed batch, sequences that have ended have length zero in later windows; their state
        stays as it was.

    Raises
    ------
    ValueError
        If a recurrent layer is bidirectional, `k` no positive integer, or a shape does not fit.
    TypeError
        If `layer` is none of these, or does not return ``((output, state), ctx)``.

    See Also
    --------
    windows : For a loop of your own.

    References
    ----------
    R. Williams, J. Peng, "An efficient gradient-based algorithm for on-line training of recurrent
    network trajectories", Neural Computation 2 (1990).

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> layers = minirnn.Embedding(5, 2), minirnn.GRU(2, 3), minirnn.Linear(3, 5)
    >>> model = minirnn.Sequential(*layers)
    >>> tokens = np.arange(10).reshape(10, 1) % 5
    >>> for window in minirnn.truncated_bptt(model, tokens, k=4):
    ...     model.backward(window.ctx, np.ones_like(window.output))
    ...     print(window.steps, window.output.shape)
    slice(0, 4, None) (4, 1, 5)
    slice(4, 8, None) (4, 1, 5)
    slice(8, 10, None) (2, 1, 5)
    """
    recurrent = (
        [m for m in layer.modules() if isinstance(m, Recurrent)]
        if isinstance(layer, Module)
        else []
    )
    if batch_first is None:
        batch_first = bool(recurrent) and recurrent[0].batch_first
    if isinstance(layer, Recurrent):
        _require_unidirectional(layer)
        like = layer._like
        form = forms.of("input", input, layer.input_size, layer.batch_first, like)
        h_0 = form.restore_states(layer._enter("h_0", h_0, form, like))
        run: Run = layer.forward
    elif isinstance(layer, Sequential):
        _require_carried(layer)
        run = partial(_through, layer)
    elif isinstance(layer, Module):
        run = layer.forward
    elif callable(layer):
        run = layer
    else:
        raise TypeError(f"layer: expected a module or a function, got {checks.got(layer)}")
    return _truncated(run, windows(input, k, batch_first=batch_first), h_0)


def _truncated(run: Run, parts: Iterator[Window], state: Any) -> Iterator[TruncatedWindow]:
    for steps, rows, window in parts:
        result = run(window, state)
        if not (_is_pair(result) and _is_pair(result[0])):
            raise TypeError(
                "layer: expected ((output, state), ctx) to be returned, got another form"
            )
        (output, state), ctx = result
        yield TruncatedWindow(steps, rows, output, state, ctx)


def _is_pair(x: Any) -> bool:
    return type(x) is tuple and len(x) == 2


def _require_unidirectional(layer: Recurrent) -> None:
    if layer.bidirectional:
        raise ValueError("layer: expected a unidirectional one, got bidirectional=True")


def _require_carried(model: Sequential) -> None:
    """Require all states in a Sequential to be ones that :func:`_through` carries."""
    for name, layer in model._children():
        if isinstance(layer, Recurrent):
            _require_unidirectional(layer)
        elif isinstance(layer, Sequential):
            _require_carried(layer)
        elif any(isinstance(m, Recurrent) for m in layer.modules()):
            raise ValueError(
                f"layer: {name}: expected no state inside {type(layer).__name__}, which cannot be carried "
                "from here; give a function (window, state) -> ((output, state), ctx)"
            )


def _through(model: Sequential, x: Any, states: Any) -> tuple[tuple[Any, Any], Any]:
    """Run :meth:`.Sequential.forward` with the states of its layers."""
    after, contexts = [], []
    for layer, state in zip(model, states or [None] * len(model), strict=True):
        if isinstance(layer, Recurrent):
            (x, state), ctx = layer.forward(x, state)
        elif isinstance(layer, Sequential):
            (x, state), ctx = _through(layer, x, state)
        else:
            x, ctx = layer.forward(x)
            x = x[0] if type(x) is tuple else x
        after.append(state)
        contexts.append(ctx)
    return (x, tuple(after)), tuple(contexts)
