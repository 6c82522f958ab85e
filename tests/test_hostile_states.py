"""A state in which anything is replaced by anything is refused whole, or leaves what works."""

import copy
import math

import numpy as np
import pytest

import minirnn

HOSTILE = [
    *[float("nan"), float("inf"), -1, -0.5, True, "x", None, 2**70, 10**400, 1e300, 1j],
    *[[], {}, [1, 2, 3], [[1]], {"a": 1}, object(), np.ones(2), b"x"],
]
SCHEDULES = {
    "StepLR": lambda made: minirnn.StepLR(made, 2),
    "LinearLR": minirnn.LinearLR,
    "CosineAnnealingLR": lambda made: minirnn.CosineAnnealingLR(made, 5),
    "MultiStepLR": lambda made: minirnn.MultiStepLR(made, [1, 3]),
    "PolynomialLR": minirnn.PolynomialLR,
    "OneCycleLR": lambda made: minirnn.OneCycleLR(made, 0.5, 10),
    "SequentialLR": lambda made: minirnn.SequentialLR(
        made, [minirnn.StepLR(made, 2), minirnn.LinearLR(made)], [3]
    ),
    "ReduceLROnPlateau": minirnn.ReduceLROnPlateau,
}


def optimizer(name):
    p = minirnn.Parameter(np.ones(3, np.float32))
    made = getattr(minirnn, name)([p], **({"momentum": 0.9} if name == "SGD" else {}))
    p.grad[:] = 1
    made.step()
    return made


def places(value, above=()):
    """Iterate over where something is, in dicts and lists however deep."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*above, key)
            yield from places(item, (*above, key))


def spoilt(state, place, value):
    state = copy.deepcopy(state)
    inner = state
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return state


def equal(a, b):
    if isinstance(a, dict | list | tuple):
        pairs = [(a[k], b[k]) for k in (a if isinstance(a, dict) else range(len(a)))]
        return len(a) == len(b) and all(equal(x, y) for x, y in pairs)
    return np.array_equal(a, b)


def refusal(call):
    """Return the message with which a call is refused, or nothing."""
    try:
        call()
    except (ValueError, TypeError) as error:
        return str(error)
    return ""


def attack(one, made, state, step):
    """Load `state` with everything replaced, and see that a refusal changes nothing."""
    refused = 0
    for place in places(state):
        for value in HOSTILE:
            before = copy.deepcopy((one.state_dict(), made.state_dict()))
            changed = spoilt(state, place, value)
            message = refusal(lambda changed=changed: one.load_state_dict(changed))
            if message:
                refused += 1
                assert "expected" in message or "missing" in message, (place, value)
                assert len(message) < 1500
                assert equal((one.state_dict(), made.state_dict()), before), (place, value)
                continue
            message = refusal(step)  # by a rate that overflows, or as a cycle is over
            assert not message or "expected" in message, (place, value)
            assert all(math.isfinite(group["lr"]) for group in made.param_groups)
            made.load_state_dict(before[1])
            one.load_state_dict(before[0])
    assert refused > 20


@pytest.mark.parametrize("name", SCHEDULES)
def test_of_a_schedule(name):
    made = optimizer("SGD")
    schedule = SCHEDULES[name](made)
    metric = [1.0] if name == "ReduceLROnPlateau" else []
    schedule.step(*metric)
    attack(schedule, made, schedule.state_dict(), lambda: schedule.step(*metric))


@pytest.mark.parametrize("form", ["state_dict", "torch_state_dict"])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_of_an_optimizer(name, form):
    made = optimizer(name)
    minirnn.StepLR(made, 2)
    attack(made, made, getattr(made, form)(), made.step)
