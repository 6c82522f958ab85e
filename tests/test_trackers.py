"""Trackers: what a run is told to, and that none of them stops it."""

import csv
import json
import sys
import warnings

import numpy as np
import pytest

import minirnn
from minirnn import trackers

ROWS = [
    (10, {"loss": np.float32(2.5), "accuracy": None}),
    (20, {"loss": np.array(1.5), "accuracy": 0.25}),
    (30, {"loss": float("nan"), "accuracy": float("inf"), "lr": 1e-3}),
]
CONFIG = {"lr": np.float32(0.5), "sizes": (3, np.int64(4)), "data": None, "kind": minirnn.GRU}


def told(tracker):
    tracker.config(CONFIG)
    for step, values in ROWS:
        tracker.log(step, values)
    tracker.close()


def test_json_lines(tmp_path):
    told(trackers.JSONLines(tmp_path / "log"))
    config, *lines = map(json.loads, (tmp_path / "log").read_text().splitlines())
    kind = "<class 'minirnn.recurrent.GRU'>"
    assert config == {"config": {"lr": 0.5, "sizes": [3, 4], "data": None, "kind": kind}}
    assert lines == [
        {"step": 10, "loss": 2.5, "accuracy": None},
        {"step": 20, "loss": 1.5, "accuracy": 0.25},
        {"step": 30, "loss": "NaN", "accuracy": "Infinity", "lr": 1e-3},
    ]


def test_csv(tmp_path):
    told(trackers.CSV(tmp_path / "log.csv"))
    with (tmp_path / "log.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["step", "loss", "accuracy", "lr"],
            ["10", "2.5", "", ""],
            ["20", "1.5", "0.25", ""],
            ["30", "nan", "inf", "0.001"],
        ]
    assert json.loads((tmp_path / "log.config.json").read_text())["sizes"] == [3, 4]


@pytest.mark.parametrize("name", ["jsonl", "csv"])
def test_what_was_logged_is_there_at_once(name, tmp_path):
    tracker = trackers.tracker(name, tmp_path)
    for loss in (0.125, 0.375):
        tracker.log(7, {"loss": loss})
        assert f"{loss}" in (tmp_path / f"log.{name}").read_text()
    tracker.close()


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX", reason="needs the tensorboard extra")
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c  # noqa: F401  its own record format

    told(trackers.tracker("tensorboard", tmp_path))
    (path,) = (tmp_path / "tensorboard").iterdir()
    content, events = path.read_bytes(), []
    while content:  # length, its checksum, the event, its checksum
        size = int.from_bytes(content[:8], "little")
        events.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    found = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
    assert found[0][1].startswith("config")
    assert found[1:4] == [(10, "loss", 2.5), (20, "loss", 1.5), (20, "accuracy", 0.25)]
    assert len(found) == 1 + 1 + 2 + 3


def test_swanlab(tmp_path):
    pytest.importorskip("swanlab", reason="needs the swanlab extra")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told(trackers.tracker("swanlab", tmp_path))
    (run,) = (tmp_path / "swanlab").glob("run-*")
    (log,) = run.glob("*.swanlab")
    content = log.read_bytes()
    assert b"loss" in content
    assert b"accuracy" in content
    assert "sizes" in (run / "files" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "library"), [("swanlab", "swanlab"), ("tensorboard", "tensorboardX")]
)
def test_a_missing_library_is_named_with_its_extra(name, library, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"pip install 'minirnn\[{name}\]'"):
        trackers.tracker(name, tmp_path)


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'swanlab', 'tensorboard'\), got 'x'"):
        trackers.tracker("x", tmp_path)


class Failing:
    """A tracker that fails in one method."""

    def __init__(self, at, error):
        self.at, self.error, self.calls = at, error, []

    def __getattr__(self, name):
        def call(*args):
            self.calls.append(name)
            if name == self.at:
                raise self.error

        return call


@pytest.mark.parametrize("error", [ValueError("full"), SystemExit(1), OSError(28, "No space")])
@pytest.mark.parametrize(
    ("at", "calls"),
    [
        ("config", ["config"]),
        ("log", ["config", "log"]),
        ("close", ["config", "log", "log", "log", "close"]),
    ],
)
def test_a_tracker_that_fails_warns_once_and_stops_nothing(at, calls, error):
    failing = Failing(at, error)
    with pytest.warns(RuntimeWarning, match=f"Failing.{at} failed") as caught:
        told(trackers.Unfailing(failing))
    assert len(caught) == 1
    assert failing.calls == calls


def test_what_stops_a_run_on_purpose_still_does():
    with pytest.raises(KeyboardInterrupt):
        told(trackers.Unfailing(Failing("log", KeyboardInterrupt())))


def test_an_object_without_the_methods_is_refused():
    with pytest.raises(TypeError, match="got list without config"):
        trackers.Unfailing([])


def test_seeds_of_generators_seeded_and_not():
    from minirnn.data import batches

    minirnn.manual_seed(11)
    model = minirnn.Sequential(minirnn.GRU(2, 3, rng=5), minirnn.Dropout(0.5, rng=6))
    data = batches([np.ones(3)], rng=np.random.default_rng([1, 2]))
    found = trackers.seeds(model=model, data=data)
    assert found == {"minirnn": 11, "model": [5, 6], "data": ["[1, 2]"]}
    child = np.random.default_rng(8).spawn(2)[1]
    assert trackers.seeds(data=batches([np.ones(3)], rng=child))["data"] == [
        {"entropy": 8, "spawn_key": [1]}
    ]
    rng = np.random.default_rng()
    seed = trackers.seeds(data=batches([np.ones(3)], rng=rng))["data"][0]
    assert isinstance(seed, str)  # of 128 bits
    assert np.random.default_rng(int(seed)).random() == rng.random()
