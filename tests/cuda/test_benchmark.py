"""The benchmark's script works, as far as that can be told without a GPU."""

import subprocess
import sys
from pathlib import Path

import emu
import pytest

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
