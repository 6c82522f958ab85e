"""The page that adds in the browser: its network is the library's, and it runs in headless Chromium."""

import json
import re
import runpy
import subprocess
from pathlib import Path

import numpy as np
import pytest
from sites import browser, served

DOCS = Path(__file__).parent.parent / "docs"
NETWORK = DOCS / "_static" / "demo" / "adder.onnx"


def run(path, digits):
    """Return what onnxruntime makes of the digits, by name."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    tokens = np.array([int(d) for d in digits], np.int64)[:, None]
    lengths = np.array([len(digits)], np.int32)
    values = session.run(None, {"tokens": tokens, "lengths": lengths})
    return dict(zip((o.name for o in session.get_outputs()), values, strict=True))


def test_the_network_adds():
    rng = np.random.default_rng(0)
    for _ in range(50):
        digits = "".join(map(str, rng.integers(0, 10, rng.integers(2, 9))))
        assert run(NETWORK, digits)["answers"][-1, 0].argmax() == sum(map(int, digits)) % 10


def test_what_is_exported_is_what_the_library_computes(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    monkeypatch.syspath_prepend(str(DOCS.parent / "examples" / "sum_mod"))
    import minirnn

    script = runpy.run_path(str(DOCS / "demo" / "export.py"))
    model = script["SumMod"]("gru", hidden_dim=8)
    minirnn.to_onnx(script["Adder"](model), tmp_path / "a.onnx")
    found = run(tmp_path / "a.onnx", "31415926")
    x = model.embedding(np.array([[3], [1], [4], [1], [5], [9], [2], [6]]))
    (states, _, trace), _ = model.rnn.forward(x, trace=True)
    gates = dict(zip(("reset", "update"), (trace.gates[g][0] for g in "rz"), strict=True))
    expected = {"states": states, **gates}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)
    logits = model.head(states).astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(found["answers"], p, atol=1e-6)


@pytest.mark.parametrize("digits", ["3719", "55", "12345678901234567890"])
def test_the_page_says_in_a_browser_what_the_library_says(digits, tmp_path):
    wait = ("--timeout=60000", "--virtual-time-budget=30000", "--dump-dom")
    with served() as address:
        command = browser(tmp_path, f"{address}/demo.html?digits={digits}", *wait)
        page = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    numbers = re.search(r'<script id="demo-numbers"[^>]*>(.*?)</script>', page, re.S)[1]
    found, expected = json.loads(numbers), run(NETWORK, digits)
    assert found["digits"] == digits
    for name in ("answers", "states"):
        np.testing.assert_allclose(found[name], expected[name].ravel(), atol=1e-5)
    guess = expected["answers"][-1, 0].argmax()
    assert f"= {guess} mod 10" in re.search(r'id="demo-answer"[^>]*>([^<]*)<', page)[1]
