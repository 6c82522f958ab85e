"""Pictures show the numbers that they are given."""

import sys

import numpy as np
import pytest
from diagnosed import with_gradients
from helpers import close

import minirnn
from minirnn import diagnostics as see


def monitor(*steps, every=1, **gradients):
    seen = see.GradientMonitor(with_gradients(**gradients), every=every)
    for step in steps:
        seen.observe(step)
    return seen


def trace():
    rnn = minirnn.RNN(2, 3)
    (*_, states), _ = rnn.forward(np.ones((4, 1, 2), np.float32), trace=True)
    return states


FLOW, NORMS = np.ones((2, 3)), np.ones((3, 2))
SIGMA = {"weight_hh_l0": 0.5}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        *[
            case
            for draw in (see.plot_gradient_flow, see.plot_gradient_curves)
            for case in (
                (lambda d=draw: d(trace()), TypeError, r"flow: .* write gradient_flow\(trace\)"),
                (lambda d=draw: d(None), TypeError, "flow: expected numbers, got None"),
                (lambda d=draw: d([[1.0], [1.0, 2.0]]), TypeError, r"flow: .*got \[\[1\.0\], "),
                (lambda d=draw: d(-FLOW), ValueError, "flow: expected numbers >= 0"),
                (lambda d=draw: d(FLOW[0]), ValueError, r"flow: .*\(num_layers, T\), got \(3,\)"),
                (lambda d=draw: d(FLOW[:, :0]), ValueError, r"flow: .*got \(2, 0\)"),
                (lambda d=draw: d(FLOW, (1, 2)), TypeError, r"ax: .* Axes, got \(1, 2\)"),
            )
        ],
        (lambda: see.plot_gradient_norms(FLOW), TypeError, "monitor: expected a GradientMonitor"),
        (
            lambda: see.plot_gradient_norms(monitor(1, 2, every=3, a=[1.0])),
            ValueError,
            r"monitor: .*observe\(step\) after backward, every=3",
        ),
        (lambda: see.plot_gradient_norms(monitor(0, a=[1.0]), 3), TypeError, "ax: .*got 3"),
        (
            lambda: see.plot_jacobian_norms(NORMS[None], 0.5, 0.5),
            ValueError,
            r"norms: .*got \(1, 3, 2\), of all layers; pick one, .*\[0\]",
        ),
        (lambda: see.plot_jacobian_norms("x", 0.5, 0.5), TypeError, "norms: expected numbers"),
        (lambda: see.plot_jacobian_norms(0.5, 0.5, 0.5), ValueError, r"norms: .*got \(\)"),
        (lambda: see.plot_jacobian_norms(NORMS * np.nan, 0.5, 0.5), ValueError, "norms: .*one num"),
        (
            lambda: see.plot_jacobian_norms(NORMS, SIGMA, 0.5),
            TypeError,
            r'sigma: expected a number, .*largest_singular_value\(layer\)\["weight_hh_l0"\]',
        ),
        (
            lambda: see.plot_jacobian_norms(NORMS, 0.5, SIGMA),
            TypeError,
            r'radius: expected a number, .*spectral_radius\(layer\)\["weight_hh_l0"\]',
        ),
        (lambda: see.plot_jacobian_norms(NORMS, -1, 0.5), ValueError, "sigma: .*>= 0, got -1"),
        (lambda: see.plot_jacobian_norms(NORMS, 0.5, 0.5, "ax"), TypeError, "ax: .*got 'ax'"),
    ],
)
def test_what_is_no_such_thing_is_refused_before_a_picture_is_made(
    call, error, message, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(error, match=message):
        call()


def test_one_short_sequence_has_its_own_steps_alone(ax):
    see.plot_jacobian_norms([0.25, 1.0, np.nan, np.nan], 0.5, 0.25, ax)
    close([line.get_ydata() for line in ax.lines], [[0.25, 1], [0.5, 1], [0.25, 1]])


def test_a_parameter_that_gets_no_gradient_does_not_warn(ax):
    see.plot_gradient_norms(monitor(0, 1, frozen=[0.0], b=[0.0]), ax)
    assert [line.get_ydata().tolist() for line in ax.lines[:3]] == [[0, 0]] * 3
    assert ax.get_yscale() == "log"


@pytest.fixture
def ax():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, ax = pyplot.subplots()
    yield ax
    pyplot.close(figure)


def test_without_matplotlib_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'minirnn\[plot\]'"):
        see.plot_gradient_curves(np.ones((2, 3)))


def test_pictures_show_the_numbers(rng, ax):
    flow = np.array([[1e-4, 1e-2, 1.0], [1e-2, 1e-1, 10.0]])
    assert see.plot_gradient_curves(flow, ax) is ax
    close([line.get_ydata() for line in ax.lines], flow)
    ax.clear()
    assert see.plot_gradient_flow(flow, ax) is ax
    close(ax.images[0].get_array(), np.log10(flow))
    ax.clear()
    assert see.plot_gradient_norms(monitor(0, 5, a=[3.0, 4.0], b=[12.0]), ax) is ax
    a, b, total, *bounds = ax.lines
    close([line.get_ydata() for line in (a, b, total)], [[5, 5], [12, 12], [13, 13]])
    close(total.get_xdata(), [0, 5])
    close([line.get_ydata()[0] for line in bounds], [0.1, 5, 10])
    ax.clear()
    norms = np.array([[0.2, 0.4, 0.3], [0.5, 0.5, 0.5], [1, 1, 1]])
    assert see.plot_jacobian_norms(norms, 0.9, 0.5, ax) is ax
    close([line.get_ydata() for line in ax.lines], [[0.3, 0.5, 1], [0.81, 0.9, 1], [0.25, 0.5, 1]])
