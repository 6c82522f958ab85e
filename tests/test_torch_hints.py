"""What people type who come from torch, and minirnn has not: the error says why, and what to write."""

import copy
import operator
import pickle
import re
from inspect import ismodule
from typing import Generic, TypeVar

import numpy as np
import pytest

import minirnn


def params():
    return [minirnn.Parameter(np.ones(2))]


OPTIONS = [
    (lambda: minirnn.LSTM(3, 4, device="cuda"), "device: LSTM", "set_backend"),
    (lambda: minirnn.GRUCell(3, 4, device="cuda"), "device: GRUCell", "set_backend"),
    (lambda: minirnn.Linear(3, 4, device="cpu", dtype="float64"), "device: Linear", "numpy"),
    (lambda: minirnn.Embedding(3, 4, max_norm=1.0), "max_norm: Embedding", "weight.data"),
    (lambda: minirnn.Embedding(3, 4, sparse=True), "sparse: Embedding", "dense"),
    (lambda: minirnn.Embedding(3, 4, scale_grad_by_freq=True), "scale_grad_by_freq", "sum"),
    (lambda: minirnn.ReLU(inplace=True), "inplace: ReLU", "new arrays"),
    (lambda: minirnn.Dropout(0.5, inplace=True), "inplace: Dropout", "new arrays"),
    (lambda: minirnn.LayerNorm(3, device="cuda"), "device: LayerNorm", "set_backend"),
    (lambda: minirnn.CrossEntropyLoss(reduce=False), "reduce: CrossEntropyLoss", "reduction="),
    (lambda: minirnn.MSELoss(size_average=False), "size_average: MSELoss", "reduction="),
    (lambda: minirnn.NLLLoss(reduce=True), "reduce: NLLLoss", "reduction="),
    (lambda: minirnn.SGD(params(), foreach=True), "foreach: SGD", "all parameters"),
    (lambda: minirnn.Adam(params(), fused=True), "fused: Adam", "all parameters"),
    (lambda: minirnn.Adam(params(), decoupled_weight_decay=True), "decoupled", "AdamW"),
    (lambda: minirnn.RMSprop(params(), differentiable=True), "differentiable", "autograd"),
    (lambda: minirnn.StepLR(minirnn.SGD(params()), 2, verbose=True), "verbose: StepLR", "print"),
    (lambda: minirnn.GRU(2, 2).to(device="cuda"), r"device: \.to", r'\.to\("cupy"\)'),
    (lambda: minirnn.GRU(2, 2).to(dtype=np.float64), r"dtype: \.to", "float64"),
]


@pytest.mark.parametrize(("call", "what", "why"), OPTIONS)
def test_options_of_torch_are_refused_with_a_reason(call, what, why):
    with pytest.raises(TypeError, match=rf"{what}.* has no such option: .*{why}"):
        call()


def test_an_option_of_nobodys_is_refused_by_its_name():
    with pytest.raises(TypeError, match=r"^colour: \.to has no such option$"):
        minirnn.GRU(2, 2).to(colour=1)


H = np.zeros((1, 3, 4), np.float32)
X_T = np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
    "call",
    [
        lambda lstm, cell: lstm(X_T[None], H, H),
        lambda lstm, cell: lstm.forward(X_T[None], H, H),
        lambda lstm, cell: lstm.step(X_T, H, H),
        lambda lstm, cell: cell(X_T, H[0], H[0]),
    ],
)
def test_the_state_of_an_lstm_is_one_argument(call):
    with pytest.raises(TypeError, match=r"^LSTM(Cell)?: .* got 3 arguments; .* the pair \(h, c\)$"):
        call(minirnn.LSTM(2, 4), minirnn.LSTMCell(2, 4))


def test_a_state_of_one_array_has_no_pair():
    with pytest.raises(TypeError, match=r"^GRU: expected the input and a state, got 4 arguments$"):
        minirnn.GRU(2, 4)(X_T[None], H, H, H)


def test_a_module_of_ones_own_may_have_any_option():
    class Own(minirnn.Module):
        def __init__(self, device=None, *, sparse=False, **others):
            self.got = device, sparse, others

    assert Own("cuda", sparse=True, reduce=3).got == ("cuda", True, {"reduce": 3})

    class Plain(minirnn.LSTM):
        pass

    with pytest.raises(TypeError, match="device: Plain"):
        Plain(3, 4, device="cuda")
    with pytest.raises(TypeError, match="hiden_size"):  # any other one is Python's own error
        minirnn.LSTM(3, 4, hiden_size=4)


ATTRIBUTES = [
    (lambda: minirnn.nn, "minirnn.LSTM"),
    (lambda: minirnn.no_grad(), "saves nothing"),
    (lambda: minirnn.save({}, "x"), "save_weights"),
    (lambda: minirnn.ModuleList([]), "list of modules"),
    (lambda: minirnn.Linear(2, 2).cuda(), "cupy"),
    (lambda: minirnn.Sequential(minirnn.Linear(2, 2)).double(), "float64"),
    (lambda: minirnn.GRU(2, 2).requires_grad_(False), "requires_grad = False"),
    (lambda: minirnn.Module().register_buffer("x", np.ones(2)), "attribute"),
    (lambda: minirnn.SGD(params()).state, "torch_state_dict"),
    (lambda: minirnn.StepLR(minirnn.SGD(params()), 2).get_lr(), "get_last_lr"),
    (lambda: minirnn.Tensor([1.0]), "NumPy's arrays"),
    (lambda: minirnn.randn(2, 3), "default_rng"),
    (lambda: minirnn.cat([]), "concatenate"),
    (lambda: minirnn.relu(np.ones(2)), r"minirnn\.ReLU\(\)"),
    (lambda: minirnn.cross_entropy(1, 2), r"CrossEntropyLoss\(\)\.forward"),
    (lambda: minirnn.functional.softmax(np.ones(2)), r"minirnn\.softmax\(x, axis\)"),
    (lambda: minirnn.functional.tanh(np.ones(2)), r"minirnn\.Tanh\(\)"),
    (lambda: minirnn.clip_grad_norm(params(), 1.0), "clip_grad_norm_"),
    (lambda: minirnn.onnx.export, "to_onnx"),
    (lambda: minirnn.autograd.grad, "layer.backward"),
    (lambda: minirnn.seed(0), "manual_seed"),
    (lambda: minirnn.GRU(2, 2).all_weights, "named_parameters"),
    (lambda: minirnn.GRU(2, 2).reset_parameters(), r"minirnn\.init"),
    (lambda: minirnn.Sequential().append(minirnn.Tanh()), r"Sequential\(\*model, another\)"),
    (lambda: params()[0].norm(), r"linalg\.norm"),
    (lambda: params()[0].normal_(), r"minirnn\.init\.normal_"),
    (lambda: params()[0].nothing, r"\.data and \.grad"),
    (lambda: params()[0].numel(), ".size"),
    (lambda: params()[0].detach(), ".data"),
    (lambda: params()[0].mean(), r"\.data\.mean or \.grad\.mean"),
    (lambda: params()[0].fill_(0), r"\.data\.fill"),
]


@pytest.mark.parametrize(("call", "hint"), ATTRIBUTES)
def test_attributes_of_torch_say_what_to_write(call, hint):
    with pytest.raises(AttributeError, match=rf"has no attribute .*[:;] .*{hint}"):
        call()


def test_what_is_to_be_written_is_there_and_what_is_there_has_no_hint():
    hints = minirnn.torch_hints
    owners = [
        (hints.LIBRARY, minirnn),
        (hints.FUNCTIONAL, minirnn.functional),
        (hints.MODULE, minirnn.GRU(2, 2)),
        (hints.SEQUENTIAL, minirnn.Sequential()),
        (hints.OPTIMIZER, minirnn.SGD(params())),
        (hints.SCHEDULE, minirnn.StepLR(minirnn.SGD(params()), 2)),
        (hints._TENSOR, params()[0]),
    ]
    named = set()
    for names, owner in owners:
        for name, hint in names.items():
            # A subpackage, such as cuda, is there once somebody has imported it.
            there = getattr(owner, name, None)
            assert there is None or ismodule(there), name
            named |= set(re.findall(r"\bminirnn((?:\.\w+)+)", hint))
    assert {".to_onnx", ".data.batches", ".init.uniform_", ".LSTM"} <= named
    for path in named:
        operator.attrgetter(path[1:])(minirnn)


def test_a_layer_of_a_sequential_may_have_the_name_of_what_it_has_not():
    head = minirnn.Linear(2, 2)
    assert minirnn.Sequential({"append": head}).append is head


def test_a_class_has_none_of_them_and_an_heir_may_have_its_own():
    with pytest.raises(
        AttributeError, match=r"type object 'Linear' has no attribute 'cuda': .*cupy"
    ):
        minirnn.Linear.cuda  # noqa: B018

    class Own(minirnn.Linear, Generic[TypeVar("T")]):
        def __init__(self):
            super().__init__(2, 2)
            self.buffers = [1]

        def cuda(self):
            return "here"

    assert Own[int]().cuda() == "here"
    assert Own().buffers == [1]
    assert {"cuda", "buffers", "weight", "forward"} <= set(dir(Own()))
    assert not {"cuda", "buffers"} & set(dir(minirnn.Linear(2, 2)))


def test_what_comes_after_a_class_may_have_what_it_has_not():
    class Mixin:
        cuda = "a class's"

        @property
        def cpu(self):
            return self.buffers

        def __init__(self):
            super().__init__()
            self.buffers = "an instance's"

    class Both(minirnn.Module, Mixin):
        pass

    class Again(Both):
        pass

    for kind in (Both, Again):
        model = kind()
        assert (model.cuda, kind.cuda, model.cpu) == ("a class's", "a class's", "an instance's")
        assert {"cuda", "cpu"} <= set(dir(model))
        assert "float" not in dir(model)
        with pytest.raises(
            AttributeError, match=r'has no attribute .float.: write .to\("float32"\)'
        ):
            model.float  # noqa: B018


def test_other_attributes_are_plainly_not_there():
    layer = minirnn.Linear(2, 2)
    with pytest.raises(AttributeError, match=r"'minirnn' has no attribute 'nothing'$"):
        minirnn.nothing  # noqa: B018
    for made in (layer, minirnn.SGD(layer.parameters()), layer.weight):
        with pytest.raises(AttributeError, match=r"has no attribute '_nothing'$"):
            made._nothing  # noqa: B018
        assert not hasattr(made, "_nothing")
        assert type(copy.deepcopy(made)) is type(pickle.loads(pickle.dumps(made))) is type(made)


def test_a_parameter_is_not_written_to_by_index():
    p = params()[0]
    for call in (lambda: p[0], lambda: p.__setitem__(0, 1.0)):
        with pytest.raises(TypeError, match=r"write \.data"):
            call()
    assert (p.data == 1).all()


def test_what_is_no_array_is_asked_for_as_one():
    torch = pytest.importorskip("torch")
    rnn, x = minirnn.RNN(2, 3, rng=0), np.ones((4, 1, 2), np.float32)
    for other in (torch.tensor(x), x.tolist()):
        with pytest.raises(TypeError, match=r"input: .*pass numpy\.asarray of it"):
            rnn.forward(other)
    np.testing.assert_array_equal(rnn(np.asarray(torch.tensor(x)))[0], rnn(x)[0])


def test_a_parameter_may_be_made_frozen():
    p = minirnn.Parameter(np.ones(2), requires_grad=False)
    p.grad[:] = 1
    minirnn.SGD([p], lr=1.0).step()
    assert (p.data == 1).all()
    with pytest.raises(TypeError, match="requires_grad"):
        minirnn.Parameter(np.ones(2), "no")
