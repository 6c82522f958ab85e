"""minirnn.parallel over a real MPI: exact, and never a hang when a rank fails."""

import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
SUM_MOD = HERE.parent / "examples" / "sum_mod" / "train.py"
FLAGS = "--total_steps 30 --warmup_step 5 --log_every 10 --eval_every 30 --save_every 10"
# Open MPI starts neither as root nor more ranks than cores unless it is told to.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
HANG = 200  # seconds after which a run that waits for a rank which is gone counts as one


@pytest.fixture(scope="module")
def mpiexec():
    pytest.importorskip("mpi4py", reason="mpi4py is not installed (extra mpi)")
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("there is no mpiexec")
    return found


def command(mpiexec, size, *args):
    return [mpiexec, "-n", str(size), sys.executable, *map(str, args)]


def environment():
    paths = [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    return os.environ | OPEN_MPI | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run(*args, check=False):
    result = subprocess.run(
        command(*args), capture_output=True, text=True, env=environment(), timeout=HANG
    )
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_take_the_steps_of_one_process(mpiexec, size):
    result = run(mpiexec, size, HERE / "mpi_program.py", "steps", check=True)
    assert result.stdout == f"{size} ranks agree with one process\n"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("raises", "rank 1: Traceback"),
        ("raises", "ValueError: a token that there is not"),
        ("exits", "no such file: digits.txt"),
        ("apart", "others on ranks [1] of 2"),
        ("killed", ""),
    ],
)
def test_a_rank_that_ends_ends_all(mpiexec, what, message):
    result = run(mpiexec, 2, HERE / "mpi_program.py", what)
    assert result.returncode != 0
    assert message in result.stderr
    assert "nobody noticed" not in result.stdout


def log(folder):
    with (folder / "log.csv").open() as file:
        return [[float(value or "nan") for value in row.values()] for row in csv.DictReader(file)]


@pytest.mark.parametrize(("size", "batch_size"), [(2, 64), (3, 2)])
def test_sum_mod_learns_what_it_learns_in_one_process(mpiexec, tmp_path, size, batch_size):
    flags = [*FLAGS.split(), "--save_dir", tmp_path, "--batch_size", batch_size]
    subprocess.run(
        [sys.executable, *map(str, [SUM_MOD, *flags, "--run_name", "one"])],
        env=environment(),
        check=True,
        capture_output=True,
    )
    result = run(mpiexec, size, SUM_MOD, *flags, "--run_name", "many", check=True)
    assert result.stdout.count("accuracy on length 10") == 1  # one of the ranks speaks
    np.testing.assert_allclose(log(tmp_path / "many"), log(tmp_path / "one"), rtol=1e-4, atol=1e-4)
    one = np.load(tmp_path / "one" / "weights-000030.npz")
    many = np.load(tmp_path / "many" / "weights-000030.npz")
    with one, many:
        for name in one:
            np.testing.assert_allclose(many[name], one[name], rtol=1e-4, atol=1e-5)


def ranks_of(folder):
    """Return the process numbers of the ranks that write there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except OSError:  # it is gone
            continue
        if words[0] == sys.executable and str(folder) in words:
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="ranks are found in /proc")
@pytest.mark.parametrize("how", ["Ctrl-C", "a rank is killed"])
def test_sum_mod_is_stopped_and_goes_on_as_if_it_had_not_been(mpiexec, tmp_path, how):
    flags = [*FLAGS.split(), "--save_dir", tmp_path]
    flags[1] = 300
    run(mpiexec, 2, SUM_MOD, *flags, "--run_name", "whole", check=True)
    process = subprocess.Popen(
        command(mpiexec, 2, SUM_MOD, *flags, "--run_name", "cut"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    while not (tmp_path / "cut" / "checkpoint").exists() and process.poll() is None:
        time.sleep(0.01)
    if how == "Ctrl-C":
        process.send_signal(signal.SIGINT)
    else:
        os.kill(ranks_of(tmp_path)[-1], signal.SIGKILL)
    output, _ = process.communicate(timeout=HANG)
    assert process.returncode != 0
    assert not (tmp_path / "cut" / "result.json").exists()
    if how == "Ctrl-C":
        assert "stopped and saved; go on with: mpiexec -n 2 python" in output
    go_on = ["--save_dir", tmp_path, "--run_name", "cut", "--resume"]
    run(mpiexec, 2, SUM_MOD, *go_on, check=True)
    whole = np.load(tmp_path / "whole" / "weights-000300.npz")
    cut = np.load(tmp_path / "cut" / "weights-000300.npz")
    with whole, cut:
        for name in whole:
            np.testing.assert_array_equal(cut[name], whole[name])


def test_the_benchmark_runs_and_computes_what_its_formula_says(mpiexec, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE.parent / "benchmarks"))
    import scale

    a, b, alpha, beta = 2e-3, 1e-11, 5e-6, 1e-9
    one, many = scale.simulated(a, b, alpha, beta, 1000, np.array([1, 8]), 10**6).tolist()
    np.testing.assert_allclose(one, 2e-3 + 1e-2)
    np.testing.assert_allclose(many, 2e-3 + 1e-2 / 8 + 14 * (5e-6 + 1e-9 * 4e6 / 8))
    found = {n: 2 * (3e-6 + 2e-9 * 4 * n / 2) for n in (1, 100, 10_000)}
    np.testing.assert_allclose(scale.fit(found), (3e-6, 2e-9))
    flags = ["--repeats", 1, "--sizes", 8, 16]
    if importlib.util.find_spec("matplotlib"):
        flags += ["--out", tmp_path]
    result = run(mpiexec, 2, HERE.parent / "benchmarks" / "scale.py", *flags, check=True)
    rows = [line for line in result.stdout.splitlines() if line.startswith(("| 8 |", "| 16 |"))]
    assert [row.split(" | ")[1] for row in rows] == ["522", "1,802"]
    if "--out" in flags:
        assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")


def test_a_studys_runs_are_the_same_on_ranks_as_in_processes_and_are_kept(mpiexec, tmp_path):
    study = HERE.parent / "examples" / "studies" / "momentum.py"
    flags = ["--quick", "--seeds", 1, "--out"]
    on_ranks = ["-m", "mpi4py.futures", study, *flags, tmp_path / "ranks", "--mpi"]
    run(mpiexec, 2, *on_ranks, check=True)
    in_processes = [sys.executable, study, *flags, tmp_path / "processes", "--jobs", 1]
    subprocess.run([*map(str, in_processes)], env=environment(), check=True, capture_output=True)

    def rows(folder):
        lines = (tmp_path / folder / "momentum.runs.jsonl").read_text().splitlines()
        runs = [json.loads(line) for line in lines]
        for one in runs:
            del one["result"]["seconds"]
        return sorted(json.dumps(one, sort_keys=True) for one in runs)

    assert rows("ranks") == rows("processes") != []
    before = (tmp_path / "ranks" / "momentum.runs.jsonl").read_bytes()
    run(mpiexec, 2, *on_ranks, check=True)
    assert (tmp_path / "ranks" / "momentum.runs.jsonl").read_bytes() == before


STUDY = f"""
import sys
sys.path.insert(0, {str(HERE.parent / "examples" / "studies")!r})
import study
from mpi4py import MPI

def run(seed):
    return {{"rank": MPI.COMM_WORLD.Get_rank()}}

STUDY = study.Study(
    "ranked", "Who ran?", lambda quick: [{{}}], run, lambda rows: {{}}, lambda rows: [],
    lambda figure, rows: None,
)
if __name__ == "__main__":
    study.main(STUDY)
"""


def test_the_runs_of_a_study_are_spread_over_ranks(mpiexec, tmp_path):
    (tmp_path / "ranked.py").write_text(STUDY, encoding="utf-8")
    flags = ["--mpi", "--seeds", "8", "--out", tmp_path]
    run(mpiexec, 3, "-m", "mpi4py.futures", tmp_path / "ranked.py", *flags, check=True)
    with (tmp_path / "ranked.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["seed"] for r in rows] == [str(k) for k in range(8)]
    assert {r["rank"] for r in rows} <= {"1", "2"}  # 0 hands out
