"""What pytest hands to the tests."""

import signal

import numpy as np
import pytest
from makers import MAKERS

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # here and in what the tests start


@pytest.fixture(params=MAKERS)
def make(request):
    layer, options = MAKERS[request.param]
    return lambda *args, **more: layer(*args, **{"rng": 0, **options, **more})


@pytest.fixture
def rng():
    return np.random.default_rng(0)
