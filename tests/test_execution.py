"""Every execution to run passes gives what one after the other gives."""

import numpy as np
import pytest
from helpers import close

from minirnn import set_num_threads
from minirnn.bptt.checkpoints import Checkpointed
from minirnn.bptt.execution import InParts, InThreads, InTurn
from minirnn.bptt.passes import Pass
from minirnn.bptt.stack import Stack
from minirnn.functional import gru, lstm, rnn
from minirnn.layout import Layout

CELLS = {"rnn": (rnn, [4]), "gru": (gru, [4]), "lstm": (lstm, [4, 4])}


def run(kind, execution, recurrence, sizes, layers=2, D=2):
    rng = np.random.default_rng(0)
    layout, G = Layout(np.array([5, 5, 3, 2, 2, 1] + [1] * 30), 6), len(recurrence.GATES)
    passes, dweights = [], []
    for k in range(layers * D):
        w = [
            rng.standard_normal(s)
            for s in ((G * 4, 3 if k < D else 4 * D), (G * 4, 4), (G * 4,), (G * 4,))
        ]
        w += [None] * (len(sizes) - 1)
        passes.append(kind(recurrence, w, {}, layout, rng.standard_normal((6, 4))))
        dweights.append([None if a is None else np.zeros_like(a) for a in w])
    states, dstates = (
        [[rng.standard_normal((6, s)) for s in sizes] for _ in passes] for _ in range(2)
    )
    traces = [[np.empty((layout.rows, s)) for s in sizes] for _ in passes]
    stack = Stack(passes, [None, rng.standard_normal((layout.rows, 4 * D))], execution(layout))
    y, contexts = stack.forward(rng.standard_normal((layout.rows, 3)), states)
    dx = stack.backward(contexts, rng.standard_normal(y.shape), dstates, dweights, traces)
    lists = (*states, *dstates, *traces, *dweights)
    return [y, dx, *(a for arrays in lists for a in arrays)]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", [Pass, Checkpointed])
@pytest.mark.parametrize(
    "execution",
    [
        lambda _: InTurn(),
        lambda _: InThreads(),
        lambda layout: InParts(layout.parts(2)),
        lambda layout: InParts(layout.parts(3)),
    ],
)
def test_every_execution_gives_what_one_after_the_other_gives(cell, kind, execution):
    expected = run(Pass, lambda _: InTurn(), *CELLS[cell])
    set_num_threads(3)
    try:
        for a, b in zip(run(kind, execution, *CELLS[cell]), expected, strict=True):
            if a is not None:
                close(a, b)
    finally:
        set_num_threads(1)
