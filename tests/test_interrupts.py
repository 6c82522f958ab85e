"""What a signal may do to a pass: end it, or run another inside it, and no more."""

import os
import signal
import subprocess
import sys

import pytest

import minirnn

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer here")

NATIVE = [False, *([True] if minirnn.native_available() else [])]

BEGIN = """
import random, signal, time
import numpy as np
import minirnn

def passes(layer, x, state=None):
    layer.zero_grad()
    y, ctx = layer.forward(x)
    state = y
    if isinstance(y, tuple) and not isinstance(layer, minirnn.LSTMCell):
        y, state = y
        dx, _ = layer.backward(ctx, y, state)
    else:
        dx, _ = layer.backward(ctx, state)
    y = y[0] if isinstance(y, tuple) else y
    return [y.copy(), dx, *(p.grad.copy() for p in layer.parameters())]

def equal(a, b):
    return all((x == y).all() for x, y in zip(a, b, strict=True))

draw = random.Random(0)
"""

INTERRUPTED = """
minirnn.set_num_threads({threads})
layer = minirnn.{name}(16, 128, num_layers=2, bidirectional=True, recurrent_dropout={dropout}, rng=0).eval()
x = np.random.default_rng(0).standard_normal((6, 4, 16)).astype(np.float32)
expected = passes(layer, x)
start = time.perf_counter()
passes(layer, x)
span = 1.5 * (time.perf_counter() - start)
wrong = interrupted = 0

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
end = time.monotonic() + 1.5
while interrupted < 150 and time.monotonic() < end:
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-6 + draw.random() * span)
        passes(layer, x)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        # What a worker would still add now, would be in the gradients of the next pass.
        interrupted += 1
        wrong += not equal(passes(layer, x), expected)
print(interrupted >= 5, wrong)
"""

INSIDE = """
layer, inner = minirnn.{name}(8, 16, rng=0), minirnn.{name}(8, 16, rng=1)
shape = (5, 8) if "Cell" in "{name}" else (4, 5, 8)
x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

def answer(layer, x):
    y = layer(x)
    while isinstance(y, tuple):
        y = y[0]
    return [y]

ran = wrong = 0
for work in passes, answer:
    expected, expected_inside = work(layer, x), work(inner, x)
    start = time.perf_counter()
    work(layer, x)
    span = time.perf_counter() - start

    def handler(*_):
        global ran, wrong
        ran += 1
        wrong += not equal(work(inner, x), expected_inside)  # the other layer's scratch is this one's

    signal.signal(signal.SIGALRM, handler)
    begun, end = ran, time.monotonic() + 0.7
    while ran < begun + 150 and time.monotonic() < end:
        signal.setitimer(signal.ITIMER_REAL, 1e-6 + draw.random() * span)
        found = work(layer, x)
        signal.setitimer(signal.ITIMER_REAL, 0)
        wrong += not equal(found, expected)
print(ran >= 5, wrong)
"""


def run_apart(code, native):
    """Run a program by itself: a signal's handler is the process's; the limit is for one that hangs."""
    environment = {**os.environ, "MINIRNN_NATIVE": str(int(native)), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BEGIN + code]
    return subprocess.run(command, timeout=300, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("native", NATIVE)
@pytest.mark.parametrize(("name", "threads"), [("RNN", 2), ("LSTM", 2), ("GRU", 2), ("LSTM", 4)])
def test_an_interrupt_leaves_nothing_running(name, threads, native):
    """KeyboardInterrupts at any moment of a pass in threads: the next is right, and the process ends."""
    done = run_apart(INTERRUPTED.format(name=name, threads=threads, dropout=0.1), native)
    assert (done.stdout, done.stderr) == ("True 0\n", "")


@pytest.mark.parametrize("native", NATIVE)
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
def test_a_handler_may_run_the_same_kind_of_layer(name, native):
    """Hundreds of times in the midst of a pass: neither makes the other wrong, nor waits for it."""
    done = run_apart(INSIDE.format(name=name), native)
    assert (done.stdout, done.stderr) == ("True 0\n", "")
