"""Initial values, written in place into a parameter or an array.

Numbers are drawn on the host, in float64, on every backend: a seed means the same everywhere.
"""

from .entries import constant_, normal_, ones_, trunc_normal_, uniform_, zeros_
from .matrices import (
    calculate_gain,
    eye_,
    kaiming_normal_,
    kaiming_uniform_,
    orthogonal_,
    xavier_normal_,
    xavier_uniform_,
)

__all__ = [
    "calculate_gain",
    "constant_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]
