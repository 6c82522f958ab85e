"""Values entry by entry: constants, and draws that know nothing of the others."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from .. import checks
from ..backend import RNG, Array, generator, get_array_module, is_array, quiet

# A Parameter or an array of floating point; every function returns the one that it was given.
T = TypeVar("T")


def constant_(parameter: T, value: float) -> T:
    """Set every entry to `value`.

    Parameters
    ----------
    parameter : Parameter or array of floating point
        What is written to.
    value : float
        For all of them.

    Returns
    -------
    Parameter or array
        `parameter`.

    Raises
    ------
    TypeError
        If `parameter` is no Parameter and no array of floating point.
    ValueError
        If `value` is no finite number.

    See Also
    --------
    zeros_, ones_ : The two most used.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import constant_
    >>> constant_(np.empty(3), 0.5)
    array([0.5, 0.5, 0.5])
    """
    array_of(parameter)[...] = checks.number("value", value)
    return parameter


def zeros_(parameter: T) -> T:
    """Set every entry to zero, as :func:`constant_` does.

    Parameters
    ----------
    parameter : Parameter or array of floating point
        What is written to.

    Returns
    -------
    Parameter or array
        `parameter`.

    Raises
    ------
    TypeError
        If `parameter` is no Parameter and no array of floating point.

    See Also
    --------
    constant_ : Any value.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import zeros_
    >>> zeros_(np.empty(3))
    array([0., 0., 0.])
    """
    return constant_(parameter, 0.0)


def ones_(parameter: T) -> T:
    """Set every entry to one, as :func:`constant_` does.

    Parameters
    ----------
    parameter : Parameter or array of floating point
        What is written to.

    Returns
    -------
    Parameter or array
        `parameter`.

    Raises
    ------
    TypeError
        If `parameter` is no Parameter and no array of floating point.

    See Also
    --------
    constant_ : Any value.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import ones_
    >>> ones_(np.empty(3))
    array([1., 1., 1.])
    """
    return constant_(parameter, 1.0)


def uniform_(parameter: T, a: float = 0.0, b: float = 1.0, *, rng: RNG = None) -> T:
    """Draw every entry from the uniform distribution on ``[a, b)``.

    Parameters
    ----------
    parameter : Parameter or array of floating point
        What is written to.
    a, b : float
        The bounds, ``a <= b``.
    rng : seed or Generator, optional
        For the draws; the library's own generator if not given.

    Returns
    -------
    Parameter or array
        `parameter`.

    Raises
    ------
    TypeError
        If `parameter` is no Parameter and no array of floating point.
    ValueError
        If `a` is above `b`.

    See Also
    --------
    xavier_uniform_, kaiming_uniform_ : With bounds that fit a layer.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import uniform_
    >>> uniform_(np.empty(3), -1.0, 1.0, rng=0).round(3)
    array([ 0.274, -0.46 , -0.918])
    """
    data = array_of(parameter)
    if not isinstance(a, checks.NUMBER) or not isinstance(b, checks.NUMBER) or not a <= b:
        raise ValueError(f"a, b: expected a <= b, got {checks.got(a)} and {checks.got(b)}")
    low, high = checks.number("a", a), checks.number("b", b)
    fill(data, generator(rng).uniform(low, high, data.shape))
    return parameter


def normal_(parameter: T, mean: float = 0.0, std: float = 1.0, *, rng: RNG = None) -> T:
    """Draw every entry from the normal distribution.

    Parameters
    ----------
    parameter : Parameter or array of floating point
        What is written to.
    mean, std : float
        Its middle and its width; `std` not negative.
    rng : seed or Generator, optional
        For the draws; the library's own generator if not given.

    Returns
    -------
    Parameter or array
        `parameter`.

    Raises
    ------
    TypeError
        If `parameter` is no Parameter and no array of floating point.
    ValueError
        If `std` is negative or not finite.

    See Also
    --------
    trunc_normal_ : Without far outliers.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import normal_
    >>> normal_(np.empty(3), 10.0, 0.5, rng=0).round(3)
    array([10.063,  9.934, 10.32 ])
    """
    data = array_of(parameter)
    mean, std = checks.number("mean", mean), checks.number("std", std, "[0, inf)")
    fill(data, generator(rng).normal(mean, std, data.shape))
    return parameter


def trunc_normal_(
    parameter: T,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    *,
    rng: RNG = None,
) -> T:
    """Draw every entry from the normal distribution, drawing anew what lies outside ``[a, b]``.

    Parameters
    ----------
    parameter : Parameter or array of floating point
        What is written to.
    mean, std : float
        Of the distribution before it is cut; `std` positive.
    a, b : float
        The bounds, ``a < b``.
    rng : seed or Generator, optional
        For the draws; the library's own generator if not given.

    Returns
    -------
    Parameter or array
        `parameter`.

    Raises
    ------
    TypeError
        If `parameter` is no Parameter and no array of floating point.
    ValueError
        If `std` is not positive, or `a` not below `b`.

    See Also
    --------
    normal_ : All of the distribution.

    Examples
    --------
    >>> import numpy as np
    >>> from minirnn.init import trunc_normal_
    >>> bool(abs(trunc_normal_(np.empty(1000), a=-1.0, b=1.0, rng=0)).max() <= 1)
    True
    """
    data, draw = array_of(parameter), generator(rng)
    mean, std = checks.number("mean", mean), checks.number("std", std, "[0, inf)")
    a, b = checks.number("a", a), checks.number("b", b)
    if not std or not a < b:
        raise ValueError(f"std, a, b: expected std > 0 and a < b, got {std}, {a} and {b}")
    inside = math.erf((b - mean) / (std * math.sqrt(2))) - math.erf(
        (a - mean) / (std * math.sqrt(2))
    )
    highest = max(a, min(mean, b))  # where the density is, within the bounds

    def proposed(count: int) -> tuple[Array, Array]:
        """Return values, and which of them are taken."""
        if inside > 0.5:
            x = draw.normal(mean, std, count)
            return x, (x >= a) & (x <= b)
        x = draw.uniform(a, b, count)
        log_ratio = ((highest - mean) ** 2 - (x - mean) ** 2) / (2 * std**2)
        return x, draw.random(count) < np.exp(log_ratio)

    values = np.empty(data.size)
    left = np.arange(data.size)
    while left.size:
        values[left], taken = proposed(left.size)
        left = left[~taken]
    fill(data, values.reshape(data.shape))
    return parameter


def array_of(parameter: object) -> Array:
    """Return the array that `parameter` has or is, if it is of floating point."""
    # An array has an attribute `data` too, its buffer.
    data: Array = parameter if is_array(parameter) else getattr(parameter, "data", parameter)
    checks.floating("parameter", data)
    return data


@quiet
def fill(data: Array, values: Array) -> None:
    """Write `values`, which were made on the host, into `data`."""
    data[...] = get_array_module(data).asarray(values.astype(data.dtype))
