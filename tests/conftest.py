"""What pytest hands to the tests."""

import signal

import numpy as np
import pytest
from makers import MAKERS

import minirnn
from minirnn import pairs

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # here and in what the tests start


@pytest.fixture(autouse=True)
def _loops_as_they_were():
    """Leave the loops in C on or off for the next test as `MINIRNN_NATIVE` has it for the whole run."""
    before = pairs._native
    yield
    if pairs._native != before:
        minirnn.set_native(before and minirnn.native_available())


@pytest.fixture(params=MAKERS)
def make(request):
    layer, options = MAKERS[request.param]
    return lambda *args, **more: layer(*args, **{"rng": 0, **options, **more})


@pytest.fixture
def rng():
    return np.random.default_rng(0)
