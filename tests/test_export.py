"""ONNX files give in onnxruntime what the model gives here, at mixed lengths and lengths of zero."""

import sys

import numpy as np
import pytest

import minirnn

CASES = [
    (cell, {"num_layers": layers, "bidirectional": both, "bias": bias, **more})
    for cell, more in (("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("LSTM", {}), ("GRU", {}))
    for layers, both, bias in ((1, False, True), (2, True, True), (2, True, False))
]


def run(path, **feed):
    pytest.importorskip("onnx", reason="needs onnx")
    ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


@pytest.mark.parametrize(("cell", "options"), CASES)
def test_onnxruntime_agrees(cell, options, tmp_path):
    pytest.importorskip("onnx", reason="needs onnx")
    rnn = getattr(minirnn, cell)(6, 8, rng=0, **options)
    for p in rnn.parameters():
        p.data *= 2
    table = minirnn.Embedding(11, 6, rng=1)
    head = minirnn.Linear(8 * rnn.num_directions, 4, bias=options["bias"], rng=2)
    model = minirnn.Sequential(table, minirnn.Dropout(0.5), minirnn.Sequential(rnn, head)).eval()
    minirnn.to_onnx(model, tmp_path / "m.onnx")
    rng = np.random.default_rng(3)
    for lengths in ([5, 9, 1, 7], [2, 0, 3]):
        tokens = rng.integers(0, 11, (max(lengths), len(lengths)))
        got = run(tmp_path / "m.onnx", tokens=tokens, lengths=np.array(lengths, np.int32))
        packed = minirnn.pack_padded_sequence(tokens, lengths, enforce_sorted=False)
        _, states = rnn(table(packed))
        states = states if cell == "LSTM" else (states,)
        assert got.keys() == {"output", *("h_n", "c_n")[: len(states)]}
        for name, state in zip(("h_n", "c_n"), states, strict=False):
            np.testing.assert_allclose(got[name], state, atol=1e-5)
        expected, _ = minirnn.pad_packed_sequence(model(packed))
        running = np.arange(max(lengths))[:, None] < np.array(lengths)
        np.testing.assert_allclose(got["output"][running], expected[running], atol=1e-5)


def test_floats_and_a_single_layer(tmp_path):
    pytest.importorskip("onnx", reason="needs onnx")
    rnn = minirnn.GRU(3, 4, rng=0)
    minirnn.to_onnx(rnn, tmp_path / "m.onnx")
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype("f4")
    got = run(tmp_path / "m.onnx", input=x, lengths=np.array([5, 5], np.int32))
    np.testing.assert_allclose(got["output"], rnn(x)[0], atol=1e-5)
    minirnn.to_onnx(minirnn.Linear(3, 4), tmp_path / "m.onnx")
    assert run(tmp_path / "m.onnx", input=x)["output"].shape == (5, 2, 4)


class Own(minirnn.Module):
    pass


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (Own(), TypeError, "Sequential"),
        (minirnn.LSTM(3, 4, proj_size=2), ValueError, "projection"),
        (minirnn.GRU(3, 4, batch_first=True), ValueError, "batch_first"),
        (minirnn.GRU(3, 4, dtype="float64"), TypeError, "float32"),
        (minirnn.Dropout(0.5), TypeError, "weights"),
    ],
)
def test_what_onnx_has_not_is_refused(model, error, message, tmp_path):
    pytest.importorskip("onnx", reason="needs onnx")
    with pytest.raises(error, match=message):
        minirnn.to_onnx(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_the_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"minirnn\[onnx\]"):
        minirnn.to_onnx(minirnn.Linear(3, 4), tmp_path / "m.onnx")
