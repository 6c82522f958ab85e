"""The recurrent layers where torch has no answer: numerical gradients, dropout, forms, errors."""

import copy
import pickle

import numpy as np
import pytest
from helpers import all_close, check_gradients, close, spans, thread_everything
from makers import F8, LENGTHS, arrays, like_state, named, packed_input

import minirnn
from minirnn.bptt.execution import InParts, InThreads, InTurn
from minirnn.functional.gru import GRUContext, GRURows


@pytest.mark.parametrize(
    "options", [{}, {"recurrent_dropout": 0.4}, {"recurrent_dropout": 0.4, "checkpoint": True}]
)
@spans(rows=5)
def test_numerical_gradients_with_zero_lengths(make, options):
    """Every gradient, through the same dropout masks, over several spans."""
    rng = np.random.default_rng(0)
    drop = {} if "checkpoint" in options else {"dropout": 0.3}
    layer = make(3, 4, num_layers=2, bidirectional=True, dtype=F8, **options, **drop)
    x = packed_input(rng)
    h_0 = like_state(layer, rng.standard_normal, len(LENGTHS))

    def forward():
        layer._rng = np.random.default_rng(1)
        return layer.forward(x, h_0)

    (output, h_n), ctx = forward()
    doutput = output.map(lambda rows: rng.standard_normal(rows.shape))
    dh_n = like_state(layer, rng.standard_normal, len(LENGTHS))

    def loss():
        (output, h_n), _ = forward()
        total = np.vdot(output.data, doutput.data)
        return total + sum(np.vdot(h, d) for h, d in zip(arrays(h_n), arrays(dh_n), strict=True))

    dx, dh_0 = layer.backward(ctx, doutput, dh_n)
    states = enumerate(zip(arrays(h_0), arrays(dh_0), strict=True))
    pairs = {"x": (x.data, dx.data), **{f"h_0[{k}]": pair for k, pair in states}}
    pairs |= {p.name: (p.data, p.grad) for p in layer.parameters()}
    check_gradients(loss, pairs, rng)
    # The sequence of length zero hands its state and its gradient through.
    for a, b in zip(arrays(h_0) + arrays(dh_0), arrays(h_n) + arrays(dh_n), strict=True):
        np.testing.assert_array_equal(a[:, 2], b[:, 2])


def test_one_step_one_sequence_and_no_step(make):
    rng = np.random.default_rng(0)
    layer = make(3, 4, bidirectional=True, dtype=F8)
    for shape in [(1, 1, 3), (1, 4, 3), (6, 1, 3)]:
        x = rng.standard_normal(shape)
        (output, _), ctx = layer.forward(x)
        d = rng.standard_normal(output.shape)
        layer.zero_grad()
        dx, _ = layer.backward(ctx, d)
        pairs = [(x, dx)] + [(p.data, p.grad) for p in layer.parameters()]
        check_gradients(lambda x=x, d=d: np.vdot(layer(x)[0], d), pairs, rng)
    h_0 = like_state(layer, rng.standard_normal, 2)
    (output, h_n), ctx = layer.forward(np.zeros((0, 2, 3)), h_0)
    for a, b in zip(arrays(h_n), arrays(h_0), strict=True):
        np.testing.assert_array_equal(a, b)
    layer.backward(ctx, None, h_n)


def test_padded_and_packed_of_equal_lengths_agree(make):
    rng = np.random.default_rng(0)
    layer = make(3, 4, num_layers=2, bidirectional=True, dtype=F8)
    x = rng.standard_normal((50, 3, 3))
    packed = minirnn.pack_padded_sequence(x, [50] * 3)
    results = []
    for input in (x, packed):
        layer.zero_grad()
        (output, h_n), ctx = layer.forward(input)
        doutput = output.map(np.sin) if input is packed else np.sin(output)
        dx, _ = layer.backward(ctx, doutput, h_n)
        found = named(output=output, dx=dx, h_n=h_n, layer=layer)
        results.append(found | {name: found[name].reshape(150, -1) for name in ("output", "dx")})
    all_close(*results)


def test_reverse_direction_is_the_forward_one_over_reversed_sequences():
    rng = np.random.default_rng(0)
    both = minirnn.GRU(3, 4, bidirectional=True, dtype=F8)
    one = minirnn.GRU(3, 4, dtype=F8)
    one.load_state_dict({name: getattr(both, name + "_reverse").data for name in one.state_dict()})
    sequences = [rng.standard_normal((n, 3)) for n in (5, 2, 4)]
    output, h_n = both(minirnn.pack_sequence(sequences, enforce_sorted=False))
    backwards = [s[::-1].copy() for s in sequences]
    expected, last = one(minirnn.pack_sequence(backwards, enforce_sorted=False))
    for a, b in zip(
        minirnn.unpack_sequence(output), minirnn.unpack_sequence(expected), strict=True
    ):
        close(a[:, 4:], b[::-1])
    close(h_n[1], last[0])


def test_recurrent_dropout_is_one_mask_a_sequence_and_off_in_eval():
    rng = np.random.default_rng(0)
    layer = minirnn.RNN(3, 50, recurrent_dropout=0.5, rng=3, dtype=F8)
    layer.weight_ih_l0.data[...] = 0
    layer.bias_ih_l0.data[...] = 1
    layer.bias_hh_l0.data[...] = 0
    layer.weight_hh_l0.data[...] = np.eye(50)
    x = rng.standard_normal((4, 2, 3))
    output, _ = layer(x)
    # h_t = tanh(1 + m h_{t-1}): a unit that is dropped once is dropped at every step.
    dropped = np.isclose(output[1:], np.tanh(1))
    assert (dropped == dropped[0]).all()
    assert 0.3 < dropped[0].mean() < 0.7
    assert (dropped[0, 0] != dropped[0, 1]).any()
    plain = minirnn.RNN(3, 50, dtype=F8)
    plain.load_state_dict(layer.state_dict())
    layer.eval()
    np.testing.assert_array_equal(layer(x)[0], plain(x)[0])


def test_dropout_between_layers_is_reproducible_and_off_in_eval():
    x = np.random.default_rng(0).standard_normal((4, 2, 3))
    runs = [minirnn.LSTM(3, 4, 2, dropout=0.5, dtype=F8, rng=1)(x)[0] for _ in range(2)]
    np.testing.assert_array_equal(*runs)
    layer = minirnn.LSTM(3, 4, 2, dropout=0.5, dtype=F8)
    plain = minirnn.LSTM(3, 4, 2, dtype=F8)
    plain.load_state_dict(layer.state_dict())
    assert (layer(x)[0] != plain(x)[0]).any()
    np.testing.assert_array_equal(layer.eval()(x)[0], plain(x)[0])
    with pytest.warns(UserWarning, match="only one: it does nothing"):
        minirnn.LSTM(3, 4, dropout=0.5)


def test_orthogonal_start_and_forget_bias():
    lstm = minirnn.LSTM(3, 8, 2, bidirectional=True, init="orthogonal", forget_bias=1.0, dtype=F8)
    for name, p in lstm.named_parameters():
        if "weight_hh" in name:
            for block in p.data.reshape(4, 8, 8):
                close(block @ block.T, np.eye(8))
        if "bias" in name:
            expected = np.zeros(32)
            expected[8:16] = 1.0 if "bias_ih" in name else 0.0
            np.testing.assert_array_equal(p.data, expected)
    with pytest.raises(ValueError, match="init"):
        minirnn.LSTM(3, 4, init="xavier")
    with pytest.raises(TypeError, match="dtype: expected a floating-point one"):
        minirnn.RNN(3, 4, dtype=int)
    with pytest.raises(ValueError, match="forget_bias"):
        minirnn.LSTM(3, 4, bias=False, forget_bias=1.0)


X = np.ones((5, 2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: r(np.ones((5, 2, 4), np.float32)), ValueError, r"input.*\(T, B, features\)"),
        (lambda r: r(np.ones(3, np.float32)), ValueError, r"\(T, B, I\), \(T, I\) or a Packed"),
        (lambda r: r(np.ones((5, 0, 3), np.float32)), ValueError, "at least one sequence"),
        (lambda r: r(np.ones((5, 2, 3))), TypeError, "input: expected dtype float32"),
        (lambda r: r(np.ones((5, 2, 3), int)), TypeError, "floating-point"),
        (lambda r: r(X, np.ones((1, 3, 4), np.float32)), ValueError, r"h_0.*\(1, 2, 4\), got"),
        (lambda r: r(X, np.ones((1, 2, 4))), TypeError, "h_0: expected dtype"),
        (lambda r: r(X, [[1.0]]), TypeError, "got builtins.list"),
        (
            lambda r: r.backward(r.forward(X)[1], np.ones((5, 2, 3), np.float32)),
            ValueError,
            "doutput",
        ),
        (lambda r: r.backward(r.forward(X)[1], np.ones((5, 2, 4))), TypeError, "doutput"),
        (
            lambda r: r.backward(r.forward(X)[1], None, np.ones((2, 2, 4), np.float32)),
            ValueError,
            "dh_n",
        ),
        (
            lambda r: r.backward(minirnn.RNN(3, 4).forward(X)[1], None),
            ValueError,
            "another RNN",
        ),
        (
            lambda r: r.backward(r.forward(minirnn.pack_padded_sequence(X, [5, 2]))[1], X),
            TypeError,
            "PackedSequence",
        ),
        (lambda r: minirnn.RNN(0, 4), ValueError, "input_size: expected a positive"),
        (lambda r: minirnn.RNN(3, 4, num_layers=0), ValueError, "num_layers"),
        (lambda r: minirnn.RNN(3, 4, nonlinearity="sin"), ValueError, "nonlinearity"),
        (lambda r: minirnn.RNN(3, 4, 2, dropout=1.5), ValueError, "dropout"),
        (lambda r: minirnn.LSTM(3, 4, proj_size=4), ValueError, "proj_size"),
        (lambda r: minirnn.GRU(3, 4, proj_size=2), TypeError, "proj_size"),
        (lambda r: minirnn.LSTM(3, 4)(X, X), TypeError, "expected a pair"),
        (lambda r: minirnn.RNNCell(3, 4)(np.ones((2, 5), np.float32)), ValueError, "input"),
        (lambda r: minirnn.LSTMCell(3, 4)(X[0], X[0]), TypeError, "pair"),
    ],
)
def test_bad_input_changes_nothing(call, error, message):
    layer = minirnn.RNN(3, 4)
    with pytest.raises(error, match=message):
        call(layer)
    assert not any(p.grad.any() for p in layer.parameters())


def test_a_gradient_packed_in_another_way_is_refused():
    layer = minirnn.RNN(3, 4)
    _, ctx = layer.forward(minirnn.pack_padded_sequence(X, [5, 2]))
    other = minirnn.pack_padded_sequence(np.ones((5, 2, 4), np.float32), [4, 3])
    with pytest.raises(ValueError, match=r"doutput: expected batch_sizes \[2, 2, 1, 1, 1\]"):
        layer.backward(ctx, other)


@pytest.mark.parametrize("way", ["fortran", "broadcast", "strided"])
def test_any_memory_order_of_the_input(make, way):
    rng = np.random.default_rng(0)
    layer = make(3, 4, dtype=F8)
    x = rng.standard_normal((6, 2, 3))
    if way == "broadcast":
        x = np.broadcast_to(x[0, 0], x.shape)
    results = []
    for one in (np.ascontiguousarray(x), {"fortran": np.asfortranarray(x)}.get(way, x)):
        one = one[::2] if way == "strided" else one
        layer.zero_grad()
        (output, _), ctx = layer.forward(one)
        dx, _ = layer.backward(ctx, np.cos(output))
        (last, _), ctx = layer.forward(one[:, 0].T.copy().T)
        dx_1, _ = layer.backward(ctx, np.cos(last))
        results.append(named(output=output, dx=dx, last=last, dx_1=dx_1, layer=layer))
    all_close(*results)


def test_a_gradient_in_another_order_is_refused(make):
    layer = make(3, 4)
    x = minirnn.pack_sequence([np.ones((2, 3), np.float32)] * 2)
    (output, _), ctx = layer.forward(x)
    turned = minirnn.PackedSequence(output.data, output.batch_sizes, [1, 0])
    with pytest.raises(ValueError, match=r"doutput: expected the sequences in the order \[0, 1\]"):
        layer.backward(ctx, turned)


@pytest.mark.parametrize("sizes", [(3, 0, 0), (3, 4, 1.5), (3, "a", 0)])
def test_lstm_sizes_are_named(sizes):
    input_size, hidden_size, proj_size = sizes
    name = "proj_size" if proj_size else "hidden_size"
    with pytest.raises(ValueError, match=f"{name}: expected a positive integer"):
        minirnn.LSTM(input_size, hidden_size, proj_size=proj_size)


def test_a_pair_may_be_a_list_and_its_members_are_told_apart():
    x, h = np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)
    cell, layer = minirnn.LSTMCell(3, 4, rng=0), minirnn.LSTM(3, 4, rng=0)
    close(cell(x, [h, 2 * h])[1], cell(x, (h, 2 * h))[1], 0)
    with pytest.raises(ValueError, match=r"hx\[1\]: expected shape .* \(2, 4\), got \(2, 5\)"):
        cell(x, (h, np.ones((2, 5), np.float32)))
    with pytest.raises(TypeError, match="hx: expected a pair of h and c, got ndarray"):
        cell(x, h)
    with pytest.raises(ValueError, match=r"c_0: expected shape .* \(1, 2, 4\), got \(1, 2, 5\)"):
        layer(x[None], [h[None], np.ones((1, 2, 5), np.float32)])
    with pytest.raises(TypeError, match="h_0: expected a pair of h and c, got ndarray"):
        layer(x[None], h[None])


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_bias_gradient_over_very_many_spans_keeps_its_digits(make, checkpoint):
    """All terms of one sign, so that in float32 every addition would round the same way."""
    gradients = {}
    with spans(4, steps=4):
        for dtype in (np.float32, np.float64):
            layer = make(1, 3, dtype=dtype, checkpoint=checkpoint)
            for name, p in layer.named_parameters():  # equal products have no normal form
                p.data[...] = 0 if name.startswith("gain") else 0.25
            (y, _), ctx = layer.forward(np.zeros((8_000, 1, 1), dtype))
            layer.backward(ctx, np.full_like(y, 0.1))
            gradients[dtype] = {n: p.grad for n, p in layer.named_parameters() if "bias" in n}
    assert gradients[np.float32]
    for name, exact in gradients[np.float64].items():
        close(gradients[np.float32][name], exact, 1e-6, name)


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-20, 30.0])
@pytest.mark.parametrize("options", [{}, {"checkpoint": True}, {"bidirectional": True}])
def test_what_is_too_small_for_the_dtype_raises_nothing(make, options, scale):
    layer = make(3, 4, recurrent_dropout=0.3, **options)
    x = (np.random.default_rng(0).standard_normal((5, 2, 3)) * scale).astype(np.float32)
    # Made outside: NumPy 2.0 raises where a number is cast that is too small.
    gradients = np.array([1.0, 1e-20, 1e-38, 1e-44], np.float32)
    with np.errstate(all="raise"):
        (y, _), ctx = layer.forward(x)
        for small in gradients:
            layer.backward(ctx, np.full(y.shape, small))
        layer(x)
        if not layer.bidirectional:
            layer.step(x[0])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_what_is_too_small_raises_nothing_in_another_batch_either(make, bidirectional):
    minirnn.set_native(False)
    layer = make(3, 4, bidirectional=bidirectional)
    small = np.full((7, 2, 3), 1e-40, np.float32)
    with np.errstate(all="raise"):
        for x in (small, small[:5], small[:, :1]):
            (y, _), ctx = layer.forward(x)
            layer.backward(ctx, np.full_like(y, small[0, 0, 0]))


def test_what_a_layer_keeps_of_a_pass_follows_the_switches(monkeypatch):
    thread_everything(monkeypatch, busy=1)
    layer, x = minirnn.GRU(3, 128, bidirectional=True), np.ones((2, 2, 3), np.float32)

    def runs():
        _, ctx = layer.forward(x)
        return type(ctx.saved.contexts[0]), type(ctx.saved.stack.execution)

    try:
        minirnn.set_native(minirnn.native_available())
        before = runs()
        assert runs() == before
        minirnn.set_num_threads(2)
        threaded = runs()
        minirnn.set_native(False)
        assert runs() == (GRUContext, InThreads)
    finally:
        minirnn.set_num_threads(1)
    assert threaded == (before[0], InThreads)
    assert before == (GRURows if minirnn.native_available() else GRUContext, InTurn)


def test_another_batch_has_an_execution_of_its_own(monkeypatch):
    monkeypatch.setattr("minirnn.bptt.execution._kept_busy", lambda p: p.layout.rows // 10)
    layer, found = minirnn.GRU(3, 4, rng=0), []
    minirnn.set_num_threads(2)
    try:
        for steps in (4, 10, 4):
            _, ctx = layer.forward(np.ones((steps, 4, 3), np.float32))
            found.append(type(ctx.saved.stack.execution))
    finally:
        minirnn.set_num_threads(1)
    assert found == [InTurn, InParts, InTurn]


def test_what_a_layer_keeps_of_a_pass_is_for_inputs_of_its_kind():
    layer, x = minirnn.RNN(5, 6), np.ones((4, 3, 5), np.float32)
    layer(x)
    for wrong, error in (
        (x.astype(float), TypeError),
        (x.astype(">f4"), TypeError),
        (x[0, 0], ValueError),
        (x[..., :4], ValueError),
        (x[:, :0], ValueError),
        (x.tolist(), TypeError),
        (np.ma.masked_array(x), TypeError),
    ):
        with pytest.raises(error, match="input"):
            layer(wrong)
    packed = minirnn.pack_padded_sequence(x, [4, 2, 1])
    again = minirnn.pack_padded_sequence(x, [1, 4, 2], enforce_sorted=False)
    layer(packed)
    for wrong, error in (
        (packed.map(lambda rows: rows.astype(float)), TypeError),
        (packed.map(lambda rows: rows[:, :4]), ValueError),
    ):
        with pytest.raises(error, match="input"):
            layer(wrong)
    y, _ = layer(again)  # of the same layout, in another order
    assert (y.sorted_indices == again.sorted_indices).all()
    assert layer(x[:2])[0].shape == (2, 3, 6)
    assert layer(x[:, 0])[0].shape == (4, 6)
    assert layer(minirnn.pack_padded_sequence(x, [4, 2, 1]))[0].data.shape == (7, 6)


def test_what_a_layer_keeps_of_a_pass_follows_every_change():
    x = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)

    def fresh(change):
        layer = minirnn.RNN(5, 6, rng=0)
        change(layer)
        return layer(x)[0], layer

    def passed(layer):
        (y, _), ctx = layer.forward(x)
        layer.zero_grad()
        layer.backward(ctx, np.ones_like(y))
        return y

    def relu(layer):
        layer.nonlinearity = "relu"

    def batch_first(layer):
        layer.batch_first = True

    def another(layer):
        layer.weight_hh_l0 = minirnn.Parameter(np.full((6, 6), 0.1, np.float32))

    changes = {
        "in place": lambda layer: layer.weight_hh_l0.data.fill(0.3),
        "relu": relu,
        "batch first": batch_first,
        "another parameter": another,
        "one buffer": lambda layer: layer.flatten_parameters().data.__imul__(0.5),
        "a state": lambda layer: layer.load_state_dict(minirnn.RNN(5, 6, rng=1).state_dict()),
        "there and back": lambda layer: layer.to("float64").to("float32"),
    }
    for name, change in changes.items():
        layer = minirnn.RNN(5, 6, rng=0)
        passed(layer)
        change(layer)
        np.testing.assert_array_equal(passed(layer), fresh(change)[0], err_msg=name)
        twin = fresh(change)[1]
        passed(twin)
        for p, q in zip(layer.parameters(), twin.parameters(), strict=True):
            np.testing.assert_array_equal(p.grad, q.grad, err_msg=name)
    layer = minirnn.RNN(5, 6, rng=0)
    y = passed(layer)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        layer.weight_hh_l0.data.fill(0)
        np.testing.assert_array_equal(passed(copied), y)
        assert copied.weight_hh_l0.grad.any()
        layer.weight_hh_l0.data = copied.weight_hh_l0.data
