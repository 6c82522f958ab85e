"""What is too small for the dtype is zero, also where NumPy is told to raise: at every door, in casts too.

NumPy 2.0 raises in some casts where later ones do not, so `.ci/packages` runs this on both.
"""

import numpy as np
import pytest
from helpers import close

import minirnn
from minirnn import diagnostics, init, parallel

TINY = np.float32(1e-42)  # a subnormal number
LESS = 1e-60  # no number of float32
X = np.full((4, 3), TINY, np.float32)
STEPS = np.full((5, 2, 3), 1e-20, np.float32)
CLASSES = np.array([0, 1, 2, 1])
PROBABILITIES = np.full((4, 3), 0.5, np.float32)
LOSSES = {
    "cross entropy": (minirnn.CrossEntropyLoss(), CLASSES),
    "weighted": (minirnn.CrossEntropyLoss(X[0], label_smoothing=TINY), CLASSES),
    "soft": (minirnn.CrossEntropyLoss(X[0], label_smoothing=LESS), PROBABILITIES),
    "nll": (minirnn.NLLLoss(X[0]), CLASSES),
    "mse": (minirnn.MSELoss(), PROBABILITIES),
    "bce": (minirnn.BCELoss(X), PROBABILITIES),
    "bce of logits": (minirnn.BCEWithLogitsLoss(X, pos_weight=X), PROBABILITIES),
}


@pytest.mark.parametrize("dloss", [TINY, float(TINY), LESS, np.float64(LESS)])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_weighted_by_very_little_raises_nothing(name, dloss):
    criterion, target = LOSSES[name]
    with np.errstate(all="raise"):
        loss, ctx = criterion.forward(X, target)
        dx = criterion.backward(ctx, dloss)
    assert np.isfinite(loss)
    assert dx.dtype == np.float32
    assert np.isfinite(dx).all()


def parameter(value=1.0):
    p = minirnn.Parameter(np.full(3, value, np.float32))
    p.grad[:] = value
    return p


def assigned(what, value):
    setattr(parameter(), what, value)


def loaded(model):
    model.load_state_dict({name: np.full(v.shape, LESS) for name, v in model.state_dict().items()})


def converted():
    layer = minirnn.Linear(3, 4, dtype=np.float64)
    for p in layer.parameters():
        p.data[...] = p.grad[...] = LESS
    layer.to("float32")


def per_sample(made, of):
    (y, _), ctx = made.forward(STEPS)
    of(made, ctx, np.full_like(y, 1e-25))


def observed():
    diagnostics.GradientMonitor([parameter(TINY)]).observe(1)


def averaged():
    class Two(parallel.Alone):
        def Get_size(self):
            return 2

    layer = minirnn.Linear(3, 4, rng=0)
    layer.weight.grad[...] = TINY
    parallel.average_gradients(layer, Two(), 0.5)


PACKED = minirnn.pack_sequence([X, X[:2]])
CALLS = {
    "a value": lambda: assigned("data", [LESS] * 3),
    "a gradient": lambda: assigned("grad", np.full(3, LESS)),
    "a state": lambda: loaded(minirnn.LSTM(3, 4)),
    "a loss's state": lambda: loaded(minirnn.CrossEntropyLoss(X[0])),
    "a dtype": converted,
    "padding": lambda: minirnn.pad_sequence([X, X[:2]], padding_value=TINY),
    "padding again": lambda: minirnn.pad_packed_sequence(PACKED, padding_value=LESS),
    "rows times": lambda: PACKED * 1e-30,
    "rows by": lambda: PACKED / 3,
    "constant_": lambda: init.constant_(np.empty(3, np.float32), TINY),
    "uniform_": lambda: init.uniform_(np.empty(3, np.float32), 0, LESS, rng=0),
    "normal_": lambda: init.normal_(np.empty(3, np.float32), 0, TINY, rng=0),
    "trunc_normal_": lambda: init.trunc_normal_(np.empty(3, np.float32), 0, LESS, -LESS, LESS),
    "xavier_normal_": lambda: init.xavier_normal_(np.empty((3, 3), np.float32), TINY, rng=0),
    "orthogonal_": lambda: init.orthogonal_(np.empty((3, 3), np.float32), 1e-320, rng=0),
    "clip_grad_norm_": lambda: minirnn.clip_grad_norm_([parameter(TINY)], LESS),
    "clip_grad_value_": lambda: minirnn.clip_grad_value_([parameter()], LESS),
    "monitor": observed,
    "noise_scale": lambda: diagnostics.noise_scale(np.array([1e-200, 1e-200]), 1e-200),
    "average_gradients": averaged,
}
LAYERS = [minirnn.RNN(3, 4, rng=0), minirnn.LSTM(3, 4, rng=0), minirnn.GRU(3, 4, rng=0)]
OF_A_LAYER = {
    "norms": lambda made: per_sample(made, diagnostics.per_sample_gradient_norms),
    "gradients": lambda made: per_sample(made, diagnostics.per_sample_gradients),
    "jacobians": lambda made: diagnostics.jacobian_norms(made, made.forward(STEPS)[1]),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_too_small_is_zero_at_every_door(name):
    with np.errstate(all="raise"):
        CALLS[name]()


@pytest.mark.parametrize("name", OF_A_LAYER)
@pytest.mark.parametrize("made", LAYERS, ids=repr)
def test_what_is_too_small_is_zero_in_diagnostics_too(made, name):
    with np.errstate(all="raise"):
        OF_A_LAYER[name](made)
    made.zero_grad()


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop"])
@pytest.mark.parametrize("maximize", [False, True])
def test_settings_that_are_too_small_count_for_nothing(kind, maximize):
    p = parameter()
    with np.errstate(all="raise"):
        made = getattr(minirnn, kind)([p], lr=1e-320, weight_decay=LESS, maximize=maximize)
        for _ in range(2):
            made.step()
        made.load_state_dict(made.state_dict())
        made.load_state_dict(made.torch_state_dict())
    assert (p.data == 1).all()


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("make", [minirnn.RNN, minirnn.GRU, minirnn.LSTM])
def test_a_stepper_takes_what_is_too_small(make, native):
    if native and not minirnn.native_available():
        pytest.skip("the loops in C were not built here")
    x = np.stack([np.full(4, small, np.float32) for small in (1e-44, 1e-38)])
    minirnn.set_native(native)
    stepper = make(4, 8, rng=0).stepper()
    with np.errstate(all="raise"):
        steps = [stepper(x_t) for x_t in x]
    assert np.isfinite(steps).all()


def test_a_stepper_takes_a_sample_of_any_order_in_memory():
    layer = minirnn.GRU(4, 8, rng=0)
    x = np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32)
    one, other = layer.stepper(3), layer.stepper(3)
    for k in range(2):
        close(one(x[:, :, k].T), other(x[:, :, k].T.copy()), 1e-6)  # BLAS rounds by the order
