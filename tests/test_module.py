"""Parameters, modules, state dicts, the buffer, inference, and what an import loads."""

import copy
import pickle
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
from helpers import close

import minirnn
from minirnn import backend


class Model(minirnn.Module):
    """A model of a user's own, with a list of layers and a shared one."""

    def __init__(self):
        self.embedding = minirnn.Embedding(5, 4, dtype=np.float64)
        self.layers = [minirnn.Linear(4, 4, dtype=np.float64) for _ in range(2)]
        self.shared = self.layers[0]
        self.rnn = minirnn.RNN(4, 3, dtype=np.float64)

    def forward(self, tokens):
        x, ctx_0 = self.embedding.forward(tokens)
        x, ctx_1 = self.layers[0].forward(x)
        x, ctx_2 = self.layers[1].forward(x)
        x, ctx_3 = self.shared.forward(x)
        (output, _), ctx_4 = self.rnn.forward(x)
        self.contexts = (ctx_0, ctx_1, ctx_2, ctx_3, ctx_4)
        return output, self.contexts

    def backward(self, ctx, doutput):
        ctx_0, ctx_1, ctx_2, ctx_3, ctx_4 = ctx
        dx, _ = self.rnn.backward(ctx_4, doutput)
        dx = self.shared.backward(ctx_3, dx)
        dx = self.layers[1].backward(ctx_2, dx)
        dx = self.layers[0].backward(ctx_1, dx)
        self.embedding.backward(ctx_0, dx)


NAMES = [
    "embedding.weight",
    "layers.0.weight",
    "layers.0.bias",
    "layers.1.weight",
    "layers.1.bias",
    "rnn.weight_ih_l0",
    "rnn.weight_hh_l0",
    "rnn.bias_ih_l0",
    "rnn.bias_hh_l0",
]


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


@pytest.mark.parametrize("what", ["data", "grad"])
def test_what_is_assigned_to_a_parameter_is_floating_point_and_of_its_shape(what):
    p = minirnn.Linear(3, 2, rng=0).weight
    before = getattr(p, what).copy()
    bad = (np.arange(6).reshape(2, 3), np.full((2, 3), "7"), np.ones((2, 3), complex))
    for value in bad:
        with pytest.raises(TypeError, match=rf"weight\.{what}: expected a floating-point array"):
            setattr(p, what, value)
    with pytest.raises(ValueError, match=rf"weight\.{what}: expected shape \(2, 3\), got \(3, 2\)"):
        setattr(p, what, np.ones((3, 2)))
    assert (getattr(p, what) == before).all()
    setattr(p, what, [[1, 2, 3], [4, 5, 6]])
    assert (getattr(p, what) == np.arange(1, 7).reshape(2, 3)).all()
    setattr(p, what, np.full((2, 3), 0.5))
    assert p.data.dtype == p.grad.dtype == np.float32
    assert (getattr(p, what) == 0.5).all()


def test_a_parameter_may_be_a_single_number():
    class Scale(minirnn.Module):
        def __init__(self):
            self.scale = minirnn.Parameter(np.array(2.0))

    model = Scale()
    assert model.scale.shape == model.scale.grad.shape == ()
    model.load_state_dict({"scale": np.array(3.0)})
    model.scale.grad += 1.5
    minirnn.SGD(model.parameters(), lr=1.0).step()
    assert model.scale.data == 1.5


@pytest.mark.parametrize("target", ["cuda", "int64", 3, None])
def test_to_says_what_it_takes(target):
    layer = minirnn.Linear(3, 2)
    with pytest.raises(TypeError, match="to: expected 'numpy', 'cupy' or a floating-point dtype"):
        layer.to(target)
    assert layer.weight.dtype == np.float32


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


def test_contexts_are_independent_and_survive_later_calls():
    rng = np.random.default_rng(0)
    for layer in (minirnn.RNN(3, 4), minirnn.LSTM(3, 4), minirnn.GRU(3, 4)):
        xs = [rng.standard_normal((40, 2, 3)).astype(np.float32) for _ in range(2)]
        alone = []
        for x in xs:
            layer.zero_grad()
            (y, _), ctx = layer.forward(x)
            dx, _ = layer.backward(ctx, y)
            alone.append((y.copy(), dx, layer.weight_hh_l0.grad.copy()))
        calls = [layer.forward(x) for x in xs]
        for k in (0, 1):  # in the order of the calls, not its reverse
            layer.zero_grad()
            (y, _), ctx = calls[k]
            np.testing.assert_array_equal(y, alone[k][0])
            dx, _ = layer.backward(ctx, y)
            np.testing.assert_array_equal(dx, alone[k][1])
            np.testing.assert_array_equal(layer.weight_hh_l0.grad, alone[k][2])
            again, _ = layer.backward(ctx, y)  # and a second time
            np.testing.assert_array_equal(again, dx)


def test_inference_saves_nothing_in_a_users_module_either():
    model = Model()
    tokens = np.zeros((3, 2), np.int64)
    model(tokens)
    assert all(ctx.saved is None for ctx in model.contexts)
    with pytest.raises(ValueError, match=r"made inside model\(x\)"):
        model.backward(model.contexts, np.zeros((3, 2, 3)))
    model.forward(tokens)
    assert all(ctx.saved is not None for ctx in model.contexts)


def test_inference_ends_with_an_error_and_is_of_one_thread():
    class Failing(minirnn.Module):
        def __init__(self):
            self.inner = minirnn.Linear(2, 2)

        def forward(self, x):
            thread = threading.Thread(target=lambda: seen.append(self.inner.forward(x)[1].saved))
            thread.start()
            thread.join()
            raise RuntimeError

    seen = []
    model = Failing()
    with pytest.raises(RuntimeError):
        model(np.ones((1, 2), np.float32))
    assert seen[0] is not None
    assert model.inner.forward(np.ones((1, 2), np.float32))[1].saved is not None


def test_state_dict_is_a_copy_and_goes_back():
    model, other = Model(), Model()
    state = model.state_dict()
    assert set(state) == {*NAMES, "shared.weight", "shared.bias"}
    state["embedding.weight"][...] = 0
    assert model.embedding.weight.data.any()
    other.load_state_dict(model.state_dict())
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(p.data, q.data)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_torch_reads_our_state_dict(name):
    torch = pytest.importorskip("torch")
    options = {"num_layers": 2, "bidirectional": True}
    ours = getattr(minirnn, name)(3, 4, **options)
    theirs = getattr(torch.nn, name)(3, 4, **options)
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    close(ours(x)[0], theirs(torch.from_numpy(x))[0].detach(), 1e-5)


def test_a_state_dict_that_does_not_fit_changes_nothing():
    model = Model()
    before = model.state_dict()
    state = model.state_dict()
    del state["rnn.bias_ih_l0"]
    state["extra"] = np.zeros(2)
    state["embedding.weight"] = np.zeros((5, 3))
    state["layers.0.bias"] = np.zeros(4, int)
    state["layers.1.bias"] = np.ones(4)
    with pytest.raises(ValueError, match="does not fit Model") as error:
        model.load_state_dict(state)
    text = str(error.value)
    for part in (
        "missing: rnn.bias_ih_l0",
        "unexpected: extra",
        "embedding.weight: expected shape (5, 4), got (5, 3)",
        "layers.0.bias: expected floating point",
    ):
        assert part in text
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_loading_not_strictly():
    layer = minirnn.Linear(2, 2)
    layer.load_state_dict({"weight": np.eye(2), "other": np.ones(1)}, strict=False)
    np.testing.assert_array_equal(layer.weight.data, np.eye(2))
    with pytest.raises(ValueError, match="weight: expected shape"):
        layer.load_state_dict({"weight": np.eye(3)}, strict=False)


def test_the_buffer_holds_values_and_gradients_and_stays():
    model = Model()
    before = model.state_dict()
    model.layers[0].weight.grad[...] = 3
    buffer = model.flatten_parameters()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert model.layers[0].weight.grad.sum() == 3 * 16
    for p in model.parameters():
        assert np.shares_memory(p.data, buffer.data)
        assert np.shares_memory(p.grad, buffer.grad)
    p = model.rnn.weight_hh_l0
    p.data = np.full((3, 3), 7.0)
    p.grad = np.full((3, 3), 8.0)
    p.grad += 1
    assert np.shares_memory(p.data, buffer.data)
    assert (buffer.data == 7).sum() == 9
    assert (buffer.grad == 9).sum() == 9
    model.load_state_dict(before)
    assert np.shares_memory(p.data, buffer.data)
    model.zero_grad()
    assert not buffer.grad.any()
    with pytest.raises(ValueError, match=r"rnn\.weight_hh_l0\.data: expected shape \(3, 3\)"):
        p.data = np.zeros(3)


def test_a_buffer_of_two_dtypes_is_refused():
    model = minirnn.Sequential(minirnn.Linear(2, 2), minirnn.Linear(2, 2, dtype=np.float64))
    with pytest.raises(TypeError, match="one dtype"):
        model.flatten_parameters()
    assert all(p.buffer is None for p in model.parameters())


def test_conversion_keeps_values_gradients_and_the_buffer():
    model = minirnn.Sequential(minirnn.Linear(2, 2), minirnn.Linear(2, 2))
    model.flatten_parameters()
    before = model.state_dict()
    model[0].weight.grad[...] = 2
    model.to("float64")
    for name, value in model.state_dict().items():
        assert value.dtype == np.float64
        np.testing.assert_array_equal(value, before[name])
    assert model[0].weight.grad.sum() == 8
    assert model[0].weight.buffer is model[1].bias.buffer is not None
    with pytest.raises(TypeError, match="floating-point dtype"):
        model.to("int64")


def test_train_and_eval_reach_every_module():
    model = minirnn.Sequential(minirnn.Dropout(0.5), minirnn.Sequential(minirnn.Dropout(0.5)))
    model.eval()
    assert not model[1][0].training
    model.train()
    assert model[1][0].training
    assert len(model) == 2


def test_sequential_with_a_recurrent_layer():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ours = minirnn.Sequential(
        minirnn.LSTM(3, 4, dtype=np.float64), minirnn.Linear(4, 2, dtype=np.float64)
    )
    lstm, head = torch.nn.LSTM(3, 4).double(), torch.nn.Linear(4, 2).double()
    ours[0].load_state_dict(lstm.state_dict())
    ours[1].load_state_dict(head.state_dict())
    x = rng.standard_normal((5, 2, 3))
    their_x = torch.from_numpy(x).requires_grad_(True)
    y, ctx = ours.forward(x)
    expected = head(lstm(their_x)[0])
    close(y, expected.detach())
    d = rng.standard_normal(y.shape)
    expected.backward(torch.from_numpy(d))
    close(ours.backward(ctx, d), their_x.grad)
    close(ours[0].weight_hh_l0.grad, lstm.weight_hh_l0.grad)
    with pytest.raises(ValueError, match="2 contexts"):
        ours.backward(ctx[:1], d)
    with pytest.raises(TypeError, match="layer 1"):
        minirnn.Sequential(minirnn.Linear(1, 1), np.tanh)


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_import_loads_numpy_and_the_standard_library_only():
    code = (
        "import sys, numpy.random; before = set(sys.modules); import minirnn;"
        "new = {m.split('.')[0] for m in set(sys.modules) - before};"
        "print(sorted(new - sys.stdlib_module_names - {'numpy', 'minirnn'}))"
    )
    assert run(code).strip() == "[]"


def test_the_environment_sets_the_backend():
    code = "import os; os.environ['MINIRNN_BACKEND'] = 'jax'; import minirnn"
    with pytest.raises(subprocess.CalledProcessError) as error:
        run(code)
    assert "expected one of ('numpy', 'cupy'), got 'jax'" in error.value.stderr


def test_backends():
    with pytest.raises(ValueError, match="expected one of"):
        minirnn.set_backend("torch")
    try:
        import cupy  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"pip install 'minirnn\[cupy\]'"):
            minirnn.set_backend("cupy")
        with pytest.raises(ImportError, match=r"minirnn\[cupy\]"):
            minirnn.Linear(2, 2).to("cupy")
        with pytest.raises(ImportError, match=r"minirnn\[cupy\]"):
            minirnn.set_tf32(True)
    minirnn.set_backend("numpy")
    assert minirnn.get_array_module(np.ones(2)) is np
    with pytest.raises(TypeError, match=r"got builtins\.list"):
        minirnn.get_array_module([1.0])


def test_arrays_of_two_devices_are_refused(monkeypatch):
    class FakeArray:
        dtype = np.dtype(np.float32)
        shape = (2, 3)
        ndim = 2

        def get(self):
            return np.ones(self.shape, self.dtype)

    fake = types.ModuleType("cupy")
    fake.ndarray = FakeArray
    monkeypatch.setitem(sys.modules, "cupy", fake)
    with pytest.raises(TypeError, match="input lies in cupy, parameters lies in numpy"):
        minirnn.Linear(3, 2)(FakeArray())
    np.testing.assert_array_equal(minirnn.asnumpy(FakeArray()), np.ones((2, 3)))
    assert not backend.reads_values(FakeArray())
    minirnn.set_checks(True)
    try:
        assert backend.reads_values(FakeArray())
    finally:
        minirnn.set_checks(False)


def test_seeds():
    layers = []
    for _ in range(2):
        minirnn.manual_seed(3)
        layers.append(minirnn.LSTM(2, 3))
    other = minirnn.LSTM(2, 3)
    np.testing.assert_array_equal(layers[0].weight_hh_l0.data, layers[1].weight_hh_l0.data)
    assert (other.weight_hh_l0.data != layers[0].weight_hh_l0.data).any()
    a, b = minirnn.GRU(2, 3, rng=1), minirnn.GRU(2, 3, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(a.weight_ih_l0.data, b.weight_ih_l0.data)
    with pytest.raises(TypeError, match="rng: expected"):
        minirnn.GRU(2, 3, rng="seed")


def test_a_buffer_that_a_parameter_has_left_is_not_used():
    model = minirnn.Linear(3, 2)
    model.flatten_parameters()
    minirnn.ParameterBuffer([model.bias])
    before = model.bias.data.copy()
    for p in model.parameters():
        p.grad[...] = 1
    minirnn.SGD(model.parameters(), lr=0.5).step()
    np.testing.assert_array_equal(model.bias.data, before - np.float32(0.5))
    model.zero_grad()
    assert not model.bias.grad.any()


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_of_a_flattened_model_trains(copy_of):
    model = minirnn.Linear(3, 2)
    model.flatten_parameters()
    twin = copy_of(model)
    start = twin.weight.data.copy()
    twin.weight.grad[...] = 1
    minirnn.SGD(twin.parameters(), lr=0.5).step()
    np.testing.assert_array_equal(twin.weight.data, start - np.float32(0.5))
    np.testing.assert_array_equal(model.weight.data, start)
    assert twin.weight.name == "weight"


def test_a_parameter_is_not_replaced_by_an_array():
    layer = minirnn.Linear(3, 2)
    with pytest.raises(TypeError, match=r"weight: expected a Parameter or None, got ndarray"):
        layer.weight = np.ones((2, 3))
    with pytest.raises(ValueError, match="every parameter once"):
        minirnn.ParameterBuffer([layer.weight, layer.weight])
    layer.bias = None
    assert layer(np.ones((1, 3), np.float32)).shape == (1, 2)


def test_sequential_counts_its_layers_only():
    model = minirnn.Sequential(minirnn.Linear(3, 2))
    model.name = "mine"
    assert len(model) == 1


def test_a_state_dict_that_numpy_cannot_read_is_one_of_the_problems():
    class Odd:
        def __array__(self, dtype=None, copy=None):
            raise TypeError("Got unsupported ScalarType BFloat16")

    layer = minirnn.Linear(3, 2)
    before = layer.state_dict()
    with pytest.raises(
        ValueError, match=r"(?s)weight: expected .*BFloat16.*unexpected|unexpected.*BFloat16"
    ):
        layer.load_state_dict({"weight": Odd(), "bias": np.zeros(2), "other": 1})
    with pytest.raises(TypeError, match="state_dict: expected a mapping, got NoneType"):
        layer.load_state_dict(None)
    assert all((value == before[name]).all() for name, value in layer.state_dict().items())


def test_sequential_refuses_a_foreign_context_before_anything_is_added():
    a, b, c = (minirnn.Linear(3, 3, rng=k) for k in range(3))
    y, ctx = minirnn.Sequential(c, b).forward(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="expected a context of this Linear"):
        minirnn.Sequential(a, b).backward(ctx, y)
    assert not b.weight.grad.any()


class Scale(minirnn.Module):
    """A module of a user's own; `result` is what its forward makes of y and ctx."""

    def __init__(self, result=lambda y, ctx: (y, ctx)):
        self.result = result

    def forward(self, x):
        return self.result(2 * x, None)

    def backward(self, ctx, dy):
        return 2 * dy


@pytest.mark.parametrize(
    "result", [lambda y, _: y, lambda y, _: [y, y], lambda y, ctx: (y, y, ctx), lambda *_: None]
)
def test_a_forward_without_a_context_is_refused_and_told_both_forms(result):
    with pytest.raises(TypeError, match=r"return y, ctx.*model\.forward\(x\).*y = model\(x\)"):
        Scale(result)(np.ones((2, 3)))
    assert (Scale()(np.ones((2, 3))) == 2).all()


def test_a_result_of_inference_is_no_context():
    gru = minirnn.GRU(2, 3)
    (_, _), ctx = gru(np.ones((2, 4, 2), np.float32))  # two steps: unpacks, and is h_n
    with pytest.raises(ValueError, match=r"`layer\(x\)` does not"):
        gru.backward(ctx, np.ones((2, 4, 3), np.float32))


class Holder(minirnn.Module):
    def __init__(self, value):
        self.held = value


def linear():
    return minirnn.Linear(2, 1, bias=False, rng=0)


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


def test_load_state_dict_returns_the_names_that_did_not_match():
    layer = minirnn.Linear(2, 1)
    before = layer.state_dict()
    keys = layer.load_state_dict({f"module.{n}": v + 1 for n, v in before.items()}, strict=False)
    assert keys.missing_keys == ["weight", "bias"]
    assert keys.unexpected_keys == ["module.weight", "module.bias"]
    assert layer.load_state_dict(before) == ([], [])


def test_where_warnings_are_errors_nothing_is_done_by_half():
    """A value that float32 cannot hold: everything is as it was, whichever entry it is."""
    model = minirnn.Sequential(
        minirnn.Linear(2, 2, dtype=np.float64), minirnn.Linear(2, 2, dtype=np.float64)
    )
    model[1].bias.data[0] = 1e300
    before = model.state_dict()
    with pytest.raises(RuntimeWarning, match="overflow"):
        model.to("float32")
    assert all(p.dtype == np.float64 for p in model.parameters())
    other = minirnn.Sequential(minirnn.Linear(2, 2), minirnn.Linear(2, 2))
    untouched = other.state_dict()
    with pytest.raises(RuntimeWarning, match="overflow"):
        other.load_state_dict(before)
    for name, value in untouched.items():
        assert (other.state_dict()[name] == value).all()


def test_sequential_checks_every_context_before_a_gradient_is_added():
    model = minirnn.Sequential(minirnn.Linear(2, 2), minirnn.Linear(2, 2))
    y, (_, ctx) = model.forward(np.ones((1, 2), np.float32))
    with pytest.raises(ValueError, match="ctx"):
        model.backward((None, ctx), np.ones_like(y))
    assert all((p.grad == 0).all() for p in model.parameters())
    model = minirnn.Sequential(linear(), Scale())
    y, ctx = model.forward(np.ones((1, 2), np.float32))
    model.backward(ctx, np.ones_like(y))
    assert (model[0].weight.grad == 2).all()


def test_a_copied_buffer_holds_the_copied_parameters():
    layer = minirnn.Linear(2, 1)
    buffer = layer.flatten_parameters()
    layer.weight.grad[:] = 3
    for other, copied in (
        copy.deepcopy([layer, buffer]),
        pickle.loads(pickle.dumps([layer, buffer])),
    ):
        assert other.weight.buffer is copied
        assert copied.complete
        assert (other.weight.grad == 3).all()
        copied.zero_grad()
        assert (other.weight.grad == 0).all()
        copied.data[:] = 7
        assert (other.bias.data == 7).all()
    assert (layer.weight.grad == 3).all()
    layer.to("float64")
    assert not copy.deepcopy(buffer).complete


@pytest.mark.parametrize("what", ["data", "grad"])
def test_none_is_no_value_of_a_parameter(what):
    layer = minirnn.Linear(2, 1)
    with pytest.raises(TypeError, match=rf"weight\.{what}: expected an array, got None"):
        setattr(layer.weight, what, None)
    assert np.isfinite(getattr(layer.weight, what)).all()
    layer.zero_grad(set_to_none=True)
    assert layer.weight.grad.shape == (1, 2)


@pytest.mark.parametrize(
    "use",
    [
        np.tanh,
        np.asarray,
        np.linalg.norm,
        lambda p: np.ones((1, 1), np.float32) @ p,
        lambda p: p + 1.0,
    ],
)
def test_a_parameter_is_no_array_and_says_what_is(use):
    with pytest.raises(TypeError, match=r"\.data|unsupported operand"):
        use(minirnn.Linear(2, 1).weight)


def test_backward_without_a_gradient_is_an_error():
    for cell, none in (("RNN", None), ("GRU", None), ("LSTM", (None, None))):
        layer = getattr(minirnn, cell)(2, 3)
        _, ctx = layer.forward(np.ones((2, 4, 2), np.float32))
        for dh_n in (None, none):
            with pytest.raises(ValueError, match="expected doutput or dh_n"):
                layer.backward(ctx, None, dh_n)


# -- what a context refers to ------------------------------------------------------------------------


def _single_layers():
    return [
        minirnn.RNN(3, 4, num_layers=2, dtype="float64", rng=0),
        minirnn.GRU(3, 4, dtype="float64", rng=0),
        minirnn.LSTM(3, 4, dtype="float64", rng=0),
        minirnn.LSTM(3, 4, proj_size=2, dtype="float64", rng=0),
        minirnn.GRU(3, 4, bidirectional=True, dtype="float64", rng=0),
        minirnn.LSTM(3, 4, checkpoint=True, dtype="float64", rng=0),
    ]


@pytest.mark.parametrize("layer", _single_layers(), ids=repr)
def test_the_output_of_a_training_pass_cannot_be_changed_before_backward(layer):
    x = np.random.default_rng(1).standard_normal((5, 2, 3))
    packed = minirnn.pack_padded_sequence(x, [5, 3])
    (y, _), _ = layer.forward(x)
    (y_packed, _), _ = layer.forward(packed)
    *_, trace = layer.forward(x, trace=True)[0]
    for seen in (y, y_packed.data, *trace.h, *trace.c):
        with pytest.raises(ValueError, match="read-only"):
            seen *= 0
    layer(x)[0][...] = 0  # inference keeps nothing, so its output is the user's


@pytest.mark.parametrize("layer", _single_layers()[:-1], ids=repr)
@pytest.mark.parametrize("packs", [False, True])
def test_an_input_changed_before_backward_does_not_change_gradients(layer, packs):
    x = np.random.default_rng(1).standard_normal((5, 2, 3))
    given = minirnn.pack_padded_sequence(x, [5, 3]) if packs else x
    found = []
    for change in (False, True):
        (y, _), ctx = layer.forward(given)
        if change:
            (given.data if packs else given)[...] = 7
        dy = y._with(np.ones_like(y.data)) if packs else np.ones_like(y)
        dx, _ = layer.backward(ctx, dy)
        found.append([dx.data if packs else dx, *[p.grad.copy() for p in layer.parameters()]])
        layer.zero_grad()
    for before, after in zip(*found, strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("kind", [minirnn.Linear, minirnn.RNNCell, minirnn.GRUCell])
def test_a_row_changed_before_backward_does_not_change_gradients(kind):
    layer, x = kind(3, 4, dtype="float64", rng=0), np.random.default_rng(1).standard_normal((2, 3))
    found = []
    for change in (False, True):
        y, ctx = layer.forward(x)
        if change:
            x += 1
        layer.backward(ctx, np.ones_like(y))
        found.append([p.grad.copy() for p in layer.parameters()])
        layer.zero_grad()
    for before, after in zip(*found, strict=True):
        np.testing.assert_array_equal(after, before)


# -- refused at the door ------------------------------------------------------------------------------


def test_a_result_with_its_context_is_not_taken_for_an_input():
    embedding, linear = minirnn.Embedding(5, 3), minirnn.Linear(3, 2)
    pair = embedding.forward(np.array([1, 2]))
    layers = [linear, minirnn.RNN(3, 4), minirnn.GRUCell(3, 4), minirnn.Dropout(), embedding]
    for layer in layers:
        with pytest.raises(TypeError, match=r"\.forward returned.*y, ctx = layer\.forward"):
            layer.forward(pair)


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
