"""GradientMonitor: norms, bands and the first alarm."""

import numpy as np
import pytest
from diagnosed import with_gradients

import minirnn
from minirnn import diagnostics as see


def test_monitor_takes_norms_and_finds_the_first_alarm():
    a, b = with_gradients(a=[3.0, 4.0], b=[[1.0], [1.0]])
    monitor = see.GradientMonitor([a, b], every=10)
    assert monitor.observe(7) is None
    assert monitor.history == []
    seen = monitor.observe(10)
    assert seen == (10, pytest.approx(27**0.5), {"a": 5.0, "b": pytest.approx(2**0.5)})
    # The total is out of its band, and says so as no parameter is.
    assert monitor.first_alarm == (10, "total", pytest.approx(27**0.5), "warning")
    b.grad *= 100
    monitor.observe(20)
    assert monitor.first_alarm.step == 10
    assert [s.step for s in monitor.history] == [10, 20]


def test_monitor_names_the_parameter_that_is_farthest_out():
    monitor = see.GradientMonitor(with_gradients(a=[6.0], b=[20.0], c=[0.0125], d=[1.0]))
    monitor.observe(3)
    assert monitor.first_alarm == (3, "c", pytest.approx(0.0125), "vanishing")  # 8 times, b 4 times


@pytest.mark.parametrize(
    ("norm", "band"),
    [
        (0.0999, "vanishing"),
        (0.1, "healthy"),
        (5.0, "healthy"),
        (5.01, "warning"),
        (10.0, "warning"),
        (10.1, "exploding"),
        (np.inf, "exploding"),
        (np.nan, "exploding"),
    ],
)
def test_monitor_bands(norm, band):
    assert see.GradientMonitor(with_gradients(a=[1.0])).band(norm) == band
    wide = see.GradientMonitor(with_gradients(a=[1.0]), vanishing=0, warning=1e9, exploding=1e9)
    assert wide.band(norm) == ("healthy" if np.isfinite(norm) else "exploding")


def test_monitor_in_float64_of_a_buffer_without_copying_it():
    model = minirnn.RNN(3, 4, rng=0)
    buffer = model.flatten_parameters()
    monitor = see.GradientMonitor(buffer)
    buffer.grad.fill(np.float32(1e-30))  # its square is zero in float32
    one = monitor.observe(0)
    assert one.total == pytest.approx(1e-30 * buffer.grad.size**0.5, rel=1e-6)
    assert one.norms["bias_hh_l0"] == pytest.approx(2e-30, rel=1e-6)
    assert all(p.grad.base is not None for p in monitor.parameters)
    assert buffer.complete


def test_monitor_refuses():
    with pytest.raises(ValueError, match="every: expected a positive"):
        see.GradientMonitor(with_gradients(a=[1.0]), every=0)
    with pytest.raises(ValueError, match="vanishing <= warning"):
        see.GradientMonitor(with_gradients(a=[1.0]), vanishing=6)
    with pytest.raises(ValueError, match="every name once"):
        see.GradientMonitor(with_gradients(a=[1.0]) + with_gradients(a=[1.0]))
