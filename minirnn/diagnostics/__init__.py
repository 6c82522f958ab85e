"""See the gradient: what an explicit BPTT can show, each in one line of a user's own loop.

Nothing here is imported by ``import minirnn``; ``import minirnn.diagnostics`` asks for it.
"""

from .check import check_gradients
from .flow import gradient_flow
from .monitor import Alarm, GradientMonitor, Observation
from .spectra import jacobian_norms, largest_singular_value, spectral_radius

__all__ = [
    "Alarm",
    "GradientMonitor",
    "Observation",
    "check_gradients",
    "gradient_flow",
    "jacobian_norms",
    "largest_singular_value",
    "spectral_radius",
]
