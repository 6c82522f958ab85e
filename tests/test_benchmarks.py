"""The benchmark runs end to end, times what it says, and refuses to time what is wrong."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
NUMBER = r"\d+\.\d+"
RATIO = re.compile(rf"({NUMBER}) \(({NUMBER})-({NUMBER})\)")


@pytest.fixture
def timing(monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    import timing

    yield timing
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    command = [sys.executable, BENCHMARKS / "speed.py", "--quick", "--budget", "0.001"]
    result = subprocess.run([*command, "--results", folder], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for picture in ("cpu-ratio.png", "cpu-scaling.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    return (folder / "cpu.md").read_text()


def section(page, title):
    """Return the rows of a section's tables, headers included, as lists of cells."""
    text = page.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_page_says_where_and_when(page):
    for name in ("Date: 20", "CPU: ", "1 thread used", f"NumPy {np.__version__}", "torch 2."):
        assert name in page


def test_the_floors_have_a_row_each_and_an_honest_mark(page):
    _, *rows = section(page, "Forward + backward, held to its floors")
    floors = {row[0]: row[1:] for row in rows}
    expected = {
        "RNN dense": ["9", "6.5"],
        "RNN packed": ["11", "11"],
        "GRU dense": ["13", "6"],
        "GRU packed": ["14", "9.5"],
        "LSTM dense": ["6.5", "1.6"],
        "LSTM packed": ["13", "8.5"],
    }
    assert floors.keys() == expected.keys()
    for name, cells in floors.items():
        for cell, floor in zip(cells, expected[name], strict=True):
            median, low, high = map(float, RATIO.match(cell).groups())
            assert 0 < low <= median <= high
            assert cell.split("; ")[1].split()[0] == floor
            if abs(median - float(floor)) > 0.05:  # the page rounds
                assert cell.endswith("✓" if median > float(floor) else "✗")


@pytest.mark.parametrize(
    ("title", "rows", "ratios"),
    [
        ("Equal lengths", 3, 3),
        ("Packed batches, lengths uniform in 1..T", 3, 3),
        ("Packed against padded", 3, 2),
        ("Both directions", 6, 3),
        ("One step at a time, B = 1", 6, 1),
    ],
)
def test_every_cell_has_its_rows(page, title, rows, ratios):
    body = [row for row in section(page, title) if row[0]]
    assert sorted(row[0] for row in body) == sorted(["RNN", "GRU", "LSTM"] * (rows // 3))
    for row in body:
        assert sum(RATIO.search(cell) is not None for cell in row) >= ratios


def test_training_memory_import_and_scaling_are_measured(page):
    training = section(page, "Training on sum-mod, loop and step")[1:9]
    assert [RATIO.match(row[3]) is not None for row in training] == [True] * 8
    floors = [row[3].split("; ")[1].split()[0] for row in training if ";" in row[3]]
    assert floors == ["5", "5", "5.5", "4.0", "5", "3.8"]
    _, memory = section(page, "Peak memory")
    assert memory[0] == "RNN"
    assert 1 < float(memory[1].split(";")[0]) < 10
    _, (cell, size, *of_both, ratio) = section(page, "Each library by itself")
    assert (cell, size) == ("RNN", "20, 32, 32, 32")
    assert all(re.fullmatch(r"[\d.]+ [mu]s, \d+", said) for said in of_both)
    assert float(ratio) > 0
    _, *install = section(page, "Import time and size")
    megabytes = {row[0]: float(row[2].removesuffix(" MB")) for row in install}
    assert 0.05 < megabytes["minirnn"] < megabytes["numpy"] < megabytes["torch"]
    scaling = [row for row in section(page, "Time against T, B and H") if row[0]]
    assert len(scaling) == 18
    assert {row[1] for row in scaling} == {"10", "100", "1", "4", "16", "32"}


def test_numpy_alone_and_jax_are_measured(page):
    peers = section(page, "Other ways: JAX, and this library's own in NumPy alone")
    rows = [row for row in peers if row[0].endswith(("dense", "packed"))]
    jax = importlib.util.find_spec("jax") is not None
    assert len(rows) == (12 if jax else 6)
    assert all(RATIO.match(cell) for row in rows for cell in row[1:])
    steps = section(page, "Training on sum-mod, loop and step")[9:]
    assert [row[3].count("(") for row in steps] == [0, 1, 1, 1, 1] * jax
    if not jax:
        assert page.count("JAX is not installed: pip install 'minirnn[bench]'") == 2


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda p: p.name)
def test_results_are_written_whole_or_not_at_all(path):
    text = path.read_text(encoding="utf-8")
    straight = re.findall(r".*(?:write_text|write_bytes|savefig\((?!file\b)|open\().*", text)
    assert [line for line in straight if "/proc/" not in line] == []


def test_what_torch_learns_is_tabulated(timing, monkeypatch):
    import sum_mod

    monkeypatch.setattr(sum_mod, "TOTAL", 30)
    monkeypatch.setattr(
        sum_mod, "RECIPES", {"flat": (2, 4, 1, 0.0, 0), "steep": (4, 4, 2, 0.1, 20)}
    )
    first, second = sum_mod.learning(2).split("\n\n")
    flat, steep = ([c.strip() for c in line.split("|")[1:-1]] for line in first.splitlines()[2:])
    assert (flat[:6], steep[:6]) == (
        ["flat", "2", "4", "1", "0.0", "0"],
        ["steep", "4", "4", "2", "0.1", "20"],
    )
    by_length = [line.split("|")[1:-1] for line in second.splitlines()[2:]]
    assert [row[1].strip() for row in by_length] == steep[6:]
    assert all(re.fullmatch(r"0\.\d{4}", share) for share in flat[6:] + steep[6:])


def test_torch_learns_by_the_recipe(timing, monkeypatch):
    import sum_mod

    drawn = sum_mod.drawn
    # Single digits are learned at once, and by nobody at a rate of zero.
    monkeypatch.setattr(sum_mod, "drawn", lambda *args, **options: drawn(*args[:2], 1, 1, ahead=1))
    monkeypatch.setattr(sum_mod, "LENGTHS", [(1, 1)])
    monkeypatch.setattr(sum_mod, "TOTAL", 300)
    assert sum_mod.learned(0, 64, 16, 1, 2e-2, 20) == [1.0]
    assert sum_mod.learned(0, 64, 16, 1, 0.0, 0)[0] < 0.5
    assert sum_mod.learned(1, 64, 16, 1, 0.0, 0) != sum_mod.learned(0, 64, 16, 1, 0.0, 0)


def test_a_partial_run_does_not_replace_the_results(timing, capsys):
    import speed

    for flag in ("--quick", "--only=floors"):
        with pytest.raises(SystemExit, match="2"):
            speed.main(["--write", flag])
        assert "--write: the committed page is of a whole run" in capsys.readouterr().err


def test_the_ratio_is_that_of_the_two_sides(timing, monkeypatch):
    now = 0.0

    def lasting(seconds):
        def side():
            nonlocal now
            now += next(seconds)

        return side

    monkeypatch.setattr(timing, "perf_counter", lambda: now)
    theirs = iter([6.0] * 3 + [4.0, 6.0, 8.0, 6.0, 6.5, 5.0, 7.0])
    result = timing.compare(lasting(iter([2.0] * 10)), lasting(theirs), budget=56.0)
    assert result.rounds == 7
    assert (result.ours, result.theirs, result.ratio) == (2.0, 6.0, 3.0)
    assert (result.low, result.high) == (2.75, 3.375)
    assert result.per(2).ours == 1.0
    assert str(result) == "3.00 (2.75-3.38)"
    assert timing.marked(result, 3).endswith("; 3 ✓")
    assert timing.marked(result, 3.01).endswith("; 3.01 ✗")


@pytest.mark.parametrize("packed", [False, True])
def test_wrong_results_are_not_timed(timing, packed, monkeypatch):
    from pairs import Pair, uniform_lengths

    pair = Pair("GRU", 6, 4, 3, 5, uniform_lengths(6, 4) if packed else None)
    pair.check()
    backward = pair.layer.backward

    def wrong(ctx, doutput):
        dx, dh_0 = backward(ctx, doutput)
        pair.layer.bias_hh_l0.grad[3] *= 1.01
        return dx, dh_0

    monkeypatch.setattr(pair.layer, "backward", wrong)
    with pytest.raises(AssertionError, match="bias_hh_l0: differs"):
        pair.check()
    monkeypatch.undo()
    pair.layer.weight_ih_l0.data[0, 0] += 0.1
    with pytest.raises(AssertionError, match="output: differs"):
        pair.check()


def test_lengths_have_the_share_asked_for(timing):
    from pairs import filled_lengths

    for percent in (20, 50, 90, 100):
        lengths = filled_lengths(100, 64, percent / 100)
        assert lengths[0] == 100
        assert (np.diff(lengths) <= 0).all()
        assert abs(lengths.mean() - percent) < 2


def test_techniques_are_measured_at_three_sizes():
    command = [sys.executable, BENCHMARKS / "techniques.py", "--budget", "0.0001"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = [line for line in result.stdout.splitlines() if " / " in line and RATIO.search(line)]
    ratios = [len(RATIO.findall(row)) for row in rows]
    assert ratios == [3] * 10 + [1] * 7  # techniques by size, choices


def test_per_sample_norms_are_measured_for_every_layer():
    command = [sys.executable, BENCHMARKS / "diagnostics.py", "--budget", "0.0001"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = [line for line in result.stdout.splitlines() if RATIO.search(line)]
    assert [row.split(" | ")[0] for row in rows] == [
        f"| {k}" for k in ("RNN", "GRU", "LSTM") for _ in "12"
    ]
