"""Modules: what they own, under which names, and how they show themselves."""

import copy
import pickle

import numpy as np
import pytest
from helpers import close
from makers import NAMES, Holder, Model, linear

import minirnn


def test_parameters_are_found_once_and_know_their_names():
    model = Model()
    assert [name for name, _ in model.named_parameters()] == NAMES
    assert len(list(model.parameters())) == len(NAMES)
    assert model.rnn.weight_hh_l0.name == "rnn.weight_hh_l0"
    assert model.layers[1].bias.name == "layers.1.bias"
    assert "Linear(4, 4)" in repr(model)


def test_repr_shows_the_arguments_that_differ_from_their_defaults():
    rnn = minirnn.RNN(3, 4, 2, nonlinearity="relu", bidirectional=True, checkpoint=True)
    assert repr(rnn) == (
        "RNN(3, 4, num_layers=2, nonlinearity='relu', bidirectional=True, checkpoint=True)"
    )
    assert repr(minirnn.LSTM(3, 4, proj_size=2)) == "LSTM(3, 4, proj_size=2)"
    assert repr(minirnn.GRUCell(3, 4, bias=False)) == "GRUCell(3, 4, bias=False)"
    assert repr(minirnn.RNNCell(3, 4)) == "RNNCell(3, 4)"
    assert repr(minirnn.Embedding(3, 4, padding_idx=-1)) == "Embedding(3, 4, padding_idx=2)"
    assert repr(minirnn.Linear(3, 4, bias=False)) == "Linear(3, 4, bias=False)"
    assert repr(minirnn.Dropout(0.25, rng=0)) == "Dropout(p=0.25)"
    assert repr(minirnn.LayerNorm(3, elementwise_affine=False, bias=False)) == (
        "LayerNorm((3,), elementwise_affine=False, bias=False)"
    )
    loss = minirnn.CrossEntropyLoss(np.ones(3), reduction="sum", label_smoothing=0.5)
    assert repr(loss) == "CrossEntropyLoss(reduction='sum', label_smoothing=0.5)"


def test_repr_of_a_layer_of_the_users_is_made_from_its_constructor():
    class Same(minirnn.GRU):
        pass

    class Square(minirnn.GRU):
        def __init__(self, size, shift=0.0, **options):
            super().__init__(size, size, **options)
            self.size, self.shift = size, shift

    assert repr(Same(3, 4, checkpoint=True)) == "Same(3, 4, checkpoint=True)"
    assert repr(Square(3, 0.5, bidirectional=True)) == "Square(3, shift=0.5, bidirectional=True)"


def test_parameters_of_a_layer_that_came_into_its_list_later_have_full_names():
    model = Model()
    model.layers.append(minirnn.Linear(4, 3))
    model.layers[-1].bias.grad[1] = np.nan
    with pytest.raises(FloatingPointError, match=f"in layers.{len(model.layers) - 1}.bias"):
        minirnn.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
    list(model.rnn.parameters())
    assert model.rnn.weight_hh_l0.name == "rnn.weight_hh_l0"


def test_a_shared_layer_adds_up_its_gradients():
    rng = np.random.default_rng(0)
    model = Model()
    tokens = rng.integers(0, 5, (6, 2))
    output, ctx = model.forward(tokens)
    d = rng.standard_normal(output.shape)
    model.backward(ctx, d)
    from helpers import check_gradients

    pairs = [(p.data, p.grad) for p in model.parameters()]
    check_gradients(lambda: np.vdot(model(tokens), d), pairs, rng)
    before = [p.grad.copy() for p in model.parameters()]
    _, ctx = model.forward(tokens)
    model.backward(ctx, d)
    for p, g in zip(model.parameters(), before, strict=True):
        close(p.grad, 2 * g)
    model.zero_grad()
    assert not any(p.grad.any() for p in model.parameters())


def test_train_and_eval_reach_every_module():
    model = minirnn.Sequential(minirnn.Dropout(0.5), minirnn.Sequential(minirnn.Dropout(0.5)))
    model.eval()
    assert not model[1][0].training
    model.train()
    assert model[1][0].training
    assert len(model) == 2


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (lambda p: {"a": p}, "held.a"),
        (lambda p: {3: {"b": p}}, "held.3.b"),
        (lambda p: [[p]], "held.0.0"),
        (lambda p: ((), [{"c": (p,)}]), "held.1.0.c.0"),
    ],
)
def test_modules_and_parameters_are_found_however_deep(value, name):
    layer = linear()
    model = Holder(value(layer))
    assert [n for n, _ in model.named_parameters()] == [f"{name}.weight"]
    assert layer.weight.name == f"{name}.weight"
    assert model.state_dict().keys() == {f"{name}.weight"}
    assert model.eval() is model
    assert not layer.training
    parameter = minirnn.Parameter(np.ones(2))
    model = Holder(value(parameter))
    assert list(model.named_parameters()) == [(name, parameter)]
    assert parameter.name == name


@pytest.mark.parametrize("container", [lambda m: {m}, lambda m: frozenset([m])])
@pytest.mark.parametrize("inner", [linear, lambda: minirnn.Parameter(np.ones(2))])
def test_where_nothing_finds_them_modules_are_refused(container, inner):
    with pytest.raises(TypeError, match="held: expected modules and parameters as attributes"):
        Holder(container(inner()))


def test_a_name_that_ends_another_is_not_taken_for_it():
    model = Holder([linear() for _ in range(11)])
    model.held[10].weight.name = "held.0.weight"
    model.held.reverse()
    assert [n for n, _ in model.named_parameters()] == [p.name for p in model.parameters()]
    layer = linear()
    layer.weight.name = "10.weight"
    model = minirnn.Sequential(layer)
    assert [p.name for p in model.parameters()] == ["0.weight"]


def test_a_child_may_hold_its_parent():
    parent = Holder([linear()])
    parent.held[0].parent = parent
    assert [n for n, _ in parent.named_parameters()] == ["held.0.weight"]
    assert parent.held[0].weight.name == "held.0.weight"
    assert list(parent.state_dict()) == ["held.0.weight"]
    assert len(list(parent.train(False).modules())) == 2
    assert parent.to("float64").held[0].weight.dtype == np.float64
    assert "Linear(...)" in repr(parent)
    parent.zero_grad()


@pytest.mark.parametrize("kind", [minirnn.LSTM, minirnn.GRU, minirnn.RNN])
def test_sizes_of_few_bits_do_not_overflow(kind):
    small, plain = kind(np.int8(4), np.int8(64), np.int8(2), rng=0), kind(4, 64, 2, rng=0)
    for (name, p), (_, q) in zip(small.named_parameters(), plain.named_parameters(), strict=True):
        np.testing.assert_array_equal(p.data, q.data, err_msg=name)
    assert minirnn.GRUCell(np.int8(4), np.int8(64)).weight_ih.shape == (192, 4)
    assert repr(small) == repr(plain)


@pytest.mark.parametrize("value", ["False", 1, 0.0, None])
def test_a_switch_is_true_or_false(value):
    for kind in (minirnn.RNN, minirnn.LSTM, minirnn.GRU):
        for name in ("bias", "batch_first", "bidirectional", "checkpoint"):
            with pytest.raises(TypeError, match=f"{name}: expected True or False"):
                kind(3, 4, **{name: value})
    for kind in (minirnn.RNNCell, minirnn.LSTMCell, minirnn.GRUCell, minirnn.Linear):
        with pytest.raises(TypeError, match="bias: expected True or False"):
            kind(3, 4, bias=value)


@pytest.mark.parametrize("layer", [minirnn.RNN(3, 4), minirnn.LSTM(3, 4), minirnn.GRU(3, 4)])
def test_a_recurrence_keeps_its_weights(layer):
    with pytest.raises(TypeError, match=r"bias_ih_l0: expected a Parameter, got None.*bias=False"):
        layer.bias_ih_l0 = None
    assert layer(np.ones((2, 1, 3), np.float32))[0].shape == (2, 1, 4)


DTYPES = [np.float16, np.longdouble, ">f4", "i4", complex, "float33", None, 3, np.ones(2)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dtype_is_float32_or_float64(dtype):
    """By its name and what came, in every constructor; None is float64 to NumPy and float32 to torch."""
    refused = pytest.raises(
        TypeError, match="dtype: expected a floating-point one, float32 or float64"
    )
    for kind in (minirnn.RNN, minirnn.LSTM, minirnn.GRU, minirnn.GRUCell, minirnn.Linear):
        with refused:
            kind(3, 4, dtype=dtype)
    with refused:
        minirnn.Embedding(3, 4, dtype=dtype)
    with refused:
        minirnn.LayerNorm(3, dtype=dtype)
    layer = minirnn.Linear(2, 2)
    with pytest.raises(TypeError, match="to: expected 'numpy', 'cupy' or a floating-point dtype"):
        layer.to(dtype)
    assert layer.weight.dtype == np.float32


@pytest.mark.parametrize("seed", [-1, 1.5, True, "1", 1j])
def test_a_seed_is_an_integer(seed):
    with pytest.raises((ValueError, TypeError), match=r"rng: expected .*a seed"):
        minirnn.RNN(2, 3, rng=seed)
    with pytest.raises((ValueError, TypeError), match=r"seed: expected a seed"):
        minirnn.manual_seed(seed)
    with pytest.raises(TypeError, match=r"seed: expected a seed"):
        minirnn.manual_seed(None)


def test_an_embedding_of_small_integers():
    table = minirnn.Embedding(np.int8(100), np.int8(2), padding_idx=np.int8(-100))
    assert (table.num_embeddings, table.padding_idx) == (100, 0)
    assert table(np.array([99])).shape == (1, 2)
    for padding_idx in (True, 0.5, "1", 100, -101):
        with pytest.raises(ValueError, match="padding_idx: expected a token of 100"):
            minirnn.Embedding(100, 2, padding_idx)


@pytest.mark.parametrize("size", [2**70, 10**400, 10**5000], ids=["70", "400", "5000"])
def test_a_size_beyond_all_memory(size):
    with pytest.raises(ValueError, match=r"_size: expected at most .*, got"):
        minirnn.RNN(size, 3)
    with pytest.raises(ValueError, match=r"embeddings: expected at most .*, got"):
        minirnn.Embedding(size, 3)


def test_children_modules_and_apply_are_those_of_torch():
    torch = pytest.importorskip("torch")

    def build(nn):
        shared = nn.Linear(2, 2)
        inner = nn.Sequential(shared, nn.Tanh(), shared)
        return nn.Sequential(inner, nn.Linear(2, 3), shared)

    ours, theirs = build(minirnn), build(torch.nn)
    ours.add, theirs.add = minirnn.GRU(3, 4), torch.nn.GRU(3, 4)

    def kinds(modules):
        return [type(module).__name__ for module in modules]

    assert kinds(ours.children()) == kinds(theirs.children())
    assert kinds(ours.modules()) == kinds(theirs.modules())
    for named in ("named_children", "named_modules"):
        pairs, expected = list(getattr(ours, named)()), list(getattr(theirs, named)())
        assert [name for name, _ in pairs] == [name for name, _ in expected]
        assert kinds(module for _, module in pairs) == kinds(module for _, module in expected)
    order, reference = [], []
    assert ours.apply(order.append) is ours
    theirs.apply(reference.append)
    once = list(dict.fromkeys(reference))  # torch calls it again for what is shared
    assert kinds(order) == kinds(once)


def test_children_in_lists_and_dicts_have_the_names_of_their_parameters():
    model = Holder({"a": [linear()], "b": linear()})
    names = [name for name, _ in model.named_modules()]
    assert names == ["", "held.a.0", "held.b"]
    assert [f"{n}.weight" for n in names[1:]] == [
        n for n, _ in model.named_parameters() if n.endswith("weight")
    ]


def test_apply_ends_where_a_child_holds_its_parent():
    parent = Holder(linear())
    parent.held.parent = parent
    seen = []
    parent.apply(seen.append)
    assert seen == [parent.held, parent]


def test_parameters_are_found_anew_after_every_change():
    class Model(minirnn.Module):
        def __init__(self):
            self.first, self.rest = minirnn.Linear(2, 2), (minirnn.Linear(2, 1),)

    model = Model()

    def names():
        return [name for name, _ in model.named_parameters()]

    assert names() == names() == ["first.weight", "first.bias", "rest.0.weight", "rest.0.bias"]
    model.first.bias = None
    assert names() == ["first.weight", "rest.0.weight", "rest.0.bias"]
    model.scale = minirnn.Parameter(np.ones(1))
    assert names() == ["scale", "first.weight", "rest.0.weight", "rest.0.bias"]
    del model.scale
    model.first = minirnn.Linear(2, 2, bias=False)
    assert next(model.parameters()) is model.first.weight
    model.rest = []
    assert names() == ["first.weight"]
    model.rest.append(minirnn.Linear(1, 1))
    assert names() == ["first.weight", "rest.0.weight", "rest.0.bias"]
    model.rest[0] = minirnn.Linear(1, 1, bias=False)
    assert names() == ["first.weight", "rest.0.weight"]
    model.rest = (({"a": []},),)
    assert names() == ["first.weight"]
    model.rest[0][0]["a"].append(minirnn.Parameter(np.ones(1)))
    assert names() == ["rest.0.0.a.0", "first.weight"]


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_finds_its_own_parameters(how):
    model = minirnn.Sequential(minirnn.Linear(2, 1), minirnn.Linear(1, 1))
    before = list(model.parameters())
    other = how(model)
    setattr(other, "0", minirnn.Linear(2, 1))
    assert next(other.parameters()) is getattr(other, "0").weight
    assert list(model.parameters()) == before
    if how is not copy.copy:
        assert list(how(model).parameters())[3] is not before[3]
