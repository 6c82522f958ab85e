"""Around a recurrent layer: truncated BPTT, and the two places where its results are misread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from . import checks
from .backend import Array, asnumpy, get_array_module
from .module import Context
from .packing import Layout, PackedSequence
from .recurrent import Recurrent


class TruncatedWindow(NamedTuple):
    """One window of :func:`truncated_bptt`.

    Attributes
    ----------
    steps : slice
        Its time steps.
    rows : slice or None
        For packed input, its rows in ``input.data``, and so in packed targets.
    output, h_n
        What the layer returned for the window.
    ctx : Context
        For ``layer.backward``.
    """

    steps: slice
    rows: slice | None
    output: Any
    h_n: Any
    ctx: Context


def truncated_bptt(
    layer: Recurrent, input: Any, k: int, h_0: Any = None
) -> Iterator[TruncatedWindow]:
    """Run over a long input in windows of `k` steps, carrying the state but no gradient.

    Each window starts from the state in which the one before ended, as a constant: a gradient
    reaches back through at most `k` steps. The next window runs when it is asked for, so the
    optimiser may step in between. With ``k >= T`` there is one window, and it is plain BPTT.

    Parameters
    ----------
    layer : RNN, LSTM or GRU
        Unidirectional: the reverse direction would have to begin at the end.
    input : array or PackedSequence
        In any form that the layer takes.
    k : int
        Steps in a window.
    h_0 : array, or for the LSTM a pair, optional
        Initial state.

    Yields
    ------
    TruncatedWindow
        In a packed batch, sequences that have ended have length zero in later windows; their state
        stays as it was.

    References
    ----------
    R. Williams, J. Peng, "An efficient gradient-based algorithm for on-line training of recurrent
    network trajectories", Neural Computation 2 (1990).

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> rnn = minirnn.RNN(2, 3)
    >>> for window in minirnn.truncated_bptt(rnn, np.ones((10, 1, 2), np.float32), k=4):
    ...     dx, _ = rnn.backward(window.ctx, np.ones_like(window.output))
    ...     print(window.steps, dx.shape)
    slice(0, 4, None) (4, 1, 2)
    slice(4, 8, None) (4, 1, 2)
    slice(8, 10, None) (2, 1, 2)
    """
    checks.positive(k=k)
    if layer.bidirectional:
        raise ValueError("layer: expected a unidirectional one, got bidirectional=True")
    form, _, like = layer._form(input)
    layer._check_state("h_0", h_0, form, like)
    return _windows(layer, input, k, h_0)


def _windows(layer: Recurrent, input: Any, k: int, h_0: Any) -> Iterator[TruncatedWindow]:
    packed = isinstance(input, PackedSequence)
    time_axis = 1 if not packed and layer.batch_first and input.ndim == 3 else 0
    T = input.layout.steps if packed else input.shape[time_axis]
    state = h_0
    for first in range(0, T, k):
        steps = slice(first, min(first + k, T))
        rows = None
        if packed:
            window, rows = _packed_window(input, steps)
        else:
            window = input[:, steps] if time_axis else input[steps]
        (output, state), ctx = layer.forward(window, state)
        yield TruncatedWindow(steps, rows, output, state, ctx)


def _packed_window(input: PackedSequence, steps: slice) -> tuple[PackedSequence, slice]:
    layout = input.layout
    ends = [*layout.starts, layout.rows]
    rows = slice(ends[steps.start], ends[steps.stop])
    sizes = input.batch_sizes[steps]
    order, inverse = input.sorted_indices, input.unsorted_indices
    if order is None or inverse is None:
        order = inverse = np.arange(layout.batch_size)
    window = PackedSequence._make_valid(
        input.data[rows], sizes, order, inverse, Layout(sizes, layout.batch_size)
    )
    return window, rows


def last_step(output: Any, lengths: Any = None, batch_first: bool = False) -> Array:
    """Return the output at each sequence's own last step.

    ``output[-1]`` of a padded batch is padding for every sequence but the longest. For a
    bidirectional layer note that the reverse direction has seen only one step there; its final state
    is at step 0, and in `h_n`.

    For looking at outputs: to train on last states take `h_n`, whose gradient ``backward`` accepts.

    Parameters
    ----------
    output : PackedSequence of rows (F,), or array of shape (T, B, F), (B, T, F) with `batch_first`
    lengths : list or array of int, shape (B,)
        For padded output; all T if not given.
    batch_first : bool

    Returns
    -------
    array of shape (B, F)
        In the order in which the batch was given.

    Raises
    ------
    ValueError
        If a sequence has no step.

    Examples
    --------
    >>> import numpy as np
    >>> last_step(np.arange(6.0).reshape(3, 2, 1), lengths=[3, 1])
    array([[4.],
           [1.]])
    """
    if isinstance(output, PackedSequence):
        layout = output.layout
        if layout.batch_size and layout.lengths.min() == 0:
            raise ValueError("output: a sequence of length zero has no last step")
        last = layout.last - layout.batch_size
        if output.unsorted_indices is not None:
            last = last[output.unsorted_indices]
        xp = get_array_module(output.data)
        return xp.take(output.data, xp.asarray(last), axis=0)
    xp = get_array_module(output)
    if output.ndim != 3:
        raise ValueError(f"output: expected 3 dimensions, got shape {output.shape}")
    by_step = output.swapaxes(0, 1) if batch_first else output
    T, B = by_step.shape[:2]
    last = np.full(B, T) if lengths is None else asnumpy(lengths)
    if last.shape != (B,) or last.dtype.kind not in "iu":
        raise ValueError(f"lengths: expected {B} integers, got {lengths!r}")
    if B and (last.min() < 1 or last.max() > T):
        raise ValueError(f"lengths: expected 1 <= length <= T = {T}, got {last.tolist()}")
    return by_step[xp.asarray(last - 1), xp.arange(B)]


def by_layer_direction(h_n: Array, num_directions: int = 1) -> Array:
    """Return `h_n` as (num_layers, num_directions, B, H).

    Its first axis counts layers, and within a layer directions: ``h_n[-1]`` of a bidirectional
    layer is the reverse direction alone.

    Parameters
    ----------
    h_n : array of shape (num_layers * num_directions, B, H), or without B
    num_directions : int
        2 for a bidirectional layer.

    Examples
    --------
    >>> import numpy as np
    >>> by_layer_direction(np.zeros((6, 5, 4)), num_directions=2).shape
    (3, 2, 5, 4)
    """
    get_array_module(h_n)
    if num_directions not in (1, 2) or h_n.ndim < 2 or len(h_n) % num_directions:
        raise ValueError(
            f"h_n: expected first axis num_layers * num_directions with num_directions = "
            f"{num_directions}, got shape {h_n.shape}"
        )
    return h_n.reshape(-1, num_directions, *h_n.shape[1:])
