r"""How one step stretches a state, and how many of them together do.

The gradient reaches a state k steps back through a product of k Jacobians. For a tanh or ReLU RNN each is
:math:`\mathrm{diag}(\phi'(z_t)) W_{hh}` with :math:`\phi' \le 1`, so

.. math::  \Big\lVert \frac{\partial h_T}{\partial h_t} \Big\rVert_2 \le \sigma_{\max}(W_{hh})^{T - t},

and below a largest singular value of 1 the gradient must vanish. The spectral radius :math:`\rho` tells how
the powers of :math:`W_{hh}` themselves go in the long run, :math:`\lVert W^k \rVert^{1/k} \to \rho`: it
bounds no single product, but is the rate at which a state in the linear range is stretched or shrunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..backend import Array, asnumpy, quiet
from ..forms import Form, Packed, Unbatched
from ..recurrent import Recurrent
from . import steps


@quiet
def spectral_radius(layer: Recurrent) -> dict[str, float]:
    r"""Return the spectral radius of every W_hh: the largest absolute value of its eigenvalues.

    For a gated layer, gate by gate. There it bounds nothing by itself: the gate's block is multiplied by the
    slope of the gate and by what the gate multiplies, both of which the data decide, and the state goes on
    past W_hh as well (by f, or z). It tells which gate can feed on itself; :func:`jacobian_norms` tells what
    comes of it. With a projection the matrix is :math:`W_{hh} W_{hr}`, which is square.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        A recurrent layer.

    Returns
    -------
    dict from str to float
        Under ``"weight_hh_l0"``, or ``"weight_hh_l0.r"`` for the gate r.

    Raises
    ------
    TypeError
        If `layer` is something else.

    See Also
    --------
    largest_singular_value : What counts for one step.

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> from minirnn.diagnostics import largest_singular_value, spectral_radius
    >>> rnn = minirnn.RNN(1, 2)
    >>> rnn.weight_hh_l0.data = np.array([[0.5, 4.0], [0.0, 0.25]])
    >>> spectral_radius(rnn)
    {'weight_hh_l0': 0.5}
    >>> round(largest_singular_value(rnn)["weight_hh_l0"], 3)
    4.039
    """
    return {name: float(abs(np.linalg.eigvals(w)).max()) for name, w in _recurrent(layer, True)}


@quiet
def largest_singular_value(layer: Recurrent) -> dict[str, float]:
    """Return the largest singular value of every W_hh: by how much it can stretch a state in one step.

    Parameters, result and errors are those of :func:`spectral_radius`; what it means for gated layers too.

    Parameters
    ----------
    layer : recurrent layer
        As for :func:`spectral_radius`.

    Returns
    -------
    dict from str to float
        By the weight's name, for gated layers gate by gate.

    See Also
    --------
    spectral_radius : What counts after many steps.

    Examples
    --------
    >>> import minirnn
    >>> from minirnn.diagnostics import largest_singular_value
    >>> rnn = minirnn.RNN(2, 8)
    >>> _ = minirnn.init.orthogonal_(rnn.weight_hh_l0, gain=0.9, rng=0)
    >>> sigma = largest_singular_value(rnn)["weight_hh_l0"]
    >>> round(sigma, 3), round(sigma**100, 6)  # after 100 steps no gradient has more left
    (0.9, 2.7e-05)
    """
    return {name: float(np.linalg.norm(w, 2)) for name, w in _recurrent(layer, False)}


def _recurrent(layer: Recurrent, square: bool) -> Iterator[tuple[str, Array]]:
    """Iterate over the recurrent matrices, by name, in float64 on the host."""
    if not isinstance(layer, Recurrent):
        raise TypeError(f"layer: expected an RNN, GRU or LSTM, got {type(layer).__name__}")
    gates = layer.recurrence.GATES
    for k, names in enumerate(layer._names):
        _, w_hh, _, _, *projection = layer._values(k)
        for gate, block in zip(gates, np.split(asnumpy(w_hh), len(gates)), strict=True):
            w = block.astype(np.float64)
            if square and w.shape[0] != w.shape[1]:
                w = w @ asnumpy(projection[0])
            yield (f"{names[1]}.{gate}" if len(gates) > 1 else str(names[1])), w


@quiet
def jacobian_norms(layer: Recurrent, ctx: Any) -> Array:
    r"""Return :math:`\lVert \partial h_T / \partial h_t \rVert_2` for each layer and step of real sequences.

    The product of the steps' Jacobians is formed exactly, in float64, from the states and gates that the
    forward pass has saved: with an identity matrix for each sequence in the place of the gradient of its
    last state, taken back step by step. For the LSTM the state is the pair (h, c), and so are rows and
    columns of the Jacobian. Memory is that of B square matrices, time that of T products of them.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        A recurrent layer.
    ctx : Context
        What ``layer.forward(x)`` returned.

    Returns
    -------
    array of float64 on the host, shape (num_layers * num_directions, T, B)
        At ``[k, t, b]`` the largest singular value of the derivative of sequence b's last state with respect
        to the one after step t: 1 at its last step, NaN after it. A reverse direction ends at step 0. For
        unbatched input without the axis B.

    Raises
    ------
    TypeError
        If `layer` is something else.
    ValueError
        If `ctx` is not this layer's.

    See Also
    --------
    plot_jacobian_norms : Draws them.

    References
    ----------
    R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.

    Examples
    --------
    A linear recurrence (ReLU, all positive) doubles each state:

    >>> import numpy as np, minirnn
    >>> from minirnn.diagnostics import jacobian_norms
    >>> rnn = minirnn.RNN(1, 1, nonlinearity="relu", bias=False)
    >>> rnn.weight_hh_l0.data, rnn.weight_ih_l0.data = [[2.0]], [[1.0]]
    >>> _, ctx = rnn.forward(np.ones((4, 1), np.float32))
    >>> jacobian_norms(rnn, ctx)
    array([[8., 4., 2., 1.]])
    """
    if not isinstance(layer, Recurrent):
        raise TypeError(f"layer: expected an RNN, GRU or LSTM, got {type(layer).__name__}")
    form, stack, contexts, *_ = layer._saved(ctx)
    norms = []
    for k, s in enumerate(steps.of_layer(layer, stack, contexts)):
        cell = steps.cell_of(layer, stack.passes[k], np.float64)
        rows = _of_rows(cell.back, s.in_float64(), form.layout)
        if layer.bidirectional and k % 2:
            rows = form.layout.reversed_rows(rows)
        norms.append(_by_step(rows, form))
    return np.stack(norms)


def _of_rows(back: Callable[..., Any], s: steps.Steps, layout: Any) -> Array:
    """Return one pass's norms, a number for each row."""
    P = s.h.shape[1]
    S = P if s.c is None else P + s.c.shape[1]
    # dS[:, b] is the Jacobian of sequence b's last state with respect to the state at hand.
    dS = np.repeat(np.eye(S)[:, None], layout.batch_size, axis=1)
    norms = np.empty(layout.rows)
    for start, size in zip(reversed(layout.starts), reversed(layout.sizes), strict=True):
        rows, running = slice(start, start + size), dS[:, :size]
        norms[rows] = np.linalg.norm(running.swapaxes(0, 1), 2, axis=(1, 2))
        dh, dc = back(s.at(rows), running[..., :P], None if s.c is None else running[..., P:])
        running[..., :P] = dh
        if dc is not None:
            running[..., P:] = dc
    return norms


def _by_step(rows: Array, form: Form) -> Array:
    """Return (T, B) of a number for each row, NaN where there is none."""
    layout = form.layout
    step, place = layout.step_and_sequence
    if isinstance(form, Packed) and form.packing.sorted_indices is not None:
        place = form.packing.sorted_indices[place]
    padded = np.full((layout.steps, layout.batch_size), np.nan)
    padded[step, place] = rows
    return padded[:, 0] if isinstance(form, Unbatched) else padded
