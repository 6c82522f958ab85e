"""Pictures show the numbers that they are given."""

import sys

import numpy as np
import pytest
from diagnosed import with_gradients
from helpers import close

from minirnn import diagnostics as see


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
    monitor = see.GradientMonitor(with_gradients(a=[3.0, 4.0], b=[12.0]))
    monitor.observe(0)
    monitor.observe(5)
    assert see.plot_gradient_norms(monitor, ax) is ax
    a, b, total, *bounds = ax.lines
    close([line.get_ydata() for line in (a, b, total)], [[5, 5], [12, 12], [13, 13]])
    close(total.get_xdata(), [0, 5])
    close([line.get_ydata()[0] for line in bounds], [0.1, 5, 10])
    ax.clear()
    norms = np.array([[0.2, 0.4, 0.3], [0.5, 0.5, 0.5], [1, 1, 1]])
    assert see.plot_jacobian_norms(norms, 0.9, 0.5, ax) is ax
    close([line.get_ydata() for line in ax.lines], [[0.3, 0.5, 1], [0.81, 0.9, 1], [0.25, 0.5, 1]])
