"""What pytest hands to the tests."""

import numpy as np
import pytest
from makers import MAKERS


@pytest.fixture(params=MAKERS)
def make(request):
    layer, options = MAKERS[request.param]
    return lambda *args, **more: layer(*args, **{"rng": 0, **options, **more})


@pytest.fixture
def rng():
    return np.random.default_rng(0)
