"""Optimisers beyond their formulas: what is refused, what is all or nothing, extremes, groups, freezing."""

import itertools
import json
import tracemalloc

import numpy as np
import pytest
from helpers import close
from makers import parameters, weight

import minirnn


def test_adam_lives_on_after_a_gradient_whose_square_is_near_the_limit():
    """(1 - beta2) * 1e20 ** 2 fits float32, as in torch; the sum of squares without it does not."""
    torch = pytest.importorskip("torch")
    p, q = weight(1.0), torch.nn.Parameter(torch.ones(1))
    ours, theirs = minirnn.Adam([p], lr=0.1), torch.optim.Adam([q], lr=0.1)
    for g in (1e20, *[1.0] * 20000):
        p.grad[:], q.grad = g, torch.tensor([g])
        ours.step()
        theirs.step()
    assert np.isfinite(ours.state_dict()["state"][0]).all()
    assert p.data[0] == pytest.approx(q.item(), rel=1e-3)
    assert p.data[0] != 0.9


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
def test_underflow_is_harmless_also_where_numpy_raises(optimizer):
    p = weight(1.0, 1e-30)
    options = {"momentum": 0.9} if optimizer == "SGD" else {}
    made = getattr(minirnn, optimizer)([p], lr=1e-3, weight_decay=1e-3, **options)
    with np.errstate(all="raise"):
        for _ in range(3):
            p.grad[:] = 1e-35
            minirnn.clip_grad_norm_([p], 1.0)
            made.step()
    assert np.isfinite(p.data).all()


@pytest.mark.parametrize("spoil", ["read-only", "lr", "betas"])
def test_a_step_that_cannot_be_done_changes_nothing(spoil):
    first, second = weight(1.0), weight(2.0)
    optimizer = minirnn.Adam([{"params": [first]}, {"params": [second]}], lr=0.1)
    first.grad[:] = second.grad[:] = 1
    optimizer.step()
    before = optimizer.state_dict()
    values = first.data.copy(), second.data.copy()
    group = optimizer.param_groups[1]
    if spoil == "read-only":
        second.data.flags.writeable = False
    else:
        group[spoil] = {"lr": float("inf"), "betas": (0.9, 2.0)}[spoil]
    with pytest.raises(ValueError, match=r"read-only|finite|betas"):
        optimizer.step()
    assert optimizer.state_dict()["steps"] == before["steps"] == 1
    for a, b in zip(optimizer.state_dict()["state"], before["state"], strict=True):
        assert (a == b).all()
    assert (first.data, second.data) == values


@pytest.mark.parametrize("lr", [float("inf"), float("nan"), -1.0, True, "0.1"])
def test_a_rate_is_a_finite_number(lr):
    with pytest.raises(ValueError, match="lr"):
        minirnn.SGD([weight(1.0)], lr=lr)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("steps", -1),
        ("steps", 2.7),
        ("steps", 1j),
        ("steps", True),
        ("steps", "3"),
        ("state", [np.array([["x", "y"], ["x", "y"]])]),
        ("state", [np.ones((2, 2), complex)]),
        ("state", [np.ones((1, 2))]),
        ("state", []),
        ("groups", [{"lr": 0.5}]),
        ("groups", [3]),
        ("shapes", [[[2, 1]]]),
        ("names", [["other"]]),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(entry, value):
    p = weight(1.0, 2.0)
    optimizer = minirnn.Adam([p], lr=0.1)
    p.grad[:] = 1
    optimizer.step()
    before = optimizer.state_dict()
    changed = {**before, "groups": [{**before["groups"][0], "lr": 0.7}], entry: value}
    with pytest.raises(ValueError, match="does not fit"):
        optimizer.load_state_dict(changed)
    after = optimizer.state_dict()
    assert (after["steps"], after["groups"]) == (before["steps"], before["groups"])
    assert (after["state"][0] == before["state"][0]).all()


def test_a_state_knows_which_parameters_it_is_of():
    layer = minirnn.RNN(3, 3, rng=0)  # two weights of one shape
    state = minirnn.Adam(layer.parameters()).state_dict()
    exchanged = [layer.weight_hh_l0, layer.weight_ih_l0, layer.bias_ih_l0, layer.bias_hh_l0]
    with pytest.raises(ValueError, match=r"names\[0\]"):
        minirnn.Adam(exchanged).load_state_dict(state)
    model = minirnn.Sequential(layer)  # the same layer, by a longer name
    minirnn.Adam(model.parameters()).load_state_dict(state)


def test_a_state_is_arrays_and_json():
    state = minirnn.Adam([weight(1.0, 2.0)], betas=(0.8, 0.9)).state_dict()
    arrays = state.pop("state")
    again = {**json.loads(json.dumps(state)), "state": arrays}
    other = minirnn.Adam([weight(1.0, 2.0)])
    other.load_state_dict(again)
    assert tuple(other.param_groups[0]["betas"]) == (0.8, 0.9)


def test_frozen_parameters_are_left_alone():
    kept, moved = weight(3.0), weight(4.0)
    kept.requires_grad = False
    optimizer = minirnn.SGD([kept, moved], lr=0.5, momentum=0.9)
    kept.grad[:], moved.grad[:] = 3, 4
    assert minirnn.clip_grad_norm_([kept, moved], 2.0) == 4
    assert (kept.grad[0], round(float(moved.grad[0]), 5)) == (3, 2)
    optimizer.step()
    assert (kept.data[0], round(float(moved.data[0]), 5)) == (3, 3)
    layer = minirnn.Linear(2, 1, rng=0)
    layer.flatten_parameters()
    layer.bias.requires_grad = False
    before = layer.state_dict()
    layer.weight.grad[:] = layer.bias.grad[:] = 1
    minirnn.SGD(layer.parameters(), lr=0.5).step()
    assert (layer.bias.data == before["bias"]).all()
    assert layer.weight.data == pytest.approx(before["weight"] - 0.5)


def test_a_group_may_be_added_later():
    first, second = weight(1.0), weight(2.0)
    optimizer = minirnn.SGD([first], lr=0.5)
    optimizer.add_param_group({"params": [second], "lr": 0.25})
    first.grad[:] = second.grad[:] = 1
    assert optimizer.step(lambda: 7) == 7
    assert (first.data[0], second.data[0]) == (0.5, 1.75)
    with pytest.raises(ValueError, match="every parameter once"):
        optimizer.add_param_group({"params": [first]})
    assert len(optimizer.param_groups) == 2
    optimizer.zero_grad(set_to_none=True)
    assert second.grad[0] == 0


@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.9, "weight_decay": 0.1}, {"centered": True, "alpha": 0.9, "momentum": 0.5}],
)
def test_rmsprop_steps_as_torch_does(options):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    p = weight(*rng.standard_normal(7), dtype=np.float64)
    q = torch.nn.Parameter(torch.tensor(p.data.copy()))
    ours = minirnn.RMSprop([p], lr=0.05, **options)
    theirs = torch.optim.RMSprop([q], lr=0.05, **options)
    for _ in range(50):
        p.grad[:] = rng.standard_normal(7)
        q.grad = torch.tensor(p.grad.copy())
        ours.step()
        theirs.step()
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [("Adam", {"lr": 0.1}, 0.9), ("SGD", {"lr": 0.5, "momentum": 0.9, "dampening": 0.5}, 0.5)],
)
def test_a_group_that_comes_later_has_its_own_first_step(name, options, expected):
    first, second = weight(1.0), weight(1.0)
    optimizer = getattr(minirnn, name)([first], **options)
    first.grad[:] = 1
    for _ in range(100):
        optimizer.step()
    optimizer.add_param_group({"params": [second]})
    second.grad[:] = 1
    again = getattr(minirnn, name)(
        [{"params": [weight(1.0)]}, {"params": [weight(1.0)]}], **options
    )
    again.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert second.data[0] == pytest.approx(expected)
    again.param_groups[1]["params"][0].grad[:] = 1
    again.step()
    assert again.param_groups[1]["params"][0].data[0] == pytest.approx(expected)


def test_a_state_that_is_not_finite_is_refused():
    optimizer = minirnn.Adam([weight(1.0)])
    state = optimizer.state_dict()
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            optimizer.load_state_dict({**state, "state": [np.full((2, 1), bad)]})


NO_NUMBERS = [float("nan"), float("inf"), True, "0.5", None, 10**400, 1j, np.ones(2), -0.5]


NO_SWITCHES = ["False", 1, None, np.ones(2)]


SETTINGS = {
    "SGD": ("lr", "momentum", "dampening", "weight_decay", "nesterov"),
    "Adam": ("lr", "betas", "eps", "weight_decay"),
    "AdamW": ("lr", "betas", "eps", "weight_decay"),
    "RMSprop": ("lr", "alpha", "eps", "weight_decay", "momentum", "centered"),
}


@pytest.mark.parametrize(
    ("name", "setting"), [(name, one) for name, settings in SETTINGS.items() for one in settings]
)
def test_a_setting_is_a_number_in_its_range(name, setting):
    """In the constructor, in a group, and when somebody has written it into a group since."""
    make, p = getattr(minirnn, name), weight(1.0)
    switch = setting in ("nesterov", "centered")
    made = make([p], momentum=0.9) if switch and name == "SGD" else make([p])
    for value in NO_SWITCHES if switch else NO_NUMBERS:
        value = (value, 0.9) if setting == "betas" else value
        refused = pytest.raises(
            (ValueError, TypeError), match=rf"\b{setting}\b.*: expected .*, got"
        )
        with refused:
            make([p], **{setting: value})
        with refused:
            make([{"params": [p], setting: value}])
        before = made.param_groups[0][setting]
        made.param_groups[0][setting] = value
        with refused as info:
            made.step()
        assert len(str(info.value)) < 300
        made.param_groups[0][setting] = before
    assert (made.steps, p.data[0]) == (0, 1)


def test_rmsprop_of_a_steady_gradient_stays_finite():
    """The variance of what does not vary is zero; rounding must not make a negative one of it."""
    p = weight(*np.ones(1000))
    p.grad[:] = np.random.default_rng(0).standard_normal(1000)
    optimizer = minirnn.RMSprop([p], lr=1e-6, centered=True, alpha=0.5)
    for _ in range(100):
        optimizer.step()
    assert np.isfinite(p.data).all()


@pytest.mark.parametrize(
    "options", [{}, {"centered": True, "momentum": 0.5, "dampening": 0.1, "weight_decay": 0.1}]
)
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_a_step_allocates_nothing_of_the_parameters_size(name, maximize, options):
    p = weight(*np.ones(100_000))
    own = {key: value for key, value in options.items() if key in SETTINGS[name]}
    optimizer = getattr(minirnn, name)([p], maximize=maximize, **own)
    optimizer.step()
    tracemalloc.start()
    optimizer.step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < p.data.nbytes / 4


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
@pytest.mark.parametrize("mode", ["raise", "warn"])
def test_what_overflows_in_a_step_does_not_leave_it_half_done(name, mode):
    first, second = weight(1.0), weight(1.0)
    optimizer = getattr(minirnn, name)([first, second], lr=0.5)
    first.grad[:], second.grad[:] = np.inf, 1.0
    with np.errstate(all=mode):
        optimizer.step()
    assert optimizer.steps == 1
    assert second.data[0] < 1


def test_what_is_trained_moves_into_one_array():
    model = minirnn.Sequential(minirnn.Linear(3, 2, rng=0), minirnn.Linear(2, 1, rng=1))
    values, parameters = model.state_dict(), list(model.parameters())
    parameters[1].grad[:] = 5
    minirnn.SGD(parameters, lr=0.1)
    (buffer,) = {p.buffer for p in parameters}
    assert buffer.parameters == parameters
    assert buffer.data.tolist() == np.concatenate([v.ravel() for v in values.values()]).tolist()
    assert buffer.grad.tolist() == [0] * 6 + [5] * 2 + [0] * 3
    minirnn.Adam(parameters[:2])  # they are in one, which is left alone
    assert buffer.complete
    model.to("float64")
    assert parameters[0].buffer is not buffer
    assert parameters[0].buffer.parameters == parameters
    assert parameters[0].buffer.data.dtype == np.float64


@pytest.mark.parametrize("frozen", [(), (0,), (1,), (0, 3), (2,)])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("groups", [[4], [2, 2], [1, 3]])
def test_steps_are_those_of_each_parameter_alone(frozen, late, groups):
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(n) for n in (3, 1, 4, 2)]
    gradients = [[rng.standard_normal(len(v)) for v in values] for _ in range(3)]
    together = [weight(*v, dtype=np.float64) for v in values]

    def freeze():
        for k in frozen:
            together[k].requires_grad = False

    if not late:
        freeze()
    cuts = np.cumsum([0, *groups])
    parts = [together[a:b] for a, b in itertools.pairwise(cuts)]
    optimizer = minirnn.AdamW([{"params": part} for part in parts], lr=0.1)
    freeze()
    for step in gradients:
        for p, g in zip(together, step, strict=True):
            p.grad[:] = g
        minirnn.clip_grad_norm_(together, 0.5)
        optimizer.step()
    expected = [weight(*v, dtype=np.float64) for v in values]
    alone = [minirnn.AdamW([p], lr=0.1) for p in expected]
    kept = [k for k in range(4) if k not in frozen]
    for step in gradients:
        norm = np.sqrt(sum((step[k] ** 2).sum() for k in kept))
        for k in kept:
            expected[k].grad[:] = step[k] * min(1, 0.5 / (norm + 1e-6))
            alone[k].step()
    for p, q in zip(together, expected, strict=True):
        np.testing.assert_allclose(p.data, q.data, rtol=1e-13)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_read_only_parameter_among_others_is_refused(when):
    parameters = [weight(1.0, 2.0), weight(3.0), weight(4.0)]
    if when == "before":
        parameters[1].data.flags.writeable = False
    optimizer = minirnn.SGD(parameters, lr=0.1)
    parameters[1].data.flags.writeable = False
    for p in parameters:
        p.grad[:] = 1
    with pytest.raises(ValueError, match="expected an array to write to, got a read-only one"):
        optimizer.step()
    assert [p.data.tolist() for p in parameters] == [[1, 2], [3], [4]]


OPTIMIZERS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.3}),
]


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
@pytest.mark.parametrize("flatten_at", [None, 0, 20])
def test_fifty_steps_of_each_optimizer(name, options, flatten_at):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ours, values = parameters(rng)
    theirs = [torch.nn.Parameter(torch.from_numpy(v.copy())) for v in values]
    optimizer = getattr(minirnn, name)(ours, **options)
    reference = getattr(torch.optim, name)(theirs, **options)
    for step in range(50):
        if step == flatten_at:
            minirnn.ParameterBuffer(ours)
        optimizer.zero_grad()
        for p, q in zip(ours, theirs, strict=True):
            g = rng.standard_normal(p.shape)
            p.grad += g
            q.grad = torch.from_numpy(g.copy())
        optimizer.step()
        reference.step()
        for p, q in zip(ours, theirs, strict=True):
            close(p.data, q.detach())


def test_groups_have_their_own_settings():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ours, values = parameters(rng)
    theirs = [torch.nn.Parameter(torch.from_numpy(v.copy())) for v in values]
    optimizer = minirnn.Adam([{"params": ours[:1], "lr": 0.1}, {"params": ours[1:]}], lr=0.01)
    reference = torch.optim.Adam(
        [{"params": theirs[:1], "lr": 0.1}, {"params": theirs[1:]}], lr=0.01
    )
    for _ in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad[...] = rng.standard_normal(p.shape)
            q.grad = torch.from_numpy(p.grad.copy())
        optimizer.step()
        reference.step()
    for p, q in zip(ours, theirs, strict=True):
        close(p.data, q.detach())


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
def test_a_run_resumes_bit_for_bit(name, options):
    def step(optimizer, ours, rng):
        for p in ours:
            p.grad[...] = rng.standard_normal(p.shape)
        optimizer.step()

    ours, _ = parameters(np.random.default_rng(0))
    optimizer = getattr(minirnn, name)(ours, **options)
    rng = np.random.default_rng(1)
    for _ in range(3):
        step(optimizer, ours, rng)
    state = optimizer.state_dict()
    copies = [minirnn.Parameter(p.data.copy()) for p in ours]
    resumed = getattr(minirnn, name)(copies, lr=123.0)
    resumed.load_state_dict(state)
    other = np.random.default_rng(2)
    step(optimizer, ours, other)
    step(resumed, copies, np.random.default_rng(2))
    for p, q in zip(ours, copies, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
def test_parameters_keep_their_dtype(name, options, dtype):
    p = minirnn.Parameter(np.ones(3, dtype))
    p.grad[...] = 1
    getattr(minirnn, name)([p], **options).step()
    assert p.data.dtype == dtype
    assert (p.data < 1).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: minirnn.SGD([], lr=0.1), ValueError, "at least one"),
        (lambda p: minirnn.SGD([p.data]), TypeError, "expected Parameters, got ndarray"),
        (lambda p: minirnn.SGD([p, p]), ValueError, "twice"),
        (lambda p: minirnn.SGD([p], lr=-1.0), ValueError, "lr: expected"),
        (lambda p: minirnn.SGD([p], momentum=-1.0), ValueError, "momentum"),
        (lambda p: minirnn.SGD([p], momentum=0.9, dampening=-1), ValueError, "dampening"),
        (lambda p: minirnn.SGD([p], nesterov=True), ValueError, "^nesterov: expected a positive"),
        (lambda p: minirnn.SGD(3), TypeError, "expected Parameters, got int"),
        (lambda p: minirnn.Adam([p], betas=(0.9, 1.0)), ValueError, r"betas\[1\]"),
        (lambda p: minirnn.Adam([p], betas=0.5), ValueError, r"^betas: expected two .*, got 0\.5$"),
        (
            lambda p: minirnn.Adam([p], betas=[0.5]),
            ValueError,
            r"^betas: expected two numbers, got",
        ),
        (lambda p: minirnn.Adam([{"params": [p], "lrr": 1}]), ValueError, "lrr"),
        (lambda p: minirnn.Adam([p], weight_decay=-1), ValueError, "weight_decay"),
    ],
)
def test_bad_optimizers(make, error, message):
    with pytest.raises(error, match=message):
        make(minirnn.Parameter(np.ones(2)))


def test_state_of_another_optimizer_is_refused():
    p = minirnn.Parameter(np.ones(2))
    optimizer = minirnn.Adam([p])
    p.grad[...] = 1
    optimizer.step()
    other = minirnn.Adam([minirnn.Parameter(np.ones(3))])
    with pytest.raises(ValueError, match="expected shape"):
        other.load_state_dict(optimizer.state_dict())


def test_state_with_settings_that_make_no_sense_is_refused():
    optimizer = minirnn.Adam([minirnn.Parameter(np.ones(2))], lr=0.1)
    for bad in ({"lr": -1}, {"betas": "xx"}):
        state = optimizer.state_dict()
        state["steps"] = 7
        state["groups"][0].update(bad)
        with pytest.raises(ValueError, match=rf"groups\[0\]: {next(iter(bad))}"):
            optimizer.load_state_dict(state)
        assert optimizer.state_dict()["steps"] == 0
        assert optimizer.param_groups[0]["lr"] == 0.1
    schedule = minirnn.StepLR(optimizer, 2)
    with pytest.raises(ValueError, match=r"\['base_lrs'\] missing"):
        schedule.load_state_dict({"last_epoch": 3})
    assert schedule.get_last_lr() == [0.1]


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_torchs_form_goes_round_without_torch(name):
    """In arrays alone, with groups of different ages; what torch writes besides is passed over."""
    rng = np.random.default_rng(0)

    def made():
        first, second = weight(*range(3), dtype=float), weight(1.0, 2.0, dtype=float)
        options = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
        return getattr(minirnn, name)([first], lr=0.1, **options), first, second

    optimizer, first, second = made()
    again, p, q = made()
    for one, late in ((optimizer, second), (again, q)):
        for _ in range(3):
            one.param_groups[0]["params"][0].grad[:] = 1
            one.step()
        one.add_param_group({"params": [late], "lr": 0.05})
    first.grad[:], second.grad[:] = rng.standard_normal(3), rng.standard_normal(2)
    p.grad[:], q.grad[:] = first.grad, second.grad
    optimizer.step()
    again.step()
    state = optimizer.torch_state_dict()
    for k, group in enumerate(state["param_groups"]):
        group |= {"foreach": None, "fused": True, "capturable": False, "differentiable": False}
        assert group["params"] == [k]
    assert [s.get("step", None) for s in state["state"].values()][:1] == [4]
    for group in state["param_groups"]:
        del group["maximize"]  # as from a torch of some years ago
    again.load_state_dict(state)
    for _ in range(2):
        optimizer.step()
        again.step()
    np.testing.assert_allclose(p.data, first.data, rtol=1e-14)
    np.testing.assert_allclose(q.data, second.data, rtol=1e-14)
