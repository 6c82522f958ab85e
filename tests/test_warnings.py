"""Warnings point at the line of the user's that caused them, however deep in the package they arise."""

import ast
import inspect

import numpy as np
import pytest
from test_architecture import FILES

import minirnn

LOGITS, IGNORED = np.zeros((2, 3), np.float32), np.full(2, -100)


class Own(minirnn.GRU):
    def __init__(self):
        super().__init__(3, 4, dropout=0.5)  # here


class Inherits(minirnn.LSTM):
    pass


class Model(minirnn.Module):
    def __init__(self):
        self.criterion = minirnn.CrossEntropyLoss()

    def forward(self, x):
        return self.criterion.forward(x, IGNORED)  # here


class Inner(minirnn.Module):
    def __init__(self):
        self.criterion = minirnn.CrossEntropyLoss()

    def forward(self, x):
        return self.criterion(x, IGNORED), None  # here


class Broken:
    def config(self, values):
        raise OSError("the disk is full")

    log = close = config


def track():
    from minirnn.trackers import Unfailing

    Unfailing(Broken()).config({})  # here


def schedule(name, *args):
    optimizer = minirnn.SGD([minirnn.Parameter(np.ones(2))])
    return getattr(minirnn, name)(optimizer, *args)


CASES = [
    lambda: schedule("ExponentialLR", 0.9).step(),  # here
    lambda: schedule("StepLR", 3).step(),  # here
    lambda: minirnn.NLLLoss()(LOGITS, IGNORED),  # here
    lambda: minirnn.RNN(3, 4, dropout=0.5),  # here
    lambda: minirnn.GRU(3, 4, dropout=0.5, bidirectional=True),  # here
    lambda: minirnn.LSTM(3, 4, dropout=0.5, proj_size=2),  # here
    lambda: Inherits(3, 4, dropout=0.5),  # here
    lambda: minirnn.CrossEntropyLoss()(LOGITS, IGNORED),  # here
    lambda: minirnn.CrossEntropyLoss().forward(LOGITS, IGNORED),  # here
    Own,
    lambda: Model()(LOGITS),
    lambda: Model().forward(LOGITS),
    lambda: minirnn.Sequential(minirnn.ReLU(), Inner())(LOGITS),
    lambda: minirnn.Sequential(minirnn.Sequential(Model())).forward(LOGITS),
    track,
]


@pytest.mark.parametrize("case", CASES)
def test_a_warning_names_the_users_line(case):
    with pytest.warns(Warning) as caught:  # noqa: PT030 (which one is not the point)
        case()
    (warning,) = caught
    assert warning.filename == __file__
    line = inspect.getsource(inspect.getmodule(test_a_warning_names_the_users_line))
    assert line.splitlines()[warning.lineno - 1].endswith("# here")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_warnings_are_given_in_one_place(path):
    calls = [
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    assert path.name == "checks.py" or "warnings.warn" not in calls
