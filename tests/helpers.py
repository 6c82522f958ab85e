"""What several tests use."""

import os
from contextlib import contextmanager

import numpy as np
import pytest

import minirnn
from minirnn import layout as packing

posix = pytest.mark.skipif(
    os.name != "posix", reason="needs named pipes and signals as POSIX has them"
)


def close(actual, expected, tolerance=1e-10, name=""):
    """Assert agreement to `tolerance`, relative to the largest expected entry if that is above 1."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, name
    scale = max(1.0, np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale, err_msg=name)


def all_close(actual, expected, tolerance=1e-10):
    """Assert :func:`close` for each array of two dictionaries, so that a failure says which array it is."""
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        close(actual[name], array, tolerance, name)


def all_equal(actual, expected):
    """Assert that the arrays of two dictionaries agree in every bit, each by its name."""
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


def directional_derivative(f, x, direction, eps=1e-5):
    """Return d f(x + s * direction) / ds at s = 0, by a fourth-order central difference.

    `x` is changed in place and restored, so it may be a parameter's array.
    """
    start = x.copy()
    values = []
    for s in (-2, -1, 1, 2):
        x[...] = start + s * eps * direction
        values.append(f())
    x[...] = start
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * eps)


def check_gradients(f, pairs, rng, tolerance=1e-8):
    """Compare ``<gradient, direction>`` with the numerical derivative for each (array, gradient).

    `pairs` is a dictionary by name, for the message, or a list.
    """
    for name, (x, gradient) in pairs.items() if isinstance(pairs, dict) else enumerate(pairs):
        direction = rng.standard_normal(x.shape)
        expected = directional_derivative(f, x, direction)
        actual = np.vdot(gradient, direction)
        assert abs(actual - expected) <= tolerance * max(1, abs(expected)), (name, actual, expected)


def data(x):
    """Return the array in an output, packed or not."""
    return x.data if isinstance(x, minirnn.PackedSequence) else x


@contextmanager
def spans(rows, steps=64):
    """Cut packed batches into spans of so many rows or steps: small ones, so that there are several."""
    before = packing._SPAN_ROWS, packing._SPAN_STEPS
    packing._SPAN_ROWS, packing._SPAN_STEPS = rows, steps
    packing.kept.clear()
    try:
        yield
    finally:
        packing._SPAN_ROWS, packing._SPAN_STEPS = before
        packing.kept.clear()


def thread_everything(monkeypatch, busy=99):
    """Let small layers run in threads too, of which a pass is said to keep so many busy."""
    monkeypatch.setattr("minirnn.bptt.execution._kept_busy", lambda p: busy)
