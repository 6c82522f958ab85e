"""Schedules beyond their formulas: sharing an optimiser, states, constructors that fail, plateaus."""

import json

import numpy as np
import pytest

import minirnn


def optimizer(lr=1.0):
    return minirnn.SGD([minirnn.Parameter(np.ones(1))], lr=lr)


PAIRS = [
    (("StepLR", {"step_size": 2, "gamma": 0.1}), ("ExponentialLR", {"gamma": 0.5})),
    (("LinearLR", {"total_iters": 3}), ("StepLR", {"step_size": 2})),
    (("LinearLR", {"start_factor": 0.5}), ("LinearLR", {"start_factor": 0.25, "total_iters": 7})),
    (("ExponentialLR", {"gamma": 0.5}), ("CosineAnnealingLR", {"T_max": 20})),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_schedules_that_share_an_optimizer_multiply(pair):
    torch = pytest.importorskip("torch")
    ours = optimizer()
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    mine = [getattr(minirnn, name)(ours, **options) for name, options in pair]
    reference = [
        getattr(torch.optim.lr_scheduler, name)(theirs, **options) for name, options in pair
    ]
    for _ in range(12):
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12)
        theirs.step()
        for schedule in (*mine, *reference):
            schedule.step()


def test_a_constructor_that_raises_leaves_nothing_behind():
    made = optimizer(0.5)
    with pytest.raises(ZeroDivisionError):
        minirnn.LambdaLR(made, lambda step: 1 / step)
    with pytest.raises(ValueError, match="total_iters"):
        minirnn.LinearLR(made, total_iters=0)
    assert "initial_lr" not in made.param_groups[0]
    made.param_groups[0]["lr"] = 0.125
    assert minirnn.StepLR(made, 3).base_lrs == [0.125]


def test_a_rate_set_by_hand_is_where_the_next_schedule_starts():
    made = optimizer()
    schedule = minirnn.ExponentialLR(made, 0.5)
    schedule.step()
    assert minirnn.StepLR(made, 3).base_lrs == [1.0]  # the rate is the schedule's, not a user's
    made.param_groups[0]["lr"] = 0.01
    assert minirnn.StepLR(made, 3).base_lrs == [0.01]


@pytest.mark.parametrize(
    "change",
    [
        {"base_lrs": ["x"]},
        {"base_lrs": [float("nan")]},
        {"base_lrs": [1.0, 2.0]},
        {"last_epoch": -1},
        {"last_epoch": 2.5},
        {"last_epoch": "3"},
        {"lr": ["x"]},
        {"settings": {"gamma": 0.5}},
        {"settings": {"step_size": "x", "gamma": 0.5}},
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change):
    made = optimizer()
    schedule = minirnn.StepLR(made, 2, 0.5)
    schedule.step()
    before = schedule.state_dict()
    with pytest.raises(ValueError, match="state_dict"):
        schedule.load_state_dict({**before, "last_epoch": 4, **change})
    assert schedule.state_dict() == before
    assert made.param_groups[0]["lr"] == 1.0


def test_a_state_has_the_settings_and_is_json():
    schedule = minirnn.StepLR(optimizer(), 2, 0.5)
    for _ in range(3):
        schedule.step()
    other = minirnn.StepLR(optimizer(), 7, 0.1)
    other.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    for _ in range(4):
        assert other.get_last_lr() == schedule.get_last_lr()
        other.step()
        schedule.step()


def test_two_schedules_go_on_from_their_states():
    first = optimizer()
    both = minirnn.StepLR(first, 2, 0.1), minirnn.ExponentialLR(first, 0.5)
    for _ in range(3):
        for schedule in both:
            schedule.step()
    second = optimizer()
    again = minirnn.StepLR(second, 2, 0.1), minirnn.ExponentialLR(second, 0.5)
    for new, old in zip(again, both, strict=True):
        new.load_state_dict(old.state_dict())
    for _ in range(4):
        assert first.param_groups[0]["lr"] == pytest.approx(second.param_groups[0]["lr"], rel=1e-12)
        for schedule in (*both, *again):
            schedule.step()


@pytest.mark.parametrize(("mode", "metric"), [("min", -1.0), ("max", -1.0), ("min", 1.0)])
def test_a_plateau_of_any_sign_lowers_the_rate(mode, metric):
    made = optimizer()
    schedule = minirnn.ReduceLROnPlateau(made, mode=mode, patience=1)
    for _ in range(4):
        schedule.step(metric)
    assert made.param_groups[0]["lr"] == pytest.approx(0.1)
    better = metric - 0.5 if mode == "min" else metric + 0.5
    schedule.step(better)
    assert schedule.best == better
    with pytest.raises(ValueError, match="num_bad_epochs"):
        schedule.load_state_dict({**schedule.state_dict(), "best": 0.0, "num_bad_epochs": "x"})
    assert schedule.best == better


MORE = [
    ("ConstantLR", {"factor": 0.25, "total_iters": 7}),
    ("MultiStepLR", {"milestones": [3, 10, 10, 31], "gamma": 0.5}),
    ("PolynomialLR", {"total_iters": 40, "power": 2.0}),
    ("CosineAnnealingWarmRestarts", {"T_0": 5, "T_mult": 2, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 7}),
    ("OneCycleLR", {"max_lr": 0.7, "total_steps": 60}),
    ("OneCycleLR", {"max_lr": 0.7, "total_steps": 60, "three_phase": True, "pct_start": 0.2}),
    ("OneCycleLR", {"max_lr": 0.7, "total_steps": 60, "anneal_strategy": "linear"}),
]


@pytest.mark.parametrize(("name", "options"), MORE)
def test_the_rates_are_those_of_torch(name, options):
    torch = pytest.importorskip("torch")
    ours = optimizer()
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    cycle = {"cycle_momentum": False} if name == "OneCycleLR" else {}
    reference = getattr(torch.optim.lr_scheduler, name)(theirs, **options, **cycle)
    mine = getattr(minirnn, name)(ours, **options)
    for _ in range(59):
        lr = theirs.param_groups[0]["lr"]
        assert ours.param_groups[0]["lr"] == pytest.approx(lr, rel=1e-12, abs=1e-15)
        theirs.step()
        reference.step()
        mine.step()
    if name == "OneCycleLR":
        with pytest.raises(ValueError, match="at most 59"):
            mine.step()


def test_a_step_that_cannot_be_done_is_not_counted():
    made = optimizer()
    schedule = minirnn.LambdaLR(made, lambda step: float("nan") if step == 2 else 0.5)
    schedule.step()
    with pytest.raises(ValueError, match="finite"):
        schedule.step()
    assert (schedule.last_epoch, made.param_groups[0]["lr"]) == (1, 0.5)
    cycle = minirnn.OneCycleLR(optimizer(), 0.5, 2)
    cycle.step()
    with pytest.raises(ValueError, match="at most 1"):
        cycle.step()
    assert cycle.last_epoch == 1


def test_a_group_that_comes_later_is_scheduled_too():
    made = optimizer()
    schedule = minirnn.ExponentialLR(made, 0.5)
    made.add_param_group({"params": [minirnn.Parameter(np.ones(1))], "lr": 0.25})
    schedule.step()
    assert schedule.get_last_lr() == [0.5, 0.125]


CHAINS = [
    [("ConstantLR", {"factor": 0.1, "total_iters": 20}), ("ExponentialLR", {"gamma": 0.9})],
    [
        ("LinearLR", {"total_iters": 7}),
        ("StepLR", {"step_size": 5}),
        ("PolynomialLR", {"total_iters": 90}),
    ],
    [("CosineAnnealingLR", {"T_max": 60}), ("MultiStepLR", {"milestones": [5, 9]})],
]


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_multiplies_as_torch_does(chain):
    torch = pytest.importorskip("torch")
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.7)
    ours = optimizer(0.7)

    def made(where, of):
        return where.ChainedScheduler([getattr(where, name)(of, **o) for name, o in chain], of)

    mine, reference = made(minirnn, ours), made(torch.optim.lr_scheduler, theirs)
    for step in range(50):
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12)
        if step == 20:
            state, ours = json.loads(json.dumps(mine.state_dict())), optimizer(0.7)
            mine = made(minirnn, ours)
            mine.load_state_dict(state)
        theirs.step()
        reference.step()
        mine.step()


def test_what_cannot_be_chained_is_refused():
    made = optimizer()
    first = minirnn.ExponentialLR(made, 0.5)
    for bad, error, message in [
        ([], ValueError, "at least one"),
        (
            [first, minirnn.ReduceLROnPlateau(made)],
            ValueError,
            r"schedulers\[1\].*ReduceLROnPlateau",
        ),
        ([first, 3], TypeError, r"schedulers\[1\].*int"),
        ([first, minirnn.StepLR(optimizer(), 2)], ValueError, r"schedulers\[1\].*another"),
    ]:
        with pytest.raises(error, match=message):
            minirnn.ChainedScheduler(bad)
    with pytest.raises(ValueError, match=r"schedulers\[0\].*another"):
        minirnn.ChainedScheduler([first], optimizer())
    first.step()
    with pytest.raises(ValueError, match="step 0"):
        minirnn.ChainedScheduler([first])
    assert made.param_groups[0]["lr"] == 0.5


def test_a_chain_in_a_sequence():
    made = optimizer()
    chain = minirnn.ChainedScheduler([minirnn.StepLR(made, 2), minirnn.ExponentialLR(made, 0.5)])
    schedule = minirnn.SequentialLR(made, [minirnn.ConstantLR(made, 0.25, 9), chain], [2])
    expected = [0.25, 0.25, 1, 0.5, 0.025]
    for lr in expected:
        assert schedule.get_last_lr() == pytest.approx([lr])
        schedule.step()
