"""Pictures of what the others return: each takes an Axes, draws into it and returns it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import checks
from ..backend import Array
from ..bptt.traces import Trace
from .monitor import GradientMonitor

# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def plot_gradient_flow(flow: Array, ax: Any = None) -> Any:
    """Draw :func:`gradient_flow` as a heat map over time and layer, its logarithm by colour.

    Parameters
    ----------
    flow : array of shape (num_layers, T)
        What gradient_flow returned.
    ax : matplotlib Axes, optional
        A new one if not given.

    Returns
    -------
    Axes
        That it is drawn on.

    Raises
    ------
    TypeError, ValueError
        If `flow` is no such array, `ax` no Axes.

    See Also
    --------
    gradient_flow : What is drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from minirnn.diagnostics import plot_gradient_flow
    >>> ax = plot_gradient_flow(np.array([[1e-4, 1e-2, 1.0]]), Figure().subplots())
    >>> ax.images[0].get_array().tolist()
    [[-4.0, -2.0, 0.0]]
    """
    flow = _flow(flow)
    ax = _axes(ax)
    with np.errstate(divide="ignore"):
        image = ax.imshow(np.log10(flow), aspect="auto", origin="lower", cmap="viridis")
    ax.figure.colorbar(image, ax=ax, label=r"$\log_{10} \|dL/dh_t\|$")
    ax.set(xlabel="step t", ylabel="layer", title="Gradient that reaches each state")
    ax.set_yticks(range(len(flow)))
    return ax


def plot_gradient_curves(flow: Array, ax: Any = None) -> Any:
    """Draw :func:`gradient_flow` as a curve for each layer, on a logarithmic axis; see there for the rest.

    Parameters
    ----------
    flow : array of shape (num_layers, T)
        What gradient_flow returned.
    ax : matplotlib Axes, optional
        A new one if not given.

    Returns
    -------
    Axes
        That it is drawn on.

    Raises
    ------
    TypeError, ValueError
        If `flow` is no such array, `ax` no Axes.

    See Also
    --------
    gradient_flow : What is drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from minirnn.diagnostics import plot_gradient_curves
    >>> ax = plot_gradient_curves(np.array([[1e-4, 1e-2, 1.0], [1e-2, 1e-1, 1.0]]), Figure().subplots())
    >>> [line.get_label() for line in ax.lines], ax.get_yscale()
    (['layer 0', 'layer 1'], 'log')
    """
    flow = _flow(flow)
    ax = _axes(ax)
    for layer, norms in enumerate(flow):
        ax.plot(norms, color=_COLOURS[layer % len(_COLOURS)], label=f"layer {layer}")
    ax.set(xlabel="step t", ylabel=r"$\|dL/dh_t\|$", title="Gradient that reaches each state")
    _finish(ax)
    return ax


def plot_gradient_norms(monitor: GradientMonitor, ax: Any = None) -> Any:
    """Draw a monitor's history: the total, each parameter, and the bands' bounds.

    Parameters
    ----------
    monitor : GradientMonitor
        The monitor.
    ax : matplotlib Axes, optional
        A new one if not given.

    Returns
    -------
    Axes
        That it is drawn on.

    Raises
    ------
    TypeError
        If `monitor` is no GradientMonitor, `ax` no Axes.
    ValueError
        If it has observed nothing.

    See Also
    --------
    GradientMonitor : Whose history is drawn.

    Examples
    --------
    >>> import minirnn
    >>> from matplotlib.figure import Figure
    >>> from minirnn.diagnostics import GradientMonitor, plot_gradient_norms
    >>> layer = minirnn.Linear(2, 1)
    >>> layer.weight.grad, layer.bias.grad = [[3.0, 4.0]], [0.5]
    >>> monitor = GradientMonitor(layer.parameters())
    >>> seen = monitor.observe(1)
    >>> ax = plot_gradient_norms(monitor, Figure().subplots())
    >>> [line.get_label() for line in ax.lines[:3]]
    ['weight', 'bias', 'total']
    """
    if not isinstance(monitor, GradientMonitor):
        raise TypeError(f"monitor: expected a GradientMonitor, got {checks.got(monitor)}")
    if not monitor.history:
        raise ValueError(
            "monitor: expected one that has observed at least one step, got none; call "
            f"monitor.observe(step) after backward, every={monitor.every} says at which steps it looks"
        )
    ax, steps = _axes(ax), [seen.step for seen in monitor.history]
    for k, p in enumerate(monitor.parameters):
        norms = [seen.norms[p.name] for seen in monitor.history]
        ax.plot(steps, norms, color=_COLOURS[k % 6], linewidth=0.8, alpha=0.6, label=p.name)
    ax.plot(steps, [seen.total for seen in monitor.history], color="black", label="total")
    for bound in (monitor.vanishing, monitor.warning, monitor.exploding):
        ax.axhline(bound, color="0.5", linestyle=":", linewidth=1)
    ax.set(xlabel="step", ylabel="gradient norm", title="Gradient norms, dotted: the bands' bounds")
    _finish(ax)
    return ax


def plot_jacobian_norms(norms: Array, sigma: float, radius: float, ax: Any = None) -> Any:
    r"""Draw one layer's :func:`jacobian_norms` beside :math:`\sigma_{\max}^k` and :math:`\rho^k`.

    The first bounds the norms of a tanh or ReLU RNN.

    Parameters
    ----------
    norms : array of shape (T,) or (T, B)
        Of one layer, ``jacobian_norms(layer, ctx)[0]``; the sequences' median is drawn, and their range.
    sigma, radius : float
        Of its W_hh, ``largest_singular_value(layer)["weight_hh_l0"]`` and
        ``spectral_radius(layer)["weight_hh_l0"]``.
    ax : matplotlib Axes, optional
        A new one if not given.

    Returns
    -------
    Axes
        That it is drawn on.

    Raises
    ------
    TypeError, ValueError
        If `norms` are of several layers or empty, `sigma` or `radius` no number, `ax` no Axes.

    See Also
    --------
    jacobian_norms : What is drawn.
    largest_singular_value, spectral_radius : The numbers beside it.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from minirnn.diagnostics import plot_jacobian_norms
    >>> ax = plot_jacobian_norms(np.array([0.2, 0.5, 1.0]), 0.5, 0.25, Figure().subplots())
    >>> [line.get_ydata().tolist() for line in ax.lines[1:]]
    [[0.25, 0.5, 1.0], [0.0625, 0.25, 1.0]]
    """
    norms = _of_one_layer(norms)
    sigma = _picked("sigma", sigma, "largest_singular_value")
    radius = _picked("radius", radius, "spectral_radius")
    ax, steps = _axes(ax), np.arange(len(norms))
    ax.plot(steps, np.nanmedian(norms, 1), color=_COLOURS[0], label="product of Jacobians")
    ax.fill_between(
        steps, np.nanmin(norms, 1), np.nanmax(norms, 1), color=_COLOURS[0], alpha=0.25, linewidth=0
    )
    back = steps[::-1]
    for value, name, k in ((sigma, r"\sigma_{\max}", 1), (radius, r"\rho", 2)):
        label = rf"${name}^{{T-t}}$, ${name} = {value:.3g}$"
        ax.plot(steps, value**back, color=_COLOURS[k], linestyle="--", label=label)
    ax.set(
        xlabel="step t",
        ylabel=r"$\|\partial h_T / \partial h_t\|_2$",
        title="What a state leaves of itself in the last one",
    )
    _finish(ax)
    return ax


def _flow(flow: Any) -> Array:
    if isinstance(flow, Trace):
        raise TypeError(
            "flow: expected what gradient_flow returned, got the trace itself; write gradient_flow(trace)"
        )
    norms = checks.norms("flow", flow)
    if norms.ndim != 2 or not norms.size:
        raise ValueError(f"flow: expected shape (num_layers, T), got {norms.shape}")
    return norms


def _of_one_layer(norms: Any) -> Array:
    """Return (T, B), without the steps at which no sequence is there any more."""
    found = checks.norms("norms", norms)
    if found.ndim == 3:
        raise ValueError(
            f"norms: expected shape (T,) or (T, B), got {found.shape}, of all layers; pick one, "
            "jacobian_norms(layer, ctx)[0]"
        )
    there = ~np.isnan(found)
    if found.ndim not in (1, 2) or not there.any():
        raise ValueError(
            f"norms: expected shape (T,) or (T, B) and at least one number, got {found.shape}"
        )
    found = found.reshape(len(found), -1)
    return found[there.reshape(found.shape).any(1)]


def _picked(name: str, value: Any, function: str) -> float:
    if isinstance(value, Mapping):
        raise TypeError(
            f"{name}: expected a number, got {checks.got(value)}, a number for each W_hh; pick one, "
            f'{function}(layer)["weight_hh_l0"]'
        )
    return checks.number(name, value, "[0, inf)")


def _axes(ax: Any) -> Any:
    if ax is not None:
        checks.having("ax", ax, "a matplotlib Axes", "set_yscale", "imshow")
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'minirnn[plot]'") from error
    return pyplot.subplots(layout="constrained")[1]


def _finish(ax: Any) -> None:
    ax.set_yscale("log")  # now that all is drawn: what has been zero throughout has no limits there
    ax.grid(alpha=0.3)
    ax.legend(fontsize="small")
