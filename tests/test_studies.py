"""The studies: finished runs are kept, claims are decided by data, and every study rehearses."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
STUDIES = ROOT / "examples" / "studies"
DOCS = ROOT / "docs" / "studies"
sys.path.insert(0, str(STUDIES))
import claims  # noqa: E402
import study  # noqa: E402

NAMES = sorted(p.stem for p in STUDIES.glob("*.py") if "STUDY = " in p.read_text(encoding="utf-8"))


def run(width, seed, calls):
    """Note that it was called, in a file that outlives the process."""
    with open(calls, "a") as file:
        file.write(f"{width} {seed}\n")
    if width == 13:
        raise ValueError("unlucky")
    return {"size": np.float32(10 * width + seed), "reached": math.nan, "curve": np.arange(2)}


def made_up(widths, calls):
    return study.Study(
        name="made_up",
        question="Is it large?",
        settings=lambda quick: [{"width": w, "calls": str(calls)} for w in widths],
        run=run,
        tables=lambda rows: {"sizes": study.summary(rows, ["width"], "size")},
        claims=lambda rows: [
            claims.claim(
                "it is large",
                "median size",
                claims.median_interval(study.values(rows, "size")),
                (9, claims.INFINITY),
            )
        ],
        draw=lambda figure, rows: figure.add_subplot().plot(study.values(rows, "size")),
    )


def test_a_finished_run_is_not_run_again(tmp_path, capsys):
    calls = tmp_path / "calls"
    out = ["--out", str(tmp_path / "new"), "--jobs", "2"]
    study.main(made_up([1], calls), [*out, "--seeds", "3"])
    assert sorted(calls.read_text().split("\n")[:-1]) == ["1 0", "1 1", "1 2"]
    study.main(made_up([1, 2], calls), [*out, "--seeds", "4"])
    new = calls.read_text().split("\n")[3:-1]
    assert sorted(new) == ["1 3", "2 0", "2 1", "2 2", "2 3"]
    text = calls.read_text()
    study.main(made_up([2], calls), [*out, "--seeds", "4"])
    assert calls.read_text() == text
    said = capsys.readouterr().out.rpartition("Is it large?")[2]
    assert "| 2 | 21.500 | - | 20.000 to 23.000 | 20.000 21.000 22.000 23.000 |" in said
    assert "**undecided**" in said  # of four runs
    lines = (tmp_path / "new" / "made_up.csv").read_text().splitlines()
    assert lines[0].startswith("width,calls,seed,size,reached,seconds")
    assert lines[4].split(",")[2:5] == ["3", "23.0", ""]


def test_results_do_not_depend_on_the_number_of_processes(tmp_path):
    for jobs in "13":
        flags = ["--out", str(tmp_path / jobs), "--jobs", jobs, "--seeds", "6"]
        study.main(made_up([1], tmp_path / "calls"), flags)
    one, three = (json.loads((tmp_path / k / "made_up.json").read_text()) for k in "13")
    assert one == three
    assert one["claims"][0]["verdict"] == "held"
    assert one["claims"][0]["interval"] == [10, 15]
    assert (tmp_path / "1" / "made_up.png").read_bytes().startswith(b"\x89PNG")


def test_without_tqdm_and_matplotlib_there_are_lines_and_no_picture(tmp_path, monkeypatch, capsys):
    for name in ("tqdm", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    study.main(made_up([4], tmp_path / "calls"), ["--out", str(tmp_path), "--seeds", "2"])
    said = capsys.readouterr().out
    assert "1 of 2: {'width': 4, " in said
    assert "2 of 2: {'width': 4, " in said
    assert "no picture: pip install 'minirnn[plot]'" in said
    assert not (tmp_path / "made_up.png").exists()
    assert (tmp_path / "made_up.json").exists()


@pytest.mark.parametrize("flag", ["--seeds", "--jobs"])
def test_a_bad_flag_is_explained(flag, tmp_path, capsys):
    with pytest.raises(SystemExit):
        study.main(made_up([4], tmp_path / "calls"), ["--out", str(tmp_path), flag, "0"])
    assert f"{flag}: expected at least 1, got 0" in capsys.readouterr().err


def test_a_failed_run_leaves_the_finished_ones(tmp_path):
    path, calls = tmp_path / "runs.jsonl", tmp_path / "calls"
    settings = [{"width": w, "seed": 0, "calls": str(calls)} for w in (1, 2, 13)]
    with pytest.raises(ValueError, match="unlucky") as raised:
        study.finished(run, settings, path)
    assert "2 runs are kept" in raised.value.__notes__[0]
    assert len(study.kept(path)) == 2


def test_a_line_that_was_cut_off_is_a_run_that_is_missing(tmp_path):
    path, calls = tmp_path / "runs.jsonl", tmp_path / "calls"
    settings = [{"width": w, "seed": 0, "calls": str(calls)} for w in (1, 2)]
    study.finished(run, settings, path)
    whole = path.read_text()
    path.write_text(whole[:-20])
    rows = study.finished(run, settings, path)
    assert [r["size"] for r in rows] == [10, 20]
    assert calls.read_text() == "1 0\n2 0\n2 0\n"
    assert sorted(study.kept(path)) == sorted(map(study.key, settings))


def test_a_page_gets_its_numbers(tmp_path):
    page = tmp_path / "made_up.md"
    page.write_text(
        "# It\n<!-- sizes -->\nold\n<!-- end -->\nbetween\n<!-- claims -->\n<!-- end -->\n"
    )
    flags = ["--out", str(tmp_path), "--seeds", "1"]
    for _ in range(2):
        study.main(made_up([7], tmp_path / "calls"), flags)
        text = page.read_text()
        assert text.startswith("# It\n<!-- sizes -->\n| width |")
        assert "| 7 | 70.000 |" in text
        assert "<!-- end -->\nbetween\n<!-- claims -->\n| claim |" in text
        assert "old" not in text
        assert text.count("<!-- end -->") == 2


# -- claims ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "verdict"),
    [([0.9] * 9 + [0.1], "held"), ([0.1] * 9 + [0.9], "not held"), ([0.1, 0.9] * 5, "undecided")],
)
def test_a_claim_about_a_median(values, verdict):
    interval = claims.median_interval(values)
    assert claims.claim("large", "median", interval, (0.5, 1)).verdict == verdict


def test_a_claim_about_a_difference():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 10))
    for shift, verdict in ((5, "held"), (-5, "not held"), (0, "undecided")):
        interval = claims.difference_interval(a + shift, b)
        assert claims.decide(interval, (0, claims.INFINITY)) == verdict
    assert claims.decide(claims.difference_interval([9, 9, 9], [1, 1, 1]), (0, 9)) == "undecided"


def test_a_claim_about_a_share():
    for successes, verdict in ((10, "held"), (1, "not held"), (5, "undecided")):
        assert claims.decide(claims.share_interval(successes, 10), (0.6, 1)) == verdict


@pytest.mark.parametrize("n", [6, 9, 10, 25])
def test_the_intervals_hold_what_they_promise(n):
    """The share of intervals that miss the truth is at most 5 %, and for a continuous law not far below."""
    rng, missed = np.random.default_rng(n), np.zeros(3)
    trials = 2000
    for _ in range(trials):
        x, y = rng.standard_normal((2, n))
        median, difference = claims.median_interval(x), claims.difference_interval(x, y)
        share = claims.share_interval(int((x > 0.5).sum()), n)
        r = claims.correlation(x, y)[1]
        for k, (truth, (low, high)) in enumerate(((0, median), (0, difference), (0, r))):
            missed[k] += not low <= truth <= high
        assert 0 <= share.low <= share.high <= 1
    assert (missed / trials < 0.065).all(), missed / trials
    assert missed[1] / trials > 0.01


def test_ranks_of_ties_and_a_correlation_of_nothing():
    r, interval = claims.correlation([1, 2, 2, 3], [1, 2.5, 2.5, 9])
    assert r == pytest.approx(1)
    assert interval.high <= 1
    r, interval = claims.correlation([1, 1, 1, 1], [1, 2, 3, 4])
    assert math.isnan(r)
    assert interval == (-1, 1)


# -- the studies themselves ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_study_rehearses_with_one_command(name, tmp_path):
    command = [sys.executable, STUDIES / f"{name}.py", "--quick", "--out", tmp_path, "--jobs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    result = json.loads((tmp_path / f"{name}.json").read_text())
    assert result["question"] in done.stdout
    assert {c["verdict"] for c in result["claims"]} <= {"held", "not held", "undecided"}
    lines = (tmp_path / f"{name}.runs.jsonl").read_text().splitlines()
    assert (
        len(lines) == result["runs"] == len((tmp_path / f"{name}.csv").read_text().splitlines()) - 1
    )
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n != "instability_film"]
)  # of data not shipped
def test_a_page_shows_what_the_kept_runs_say(name):
    """All runs are there; tables, verdicts and files are made of them and of nothing else."""
    its = importlib.import_module(name).STUDY
    runs = study.kept(DOCS / f"{name}.runs.jsonl")
    rows = [{**s, **runs[study.key(s)]} for s in study.wanted(its, 10)]
    said = its.claims(rows)
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    for block, text in study.blocks(its, rows, said).items():
        assert f"<!-- {block} -->\n{text}\n<!-- end -->" in page, block
    assert f"({name}.png)" in page
    result = json.loads((DOCS / f"{name}.json").read_text())
    assert [c["verdict"] for c in result["claims"]] == [c.verdict for c in said]


def test_the_numbers_of_the_worked_example():
    batch_size = importlib.import_module("batch_size")
    result = batch_size.example()
    right = {
        "one batch of 8": [1.65, 0.55, -0.065, 0.145],
        "two of 4, first": [2.5, 0.9, -0.15, 0.11],
        "two of 4, second": [-22.12, -3.23, 2.062, 0.433],
    }
    for step, numbers in right.items():
        for what, number in zip(("dw", "db", "w", "b"), numbers, strict=True):
            assert result[f"{step}: {what}"] == pytest.approx(number, abs=1e-15)
    assert result["error"] < 1e-14
    shown = batch_size.printed(result)
    assert "| db = -3.23, b = 0.433 |" in shown
    assert "| dw = 1.65, db = 0.55, w = -0.065, b = 0.145 |" in shown
