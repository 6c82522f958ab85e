"""Training on the device: optimisers, clipping, what is uploaded and launched, and that nothing waits."""

import copy
import pickle

import numpy as np
import pytest
from both import LAYERS, Model, batches_of, floats, moved, on_both, packed, same, training
from strict_cupy import COUNTS, waiting_for_nothing

import minirnn
from minirnn.cuda import launch

OPTIMIZERS = {
    "sgd": lambda p: minirnn.SGD(p, 0.1),
    "momentum": lambda p: minirnn.SGD(p, 0.1, 0.9, weight_decay=0.1, nesterov=True),
    "dampened": lambda p: minirnn.SGD(p, 0.1, 0.9, dampening=0.2),
    "adam": lambda p: minirnn.Adam(p, 0.1, weight_decay=0.1),
    "adamw": lambda p: minirnn.AdamW(p, 0.1),
    "amsgrad": lambda p: minirnn.Adam(p, 0.1, amsgrad=True, maximize=True),
    "rmsprop": lambda p: minirnn.RMSprop(p, 0.1, centered=True, momentum=0.5, weight_decay=0.1),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("flat_buffer", [False, True])
def test_optimizers(xp, rng, kind, flat_buffer):
    gradients = [floats(rng, 5, 4) for _ in range(3)]

    def run(layer, *gradients):
        if flat_buffer:
            layer.flatten_parameters()
        optimizer = OPTIMIZERS[kind](layer.parameters())
        schedule = minirnn.CosineAnnealingLR(optimizer, 5)
        for g in gradients:
            optimizer.zero_grad()
            layer.weight.grad += g
            optimizer.step()
            schedule.step()
        return layer.weight.data

    on_both(xp, minirnn.Linear(4, 5), run, *gradients)


def test_an_optimizer_follows_its_parameters(xp, rng):
    layer = minirnn.Linear(4, 5, rng=0)
    other = copy.deepcopy(layer)
    optimizers = [minirnn.Adam(m.parameters(), 0.1) for m in (layer, other)]
    g = floats(rng, 5, 4)
    for step in range(3):
        if step == 1:
            layer.to("cupy")
        for m, optimizer in zip((layer, other), optimizers, strict=True):
            m.zero_grad()
            m.weight.grad += xp.asarray(g) if m is layer and step else g
            optimizer.step()
    same(layer.weight.data, other.weight.data)
    state = optimizers[0].state_dict()
    optimizers[1].load_state_dict(state)
    same(state["state"], optimizers[1].state_dict()["state"], 0)


def test_torchs_form_of_a_state_lies_on_the_host(xp):
    layer = minirnn.Linear(4, 5, rng=0).to("cupy")
    optimizer, other = (minirnn.Adam(layer.parameters(), 0.1, amsgrad=True) for _ in range(2))
    layer.weight.grad += 1
    optimizer.step()
    state = optimizer.torch_state_dict()
    assert {type(a) for a in state["state"][0].values()} == {np.ndarray, np.float32}
    other.load_state_dict(state)
    same(other.state_dict()["state"], optimizer.state_dict()["state"], 0)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, np.inf, 3.0])
@pytest.mark.parametrize("flat_buffer", [False, True])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clipping(xp, rng, norm_type, flat_buffer, max_norm):
    def run(layer, g):
        if flat_buffer:
            layer.flatten_parameters()
        layer.weight.grad += g
        norm = minirnn.clip_grad_norm_(layer.parameters(), max_norm, norm_type)
        minirnn.clip_grad_value_(layer.parameters(), 0.3)
        return norm

    on_both(xp, minirnn.Linear(4, 5), run, floats(rng, 5, 4))


def test_a_norm_that_is_not_finite_is_named(xp):
    layer = minirnn.Linear(2, 2).to("cupy")
    layer.weight.grad[0, 0] = np.inf
    with pytest.raises(FloatingPointError, match="weight"):
        minirnn.clip_grad_norm_(layer.parameters(), 1.0, error_if_nonfinite=True)


@pytest.mark.parametrize("cell", LAYERS)
def test_training_waits_for_nothing(xp, rng, cell):
    batches = list(batches_of(rng, 4))
    host, device = Model(cell), Model(cell).to("cupy")
    expected = list(training(host, batches))
    uploaded = moved(xp, batches)
    with waiting_for_nothing(xp):
        losses = list(training(device, uploaded))
    same(losses, expected, 1e-4)
    same(list(device.state_dict().values()), list(host.state_dict().values()), 1e-4)


def test_a_batch_uploads_its_indices_once(double, rng):
    tokens, targets = moved(double, next(batches_of(rng, 1)))
    model = Model("GRU").to("cupy").eval()  # dropout draws on the host, and uploads its masks
    list(training(model, [(tokens, targets)]))
    before = COUNTS["uploads"]
    list(training(model, [(tokens, targets)]))
    # What the second pass uploads is the order in which the batch was given: to put h_n and dh_0 into it,
    # and dh_n out of it.
    assert COUNTS["uploads"] - before == 3


@pytest.mark.parametrize("form", ["padded", "packed"])
def test_each_stream_uploads_for_itself(double, rng, form):
    """What another stream uploads may not have arrived, and nobody waits for it."""
    layer = minirnn.GRU(4, 9, bidirectional=True, rng=1).to("cupy")
    x = floats(rng, 5, 3, 4) if form == "padded" else packed(rng, 4)
    expected = minirnn.GRU(4, 9, bidirectional=True, rng=1)(x)[0]
    x = moved(double, x)
    double.cuda.Device().synchronize()
    for _ in range(2):
        with double.cuda.Stream(non_blocking=True), waiting_for_nothing(double):
            y, _ = layer(x)
            before = COUNTS["uploads"]
            layer.forward(x)
            # Once a stream: what goes up again is the order in which the batch was given, for h_n.
            assert COUNTS["uploads"] - before == (form == "packed")
        same(y, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", ["padded", "packed"])
def test_another_device(double, rng, form, dtype, monkeypatch):
    """Addresses of one mean nothing on the other, also where both see a batch of the same form."""
    x = floats(rng, 5, 3, 4, dtype=dtype) if form == "padded" else packed(rng, 4, dtype)
    layer = minirnn.GRU(4, 9, bidirectional=True, rng=1, dtype=dtype)
    expected = layer(x)[0]
    right, counts = launch.shape, []
    monkeypatch.setattr(launch, "shape", lambda *a: counts.append(a[3]) or right(*a))
    for number in (0, 1, 0):
        with double.cuda.Device(number):
            here = copy.deepcopy(layer).to("cupy")
            # Of the same layout each time.
            here_x = double.asarray(x) if form == "padded" else x.map(double.asarray)
            same(here(here_x)[0], expected, 1e-5 if dtype == np.float32 else 1e-12)
    if dtype == np.float32:
        assert counts == [1, 3, 1]


def test_a_layout_pickles_without_its_uploads(double, rng):
    """Where they are uploaded again, another device may be the current one."""
    layout = packed(rng, 4).packing.layout
    layout.index("last", double)
    before = COUNTS["syncs"]
    with double.cuda.Device(1):
        again = pickle.loads(pickle.dumps(layout))
    assert COUNTS["syncs"] == before
    same(again.index("last", double) + 0, layout.last, 0)


@pytest.mark.parametrize(("dtype", "launches"), [(np.float32, 4), (np.float64, 8 * 5)])
def test_launches_of_a_training_step(double, rng, dtype, launches):
    """One a layer and way with persistent kernels; without, one for each of 5 steps and each direction."""
    model = Model("LSTM", dtype=dtype)
    model = model.to(np.dtype(dtype)).to("cupy")
    batch = moved(double, next(batches_of(rng, 1)))
    before = COUNTS["launches"]
    list(training(model, [batch]))
    assert COUNTS["launches"] - before == launches


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("trace", [False, True])
def test_one_launch_runs_both_directions(double, rng, cell, trace):
    layer = LAYERS[cell](4, 9, bidirectional=True, recurrent_dropout=0.2, rng=1).to("cupy")
    (y, *_), ctx = layer.forward(moved(double, packed(rng, 4)), trace=trace)
    assert COUNTS["launches"] == 1
    layer.backward(ctx, y, trace=trace)
    assert COUNTS["launches"] == 2
    layer(moved(double, floats(rng, 5, 3, 4)))
    assert COUNTS["launches"] == 3
