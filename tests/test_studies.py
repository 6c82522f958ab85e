"""The studies: finished runs are kept, claims are decided by data, and every study rehearses."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

STUDIES = Path(__file__).parent.parent / "examples" / "studies"
sys.path.insert(0, str(STUDIES))
import claims  # noqa: E402
import study  # noqa: E402


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
