"""ONNX files give in onnxruntime what the model gives here, at mixed lengths and lengths of zero."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

import minirnn

onnx = pytest.importorskip("onnx", reason="needs onnx")

CASES = [
    (cell, {**more, "num_layers": layers, "bidirectional": both, "bias": bias})
    for (cell, more), layers, both, bias in itertools.product(
        [
            ("RNN", {}),
            ("RNN", {"nonlinearity": "relu"}),
            ("LSTM", {}),
            ("GRU", {}),
            ("GRU", {"reset_after": False}),
        ],
        (1, 3),
        (False, True),
        (False, True),
    )
]


def run(path, **feed):
    ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert {i.name for i in session.get_inputs()} == feed.keys()
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


def agree(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize(("cell", "options"), CASES)
def test_onnxruntime_agrees(cell, options, initial, tmp_path):
    rnn = getattr(minirnn, cell)(6, 8, rng=0, **options)
    for p in rnn.parameters():
        p.data *= 2
    table = minirnn.Embedding(11, 6, rng=1)
    head = minirnn.Linear(8 * rnn.num_directions, 4, bias=options["bias"], rng=2)
    model = minirnn.Sequential(table, minirnn.Dropout(0.5), minirnn.Sequential(rnn, head)).eval()
    path = tmp_path / "m.onnx"
    minirnn.to_onnx(model, path, initial_states=initial)
    onnx.checker.check_model(str(path), full_check=True)
    rng, pair = np.random.default_rng(3), cell == "LSTM"
    for lengths in ([5, 9, 1, 7], [2, 0, 3]):
        tokens = rng.integers(0, 11, (max(lengths), len(lengths)))
        feed = {"tokens": tokens, "lengths": np.array(lengths, np.int32)}
        shape = (len(rnn._names), len(lengths), 8)
        starts = [rng.standard_normal(shape).astype("f4") for _ in range(1 + pair)]
        if initial:
            feed |= dict(zip(("h_0", "c_0"), starts, strict=False))
        got = run(path, **feed)
        packed = minirnn.pack_padded_sequence(tokens, lengths, enforce_sorted=False)
        start = (tuple(starts) if pair else starts[0]) if initial else None
        output, states = rnn(table(packed), start)
        states = states if pair else (states,)
        assert got.keys() == {"output", *("h_n", "c_n")[: len(states)]}
        for name, state in zip(("h_n", "c_n"), states, strict=False):
            agree(got[name], state)
        expected, _ = minirnn.pad_packed_sequence(head(output))
        running = np.arange(max(lengths))[:, None] < np.array(lengths)
        agree(got["output"][running], expected[running])
        # After a sequence's end, the head's bias.
        after = np.zeros(4) if head.bias is None else head.bias.data
        agree(got["output"][~running], np.broadcast_to(after, got["output"][~running].shape))


def test_floats_and_a_single_layer(tmp_path):
    rnn = minirnn.GRU(3, 4, rng=0)
    minirnn.to_onnx(rnn, tmp_path / "m.onnx")
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype("f4")
    got = run(tmp_path / "m.onnx", input=x, lengths=np.array([5, 5], np.int32))
    agree(got["output"], rnn(x)[0])
    head = minirnn.Linear(3, 4)
    minirnn.to_onnx(head, tmp_path / "m.onnx")
    agree(run(tmp_path / "m.onnx", input=x)["output"], head(x))


def test_heads_of_several_layers(tmp_path):
    """Activations, softmax, layer normalisation with and without gain and bias, a layer used twice."""
    twice = minirnn.Linear(6, 6, rng=1)
    norms = minirnn.LayerNorm(6), minirnn.LayerNorm(6, eps=0.1, bias=False)
    plain = minirnn.LayerNorm((6,), elementwise_affine=False)
    rng = np.random.default_rng(0)
    for p in (*norms[0].parameters(), *norms[1].parameters()):
        p.data = rng.standard_normal(6)
    model = minirnn.Sequential(
        minirnn.Tanh(),
        minirnn.Linear(3, 6, rng=0),
        norms[0],
        minirnn.ReLU(),
        twice,
        norms[1],
        minirnn.Sigmoid(),
        twice,
        plain,
        minirnn.LogSoftmax(dim=-1),
        minirnn.Softmax(dim=1),
    )
    minirnn.to_onnx(model, tmp_path / "m.onnx")
    x = rng.standard_normal((5, 2, 3)).astype("f4")
    agree(run(tmp_path / "m.onnx", input=x)["output"], model(x))
    names = [w.name for w in onnx.load(tmp_path / "m.onnx").graph.initializer]
    assert len(names) == len(set(names))
    assert sum("weight_T" in name for name in names) == 2


class Classifier(minirnn.Module):
    """Embedding, a layer in both directions, and a head on its two last states."""

    def __init__(self, cell="GRU"):
        self.head = minirnn.Sequential(minirnn.LayerNorm(16), minirnn.Linear(16, 10, rng=0))
        self.embedding = minirnn.Embedding(10, 8, rng=1)
        self.rnn = getattr(minirnn, cell)(8, 8, 2, bidirectional=True, rng=2)

    def forward(self, tokens):
        x, ctx_x = self.embedding.forward(tokens)
        (_, h_n), ctx_h = self.rnn.forward(x)
        logits, ctx_y = self.head.forward(np.concatenate([h_n[-2], h_n[-1]], axis=1))
        return logits, (ctx_x, ctx_h, ctx_y, h_n)

    def backward(self, ctx, dlogits):
        ctx_x, ctx_h, ctx_y, h_n = ctx
        dh, dh_n = self.head.backward(ctx_y, dlogits), np.zeros_like(h_n)
        dh_n[-2], dh_n[-1] = dh[:, :8], dh[:, 8:]
        dx, _ = self.rnn.backward(ctx_h, None, dh_n)
        self.embedding.backward(ctx_x, dx)

    def onnx(self, graph, tokens):
        _, h_n = graph.layer(self.rnn, graph.layer(self.embedding, tokens))
        last = graph.add("Concat", graph.index(h_n, -2), graph.index(h_n, -1), axis=1)
        logits = graph.layer(self.head, last)
        return {
            "logits": logits,
            "p": graph.add("Softmax", logits, axis=-1),
            "log_p": graph.add("LogSoftmax", logits, axis=-1),
            "best": graph.add("ArgMax", logits, axis=-1, keepdims=0),
        }


def test_a_trained_model_of_ones_own(tmp_path):
    """It learns to add digits, and says the same sums in onnxruntime."""
    rng, model, criterion = np.random.default_rng(0), Classifier(), minirnn.CrossEntropyLoss()
    optimizer = minirnn.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(150):
        lengths = rng.integers(1, 4, 32)
        digits = [rng.integers(0, 3, n) for n in lengths]
        logits, ctx = model.forward(minirnn.pack_sequence(digits, enforce_sorted=False))
        loss, ctx_loss = criterion.forward(logits, np.array([d.sum() for d in digits]))
        optimizer.zero_grad()
        model.backward(ctx, criterion.backward(ctx_loss))
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 2
    path = tmp_path / "m.onnx"
    minirnn.to_onnx(model.eval(), path)
    onnx.checker.check_model(str(path), full_check=True)
    lengths = [3, 0, 1, 30, 2]
    tokens = rng.integers(0, 10, (30, 5))
    got = run(path, tokens=tokens, lengths=np.array(lengths, np.int32))
    expected = model(minirnn.pack_padded_sequence(tokens, lengths, enforce_sorted=False))
    agree(got["logits"], expected)
    agree(got["p"], minirnn.softmax(expected))
    agree(got["log_p"], minirnn.log_softmax(expected))
    np.testing.assert_array_equal(got["best"], expected.argmax(1))
    shapes = {o.name: o.type.tensor_type for o in onnx.load(path).graph.output}
    assert shapes["best"].elem_type == onnx.TensorProto.INT64
    assert [d.dim_value for d in shapes["logits"].shape.dim][1:] == [10]


def test_an_lstm_with_constants_and_an_input_left_out(tmp_path):
    """Its states are a pair; numbers of Python's are float32; not every input need be given."""

    def connect(model, graph, x):
        _, (h_n, c_n) = graph.layer(model.lstm, x)
        state = graph.add("Add", graph.index(h_n, -1), graph.index(c_n, -1))
        y = graph.layer(model.head, graph.add("Mul", state, graph.constant(2.0)))
        return graph.add("Clip", y, "", graph.constant(0.1))

    model = Written(connect)
    minirnn.to_onnx(model, tmp_path / "m.onnx")
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype("f4")
    h_n, c_n = model.lstm(x)[1]
    expected = model.head((h_n[-1] + c_n[-1]) * 2).clip(None, 0.1)
    assert len(set(expected.ravel())) > 2
    agree(run(tmp_path / "m.onnx", input=x, lengths=np.array([5, 5], np.int32))["output"], expected)


def test_chunks_of_a_stream(tmp_path):
    """With the states as inputs a sequence may come in pieces."""
    rnn = minirnn.LSTM(3, 4, 2, rng=0)
    minirnn.to_onnx(rnn, tmp_path / "m.onnx", initial_states=True)
    x = np.random.default_rng(0).standard_normal((9, 2, 3)).astype("f4")
    state = {name: np.zeros((2, 2, 4), np.float32) for name in ("h_0", "c_0")}
    outputs = []
    for piece in np.split(x, [2, 7]):
        lengths = np.full(2, len(piece), np.int32)
        got = run(tmp_path / "m.onnx", input=piece, lengths=lengths, **state)
        state = {"h_0": got["h_n"], "c_0": got["c_n"]}
        outputs.append(got["output"])
    agree(np.concatenate(outputs), rnn(x)[0])


class Own(minirnn.Module):
    def __init__(self):
        self.rnn = minirnn.GRU(3, 4)


class Twice(minirnn.Module):
    def __init__(self):
        self.table, self.linear = minirnn.Embedding(3, 4), minirnn.Linear(4, 4)

    def onnx(self, graph, x):
        return graph.layer(self.linear, graph.layer(self.table, x)), graph.layer(self.linear, x)


class Forgetful(Own):
    def onnx(self, graph, x):
        graph.layer(self.rnn, x)


class Packed(Own):
    def onnx(self, graph, x):
        return graph.layer(self.rnn, graph.layer(self.rnn, x))


class Written(minirnn.Module):
    """Its method ``onnx`` is what a test writes."""

    def __init__(self, connect):
        self.lstm, self.head, self.wide = (
            minirnn.LSTM(3, 4, rng=0),
            minirnn.Linear(4, 2, rng=1),
            minirnn.Linear(5, 2),
        )
        self.onnx = lambda graph, x: connect(self, graph, x)


def last(model, graph, x):
    """Return the state as one would for a GRU."""
    _, h_n = graph.layer(model.lstm, x)
    return graph.layer(model.head, graph.index(h_n, -1))


def used(op, **attributes):
    return Written(lambda m, graph, x: graph.add(op, graph.layer(m.head, x), **attributes))


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (Written(last), TypeError, r"x: .*'Concat.*take them apart: .*`output, \(h_n, c_n\)`"),
        (used("Sofmax"), ValueError, "op: expected an operator of ONNX, .*got 'Sofmax'"),
        (used("Gelu"), ValueError, "op: .*in opset 17, got 'Gelu'"),
        (used(3), ValueError, "op: .*got 3"),
        (used("Add"), ValueError, "inputs: expected 2 for Add, got 1"),
        (used("Softmax", axes=1), ValueError, "model: .*Unrecognized attribute: axes"),
        (Written(lambda m, g, x: g.layer(m.head, x[0])), ValueError, "x: .*got 'i', which the gr"),
        (Written(lambda m, g, x: g.index(x[0], 0)), ValueError, "x: .*got 'i', which the graph"),
        (Written(lambda m, g, x: g.index(x, 1.5)), TypeError, "k: expected an integer, got 1.5"),
        (Written(lambda m, g, x: g.index(x, 1, "x")), TypeError, "axis: expected an integer"),
        (
            Written(lambda m, g, x: g.add("Add", x, np.ones(3))),
            TypeError,
            r"inputs\[1\] of Add: expected the name of a value.*got array",
        ),
        (Written(lambda m, g, x: g.constant("x")), TypeError, "value: expected float32, "),
        (Written(lambda m, g, x: (g.layer(m.head, x), "y")[1]), ValueError, "output: .*got 'y'"),
        (Written(lambda m, g, x: {"y": g.layer(m.lstm, x)}), TypeError, "y: .*got several"),
        (Written(lambda m, g, x: {"input": g.layer(m.head, x)}), ValueError, "own, got 'input'"),
        (Written(lambda m, g, x: {1: g.layer(m.head, x)}), ValueError, "names of their own, got 1"),
        (Written(lambda m, g, x: dict(g.layer(m.head, x) and {})), ValueError, "least one output"),
        (
            Written(lambda m, g, x: g.layer(m.wide, g.layer(m.head, x))),
            ValueError,
            "model: .*fit together.*Incompatible dimensions",
        ),
        (Forgetful(), TypeError, "output: expected the name of a value.*None"),
        (Packed(), TypeError, "x: expected the name of a value"),
        (Own(), TypeError, r"Sequential.*got Own.*method `onnx\(graph, x\)`"),
        (minirnn.Sequential(minirnn.Linear(3, 3), Own()), TypeError, "got Own"),
        (minirnn.LSTM(3, 4, proj_size=2), ValueError, "projection"),
        (minirnn.GRU(3, 4, batch_first=True), ValueError, "batch_first"),
        (minirnn.GRU(3, 4, dtype="float64"), TypeError, "float32"),
        (minirnn.Dropout(0.5), TypeError, "weights"),
        (
            minirnn.Sequential(minirnn.Linear(3, 3), minirnn.Embedding(3, 3)),
            ValueError,
            "beginning",
        ),
        (Twice(), ValueError, "looked up"),
        (minirnn.GRUCell(3, 4), TypeError, "got GRUCell"),
    ],
)
def test_what_onnx_has_not_is_refused(model, error, message, tmp_path):
    with pytest.raises(error, match=message):
        minirnn.to_onnx(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_states_of_two_layers_have_no_names(tmp_path):
    model = minirnn.Sequential(minirnn.GRU(3, 4), minirnn.GRU(4, 4))
    with pytest.raises(ValueError, match="one recurrent layer"):
        minirnn.to_onnx(model, tmp_path / "m.onnx", initial_states=True)


def test_the_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"minirnn\[onnx\]"):
        minirnn.to_onnx(minirnn.Linear(3, 4), tmp_path / "m.onnx")


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_the_model_of_the_example(cell, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples" / "sum_mod"))
    from model import SumMod

    sum_mod = SumMod(cell, num_layers=2)
    minirnn.to_onnx(sum_mod, tmp_path / "m.onnx")
    tokens = np.random.default_rng(0).integers(0, 10, (7, 3))
    lengths = [4, 7, 2]
    got = run(tmp_path / "m.onnx", tokens=tokens, lengths=np.array(lengths, np.int32))
    packed = minirnn.pack_padded_sequence(tokens, lengths, enforce_sorted=False)
    agree(got["output"], sum_mod(packed))
