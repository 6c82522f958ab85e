"""Optimisers, clipping, schedules: step by step against torch."""

import math

import numpy as np
import pytest
from helpers import close

import minirnn

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


def parameters(rng, shapes=((3, 4), (5,), (2, 2, 2))):
    values = [rng.standard_normal(s) for s in shapes]
    return [minirnn.Parameter(v.copy()) for v in values], values


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
        (lambda p: minirnn.SGD([p], nesterov=True), ValueError, "nesterov"),
        (lambda p: minirnn.SGD(3), TypeError, "expected Parameters, got int"),
        (lambda p: minirnn.Adam([p], betas=(0.9, 1.0)), ValueError, r"betas\[1\]"),
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


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.5, math.inf])
@pytest.mark.parametrize("max_norm", [0.1, 1e3])
@pytest.mark.parametrize("flat", [False, True])
def test_clip_grad_norm(norm_type, max_norm, flat):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ours, values = parameters(rng)
    theirs = [torch.nn.Parameter(torch.from_numpy(v)) for v in values]
    if flat:
        minirnn.ParameterBuffer(ours)
    for p, q in zip(ours, theirs, strict=True):
        p.grad[...] = rng.standard_normal(p.shape)
        q.grad = torch.from_numpy(p.grad.copy())
    norm = minirnn.clip_grad_norm_(iter(ours), max_norm, norm_type)
    close(norm, torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type))
    for p, q in zip(ours, theirs, strict=True):
        close(p.grad, q.grad)


@pytest.mark.parametrize("flat", [False, True])
def test_a_norm_whose_square_overflows(flat):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    shapes = ((3, 4), (5,))
    ours = [minirnn.Parameter(np.zeros(shape, np.float32)) for shape in shapes]
    if flat:
        minirnn.ParameterBuffer(ours)
    gradients = [
        rng.standard_normal(shape).astype(np.float32) * np.float32(1e30) for shape in shapes
    ]
    for p, g in zip(ours, gradients, strict=True):
        p.grad[...] = g
    expected = math.sqrt(sum(float(np.vdot(g, g)) for g in map(np.float64, gradients)))
    # torch's own norm is infinite there, but right in float64.
    theirs = [torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in shapes]
    for p, g in zip(theirs, gradients, strict=True):
        p.grad = torch.from_numpy(g.astype(np.float64))
    norm = minirnn.clip_grad_norm_(ours, 2.0, error_if_nonfinite=True)
    assert norm.dtype == np.float32
    assert float(norm) == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, 2.0)))
    for p, q in zip(ours, theirs, strict=True):
        close(p.grad, q.grad, 1e-6)


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        (
            lambda p: minirnn.clip_grad_norm_([], 1.0),
            ValueError,
            "at least one parameter, got none",
        ),
        (lambda p: minirnn.clip_grad_norm_([p, p.grad], 1.0), TypeError, "got ndarray"),
        (lambda p: minirnn.clip_grad_norm_(p, -1.0), ValueError, "max_norm: .* >= 0, got -1.0"),
        (lambda p: minirnn.clip_grad_norm_(p, math.nan), ValueError, "max_norm"),
        (lambda p: minirnn.clip_grad_norm_(p, 1.0, 0), ValueError, "norm_type: .* > 0, got 0"),
        (lambda p: minirnn.clip_grad_norm_(p, 1.0, -2.0), ValueError, "norm_type"),
        (
            lambda p: minirnn.clip_grad_value_([], 1.0),
            ValueError,
            "at least one parameter, got none",
        ),
        (lambda p: minirnn.clip_grad_value_([p, None], 1.0), TypeError, "got NoneType"),
        (lambda p: minirnn.clip_grad_value_(p, -1.0), ValueError, "clip_value: .* >= 0, got -1.0"),
    ],
)
def test_clipping_refuses(clip, error, message):
    p = minirnn.Parameter(np.zeros(2))
    p.grad[...] = [3, 4]
    with pytest.raises(error, match=message):
        clip(p)
    np.testing.assert_array_equal(p.grad, [3, 4])


def test_clip_grad_value():
    rng = np.random.default_rng(0)
    ours, _ = parameters(rng)
    before = []
    for p in ours:
        p.grad[...] = rng.standard_normal(p.shape)
        before.append(p.grad.copy())
    minirnn.clip_grad_value_(ours, 0.5)
    for p, g in zip(ours, before, strict=True):
        np.testing.assert_array_equal(p.grad, np.minimum(np.maximum(g, -0.5), 0.5))


def test_nonfinite_gradients_are_named_and_left_alone():
    model = minirnn.Sequential(minirnn.Linear(2, 2), minirnn.RNN(2, 2))
    for p in model.parameters():
        p.grad[...] = 1
    bad = dict(model.named_parameters())["1.weight_hh_l0"]
    bad.grad[0, 0] = np.nan
    before = [p.grad.copy() for p in model.parameters()]
    with pytest.raises(FloatingPointError, match=r"not finite in:? 1\.weight_hh_l0$"):
        minirnn.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
    for p, g in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.grad, g)
    assert np.isnan(minirnn.clip_grad_norm_(model.parameters(), 1.0))


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


def two_groups():
    torch = pytest.importorskip("torch")
    ours = [minirnn.Parameter(np.ones(2)) for _ in range(2)]
    theirs = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    groups = ([{"params": [p], "lr": lr} for p, lr in zip(ps, (0.5, 0.2), strict=True)]
              for ps in (ours, theirs))  # fmt: skip
    mine, reference = groups
    optimizers = minirnn.SGD(mine), torch.optim.SGD(reference)
    optimizers[0].step()  # without a gradient; a schedule's step before it would warn
    return torch, *optimizers


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


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_reduce_on_plateau(mode, threshold_mode):
    torch, optimizer, reference = two_groups()
    options = {"mode": mode, "factor": 0.5, "patience": 2, "threshold": 0.05}
    options |= {"threshold_mode": threshold_mode, "cooldown": 1, "min_lr": 0.01}
    ours = minirnn.ReduceLROnPlateau(optimizer, **options)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(reference, **options)
    rng = np.random.default_rng(0)
    reduced = 0
    for metric in rng.uniform(0.5, 1, 60):
        before = ours.get_last_lr()
        ours.step(metric)
        theirs.step(metric)
        close(ours.get_last_lr(), theirs.get_last_lr(), 1e-12)
        reduced += ours.get_last_lr() != before
    assert reduced >= 3


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


@pytest.mark.parametrize(("name", "options"), [*SCHEDULES, ("SequentialLR", {})])
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
    if name != "SequentialLR":  # torch's begins with its first schedule again
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


@pytest.mark.parametrize(("name", "options"), SCHEDULES)
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


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_plateau_resumes_wherever_it_was_interrupted(mode):
    def begin(lr):
        groups = [{"params": [minirnn.Parameter(np.ones(1))], "lr": k * lr} for k in (1, 2)]
        optimizer = minirnn.SGD(groups)
        options = {"factor": 0.5, "patience": 2, "cooldown": 2, "min_lr": [0.01, 0.0]}
        return optimizer, minirnn.ReduceLROnPlateau(optimizer, mode, **options)

    metrics = np.random.default_rng(0).uniform(0.5, 1, 40)
    optimizer, whole = begin(1.0)
    rates, saved = [], []
    for metric in metrics:
        saved.append((optimizer.state_dict(), whole.state_dict()))
        whole.step(metric)
        rates.append(whole.get_last_lr())
    assert len(set(map(tuple, rates))) >= 4
    for stop, states in enumerate(saved):
        optimizer, resumed = begin(9.0)
        for part, state in zip((optimizer, resumed), states, strict=True):
            part.load_state_dict(state)
        assert resumed.state_dict() == states[1]
        again = []
        for metric in metrics[stop:]:
            resumed.step(metric)
            again.append(resumed.get_last_lr())
        assert again == rates[stop:]
        assert resumed.state_dict() == whole.state_dict()
        assert resumed.last_epoch == len(metrics)
    before = resumed.state_dict()
    with pytest.raises(ValueError, match=r"state_dict: expected \['best', .*\['best'\] missing"):
        resumed.load_state_dict({name: 7 for name in before if name != "best"})
    assert resumed.state_dict() == before


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
    ],
)
def test_bad_schedules(make, message):
    with pytest.raises(ValueError, match=message):
        make(minirnn.SGD([minirnn.Parameter(np.ones(1))], lr=0.1))


def test_initial_values():
    p = minirnn.Parameter(np.zeros((12, 4)))
    minirnn.init.orthogonal_(p, gain=2.0, blocks=3, rng=0)
    for block in p.data.reshape(3, 4, 4):
        close(block @ block.T, 4 * np.eye(4))
    wide = minirnn.init.orthogonal_(minirnn.Parameter(np.zeros((3, 7))), rng=0)
    close(wide.data @ wide.data.T, np.eye(3))
    x = minirnn.init.xavier_uniform_(minirnn.Parameter(np.zeros((300, 200))), rng=0).data
    bound = math.sqrt(6 / 500)
    assert np.abs(x).max() <= bound
    assert abs(x.std() - bound / math.sqrt(3)) < 0.01 * bound
    again = minirnn.init.xavier_uniform_(minirnn.Parameter(np.zeros((300, 200))), rng=0).data
    np.testing.assert_array_equal(x, again)
    with pytest.raises(ValueError, match="blocks"):
        minirnn.init.orthogonal_(p, blocks=5)
    with pytest.raises(ValueError, match="matrix"):
        minirnn.init.orthogonal_(minirnn.Parameter(np.zeros(3)))


def test_uniform_initial_values():
    rng = np.random.default_rng(0)
    p = minirnn.Parameter(np.zeros((30, 40)))
    assert minirnn.init.uniform_(p, -3.0, 1.0, rng=rng) is p
    assert p.data.min() >= -3
    assert p.data.max() < 1
    assert abs(p.data.mean() + 1) < 0.1
    assert abs(p.data.std() - 4 / math.sqrt(12)) < 0.1
    before = p.data.copy()
    for a, b in ((2.0, 1.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match=f"a, b: expected a <= b, got {a} and {b}"):
            minirnn.init.uniform_(p, a, b, rng=rng)
    np.testing.assert_array_equal(p.data, before)
    minirnn.init.uniform_(p, 0.5, 0.5, rng=rng)
    np.testing.assert_array_equal(p.data, np.full((30, 40), 0.5))
    for bad, got in (([1.0], "got builtins.list"), (np.zeros(2, int), "got dtype int64")):
        with pytest.raises(TypeError, match=f"parameter: expected .*{got}"):
            minirnn.init.uniform_(bad)


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


@pytest.mark.parametrize("norm_type", [2, 3, np.inf, "inf"])
def test_a_norm_that_is_not_finite_warns_of_nothing(norm_type):
    a, b = minirnn.Parameter(np.zeros(2)), minirnn.Parameter(np.zeros(2))
    a.grad, b.grad = [np.inf, 1.0], [3.0, 4.0]
    assert np.isinf(minirnn.clip_grad_norm_([a, b], 1.0, norm_type))
    assert np.isnan(a.grad[0])  # as in torch
    assert a.grad[1] == 0
    assert not b.grad.any()


def test_a_warm_up_that_is_over_leaves_the_rate_to_the_plateau():
    torch = pytest.importorskip("torch")
    rates = []
    for library, parameter in (
        (minirnn, minirnn.Parameter(np.zeros(1))),
        (torch.optim, torch.zeros(1, requires_grad=True)),
    ):
        schedules = library if library is minirnn else torch.optim.lr_scheduler
        optimizer = library.SGD([parameter], lr=0.1)
        warmup = schedules.LinearLR(optimizer, 0.1, total_iters=2)
        plateau = schedules.ReduceLROnPlateau(optimizer, patience=0)
        seen = []
        for step in range(8):
            optimizer.step()
            warmup.step()
            if step >= 2:
                plateau.step(1.0)
            seen.append(optimizer.param_groups[0]["lr"])
        rates.append(seen)
    np.testing.assert_allclose(*rates, rtol=1e-12)
    assert rates[0][-1] < 1e-5
