"""See the gradient: what an explicit BPTT can show, each in one line of a user's own loop.

Nothing here is imported by ``import minirnn``; ``minirnn.diagnostics`` is when it is first asked for.
"""

from .check import check_gradients
from .flow import gradient_flow
from .monitor import Alarm, GradientMonitor, Observation
from .noise import NoiseScale, noise_scale
from .plots import (
    plot_gradient_curves,
    plot_gradient_flow,
    plot_gradient_norms,
    plot_jacobian_norms,
)
from .samples import per_sample_gradient_norms, per_sample_gradients
from .spectra import jacobian_norms, largest_singular_value, spectral_radius

__all__ = [
    "Alarm",
    "GradientMonitor",
    "NoiseScale",
    "Observation",
    "check_gradients",
    "gradient_flow",
    "jacobian_norms",
    "largest_singular_value",
    "noise_scale",
    "per_sample_gradient_norms",
    "per_sample_gradients",
    "plot_gradient_curves",
    "plot_gradient_flow",
    "plot_gradient_norms",
    "plot_jacobian_norms",
    "spectral_radius",
]
