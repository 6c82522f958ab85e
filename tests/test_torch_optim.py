"""Optimisers side by side with torch's: fifty steps, and a state that goes over and back in the middle."""

import copy

import numpy as np
import pytest
from helpers import close

import minirnn

torch = pytest.importorskip("torch")

SHAPES = [(3, 4), (4,), (), (2, 1)]
CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("Adam", {"lr": 0.05, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "amsgrad": True, "betas": (0.8, 0.9)}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.05, "amsgrad": True}),
    ("RMSprop", {"lr": 0.05, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.05, "centered": True, "momentum": 0.5, "alpha": 0.9}),
]


class Side:
    """The same parameters, and an optimiser with two groups, on one side."""

    def __init__(self, name, options, ours, rng):
        values = [rng.standard_normal(s) for s in SHAPES]
        make = minirnn.Parameter if ours else lambda v: torch.nn.Parameter(torch.tensor(v))
        self.ours, self.params = ours, [make(np.asarray(v)) for v in values]
        groups = [{"params": self.params[:3]}, {"params": self.params[3:], "lr": 0.02}]
        self.optimizer = getattr(minirnn if ours else torch.optim, name)(groups, **options)

    def step(self, gradients):
        for p, g in zip(self.params, gradients, strict=True):
            p.grad = g if self.ours else torch.tensor(g)
        self.optimizer.step()

    def values(self):
        return [p.data if self.ours else p.detach().numpy() for p in self.params]


def gradients(rng, t):
    return [np.asarray(rng.standard_normal(s) * (10 if t == 5 else 1)) for s in SHAPES]


def pair(name, options):
    return [Side(name, options, ours, np.random.default_rng(0)) for ours in (True, False)]


def walk(sides, rng, start, stop):
    for t in range(start, stop):
        g = gradients(rng, t)
        for side in sides:
            side.step(g)
        for a, b in zip(*(side.values() for side in sides), strict=True):
            close(a, b)


def tensors(state):
    arrays = state["state"]
    return {
        **state,
        "state": {i: {k: torch.as_tensor(v) for k, v in s.items()} for i, s in arrays.items()},
    }


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_fifty_steps_and_the_state_both_ways(name, options, maximize):
    options = {**options, "maximize": maximize}
    rng, sides = np.random.default_rng(1), pair(name, options)
    walk(sides, rng, 0, 20)
    # Over: new optimisers of minirnn, whose settings are other ones, take torch's state.
    again = Side(name, {"lr": 0.5}, True, rng)
    for p, value in zip(again.params, sides[1].values(), strict=True):
        p.data = value
    theirs = sides[1].optimizer.state_dict()
    before = copy.deepcopy(theirs)
    again.optimizer.load_state_dict(theirs)
    assert str(theirs) == str(before)
    walk([again, sides[1]], rng, 20, 35)
    # And back: a new optimiser of torch's takes minirnn's.
    last = Side(name, {"lr": 0.5}, False, rng)
    for p, value in zip(last.params, again.values(), strict=True):
        p.data.copy_(torch.as_tensor(value))
    mine = again.optimizer.torch_state_dict()
    theirs = sides[1].optimizer.state_dict()["state"]
    for index, entry in mine["state"].items():
        filled = {key for key, value in theirs.get(index, {}).items() if value is not None}
        assert entry.keys() - {"step"} == filled - {"step"}
    last.optimizer.load_state_dict(tensors(mine))
    walk([again, last], rng, 35, 50)


def test_a_state_from_before_the_first_step():
    for name in ("SGD", "Adam", "RMSprop"):
        mine, theirs = pair(name, {"lr": 0.1})
        mine.optimizer.load_state_dict(theirs.optimizer.state_dict())
        assert mine.optimizer.torch_state_dict()["state"] == {}
        walk([mine, theirs], np.random.default_rng(2), 0, 5)


def test_own_states_keep_amsgrad():
    """The third slot goes into a state and out of it, also into an optimiser made without it."""
    options = {"lr": 0.05, "amsgrad": True}
    rng, first = np.random.default_rng(1), Side("Adam", options, True, np.random.default_rng(0))
    for t in range(8):
        first.step(gradients(rng, t))
    state = first.optimizer.state_dict()
    assert state["state"][0].shape == (3, 17)
    second = Side("Adam", {}, True, rng)
    for p, value in zip(second.params, first.values(), strict=True):
        p.data = value
    second.optimizer.load_state_dict(state)
    walk([second, first], rng, 8, 12)
    second.optimizer.param_groups[1]["amsgrad"] = False
    values = [v.copy() for v in second.values()]
    with pytest.raises(ValueError, match="group 1 was made"):
        second.optimizer.step()
    for a, b in zip(second.values(), values, strict=True):
        np.testing.assert_array_equal(a, b)


def spoiled(state, how):
    state = copy.deepcopy(state)
    entry, group = state["state"][0], state["param_groups"][0]
    if how == "shape":
        entry["exp_avg"] = torch.zeros(2)
    elif how == "dtype":
        entry["exp_avg"] = torch.zeros(3, 4, dtype=torch.bfloat16)
    elif how == "nan":
        entry["exp_avg"][0, 0] = float("nan")
    elif how == "missing":
        del entry["exp_avg_sq"]
    elif how == "step":
        entry["step"] = torch.tensor(2.0)
    elif how == "left out":
        del state["state"][1]
    elif how == "parameters":
        group["params"].append(7)
    elif how == "groups":
        state["param_groups"].pop()
        del state["state"][3]
    elif how == "class":
        group["decoupled_weight_decay"] = True
    elif how == "setting":
        del group["betas"]
    elif how == "form":
        state["state"] = [1, 2]
    elif how == "no step":
        entry["step"] = torch.ones(2)
    elif how == "no rate":
        group["lr"] = torch.ones(2)
    elif how == "no list":
        group["params"] = 3
    elif how == "twice":
        group["params"] = [0, 1, 1]
    elif how == "of others":
        state["state"][7] = entry
    elif how == "no entry":
        state["state"][0] = 3
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("shape", r"state\[0\]: exp_avg of .*\(3, 4\)"),
        ("dtype", r"state\[0\]: exp_avg of"),
        ("nan", "finite"),
        ("missing", r"exp_avg_sq of .* missing"),
        ("step", "same step"),
        ("left out", "same step"),
        ("parameters", "3 parameters, got 4"),
        ("groups", "param_groups: expected 2, got 1"),
        ("class", "decoupled_weight_decay=False"),
        ("setting", "betas"),
        ("form", "param_groups with params"),
        ("no step", r"state\[0\]: step: expected a number"),
        ("no rate", "lr"),
        ("no list", r"param_groups\[0\]: expected integers"),
        ("twice", "each in one group"),
        ("of others", "each in one group"),
        ("no entry", r"state\[0\]: expected a dict"),
    ],
)
def test_a_state_of_torch_that_does_not_fit_changes_nothing(how, message):
    rng, sides = np.random.default_rng(1), pair("Adam", {"lr": 0.05})
    walk(sides, rng, 0, 3)
    mine = sides[0].optimizer
    before = mine.state_dict()
    with pytest.raises(ValueError, match=message):
        mine.load_state_dict(spoiled(sides[1].optimizer.state_dict(), how))
    after = mine.state_dict()
    assert (after["groups"], after["steps"], after["started"]) == (
        before["groups"],
        before["steps"],
        before["started"],
    )
    for a, b in zip(after["state"], before["state"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_torch_left_out_may_be_frozen_here():
    p, q = (torch.nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2))
    q.requires_grad = False
    theirs = torch.optim.Adam([p, q], lr=0.1)
    p.grad = torch.ones(2, dtype=torch.float64)
    theirs.step()
    mine = [minirnn.Parameter(np.ones(2)) for _ in range(2)]
    mine[1].requires_grad = False
    mine[0].data = p.detach().numpy()
    optimizer = minirnn.Adam(mine)
    optimizer.load_state_dict(theirs.state_dict())
    mine[0].grad[:] = p.grad = torch.full((2,), -3.0, dtype=torch.float64)
    optimizer.step()
    theirs.step()
    close(mine[0].data, p.detach())


def test_parameters_may_come_with_their_names():
    layer = minirnn.Linear(2, 3, rng=0)
    optimizer = minirnn.SGD(layer.named_parameters(), lr=1.0)
    assert optimizer.param_groups[0]["params"] == [layer.weight, layer.bias]


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_switches_are_true_or_false(name):
    for switch in ("maximize", *(["amsgrad"] if "Adam" in name else [])):
        with pytest.raises(TypeError, match=switch):
            getattr(minirnn, name)([minirnn.Parameter(np.ones(1))], **{switch: "no"})


def test_a_schedule_goes_on_where_torchs_was():
    """A scheduled optimiser's state has the rate before any schedule, and its schedule's step."""
    mine, theirs = pair("Adam", {"lr": 0.05})
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(theirs.optimizer, 20)
    for t in range(8):
        theirs.step(gradients(np.random.default_rng(t), t))
        reference.step()
    mine.optimizer.load_state_dict(theirs.optimizer.state_dict())
    schedule = minirnn.CosineAnnealingLR(mine.optimizer, 20, last_epoch=reference.last_epoch - 1)
    for p, value in zip(mine.params, theirs.values(), strict=True):
        p.data = value
    rng = np.random.default_rng(0)
    for t in range(12):
        assert schedule.get_last_lr() == pytest.approx(reference.get_last_lr(), rel=1e-10)
        walk([mine, theirs], rng, t, t + 1)
        schedule.step()
        reference.step()


def test_names_that_torch_knows_are_compared():
    """Two weights of one shape, which their order alone does not tell apart."""
    theirs = torch.nn.RNN(3, 3, dtype=torch.float64)
    reference = torch.optim.Adam(theirs.named_parameters(), lr=0.1)
    theirs(torch.ones(2, 1, 3, dtype=torch.float64))[0].sum().backward()
    reference.step()
    ours = minirnn.RNN(3, 3, dtype="float64")
    names = [name for name, _ in theirs.named_parameters()]
    model = minirnn.Sequential({"rnn": ours})  # by a longer name
    minirnn.Adam(model.parameters()).load_state_dict(reference.state_dict())
    swapped = [getattr(ours, name) for name in (names[1], names[0], *names[2:])]
    with pytest.raises(ValueError, match=r"names\[0\]: expected .*weight_hh_l0"):
        minirnn.Adam(swapped).load_state_dict(reference.state_dict())
