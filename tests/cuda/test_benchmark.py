"""The benchmark's script works, as far as that can be told without a GPU."""

import contextlib
import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path

import emu
import numpy as np
import pytest
from strict_cupy import COUNTS

from minirnn import PackedSequence

ROOT = Path(__file__).resolve().parents[2]


def test_dry_run(tmp_path):
    pytest.importorskip("torch")
    if not emu.available():
        pytest.skip("g++ is not installed: kernels cannot be emulated")
    command = [
        sys.executable,
        ROOT / "benchmarks" / "gpu.py",
        "--dry",
        "--no-tests",
        "--out",
        tmp_path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # 3 cells, packed and padded, forward and forward + backward
    assert "12 lines in the table, nothing kept" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def script(double, monkeypatch):
    """The script as a module."""
    pytest.importorskip("torch")
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("gpu_script", ROOT / "benchmarks" / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nan_is_no_agreement(script):
    one, nan = np.ones(3), np.array([1, np.nan, 1])
    assert script.worst([(one, 2 * one), (one, one)]) == 0.5
    for k in range(3):
        pairs = [(nan if k == i else one, one) for i in range(3)]
        assert np.isnan(script.worst(pairs))


@pytest.mark.parametrize("lengths", ["mixed", "equal"])
@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
def test_all_that_is_wrong_makes_a_difference(script, cell, lengths, monkeypatch):
    problem = script.Problem(script.Machine(True), cell, 5, 3, 4, lengths)
    right = problem.ours
    right(True, False)  # leaves gradients behind, and does not disturb
    assert problem.difference() < script.TOLERANCE

    def wrong(*args):
        y, state, dx = right(*args)
        arrays = {
            "output": y,
            "state": state[-1] if isinstance(state, tuple) else state,
            "input gradient": dx,
            "weight_ih_l0": problem.layer.weight_ih_l0.grad,
            "weight_hh_l0": problem.layer.weight_hh_l0.grad,
        }
        a = arrays[what]
        a = a.data if isinstance(a, PackedSequence) else a
        a *= factor
        return y, state, dx

    monkeypatch.setattr(problem, "ours", wrong)
    parts = ["output", "state", "input gradient", "weight_ih_l0", "weight_hh_l0"]
    for what, factor in itertools.product(parts, [1.01, np.nan]):
        assert not problem.difference() < script.TOLERANCE, (what, factor)


def test_each_run_packs_a_new_batch(script):
    """The indices go up again each time, as in training, where torch's batch is a new one too."""
    problem = script.Problem(script.Machine(True), "GRU", 5, 3, 4, "mixed")
    for backward in (False, False, True, True):
        before = COUNTS["uploads"]
        problem.candidates(backward)["ours"]()
        assert COUNTS["uploads"] > before


def test_torch_infers_forward_and_trains_backward(script):
    problem = script.Problem(script.Machine(True), "RNN", 5, 3, 4, "equal")
    modes = []
    problem.torch_layer.register_forward_pre_hook(lambda layer, _: modes.append(layer.training))
    for backward in (False, True, False):
        problem.candidates(backward)["torch_fp32"]()
    assert modes == [False, True, False]


SOME = [("RNN", 5, 3, 4, "mixed"), ("LSTM", 1024, 3, 4, "equal"), ("GRU", 5, 3, 4, "mixed")]


@pytest.fixture
def pretended(script, monkeypatch, tmp_path):
    """The script with stages that take no time, and whose files stay: what they return can be changed."""

    def measure(machine, configuration, repeats):
        names = dict(zip(("cell", "H", "B", "T", "lengths"), configuration, strict=True))
        times = dict.fromkeys(script.CANDIDATES, 1.0)
        return [{**names, "pass": "forward", "difference": 0.0, **times}]

    sums = {"B": 1, "H": 1, "ours": 1.0, "torch_tf32": 2.0}
    monkeypatch.setattr(script, "configurations", lambda dry: SOME)
    monkeypatch.setattr(script, "measure", measure)
    monkeypatch.setattr(script, "sum_mod", lambda machine, repeats: sums)
    folder = contextlib.nullcontext(str(tmp_path))
    monkeypatch.setattr(script.tempfile, "TemporaryDirectory", lambda: folder)
    return script


def written(folder):
    """Return the table's cells, what the JSON file says is left out, and the page."""
    (page,) = [p.read_text() for p in folder.glob("*.md")]
    (report,) = [json.loads(p.read_text()) for p in folder.glob("*.json")]
    return [row["cell"] for row in report["rows"]], report["left_out"], page


FLAGS = ["--dry", "--no-tests"]


def test_a_complete_run(pretended, tmp_path):
    pretended.main(FLAGS)
    cells, left_out, page = written(tmp_path)
    assert cells == ["RNN", "LSTM", "GRU"]
    assert left_out == []
    assert "ratio 2.00" in page
    assert "INCOMPLETE" not in page


@pytest.mark.parametrize("of", ["torch", "cupy"])
def test_out_of_memory_leaves_one_out(pretended, double, of, monkeypatch, tmp_path):
    import torch

    kinds = {"torch": torch.cuda.OutOfMemoryError, "cupy": double.cuda.memory.OutOfMemoryError}
    right, freed = pretended.measure, []

    def measure(machine, configuration, repeats):
        if configuration[1] == 1024:
            raise kinds[of]("no 7 GiB\nmore")
        return right(machine, configuration, repeats)

    monkeypatch.setattr(pretended, "measure", measure)
    monkeypatch.setattr(pretended.Machine, "free", lambda machine: freed.append(machine))
    with pytest.raises(SystemExit, match="incomplete: 1 "):
        pretended.main(FLAGS)
    cells, left_out, page = written(tmp_path)
    assert cells == ["RNN", "GRU"]
    assert len(left_out) == 1
    assert (
        "INCOMPLETE. Left out:\n\n"
        "- LSTM, H = 1024, B = 3, T = 4, equal lengths: out of memory: no 7 GiB\n"
    ) in page
    assert len(freed) == 4  # after each stage, the one that failed too


def test_what_there_is_no_time_for_is_named(pretended, tmp_path):
    with pytest.raises(SystemExit, match="incomplete: 4 "):
        pretended.main([*FLAGS, "--budget", "0"])
    cells, left_out, page = written(tmp_path)
    assert cells == []
    assert [one["why"] for one in left_out] == ["out of time"] * 4
    for name in ("sum-mod", "RNN, H = 5, B = 3, T = 4, mixed lengths", "GRU, H = 5"):
        assert f"\n- {name}" in page


@pytest.mark.parametrize("fails", ["sum_mod", "measure"])
def test_a_crash_keeps_what_was_measured(pretended, fails, monkeypatch, tmp_path):
    right = pretended.measure

    def measure(machine, configuration, repeats):
        if fails == "sum_mod" or configuration[0] == "GRU":
            raise RuntimeError("an illegal memory access")
        return right(machine, configuration, repeats)

    monkeypatch.setattr(pretended, fails, measure if fails == "measure" else lambda *a: 1 / 0)
    with pytest.raises((RuntimeError, ZeroDivisionError)):
        pretended.main(FLAGS)
    cells, _, page = written(tmp_path)
    assert cells == (["RNN", "LSTM"] if fails == "measure" else [])
    assert ("ratio 2.00" in page) == (fails == "measure")


def test_a_difference_is_an_error(pretended, monkeypatch, tmp_path):
    right = pretended.measure
    monkeypatch.setattr(
        pretended, "measure", lambda *a: [{**right(*a)[0], "difference": float("nan")}]
    )
    with pytest.raises(SystemExit, match="differ"):
        pretended.main(FLAGS)
    assert "WRONG: in 3 rows" in written(tmp_path)[2]


def test_deprecations_do_not_keep_from_measuring(script, monkeypatch, tmp_path, capsys):
    """In development warnings are errors; here they may come from a NumPy or a CuPy of another version."""
    (tmp_path / "deprecating.py").write_text(
        "import warnings\n"
        "def pytest_runtest_call(item):\n"
        "    warnings.warn('gone in the next version', DeprecationWarning)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p deprecating")
    assert "2 passed" in script.run_tests(dry=True, timeout=300)
    assert "gone in the next version" in capsys.readouterr().out
