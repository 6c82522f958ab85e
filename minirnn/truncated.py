"""Truncated BPTT: a long input in windows, the state carried and no gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from . import checks, forms
from .module import Context
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
    like = layer._like
    form = forms.of("input", input, layer.input_size, layer.batch_first, like)
    state = form.restore_states(layer._enter("h_0", h_0, form, like))
    return _windows(layer, form.windows(input, k), state)


def _windows(
    layer: Recurrent, windows: Iterator[tuple[slice, slice | None, Any]], state: Any
) -> Iterator[TruncatedWindow]:
    for steps, rows, window in windows:
        (output, state), ctx = layer.forward(window, state)
        yield TruncatedWindow(steps, rows, output, state, ctx)
