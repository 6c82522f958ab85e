"""Schedules beyond their formulas: sharing an optimiser, states, constructors that fail, plateaus."""

import json

import numpy as np
import pytest
from helpers import close
from makers import two_groups

import minirnn


def optimizer(lr=1.0):
    """Return an optimiser that has taken a step, without a gradient, so that schedules may step."""
    made = minirnn.SGD([minirnn.Parameter(np.ones(1))], lr=lr)
    made.step()
    return made


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


@pytest.mark.parametrize("momentum", ["SGD", "Adam", None])
@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("phases", [{}, {"three_phase": True}, {"pct_start": 0.0}])
@pytest.mark.parametrize("total", [2, 6, 45])
def test_a_cycle_takes_a_step_after_every_batch(momentum, strategy, phases, total):
    """As many as torch's, with its rates and momenta; the one after says what to do and is not counted."""
    torch = pytest.importorskip("torch")
    name = momentum or "SGD"
    ours = getattr(minirnn, name)([minirnn.Parameter(np.ones(1))], lr=1.0)
    theirs = getattr(torch.optim, name)([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    options = {"anneal_strategy": strategy, "cycle_momentum": momentum is not None, **phases}
    mine = minirnn.OneCycleLR(ours, 0.5, epochs=1, steps_per_epoch=total, **options)
    reference = torch.optim.lr_scheduler.OneCycleLR(theirs, 0.5, total, **options)
    key = "betas" if name == "Adam" else "momentum"
    rows = []
    for step in range(total + 1):
        lr, momenta = mine.get_last_lr()[0], ours.param_groups[0][key]
        rows.append((lr, momenta))
        if step < total or strategy == "cos":
            assert lr == pytest.approx(reference.get_last_lr()[0], rel=1e-12, abs=1e-15)
            assert momenta == pytest.approx(theirs.param_groups[0][key], rel=1e-12)
        if step < total:
            for one in (ours, theirs, mine, reference):
                one.step()
    if strategy == "linear":  # torch's line falls below zero there, or rises beyond max_momentum
        assert rows[-1] == rows[-2]
    says = rf"step: expected at most {total}, .* got {total + 1}; .* larger total_steps, or take no more"
    with pytest.raises(ValueError, match=says):
        mine.step()
    with pytest.raises(ValueError, match="Tried to step"):
        reference.step()
    assert (mine.last_epoch, mine.get_last_lr()[0]) == (total, rows[-1][0])


LENGTHS = [
    [("CosineAnnealingLR", {"T_max": 6, "eta_min": 0.05})],
    [("PolynomialLR", {"total_iters": 6, "power": 2.0})],
    [("LinearLR", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 6})],
    [("ConstantLR", {"total_iters": 6})],
    [("MultiStepLR", {"milestones": [3, 6, 7]})],
    [("CosineAnnealingWarmRestarts", {"T_0": 6})],
    [("CosineAnnealingWarmRestarts", {"T_0": 2, "T_mult": 2})],
    [("PolynomialLR", {"total_iters": 6}), ("LinearLR", {"total_iters": 6})],
]


def schedule_of(where, parts, of):
    """Return the schedule of these parts, from minirnn or from torch: the one, or a chain."""
    found = [getattr(where, name)(of, **options) for name, options in parts]
    return found[0] if len(found) == 1 else where.ChainedScheduler(found, of)


def beside_torch(parts):
    """Return optimisers, ours and torch's, and each one's schedule."""
    torch = pytest.importorskip("torch")
    ours, theirs = optimizer(0.7), torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.7)
    return (
        ours,
        theirs,
        schedule_of(minirnn, parts, ours),
        schedule_of(torch.optim.lr_scheduler, parts, theirs),
    )


@pytest.mark.parametrize("parts", LENGTHS)
def test_a_schedule_that_has_a_length_goes_on_beyond_it_as_torchs(parts):
    _, theirs, mine, reference = beside_torch(parts)
    for _ in range(16):
        close(mine.get_last_lr(), reference.get_last_lr(), 1e-12)
        theirs.step()
        reference.step()
        mine.step()


def test_a_step_that_cannot_be_done_is_not_counted():
    made = optimizer()
    schedule = minirnn.LambdaLR(made, lambda step: float("nan") if step == 2 else 0.5)
    schedule.step()
    with pytest.raises(ValueError, match="finite"):
        schedule.step()
    assert (schedule.last_epoch, made.param_groups[0]["lr"]) == (1, 0.5)


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
    ours, theirs, mine, reference = beside_torch(chain)
    for step in range(50):
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12)
        if step == 20:
            state, ours = json.loads(json.dumps(mine.state_dict())), optimizer(0.7)
            mine = schedule_of(minirnn, chain, ours)
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


# -- settings --------------------------------------------------------------------------------------------


NO_NUMBERS = [float("nan"), float("inf"), True, "0.5", None, 10**400, 1j, np.ones(2), -0.5]
NO_STEPS = [2.5, True, "2", None, np.ones(2), -1]
LAWFUL = {
    "StepLR": {"step_size": 2, "gamma": 0.5},
    "ExponentialLR": {"gamma": 0.5},
    "LinearLR": {"start_factor": 0.5, "end_factor": 0.5, "total_iters": 3},
    "CosineAnnealingLR": {"T_max": 3, "eta_min": 0.1},
    "ConstantLR": {"factor": 0.5, "total_iters": 3},
    "MultiStepLR": {"milestones": [1], "gamma": 0.5},
    "PolynomialLR": {"total_iters": 3, "power": 2.0},
    "CosineAnnealingWarmRestarts": {"T_0": 2, "T_mult": 2, "eta_min": 0.1},
    "OneCycleLR": {
        "max_lr": 1.0,
        "total_steps": 9,
        "pct_start": 0.3,
        "base_momentum": 0.5,
        "max_momentum": 0.75,
        "div_factor": 5.0,
        "final_div_factor": 5.0,
    },
    "ReduceLROnPlateau": {
        "factor": 0.5,
        "patience": 2,
        "threshold": 0.1,
        "cooldown": 1,
        "min_lr": 0.1,
        "eps": 0.1,
    },
}
SETTINGS = [(name, setting) for name, options in LAWFUL.items() for setting in options]


@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_a_setting_is_a_number_in_its_range(name, setting):
    """What is none is refused by its name, and leaves the optimiser as it was."""
    made = optimizer()
    lawful = LAWFUL[name][setting]
    bad = NO_NUMBERS if isinstance(lawful, float) else NO_STEPS
    for value in bad:
        value = [value] if isinstance(lawful, list) else value
        with pytest.raises(
            (ValueError, TypeError), match=rf"\b{setting}\b.*: expected .*, got"
        ) as info:
            getattr(minirnn, name)(made, **{**LAWFUL[name], setting: value})
        assert len(str(info.value)) < 300
    assert made.param_groups[0]["lr"] == 1.0
    assert "initial_lr" not in made.param_groups[0]
    getattr(minirnn, name)(made, **LAWFUL[name])


@pytest.mark.parametrize("last_epoch", [-2, 0.5, True, "3", None])
def test_the_step_to_go_on_from_is_an_integer(last_epoch):
    with pytest.raises((ValueError, TypeError), match="last_epoch: expected an integer"):
        minirnn.StepLR(optimizer(), 2, last_epoch=last_epoch)


@pytest.mark.parametrize("factor", [float("nan"), "0.5", None, -0.5, True])
def test_a_factor_of_a_users_own_is_a_number(factor):
    with pytest.raises(ValueError, match=r"lr_lambda\(step\): expected a finite number >= 0"):
        minirnn.LambdaLR(optimizer(), lambda step: factor)
    with pytest.raises(TypeError, match=r"lr_lambda(\[0\])?: expected"):
        minirnn.LambdaLR(optimizer(), factor if isinstance(factor, str) else [factor])


def test_a_sequence_takes_lists():
    made = optimizer()
    parts = [minirnn.StepLR(made, 2), minirnn.StepLR(made, 3)]
    for milestones in (3, None, "3", [2.5], [True], [-1], [None]):
        with pytest.raises((ValueError, TypeError), match=r"milestones.*: expected"):
            minirnn.SequentialLR(made, parts, milestones)
    for schedulers in (3, None, "ab"):
        with pytest.raises(TypeError, match=r"schedulers.*: expected"):
            minirnn.SequentialLR(made, schedulers, [3])


@pytest.mark.parametrize("state", [None, 3, [], "lr"])
@pytest.mark.parametrize("name", ["StepLR", "ReduceLROnPlateau"])
def test_a_state_is_a_mapping(name, state):
    schedule = getattr(minirnn, name)(optimizer(), **LAWFUL[name])
    with pytest.raises(TypeError, match="state_dict: expected a mapping, got"):
        schedule.load_state_dict(state)


def test_a_cycle_whose_rise_takes_no_step():
    low = 0.5 / 25 / 1e4
    for steps, share, first in ((4, 0.25, 0.5), (1, 1.0, 0.5), (8, 0.125, 0.5), (1, 0.3, low)):
        for strategy in ("cos", "linear"):
            cycle = minirnn.OneCycleLR(
                optimizer(), 0.5, steps, pct_start=share, anneal_strategy=strategy
            )
            assert cycle.get_last_lr() == pytest.approx([first], rel=1e-9)


@pytest.mark.parametrize("schedule", [name for name in LAWFUL if name != "ReduceLROnPlateau"])
def test_a_step_before_the_optimizers_warns(schedule):
    made = minirnn.SGD([minirnn.Parameter(np.ones(1))], lr=1.0)
    first = getattr(minirnn, schedule)(made, **LAWFUL[schedule])
    with pytest.warns(UserWarning, match=r"scheduler.step\(\) before optimizer.step\(\)"):
        first.step()
    first.step()  # once is enough
    getattr(minirnn, schedule)(optimizer(), **LAWFUL[schedule]).step()


# -- states ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAWFUL)
def test_a_state_goes_on_with_its_settings(name):
    """Through JSON as strict as it is, into a schedule that was made with other settings."""
    made, other = optimizer(), optimizer()
    options = LAWFUL[name]
    schedule = getattr(minirnn, name)(made, **options)
    arguments = [0.3] if name == "ReduceLROnPlateau" else []
    json.dumps(schedule.state_dict(), allow_nan=False)
    for _ in range(2):
        schedule.step(*arguments)
    text = json.dumps(schedule.state_dict(), allow_nan=False)
    changed = {
        key: value * 0.9
        if isinstance(value, float)
        else [5]
        if isinstance(value, list)
        else value + 1
        for key, value in options.items()
    }
    again = getattr(minirnn, name)(other, **changed)
    other.param_groups[0]["lr"] = made.param_groups[0]["lr"]
    again.load_state_dict(json.loads(text))
    for _ in range(6):
        assert again.get_last_lr() == schedule.get_last_lr()
        again.step(*arguments)
        schedule.step(*arguments)


@pytest.mark.parametrize("name", [name for name in LAWFUL if name != "ReduceLROnPlateau"])
@pytest.mark.parametrize("other", [name for name in LAWFUL if name != "ReduceLROnPlateau"])
def test_a_state_is_of_its_own_schedule(name, other):
    """Two may have settings of the same names, as stairs and stairs of single steps."""
    state = getattr(minirnn, other)(optimizer(), **LAWFUL[other]).state_dict()
    schedule = getattr(minirnn, name)(optimizer(), **LAWFUL[name])
    before = schedule.state_dict()
    if name == other:
        del state["settings"]["schedule"]  # which a state of old does not have
        schedule.load_state_dict(state)
        return
    says = rf"state_dict: expected the state of a schedule {name}, got one of '{other}'"
    with pytest.raises(ValueError, match=says):
        schedule.load_state_dict(state)
    assert schedule.state_dict() == before


def test_a_chains_state_is_of_its_own_schedules():
    def chain(*names):
        made = optimizer()
        parts = [getattr(minirnn, name)(made, **LAWFUL[name]) for name in names]
        return minirnn.ChainedScheduler(parts)

    state = chain("StepLR", "ExponentialLR").state_dict()
    with pytest.raises(ValueError, match="schedule ExponentialLR, got one of 'StepLR'"):
        chain("ExponentialLR", "StepLR").load_state_dict(state)
    chain("StepLR", "ExponentialLR").load_state_dict(state)


def test_a_sequences_state_has_the_settings_of_its_parts():
    def build(made, size, gamma, milestone):
        parts = [minirnn.StepLR(made, size, gamma), minirnn.CosineAnnealingLR(made, 3 * size)]
        return minirnn.SequentialLR(made, parts, [milestone])

    schedule, other = build(optimizer(), 2, 0.5, 4), build(optimizer(), 3, 0.25, 7)
    schedule.step()
    state = json.loads(json.dumps(schedule.state_dict(), allow_nan=False))
    before = other.state_dict()
    spoilt = json.loads(json.dumps(state))
    spoilt["settings"]["schedulers"][1]["T_max"] = 0
    with pytest.raises(ValueError, match=r"state_dict: T_max: expected a positive integer"):
        other.load_state_dict(spoilt)
    assert other.state_dict() == before
    other.load_state_dict(state)
    for _ in range(8):
        assert other.get_last_lr() == schedule.get_last_lr()
        other.step()
        schedule.step()


def test_a_plateaus_state_that_does_not_fit_changes_nothing():
    schedule = minirnn.ReduceLROnPlateau(optimizer(), patience=1)
    schedule.step(2.0)
    before = schedule.state_dict()
    changes = [
        {"best": "x"},
        {"best": float("nan")},
        {"num_bad_epochs": -1},
        {"num_bad_epochs": True},
        {"cooldown_counter": 1.5},
        {"settings": {"patience": 3}},
        {"settings": {**before["settings"], "factor": 2.0}},
        {"settings": {**before["settings"], "min_lrs": [0.1, 0.1]}},
        {"settings": 3},
    ]
    for change in changes:
        with pytest.raises(ValueError, match="state_dict: "):
            schedule.load_state_dict({**before, "last_epoch": 9, **change})
        assert schedule.state_dict() == before


@pytest.mark.parametrize("metric", [None, "0.5", True, 1j, np.ones(2), 10**400])
def test_a_metric_is_a_number(metric):
    schedule = minirnn.ReduceLROnPlateau(optimizer())
    with pytest.raises(ValueError, match="metrics: expected a finite number"):
        schedule.step(metric)
    assert schedule.last_epoch == 0
    for fine in (np.float32(1), np.array(0.5), 1, float("nan")):
        schedule.step(fine)
    assert schedule.best == 0.5


SCHEDULES = [
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 0.1, "end_factor": 0.5, "total_iters": 30}),
    ("CosineAnnealingLR", {"T_max": 20}),
    ("CosineAnnealingLR", {"T_max": 100, "eta_min": 0.01}),
    ("StepLR", {"step_size": 7, "gamma": 0.5}),
    ("ExponentialLR", {"gamma": 0.97}),
    ("LambdaLR", {"lr_lambda": lambda step: 1 / (1 + step)}),
    ("LambdaLR", {"lr_lambda": [lambda step: 0.9**step, lambda step: 2.0]}),
]


@pytest.mark.parametrize(("name", "options"), SCHEDULES)
def test_schedules(name, options):
    torch, optimizer, reference = two_groups()
    ours = getattr(minirnn, name)(optimizer, **options)
    theirs = getattr(torch.optim.lr_scheduler, name)(reference, **options)
    for _ in range(90):
        close(ours.get_last_lr(), theirs.get_last_lr(), 1e-12)
        assert ours.last_epoch == theirs.last_epoch
        reference.step()
        ours.step()
        theirs.step()


def test_warm_up_and_then_cosine():
    torch, optimizer, reference = two_groups()

    def build(module, optimizer):
        warmup = module.LinearLR(optimizer, 0.01, total_iters=10)
        cosine = module.CosineAnnealingLR(optimizer, 40, eta_min=0.001)
        rest = module.ExponentialLR(optimizer, 0.9)
        return module.SequentialLR(optimizer, [warmup, cosine, rest], [10, 45])

    ours, theirs = build(minirnn, optimizer), build(torch.optim.lr_scheduler, reference)
    for _ in range(60):
        close(ours.get_last_lr(), theirs.get_last_lr(), 1e-12)
        reference.step()
        ours.step()
        theirs.step()


def test_a_schedule_resumes():
    optimizer = minirnn.SGD([minirnn.Parameter(np.ones(1))], lr=0.1)
    schedule = minirnn.CosineAnnealingLR(optimizer, 20)
    for _ in range(7):
        optimizer.step()
        schedule.step()
    other = minirnn.CosineAnnealingLR(minirnn.SGD([minirnn.Parameter(np.ones(1))], lr=9.0), 20)
    other.load_state_dict(schedule.state_dict())
    assert other.get_last_lr() == schedule.get_last_lr()


def build(module, name, options, optimizer, last_epoch=-1):
    """Return a schedule of `module`, ours or torch's; the sequential one of a warm-up and stairs."""
    if name == "SequentialLR":
        parts = [module.LinearLR(optimizer, 0.1, total_iters=5), module.StepLR(optimizer, 3)]
        return module.SequentialLR(optimizer, parts, [8], last_epoch)
    return getattr(module, name)(optimizer, **options, last_epoch=last_epoch)


STEPPED = [
    (name, {**options, "cycle_momentum": False} if name == "OneCycleLR" else options)
    for name, options in MORE
]


@pytest.mark.parametrize(("name", "options"), [*SCHEDULES, *STEPPED, ("SequentialLR", {})])
@pytest.mark.parametrize("steps", [1, 13])
def test_a_schedule_goes_on_after_last_epoch(name, options, steps):
    """After some steps a new schedule, of an optimiser with the state of the first one, takes over."""
    torch, optimizer, reference = two_groups()
    whole = build(minirnn, name, options, optimizer)
    theirs = build(torch.optim.lr_scheduler, name, options, reference)
    for _ in range(steps):
        reference.step()
        whole.step()
        theirs.step()
    _, again, reference_again = two_groups()
    again.load_state_dict(optimizer.state_dict())
    ours = build(minirnn, name, options, again, last_epoch=steps - 1)
    # torch's begin again with their first schedule, or with the length of their first wave
    if name not in ("SequentialLR", "CosineAnnealingWarmRestarts"):
        reference_again.load_state_dict(reference.state_dict())
        reference = reference_again
        theirs = build(torch.optim.lr_scheduler, name, options, reference, steps - 1)
    assert ours.base_lrs == [0.5, 0.2]
    for _ in range(30):
        assert ours.last_epoch == whole.last_epoch == theirs.last_epoch
        assert ours.get_last_lr() == whole.get_last_lr()
        close(ours.get_last_lr(), theirs.get_last_lr(), 1e-12)
        reference.step()
        ours.step()
        whole.step()
        theirs.step()


@pytest.mark.parametrize(("name", "options"), [*SCHEDULES, *STEPPED])
def test_last_epoch_needs_the_initial_rates(name, options):
    _, optimizer, _ = two_groups()
    optimizer.param_groups[0]["initial_lr"] = 0.7
    for last_epoch, message in ((3, "group 1 has no 'initial_lr', got 3"), (-2, ">= -1, got -2")):
        with pytest.raises(ValueError, match=f"last_epoch: expected .*{message}"):
            build(minirnn, name, options, optimizer, last_epoch)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.2]
    assert "initial_lr" not in optimizer.param_groups[1]


def test_a_sequence_takes_schedules_by_the_step_and_of_its_own_optimizer():
    _, optimizer, _ = two_groups()
    _, other, _ = two_groups()
    warmup = minirnn.LinearLR(optimizer, 0.5)
    for second, error, message in (
        (minirnn.ReduceLROnPlateau(optimizer), TypeError, "by the step, got ReduceLROnPlateau"),
        (minirnn.StepLR(other, 3), ValueError, "of this optimizer, got one of another"),
    ):
        with pytest.raises(error, match=rf"schedulers\[1\]: expected a schedule {message}"):
            minirnn.SequentialLR(optimizer, [warmup, second], [3])
    for schedulers, milestones, message in (
        ([], [], "schedulers: expected at least one, got none"),
        ([warmup] * 3, [5, 3], r"milestones: expected 2 ascending steps.*got \[5, 3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            minirnn.SequentialLR(optimizer, schedulers, milestones)
    with pytest.raises(ValueError, match="last_epoch: expected an integer >= -1, got -2"):
        minirnn.SequentialLR(optimizer, [warmup], [], last_epoch=-2)
    assert warmup.get_last_lr() == [0.25, 0.1]
    with pytest.raises(TypeError, match="optimizer: expected an Optimizer, got list"):
        minirnn.StepLR([optimizer], 3)
    with pytest.raises(TypeError, match="optimizer: expected an Optimizer, got StepLR"):
        minirnn.ReduceLROnPlateau(minirnn.StepLR(other, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: minirnn.StepLR(o, 0), "step_size"),
        (lambda o: minirnn.CosineAnnealingLR(o, 0), "T_max"),
        (lambda o: minirnn.LinearLR(o, 0.0), "start_factor"),
        (lambda o: minirnn.LinearLR(o, end_factor=2.0), "end_factor"),
        (lambda o: minirnn.LambdaLR(o, [abs, abs]), "lr_lambda"),
        (lambda o: minirnn.SequentialLR(o, [minirnn.LinearLR(o)], [3]), "milestones"),
        (lambda o: minirnn.ReduceLROnPlateau(o, mode="up"), "mode"),
        (lambda o: minirnn.ReduceLROnPlateau(o, factor=1.0), "factor"),
        (lambda o: minirnn.OneCycleLR(o, 0.1, 9, anneal_strategy="poly"), "anneal_strategy"),
        (lambda o: minirnn.OneCycleLR(o, 0.1, epochs=2, steps_per_epoch=1.5), "steps_per_epoch"),
        (lambda o: minirnn.OneCycleLR(o, 0.1, epochs=1.5, steps_per_epoch=2), "epochs"),
    ],
)
def test_bad_schedules(make, message):
    with pytest.raises(ValueError, match=rf"^{message}: expected"):
        make(minirnn.SGD([minirnn.Parameter(np.ones(1))], lr=0.1))


def test_a_cycle_of_epochs():
    made = minirnn.OneCycleLR(optimizer(), 0.5, epochs=6, steps_per_epoch=10)
    assert made.total_steps == 60
    assert (
        made.state_dict()["settings"]
        == (minirnn.OneCycleLR(optimizer(), 0.5, 60).state_dict()["settings"])
    )
    for given in ({}, {"epochs": 3}, {"steps_per_epoch": 3}, {"epochs": 0, "steps_per_epoch": 3}):
        with pytest.raises(ValueError, match=r"total_steps|epoch"):
            minirnn.OneCycleLR(optimizer(), 0.5, **given)


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"three_phase": True, "pct_start": 0.2},
        {"anneal_strategy": "linear", "base_momentum": 0.5, "max_momentum": 0.75},
        {"cycle_momentum": False},
    ],
)
def test_a_cycle_takes_the_momentum_along_as_torch_does(name, options):
    """Trajectories of fifty steps, resumed in the middle from states."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    p, q = minirnn.Parameter(np.ones(3)), torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    momentum = {} if name == "Adam" else {"momentum": 0.6}

    def made():
        optimizer = getattr(minirnn, name)([p], lr=0.01, **momentum)
        return optimizer, minirnn.OneCycleLR(optimizer, 0.1, 60, **options)

    mine, schedule = made()
    theirs = getattr(torch.optim, name)([q], lr=0.01, **momentum)
    reference = torch.optim.lr_scheduler.OneCycleLR(theirs, 0.1, 60, **options)
    for step in range(50):
        if step == 20:
            states = mine.state_dict(), json.loads(json.dumps(schedule.state_dict()))
            mine, schedule = made()
            mine.load_state_dict(states[0])
            schedule.load_state_dict(states[1])
        p.grad[:] = rng.standard_normal(3)
        q.grad = torch.tensor(p.grad.copy())
        for one in (mine, theirs, schedule, reference):
            one.step()
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-10)
        key = "betas" if name == "Adam" else "momentum"
        assert mine.param_groups[0][key] == pytest.approx(theirs.param_groups[0][key], rel=1e-12)


def test_a_momentum_that_cannot_cycle():
    made = optimizer()
    cycle = minirnn.OneCycleLR(made, 0.5, 10)
    assert made.param_groups[0]["momentum"] == 0.95
    with pytest.raises(ValueError, match=r"schedulers\[0\]: expected cycle_momentum=False"):
        minirnn.ChainedScheduler([cycle])
    minirnn.ChainedScheduler([minirnn.OneCycleLR(optimizer(), 0.5, 10, cycle_momentum=False)])
    for name, value in (("base_momentum", 1.0), ("max_momentum", -0.1)):
        with pytest.raises(ValueError, match=name):
            minirnn.OneCycleLR(optimizer(), 0.5, 10, **{name: value})

    class Plain(minirnn.optimizer.Optimizer):
        _slots = ()

    plain = Plain([minirnn.Parameter(np.ones(1))], lr=0.1, weight_decay=0.0)
    with pytest.raises(ValueError, match="cycle_momentum: expected False"):
        minirnn.OneCycleLR(plain, 0.5, 10)
    assert minirnn.OneCycleLR(plain, 0.5, 10, cycle_momentum=False).get_last_lr() == [
        pytest.approx(0.02)
    ]
