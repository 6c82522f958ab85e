"""What threads may do to a layer: nothing that shows."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import all_equal
from makers import named, packed_input

import minirnn


@pytest.mark.parametrize("checkpoint", [False, True])
def test_threads_change_no_bit(make, checkpoint, monkeypatch):
    """Two directions in two threads, nested in callers that are threads themselves."""
    monkeypatch.setattr("minirnn.bptt.execution._THREADED_SIZE", 1)
    rng = np.random.default_rng(0)
    options = {"num_layers": 2, "bidirectional": True, "recurrent_dropout": 0.2}
    layer = make(3, 40, checkpoint=checkpoint, **options)
    x = packed_input(rng).map(lambda rows: rows.astype(np.float32))

    def run(_=None):
        one = make(3, 40, checkpoint=checkpoint, **options)
        one.load_state_dict(layer.state_dict())
        one._rng = np.random.default_rng(5)
        (output, h_n), ctx = one.forward(x)
        dx, dh_0 = one.backward(ctx, output.map(np.cos), h_n)
        return named(output=output, h_n=h_n, dx=dx, dh_0=dh_0, layer=one)

    alone = run()
    minirnn.set_num_threads(2)
    try:
        with ThreadPoolExecutor(3) as pool:
            for result in [run(), *pool.map(run, range(6))]:
                all_equal(result, alone)
    finally:
        minirnn.set_num_threads(1)
    with pytest.raises(ValueError, match="threads: expected a positive integer, got 0"):
        minirnn.set_num_threads(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own():
    code = """
import os, numpy as np, minirnn
minirnn.set_num_threads(2)
layer, x = minirnn.LSTM(128, 256, rng=0), np.ones((3, 8, 128), np.float32)
before = layer(x)[0]
if os.fork() == 0:
    os._exit(0 if (layer(x)[0] == before).all() else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=120).returncode == 0
