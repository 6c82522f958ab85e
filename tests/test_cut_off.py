"""Ctrl-C between any two lines of an optimiser's or a schedule's: what it leaves can be gone on with."""

import contextvars
import copy
import sys
from pathlib import Path

import numpy as np
import pytest

import minirnn

PACKAGE = str(Path(minirnn.__file__).parent)


def cut_off(call, line):
    """Call, with a KeyboardInterrupt before the line of number `line`; tell whether it came to that."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            count += 1
            if count == line:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        contextvars.copy_context().run(
            call
        )  # a cut at the end of np.errstate's block leaves it set
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def every_cut(make):
    """Iterate over what `make` returns, cut off in its call at each of its lines."""
    for line in range(1, 10_000):
        made, call = make()
        if not cut_off(call, line):
            assert line > 10
            return
        yield made


def gradient(p, step):
    """Set a gradient that is the same but for a tenth, up and down: of small variance."""
    p.grad[:] = np.array([1.0, -2.0, 0.5]) * (1 + 0.1 * (-1) ** step)


def trained(name, **options):
    p = minirnn.Parameter(np.ones(3, np.float64))
    made = getattr(minirnn, name)([p], lr=1e-3, **options)
    for k in range(100):
        gradient(p, k)
        made.step()
    gradient(p, 100)
    return p, made


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
        ("Adam", {"amsgrad": True, "weight_decay": 0.01}),
        ("AdamW", {}),
        ("RMSprop", {"centered": True, "alpha": 0.9}),
        ("RMSprop", {"weight_decay": 0.01}),
    ],
)
def test_a_step_that_is_cut_off_is_at_most_a_step_short(name, options):
    """No later step is larger than without it, and the count is of steps begun."""
    start = trained(name, **options)
    p, made = copy.deepcopy(start)
    free = [p.data.copy()]
    for k in range(100, 106):
        gradient(p, k)
        made.step()
        free.append(p.data.copy())
    longest = max(np.abs(np.diff(free, axis=0)).max(0))

    def make():
        p, made = copy.deepcopy(start)
        return (p, made), made.step

    for p, made in every_cut(make):
        assert made.steps in (100, 101)
        state = made.state_dict()
        minirnn.SGD.load_state_dict(made, state)  # finite, and means of squares are none below zero
        before = p.data.copy()
        assert (np.abs(before - free[0]) <= 1.5 * longest).all()
        for k in range(101, 104):
            gradient(p, k)
            made.step()
            assert (np.abs(p.data - before) <= 1.5 * longest).all()
            before = p.data.copy()


SCHEDULES = {
    "StepLR": lambda o: minirnn.StepLR(o, 1),
    "CosineAnnealingLR": lambda o: minirnn.CosineAnnealingLR(o, 5),
    "OneCycleLR": lambda o: minirnn.OneCycleLR(o, 0.5, 10),
    "SequentialLR": lambda o: minirnn.SequentialLR(
        o, [minirnn.LinearLR(o), minirnn.StepLR(o, 1)], [1]
    ),
    "ChainedScheduler": lambda o: minirnn.ChainedScheduler(
        [minirnn.LinearLR(o), minirnn.StepLR(o, 1)]
    ),
    "ReduceLROnPlateau": lambda o: minirnn.ReduceLROnPlateau(o, patience=0),
}


def scheduled(name):
    groups = [{"params": [minirnn.Parameter(np.ones(1))], "lr": lr} for lr in (0.1, 0.2)]
    made = minirnn.SGD(groups, momentum=0.9)
    made.step()
    return made, SCHEDULES[name](made)


def settings(made, schedule):
    groups = [{k: v for k, v in g.items() if k != "params"} for g in made.param_groups]
    return groups, list(made.scheduled), schedule.state_dict()


def step(schedule):
    schedule.step(*([1.0] if isinstance(schedule, minirnn.ReduceLROnPlateau) else []))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedules_step_that_is_cut_off_is_done_or_not_begun(name):
    made, schedule = scheduled(name)
    step(schedule)
    old = settings(made, schedule)
    step(schedule)
    new = settings(made, schedule)
    assert old != new

    def make():
        made, schedule = scheduled(name)
        step(schedule)
        return (made, schedule), lambda: step(schedule)

    for made, schedule in every_cut(make):
        assert settings(made, schedule) in (old, new)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedules_state_is_loaded_whole_or_not_at_all_where_it_is_cut_off(name):
    made, schedule = scheduled(name)
    old = settings(made, schedule)
    step(schedule)
    state = schedule.state_dict()
    other, fresh = scheduled(name)
    fresh.load_state_dict(state)
    new = settings(other, fresh)

    def make():
        made, schedule = scheduled(name)
        return (made, schedule), lambda: schedule.load_state_dict(state)

    for made, schedule in every_cut(make):
        assert settings(made, schedule) in (old, new)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name[0] != "R"])
def test_a_rate_that_is_none_leaves_a_schedule_and_the_other_groups_as_they_were(name):
    made, schedule = scheduled(name)
    made.param_groups[1]["lr"] = "x"
    made.add_param_group({"params": [minirnn.Parameter(np.ones(1))], "lr": 0.3})
    before = settings(made, schedule)
    with pytest.raises(ValueError, match="lr of group 1: expected"):
        step(schedule)
    assert settings(made, schedule) == before
