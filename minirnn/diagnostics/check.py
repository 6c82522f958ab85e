"""Whether a backward is the derivative of its forward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import checks
from ..backend import RNG, Array, asnumpy, generator, get_array_module, is_array
from ..module import Module
from ..packed_sequence import PackedSequence


def check_gradients(
    module: Module,
    *inputs: Any,
    directions: int = 2,
    tolerance: float = 1e-7,
    step: float = 1e-4,
    rng: RNG = 0,
) -> dict[str, float]:
    r"""Compare a module's backward with numerical derivatives of its forward.

    With a random covector u the outputs become one number, :math:`f = \langle u, y \rangle`, whose gradients
    backward returns. For each array of inputs and parameters, and for some random directions v, it must agree
    with

    .. math::  \langle \nabla f, v \rangle \approx
               \frac{f(-2s) - 8 f(-s) + 8 f(s) - f(2s)}{12\,s}, \qquad f(s) = f(x + s v),

    which is exact but for :math:`s^4` and rounding. A random covector, since errors can cancel in a sum of
    all outputs.

    Parameters
    ----------
    module : Module
        Anything with the pair ``y, ctx = forward(*inputs)`` and ``dinputs = backward(ctx, dy)``, a user's own
        or one of the library's. If y is a tuple, as that of the recurrent layers, backward is given the
        gradients of its parts one by one.
    *inputs : arrays, PackedSequences, or nested tuples of them
        In float64, or of integers; None for what is not given. Nothing is changed.
    directions : int, keyword-only
        How many random directions are tried.
    tolerance : float, keyword-only
        How far both may be apart, relative to the larger of the derivative and 1.
    step : float, keyword-only
        The numerical step s.
    rng : seed or Generator, keyword-only
        For u and v.

    Returns
    -------
    dict from str to float
        The largest error for each array, under the parameter's name or ``"input 0"``; gradients that backward
        does not return, as those of a model's inputs often, are left out.

    Raises
    ------
    AssertionError
        If one of them is larger than `tolerance`: with the names of all that are, and both numbers.
    TypeError
        If a parameter or an input is of float32, whose digits are too few.
    ValueError
        If two forward passes differ, as with dropout: call ``module.eval()`` first.

    See Also
    --------
    gradient_flow : How far gradients reach.

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> from minirnn.diagnostics import check_gradients
    >>> gru = minirnn.GRU(3, 4, dtype=np.float64, rng=0)
    >>> sorted(check_gradients(gru, np.ones((5, 2, 3))))
    ['bias_hh_l0', 'bias_ih_l0', 'input 0', 'weight_hh_l0', 'weight_ih_l0']
    """
    checks.having("module", module, "a Module", "forward", "backward", "named_parameters")
    checks.positive(directions=directions)
    checks.number("tolerance", tolerance, "[0, inf)")
    checks.number("step", step, "(0, inf)")
    draw, inputs = generator(rng), tuple(_copied(x) for x in inputs)
    _require_float64(module, inputs)
    y, ctx = module.forward(*inputs)
    outputs = list(_floats(y))
    if not _same(outputs, list(_floats(module.forward(*inputs)[0]))):
        raise ValueError(
            "module: expected the same output twice, got two; switch dropout off by module.eval()"
        )
    u = [_drawn(draw, a) for a in outputs]
    gradients = _gradients(module, ctx, _filled(y, iter(u)), inputs)

    def f() -> float:
        return _dot(u, list(_floats(module.forward(*inputs)[0])))

    errors: dict[str, float] = {}
    wrong = []
    for name, (x, gradient) in gradients.items():
        for _ in range(directions):
            v = _drawn(draw, x)
            expected, actual = _derivative(f, x, v, step), _dot([gradient], [v])
            error = abs(actual - expected) / max(1.0, abs(expected))
            errors[name] = max(errors.get(name, 0.0), error)
            if not error <= tolerance:
                wrong.append(f"{name}: backward says {actual:.10g}, the difference {expected:.10g}")
    if wrong:
        raise AssertionError(f"gradients of {type(module).__name__}:\n  " + "\n  ".join(wrong))
    return errors


def _gradients(
    module: Module, ctx: Any, dy: Any, inputs: tuple[Any, ...]
) -> dict[str, tuple[Array, Array]]:
    """Return each array and its gradient by backward, by name; leave the parameters' as they were."""
    parameters = dict(module.named_parameters())
    before = {name: p.grad.copy() for name, p in parameters.items()}
    try:
        module.zero_grad()
        returned = module.backward(ctx, *dy) if type(dy) is tuple else module.backward(ctx, dy)
        found = {name: (p.data, p.grad.copy()) for name, p in parameters.items()}
    finally:
        for name, p in parameters.items():
            p.grad = before[name]
    if returned is None:
        return found
    dinputs = returned if type(returned) is tuple else (returned,)
    for k, (x, dx) in enumerate(zip(inputs, dinputs, strict=False)):
        arrays = list(_floats(x)) if dx is not None else []
        for j, (a, da) in enumerate(zip(arrays, _floats(dx), strict=bool(arrays))):
            found[f"input {k}" + (f"[{j}]" if len(arrays) > 1 else "")] = a, da
    return found


def _derivative(f: Any, x: Array, v: Array, step: float) -> float:
    """Return the derivative of f along v at x, which is changed in place and restored."""
    start, values = x.copy(), []
    for s in (-2, -1, 1, 2):
        x[...] = start + s * step * v
        values.append(f())
    x[...] = start
    a, b, c, d = values
    return float((a - 8 * b + 8 * c - d) / (12 * step))


def _floats(tree: Any) -> Iterator[Array]:
    """Iterate over the floating-point arrays in nested tuples, lists and packed sequences."""
    if isinstance(tree, PackedSequence):
        tree = tree.data
    if isinstance(tree, tuple | list):
        for x in tree:
            yield from _floats(x)
    elif getattr(getattr(tree, "dtype", None), "kind", "") == "f":
        yield tree


def _filled(tree: Any, arrays: Iterator[Array]) -> Any:
    """Return `tree` with its floating-point arrays replaced, in order."""
    if isinstance(tree, PackedSequence):
        return tree.map(lambda _: next(arrays)) if tree.data.dtype.kind == "f" else tree
    if isinstance(tree, tuple | list):
        return tuple(_filled(x, arrays) for x in tree)
    return next(arrays) if next(_floats(tree), None) is not None else tree


def _copied(tree: Any) -> Any:
    return _filled(tree, iter([a.copy() for a in _floats(tree)]))


def _drawn(draw: np.random.Generator, like: Array) -> Array:
    values = np.asarray(draw.standard_normal(like.shape))
    return get_array_module(like).asarray(values) if is_array(like) else values


def _dot(a: list[Array], b: list[Array]) -> float:
    return sum(float(np.vdot(asnumpy(x), asnumpy(y))) for x, y in zip(a, b, strict=True))


def _same(a: list[Array], b: list[Array]) -> bool:
    pairs = zip(a, b, strict=True)
    return all(np.array_equal(asnumpy(x), asnumpy(y), equal_nan=True) for x, y in pairs)


def _require_float64(module: Module, inputs: Any) -> None:
    found = [(name, p.dtype) for name, p in module.named_parameters()]
    found += [(f"input {k}", a.dtype) for k, x in enumerate(inputs) for a in _floats(x)]
    for name, dtype in found:
        if dtype != np.float64:
            raise TypeError(
                f"{name}: expected float64, got {dtype}; convert it (module.to('float64'))"
            )
