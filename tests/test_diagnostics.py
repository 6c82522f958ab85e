"""minirnn.diagnostics as a room: imported when asked for, and with threads."""

import subprocess
import sys

import numpy as np
from diagnosed import packed
from helpers import close, thread_everything

import minirnn
from minirnn import diagnostics as see
from minirnn.bptt import execution


def test_is_imported_when_first_asked_for():
    code = (
        "import sys, minirnn; assert 'minirnn.diagnostics' not in sys.modules; "
        "minirnn.diagnostics.gradient_flow; assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_threads_share_a_batch_and_it_still_comes_out_whole(rng, monkeypatch):
    layer = minirnn.GRU(3, 4, dtype=np.float64, rng=0)
    x = packed(rng, 3)
    expected = see.jacobian_norms(layer, layer.forward(x)[1])
    thread_everything(monkeypatch)
    minirnn.set_num_threads(2)
    try:
        _, ctx = layer.forward(x)
        assert isinstance(ctx.saved.stack.execution, execution.InParts)
        close(see.jacobian_norms(layer, ctx), expected, 1e-12)
    finally:
        minirnn.set_num_threads(1)
