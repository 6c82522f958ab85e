"""Every execution to run passes gives what one after the other gives."""

from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import all_close, all_equal

from minirnn import native_available, set_num_threads
from minirnn.bptt import execution
from minirnn.bptt.checkpoints import Checkpointed
from minirnn.bptt.execution import InParts, InThreads, InTurn
from minirnn.bptt.passes import Pass
from minirnn.bptt.stack import Stack
from minirnn.functional import gru, lstm, rnn
from minirnn.layout import Layout

CELLS = {"rnn": (rnn, "h"), "gru": (gru, "h"), "lstm": (lstm, "hc")}
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@pytest.fixture
def three_threads():
    set_num_threads(3)
    yield
    set_num_threads(1)


def run(kind, execute, recurrence, states_of, traced=True, layers=2, D=2, dtype=np.float64):
    """Run two layers forward and back; return every array that comes out by its name and its pass."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape).astype(dtype)

    layout, G = Layout(np.array([5, 5, 3, 2, 2, 1] + [1] * 30), 6), len(recurrence.GATES)
    passes, dweights = [], []
    for k in range(layers * D):
        w = [draw(*s) for s in ((G * 4, 3 if k < D else 4 * D), (G * 4, 4), (G * 4,), (G * 4,))]
        w += [None] * (len(states_of) - 1)
        passes.append(kind(recurrence, w, {}, layout, draw(6, 4)))
        # Ones, since gradients are added to what is there.
        dweights.append([None if a is None else np.ones_like(a) for a in w])
    states, dstates = ([draw(layers * D, 6, 4) for _ in states_of] for _ in range(2))
    traces = [
        [np.empty((layout.rows, 4), dtype) for _ in states_of] if traced else None for _ in passes
    ]
    stack = Stack(passes, [None, draw(layout.rows, 4 * D)], execute(layout))
    y, contexts = stack.forward(draw(layout.rows, 3), states)
    dx = stack.backward(contexts, draw(*y.shape), dstates, dweights, traces)
    found = {"y": y, "dx": dx}
    for k in range(len(passes)):
        of_pass = f"of layer {k // D}, direction {k % D}"
        for name, array in zip(WEIGHTS, dweights[k], strict=False):
            found[f"d{name} {of_pass}"] = array
        for n, name in enumerate(states_of):
            found[f"{name}_n {of_pass}"], found[f"d{name}_0 {of_pass}"] = (
                states[n][k],
                dstates[n][k],
            )
            if traced:
                found[f"trace of d{name} {of_pass}"] = traces[k][n]
    return found


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", [Pass, Checkpointed])
@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("D", [1, 2])
@pytest.mark.parametrize("parts", [None, 1, 2, 3, 6])
def test_every_execution_gives_what_one_after_the_other_gives(
    cell, kind, traced, D, parts, three_threads
):
    def execute(layout):
        return InThreads() if parts is None else InParts(layout.parts(parts))

    expected = run(Pass, lambda _: InTurn(), *CELLS[cell], traced, D=D)
    found = run(kind, execute, *CELLS[cell], traced, D=D)
    all_close(found, expected)
    all_equal(found, run(kind, execute, *CELLS[cell], traced, D=D))  # a function of its input


EXECUTIONS = {
    "in turn": lambda layout: InTurn(),
    "in threads": lambda layout: InThreads(),
    "in parts": lambda layout: InParts(layout.parts(2)),
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", [Pass, Checkpointed])
@pytest.mark.parametrize("how", EXECUTIONS)
def test_every_execution_stays_in_float32(cell, kind, how, three_threads):
    found = run(kind, EXECUTIONS[how], *CELLS[cell], dtype=np.float32)
    assert {name: a.dtype for name, a in found.items() if a.dtype != np.float32} == {}


@pytest.mark.parametrize("save", [True, False])
@pytest.mark.parametrize("how", EXECUTIONS)
def test_every_execution_saves_what_is_wanted_and_nothing_else(how, save, three_threads):
    saved = []

    class Watched:
        GATES = rnn.GATES

        @staticmethod
        def forward(*args, save, **options):
            saved.append(save)
            return rnn.forward(*args, save=save, **options)

    layout, w = Layout(np.array([5, 5, 3]), 5), np.ones((4, 4))
    passes = [Pass(Watched, [w, w, None, None], {}, layout, None)] * 2
    states = [np.zeros((2, 5, 4))]
    Stack(passes, [None], EXECUTIONS[how](layout)).forward(np.ones((13, 4)), states, save)
    assert saved
    assert set(saved) == {save}


@pytest.mark.parametrize("cell", CELLS)
def test_checkpoints_in_turn_change_no_bit(cell):
    all_equal(*(run(kind, lambda _: InTurn(), *CELLS[cell]) for kind in (Checkpointed, Pass)))


@pytest.mark.parametrize(
    ("D", "steps", "kind"),
    [(1, 170, InTurn), (1, 171, InParts), (2, 31, InTurn), (2, 32, InThreads)],
)
def test_loops_without_the_gil_are_threaded_by_all_that_a_pass_has_to_do(D, steps, kind):
    """A GRU of 32 with 32 sequences: 32 steps are enough for a direction, 86 for half of a batch."""
    in_c = SimpleNamespace(GATES=gru.GATES, releases_gil=lambda weights: True)
    weights = [np.empty((96, 32), np.float32)] * 2
    p = Pass(in_c, weights, {}, Layout(np.array([32] * steps), 32), None)
    set_num_threads(2)
    try:
        assert type(execution.choose([p] * D, False)) is kind
    finally:
        set_num_threads(1)


@pytest.mark.skipif(not native_available(), reason="the loops in C were not built")
def test_a_projection_which_c_lacks_is_threaded_as_numpy_is():
    """Else threads would wait for one interpreter."""
    native = import_module("minirnn.native.lstm")
    set_num_threads(2)
    try:
        for P, kind in [(0, InParts), (16, InTurn)]:
            h = P or 32
            shapes = (128, 8), (128, h), (128,), (128,)
            weights = [*map(np.empty, shapes), np.empty((P, 32)) if P else None]
            p = Pass(native, weights, {}, Layout(np.array([32] * 128), 32), None)
            assert type(execution.choose([p], False)) is kind
    finally:
        set_num_threads(1)


@pytest.mark.parametrize(
    ("threads", "D", "batch", "traced", "kind"),
    [
        (1, 2, 64, False, InTurn),
        (2, 1, 64, True, InTurn),
        (2, 1, 15, False, InTurn),  # too little for two
        (2, 1, 32, False, InParts),
        (2, 2, 64, False, InThreads),
        (2, 2, 7, False, InThreads),  # directions are threads of any size
        (4, 2, 64, False, InParts),
        (4, 2, 64, True, InThreads),  # a trace needs whole contexts
    ],
)
def test_the_execution_fits_the_work(threads, D, batch, traced, kind):
    """An LSTM of 128 gives a thread enough to do from 16 sequences on."""
    weights = [np.empty((512, 128), np.float32)] * 2
    p = Pass(lstm, weights, {}, Layout(np.array([batch] * 2), batch), None)
    set_num_threads(threads)
    try:
        assert type(execution.choose([p] * D, traced)) is kind
    finally:
        set_num_threads(1)
