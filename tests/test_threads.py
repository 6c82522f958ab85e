"""What threads may do to a layer: nothing that shows."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import all_close, all_equal, thread_everything
from makers import F8, named, packed_input

import minirnn
from minirnn.threads import together


@pytest.mark.parametrize("checkpoint", [False, True])
def test_threads_change_no_bit(make, checkpoint, monkeypatch):
    """Two directions in two threads, nested in callers that are threads themselves."""
    thread_everything(monkeypatch, busy=1)
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


def run_apart(code, *options):
    """Run a program by itself; the limit is there for one that hangs."""
    program = f"import os, sys, threading\nimport numpy as np\nimport minirnn\n{code}"
    command = [sys.executable, *options, "-c", program]
    return subprocess.run(command, timeout=120, capture_output=True, text=True)


@pytest.fixture
def four_threads():
    minirnn.set_num_threads(4)
    yield
    minirnn.set_num_threads(1)


def test_an_error_is_raised_when_nothing_runs_any_more(four_threads):
    """The caller's error, an interrupt among them, waits for what others have begun and cancels the rest."""
    begun, done, error = threading.Event(), [], KeyboardInterrupt

    def slow():
        begun.set()
        threading.Event().wait(0.2)
        done.append("slow")

    def fails():
        begun.wait()
        raise error

    with pytest.raises(KeyboardInterrupt):
        together([fails, slow])
    assert done == ["slow"]
    error = ValueError
    with pytest.raises(ValueError):  # noqa: PT011 (which one is the test's own)
        together([lambda: None, fails, slow])
    assert done.count("slow") == 2


def test_numpys_error_state_holds_in_every_thread(four_threads):
    def divide():
        with pytest.raises(FloatingPointError):
            np.ones(1) / np.zeros(1)

    with np.errstate(divide="raise"):
        together([divide] * 8)


@pytest.mark.parametrize(("name", "hidden_size"), [("LSTM", 725), ("GRU", 837), ("RNN", 1449)])
def test_more_threads_than_sequences(name, hidden_size):
    layer = getattr(minirnn, name)(8, hidden_size, rng=0)
    x = np.ones((3, 1, 8), np.float32)
    (expected, _), ctx = layer.forward(x)
    expected = named(y=expected, dx=layer.backward(ctx, expected)[0], layer=layer)
    layer.zero_grad()
    minirnn.set_num_threads(4)
    try:
        (y, _), ctx = layer.forward(x)
        all_equal(named(y=y, dx=layer.backward(ctx, y)[0], layer=layer), expected)
    finally:
        minirnn.set_num_threads(1)


def test_a_part_without_rows(make, monkeypatch):
    """Of two sequences the second is empty: its thread has nothing but the states to hand through."""
    thread_everything(monkeypatch)
    layer = make(3, 4, num_layers=2, bidirectional=True, dtype=F8)
    x = packed_input(np.random.default_rng(0), lengths=[5, 0])

    def run(threads):
        minirnn.set_num_threads(threads)
        layer.zero_grad()
        (y, h_n), ctx = layer.forward(x)
        dx, dh_0 = layer.backward(ctx, y, h_n)
        return named(y=y, h_n=h_n, dx=dx, dh_0=dh_0, layer=layer)

    try:
        all_close(run(8), run(1))
    finally:
        minirnn.set_num_threads(1)


@pytest.mark.parametrize("moment", ["atexit", "after main"])
def test_threads_while_the_interpreter_exits(moment):
    start = {
        "atexit": "import atexit; atexit.register(late)",
        "after main": "main = threading.main_thread()\n"
        "threading.Thread(target=lambda: (main.join(), late())).start()",
    }[moment]
    code = f"""
layer, x = minirnn.GRU(8, 128, bidirectional=True, rng=0), np.ones((3, 2, 8), np.float32)
before = layer(x)[0]
minirnn.set_num_threads(2)
def late():
    (y, h), ctx = layer.forward(x)
    layer.backward(ctx, y, h)
    print("equal" if (y == before).all() else "different")
{start}
"""
    done = run_apart(code)
    assert (done.stdout, done.stderr) == ("equal\n", "")


def test_as_many_threads_as_asked_for_last_and_no_more():
    code = """
import _thread, time
calls = [lambda: threading.Event().wait(0.01)] * 64
for threads in range(2, 65):
    minirnn.set_num_threads(threads)
    minirnn.threads.together(calls)
minirnn.set_num_threads(3)
minirnn.threads.together(calls)
for _ in range(200):
    if _thread._count() > 2:
        time.sleep(0.05)
print(_thread._count())
minirnn.set_num_threads(2**40)  # threads are made for work that is there
minirnn.threads.together(calls[:3])
"""
    done = run_apart(code)
    assert done.stderr == ""
    assert int(done.stdout) <= 2


def test_the_number_of_threads_may_change_during_passes():
    layer = minirnn.GRU(8, 128, bidirectional=True, rng=0)
    x = np.ones((3, 2, 8), np.float32)
    expected, stop = layer(x)[0], threading.Event()

    def toggle():
        while not stop.is_set():
            for threads in (2, 1, 3):
                minirnn.set_num_threads(threads)

    try:
        with ThreadPoolExecutor(1) as pool:
            toggling = pool.submit(toggle)
            try:
                for _ in range(200):
                    np.testing.assert_array_equal(layer(x)[0], expected)
            finally:
                stop.set()
            toggling.result()
    finally:
        minirnn.set_num_threads(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_while_a_first_gradient_is_made():
    code = """
from minirnn import parameter
held, forked = threading.Event(), threading.Event()
def make():
    with parameter._first_grad:
        held.set()
        forked.wait()
threading.Thread(target=make).start()
held.wait()
child = os.fork()
if child == 0:
    os._exit(int(minirnn.Linear(2, 2).weight.grad.sum()))
forked.set()
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_apart(code, "-W", "ignore").returncode == 0
