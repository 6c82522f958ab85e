"""NLLLoss and BCELoss side by side with torch, and the weights of losses as part of the state."""

import numpy as np
import pytest
from helpers import close

import minirnn

REDUCTIONS = ["mean", "sum", "none"]


def compare(name, input, target, dloss=None, **options):
    """Compare the loss and its gradient with torch's."""
    torch = pytest.importorskip("torch")
    tensors = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    x = torch.tensor(input, requires_grad=True)
    expected = getattr(torch.nn, name)(**tensors)(x, torch.tensor(target))
    criterion = getattr(minirnn, name)(**options)
    loss, ctx = criterion.forward(input, target)
    close(loss, expected.detach())
    d = np.asarray(np.random.default_rng(9).standard_normal(loss.shape))
    expected.backward(torch.tensor(d))
    close(criterion.backward(ctx, d), x.grad)
    assert np.asarray(criterion(input, target)) == pytest.approx(np.asarray(loss), rel=1e-15)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(6, 5), (5,), (3, 5, 4), (2, 5, 3, 2)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [-100, 2])
def test_nll(reduction, shape, weighted, ignored):
    rng = np.random.default_rng(0)
    log_p = minirnn.log_softmax(rng.standard_normal(shape), 1 if len(shape) > 1 else 0)
    target = np.asarray(rng.integers(0, 5, shape[:1] + shape[2:] if len(shape) > 1 else ()))
    if target.ndim:
        target.flat[0] = ignored
        target.flat[1] = 3
    else:
        target[...] = 4
    weight = np.array([0.5, 2.0, 1.0, 0.25, 3.0]) if weighted else None
    compare("NLLLoss", log_p, target, weight=weight, ignore_index=ignored, reduction=reduction)


def test_nll_of_log_softmax_is_the_cross_entropy():
    rng = np.random.default_rng(0)
    logits, target = rng.standard_normal((7, 4)), rng.integers(0, 4, 7)
    nll = minirnn.NLLLoss()(minirnn.log_softmax(logits), target)
    close(nll, minirnn.CrossEntropyLoss()(logits, target), 1e-14)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_smoothing_hears_a_row_whose_own_class_weighs_nothing(reduction):
    rng, weight = np.random.default_rng(0), np.array([1.0, 0.0, 2.0])
    logits, target = rng.standard_normal((4, 3)), np.array([0, 1, 2, 1])
    options = {"weight": weight, "label_smoothing": 0.3, "reduction": reduction}
    compare("CrossEntropyLoss", logits, target, **options)


@pytest.mark.parametrize("name", ["NLLLoss", "CrossEntropyLoss"])
def test_of_one_class_rows_may_be_ignored_too(name):
    criterion = getattr(minirnn, name)(ignore_index=7)
    assert criterion(np.zeros((2, 1)), np.array([0, 7])) == 0


@pytest.mark.parametrize("name", ["NLLLoss", "CrossEntropyLoss"])
def test_the_mean_of_rows_that_all_weigh_nothing_is_nan_without_a_gradient(name):
    criterion = getattr(minirnn, name)(np.array([1.0, 0.0]))
    loss, ctx = criterion.forward(np.full((2, 2), -0.7), np.array([1, 1]))
    assert np.isnan(loss)
    assert not criterion.backward(ctx).any()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_what_counts_for_nothing_has_no_influence(reduction):
    """Ignored rows and classes of weight zero may hold anything, also as torch would not have it."""
    weight = np.array([1.0, 0.0, 2.0])
    criterion = minirnn.NLLLoss(weight, reduction=reduction)
    log_p, target = np.full((4, 3), -1.5), np.array([0, 1, -100, 2])
    spoiled = log_p.copy()
    spoiled[1, 1], spoiled[2] = -np.inf, np.nan
    for x in (log_p, spoiled):
        loss, ctx = criterion.forward(x, target)
        d = criterion.backward(ctx, np.ones(4) if reduction == "none" else 1.0)
        assert np.isfinite(loss).all()
        np.testing.assert_array_equal(d[1:3], 0)
    with pytest.warns(RuntimeWarning, match="ignored"):
        loss, ctx = minirnn.NLLLoss().forward(log_p, np.full(4, -100))
    assert np.isnan(loss)
    np.testing.assert_array_equal(minirnn.NLLLoss.backward(ctx.layer, ctx), 0)


@pytest.mark.parametrize(
    ("input", "target", "error", "message"),
    [
        (np.zeros((2, 3)), np.array([0, 3]), IndexError, "class"),
        (np.zeros((2, 3)), np.zeros((2, 3)), TypeError, "target"),
        (np.zeros((2, 4, 3)), np.zeros((2, 4), int), ValueError, "axis 1"),
        (np.zeros((2, 3), int), np.array([0, 1]), TypeError, "input"),
    ],
)
def test_nll_refuses(input, target, error, message):
    with pytest.raises(error, match=message):
        minirnn.NLLLoss().forward(input, target)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weight", [None, (3, 4), (4,), (3, 1)])
@pytest.mark.parametrize("soft", [False, True])
def test_bce(reduction, weight, soft):
    rng = np.random.default_rng(0)
    p = rng.random((3, 4))
    # Where a logarithm is cut off at -100, on the right and on the wrong side, and just inside.
    p.flat[:6] = 0, 0, 1, 1, 1e-60, 1 - 1e-15
    target = rng.random((3, 4)) if soft else rng.integers(0, 2, (3, 4)).astype(float)
    target.flat[:6] = 0, 1, 0, 1, 1, 0
    weight = None if weight is None else rng.random(weight)
    compare("BCELoss", p, target, weight=weight, reduction=reduction)


def test_bce_refuses_what_is_no_probability():
    target = np.array([0.0, 1.0, 1.0])
    for bad in (-1e-9, 1.5, np.nan):
        with pytest.raises(ValueError, match="BCEWithLogitsLoss"):
            minirnn.BCELoss().forward(np.array([0.5, bad, 0.5]), target)
        # What has no weight has no influence.
        criterion = minirnn.BCELoss(np.array([1.0, 0.0, 1.0]), "none")
        loss, ctx = criterion.forward(np.array([0.5, bad, 0.5]), target)
        close(loss, [np.log(2), 0, np.log(2)])
        close(criterion.backward(ctx, np.ones(3)), [2, 0, -2])
    with pytest.raises(ValueError, match="weight"):
        minirnn.BCELoss(np.ones(2)).forward(np.full(3, 0.5), target)


@pytest.mark.parametrize("name", ["NLLLoss", "BCELoss", "CrossEntropyLoss", "BCEWithLogitsLoss"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_result_is_of_the_inputs_dtype_and_its_context_its_own(name, dtype):
    hard = name in ("NLLLoss", "CrossEntropyLoss")
    criterion = getattr(minirnn, name)(**{"ignore_index": 7} if hard else {})
    x = np.full((2, 3), 0.25, dtype)
    target = np.array([0, 2]) if hard else np.eye(3, dtype=dtype)[:2]
    loss, ctx = criterion.forward(x, target)
    expected = criterion.backward(ctx)
    assert loss.dtype == expected.dtype == dtype
    x[:], target[:] = 0.5, 1
    np.testing.assert_array_equal(criterion.backward(ctx), expected)


WEIGHTED = [
    ("CrossEntropyLoss", ("weight",)),
    ("NLLLoss", ("weight",)),
    ("BCELoss", ("weight",)),
    ("BCEWithLogitsLoss", ("weight", "pos_weight")),
]


@pytest.mark.parametrize(("name", "keys"), WEIGHTED)
def test_the_weights_of_a_loss_are_part_of_the_state_both_ways(name, keys, tmp_path):
    torch = pytest.importorskip("torch")
    values = {k: np.arange(1.0, 4.0) + n for n, k in enumerate(keys)}

    def made(values):
        return getattr(minirnn, name)(**values)

    theirs = getattr(torch.nn, name)(**{k: torch.tensor(v) for k, v in values.items()})
    ours = made({k: np.ones(3) for k in keys})
    ours.load_state_dict(theirs.state_dict())
    for key, value in values.items():
        np.testing.assert_array_equal(getattr(ours, key), value)
    assert ours.state_dict().keys() == theirs.state_dict().keys() == set(keys)
    theirs.load_state_dict({k: torch.tensor(v + 1) for k, v in ours.state_dict().items()})

    # In a model, through a file, and between dtypes.
    model = minirnn.Sequential(minirnn.Linear(2, 3, rng=0), made(values)).to("float32")
    assert model.state_dict()[f"1.{keys[0]}"].dtype == np.float32
    assert len(list(model.parameters())) == 2
    minirnn.save_weights(model, tmp_path / "w.npz")
    other = minirnn.Sequential(minirnn.Linear(2, 3), made({k: np.zeros(3) for k in keys}))
    minirnn.load_weights(other, tmp_path / "w.npz")
    for key, value in other.state_dict().items():
        close(value, model.state_dict()[key])
    before = {k: v.copy() for k, v in other.state_dict().items()}
    with pytest.raises(ValueError, match=rf"1.{keys[0]}: expected shape"):
        other.load_state_dict({**before, "0.weight": np.ones((3, 2)), f"1.{keys[0]}": np.ones(2)})
    for key, value in before.items():
        np.testing.assert_array_equal(other.state_dict()[key], value)


def test_a_state_is_a_copy():
    weight = np.ones(3)
    criterion = minirnn.NLLLoss(weight)
    state = criterion.state_dict()
    state["weight"][:] = 7
    assert (criterion.weight == 1).all()
    criterion.load_state_dict(state)
    state["weight"][:] = 9
    assert (criterion.weight == 7).all()
    assert (weight == 1).all()
    assert minirnn.NLLLoss().state_dict() == {}
    with pytest.raises(ValueError, match="unexpected: weight"):
        minirnn.NLLLoss().load_state_dict(state)
