"""The two places where a recurrent layer's results are misread."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import checks
from .backend import Array, get_array_module
from .packed_sequence import PackedSequence, host_integers


def last_step(output: Any, lengths: Any = None, batch_first: bool = False) -> Array:
    """Return the output at each sequence's own last step.

    ``output[-1]`` of a padded batch is padding for every sequence but the longest. For a
    bidirectional layer note that the reverse direction has seen only one step there; its final state
    is at step 0, and in `h_n`.

    For looking at outputs: to train on last states take `h_n`, whose gradient ``backward`` accepts.

    Parameters
    ----------
    output : PackedSequence of rows (F,), or array of shape (T, B, F), (B, T, F) with `batch_first`
        Of a recurrent layer.
    lengths : list or array of int, shape (B,)
        For padded output; all T if not given.
    batch_first : bool
        Whether padded arrays are (B, T, ...).

    Returns
    -------
    array of shape (B, F)
        In the order in which the batch was given.

    Raises
    ------
    ValueError
        If a sequence has no step, a length does not fit, or the shape is another.
    TypeError
        If `output` is no array, and not packed.

    See Also
    --------
    by_layer_direction : The states by layer and direction.

    Examples
    --------
    >>> import numpy as np
    >>> last_step(np.arange(6.0).reshape(3, 2, 1), lengths=[3, 1])
    array([[4.],
           [1.]])
    """
    checks.flags(batch_first=batch_first)
    checks.storable("output", output.data if isinstance(output, PackedSequence) else output)
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
    last = np.full(B, T) if lengths is None else host_integers("lengths", lengths)
    if last.shape != (B,):
        raise ValueError(f"lengths: expected {B} integers, got {checks.got(lengths)}")
    if B and (last.min() < 1 or last.max() > T):
        raise ValueError(f"lengths: expected 1 <= length <= T = {T}, got {checks.brief(last)}")
    return by_step[xp.asarray(last.astype(np.intp) - 1), xp.arange(B)]


def by_layer_direction(h_n: Array, num_directions: int) -> Array:
    """Return `h_n` as (num_layers, num_directions, B, H).

    Its first axis counts layers, and within a layer directions: ``h_n[-1]`` of a bidirectional
    layer is the reverse direction alone.

    Parameters
    ----------
    h_n : array of shape (num_layers * num_directions, B, H), or without B
        As a recurrent layer returns it.
    num_directions : int
        1, or 2 for a bidirectional layer: ``layer.num_directions``. The array does not tell.

    Returns
    -------
    array of shape (num_layers, num_directions, B, H)
        A view, with an axis for each.

    Raises
    ------
    ValueError
        If the first axis does not count directions.
    TypeError
        If `h_n` is no array, or `num_directions` no integer.

    See Also
    --------
    last_step : The output at each sequence's end.

    Examples
    --------
    >>> import numpy as np
    >>> by_layer_direction(np.zeros((6, 5, 4)), num_directions=2).shape
    (3, 2, 5, 4)
    """
    checks.storable("h_n", h_n)
    checks.whole("num_directions", num_directions)
    if num_directions not in (1, 2) or h_n.ndim < 2 or len(h_n) % num_directions:
        raise ValueError(
            f"h_n: expected first axis num_layers * num_directions with num_directions = "
            f"{checks.got(num_directions)}, got shape {h_n.shape}"
        )
    return h_n.reshape(-1, num_directions, *h_n.shape[1:])
