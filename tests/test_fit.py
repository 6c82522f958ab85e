"""The training loop against one written by hand, and what it does when it is cut off."""

import signal
import sys

import numpy as np
import pytest
from helpers import all_equal

import minirnn
from minirnn import trackers
from minirnn.data import batches


def sequences(seed, count=23):
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal((n, 3)).astype("f4") for n in rng.integers(1, 9, count)]
    return x, [int(s.sum() > 0) for s in x]


class Last(minirnn.Module):
    """A GRU with dropout of both kinds and a layer's own generator, and a head on its last states."""

    def __init__(self):
        self.rnn = minirnn.GRU(3, 6, num_layers=2, dropout=0.3, recurrent_dropout=0.2, rng=5)
        self.drop, self.head = minirnn.Dropout(0.2), minirnn.Linear(6, 2)

    def forward(self, x):
        (_, h_n), ctx_h = self.rnn.forward(x)
        h, ctx_d = self.drop.forward(h_n[-1])
        y, ctx_y = self.head.forward(h)
        return y, (h_n, ctx_h, ctx_d, ctx_y)

    def backward(self, ctx, dy):
        h_n, ctx_h, ctx_d, ctx_y = ctx
        dh_n = np.zeros_like(h_n)
        dh_n[-1] = self.drop.backward(ctx_d, self.head.backward(ctx_y, dy))
        self.rnn.backward(ctx_h, None, dh_n)


def parts(seed=0, shuffle=True):
    """Return what fit takes, all of it drawn anew from the seed."""
    minirnn.manual_seed(seed)
    model = Last()
    data = batches(*sequences(0), batch_size=5, bucket=True, shuffle=shuffle, rng=seed)
    return model, minirnn.CrossEntropyLoss(), minirnn.Adam(model.parameters(), 0.01), data


def accuracy(output, target):
    return (output.argmax(1) == target).mean()


EVALUATION = [*batches(*sequences(1), batch_size=7, shuffle=False)]
OPTIONS = {
    "max_norm": 0.5,
    "metrics": {"accuracy": accuracy},
    "evaluation": EVALUATION,
    "eval_every": 6,
    "log_every": 4,
    "progress": False,
}


def by_hand(steps):
    model, criterion, optimizer, data = parts()
    scheduler = minirnn.ExponentialLR(optimizer, 0.9)
    history, step = [], 0
    while True:
        for x, t in data:
            y, ctx = model.forward(x)
            loss, ctx_loss = criterion.forward(y, t)
            optimizer.zero_grad()
            model.backward(ctx, criterion.backward(ctx_loss))
            norm = minirnn.clip_grad_norm_(model.parameters(), 0.5)
            rate = scheduler.get_last_lr()[0]
            optimizer.step()
            scheduler.step()
            step += 1
            row = {"step": step, "loss": float(loss), "accuracy": float(accuracy(y, t))}
            row |= {"grad_norm": float(norm), "lr": rate}
            evaluate = step % 6 == 0 or step == steps
            if evaluate:
                model.eval()
                ys, ts = zip(*[(model(x), t) for x, t in EVALUATION], strict=True)
                y, t = np.concatenate(ys), np.concatenate(ts)
                row["eval_loss"] = float(criterion(y, t))
                row["eval_accuracy"] = float(accuracy(y, t))
                model.train()
            if evaluate or step % 4 == 0:
                history.append(row)
            if step == steps:
                return model, history


def same_history(actual, expected):
    assert [row["step"] for row in actual] == [row["step"] for row in expected]
    for a, b in zip(actual, expected, strict=True):
        assert list(a) == list(b)
        np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-6)


def test_it_is_the_loop_that_one_would_write():
    model, history = by_hand(17)
    own = parts()
    own[0].eval()  # from before
    scheduler = minirnn.ExponentialLR(own[2], 0.9)
    run = minirnn.fit(*own, steps=17, scheduler=scheduler, **OPTIONS)
    assert run.step == 17
    all_equal(run.model.state_dict(), model.state_dict())
    same_history(run.history, history)
    assert [row["step"] for row in history] == [4, 6, 8, 12, 16, 17]
    assert not any(module.training for module in run.model.modules())


def test_epochs_are_steps_over_data_that_have_a_length():
    run = minirnn.fit(*parts(), epochs=3, evaluation=EVALUATION, progress=False)
    assert run.step == 3 * 5
    assert [row["step"] for row in run.history if "eval_loss" in row] == [5, 10, 15]


def test_packed_outputs_with_targets_for_each_step():
    x, _ = sequences(0, 4)
    data = [(minirnn.pack_sequence(x, False), minirnn.pack_sequence([s[:, :2] for s in x], False))]
    model = minirnn.Sequential(minirnn.RNN(3, 4, rng=0), minirnn.Linear(4, 2, rng=1))
    twin = minirnn.Sequential(minirnn.RNN(3, 4, rng=0), minirnn.Linear(4, 2, rng=1))
    criterion, optimizer = minirnn.MSELoss(), minirnn.SGD(model.parameters(), 0.1)
    minirnn.fit(model, criterion, optimizer, data, steps=2, progress=False)
    optimizer = minirnn.SGD(twin.parameters(), 0.1)
    for _ in range(2):
        y, ctx = twin.forward(data[0][0])
        _, ctx_loss = criterion.forward(y.data, data[0][1].data)
        optimizer.zero_grad()
        twin.backward(ctx, y.map(lambda _, c=ctx_loss: criterion.backward(c)))
        optimizer.step()
    all_equal(model.state_dict(), twin.state_dict())


class Cut(Exception):
    pass


def cut(at):
    def callback(run):
        if run.step == at:
            raise Cut

    return callback


def resumable(plain, seed=0):
    """Return what fit takes, with data that know where they are, or a list."""
    model, criterion, optimizer, data = parts(seed, shuffle=not plain)
    data = [*data] if plain else data
    scheduler = minirnn.ExponentialLR(optimizer, 0.95)
    return (model, criterion, optimizer, data), {**OPTIONS, "scheduler": scheduler, "patience": 1}


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("at", [2, 8, 11, 16])
def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(at, plain, tmp_path):
    args, options = resumable(plain)
    whole = minirnn.fit(*args, steps=17, **options)
    path = tmp_path / "c"
    args, options = resumable(plain)
    options |= {"steps": 17, "checkpoint": path, "save_every": 1}
    with pytest.raises(Cut):
        minirnn.fit(*args, **options, callbacks=[cut(at)])
    args, more = resumable(plain, seed=9)
    run = minirnn.fit(*args, **options | more, resume=True)
    all_equal(run.model.state_dict(), whole.model.state_dict())
    assert run.history == whole.history
    finished = minirnn.fit(*resumable(plain, seed=9)[0], **options, resume=True)
    assert finished.step == whole.step
    all_equal(finished.model.state_dict(), whole.model.state_dict())


def test_ctrl_c_waits_for_the_step_saves_and_stops(tmp_path):
    whole = minirnn.fit(*parts(), steps=9, progress=False)

    def press(run):
        if run.step == 4:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    options = {"steps": 9, "progress": False, "checkpoint": tmp_path / "c"}
    with pytest.raises(KeyboardInterrupt, match="saved after step 4; resume=True"):
        minirnn.fit(*parts(), **options, callbacks=[press])
    assert signal.getsignal(signal.SIGINT) is before
    run = minirnn.fit(*parts(9), **options, resume=True)
    all_equal(run.model.state_dict(), whole.model.state_dict())
    # The second time it does not wait; and without a checkpoint there is nothing to wait for.
    for more in ({"checkpoint": tmp_path / "d"}, {"checkpoint": None}):
        calls = []

        def twice(run, calls=calls):
            calls.append(run.step)
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            minirnn.fit(*parts(), **options | more, callbacks=[twice])
        assert calls == [1]
        assert not (tmp_path / "d").exists()


def test_ctrl_c_that_is_ignored_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts what it puts behind
    try:
        press = [lambda run: signal.raise_signal(signal.SIGINT)]
        options = {"steps": 3, "progress": False, "checkpoint": tmp_path / "c"}
        assert minirnn.fit(*parts(), **options, callbacks=press).step == 3
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def overfitting(patience, steps=40):
    """Train towards labels that the evaluation has the other way round."""
    minirnn.manual_seed(0)
    model = minirnn.Linear(3, 2)
    x = np.random.default_rng(0).standard_normal((8, 3)).astype("f4")
    t = (x.sum(1) > 0).astype(int)
    model.weight.data = 3 * np.array([[1, 1, 1], [-1, -1, -1]], "f4")  # as the evaluation has it
    model.bias.data = [0, 0]
    optimizer = minirnn.SGD(model.parameters(), 0.05)
    weights, options = [], {"evaluation": [(x, 1 - t)], "eval_every": 2, "progress": False}
    run = minirnn.fit(
        model,
        minirnn.CrossEntropyLoss(),
        optimizer,
        [(x, t)],
        steps=steps,
        patience=patience,
        callbacks=[lambda run: weights.append(run.model.state_dict())],
        **options,
    )
    return run, weights


@pytest.mark.parametrize("patience", [0, 3])
def test_early_stopping_returns_the_weights_of_the_lowest_loss(patience):
    run, weights = overfitting(patience)
    assert run.step == 2 * (2 + patience)  # the first evaluation is the best
    all_equal(run.model.state_dict(), weights[1])
    run, weights = overfitting(None)
    assert run.step == 40
    all_equal(run.model.state_dict(), weights[-1])


def test_the_rate_falls_when_the_evaluation_does_not():
    model = minirnn.Linear(3, 2, rng=0)
    x, t = np.zeros((4, 3), "f4"), np.array([0, 1, 0, 1])
    model.bias.data = [0, 0]  # nothing to be learned
    optimizer = minirnn.SGD(model.parameters(), 0.5)
    scheduler = minirnn.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    run = minirnn.fit(
        model,
        minirnn.CrossEntropyLoss(),
        optimizer,
        [(x, t)],
        steps=8,
        scheduler=scheduler,
        evaluation=[(x, t)],
        eval_every=2,
        log_every=2,
        progress=False,
    )
    assert [row["lr"] for row in run.history] == [0.5, 0.5, 0.25, 0.125]


def test_a_callback_may_stop_the_run():
    def stop(run):
        run.stop = run.step == 3

    assert minirnn.fit(*parts(), steps=9, callbacks=[stop], progress=False).step == 3


class Recorder:
    def __init__(self):
        self.calls = []

    def config(self, values):
        self.calls.append(("config", values))

    def log(self, step, values):
        self.calls.append((step, values))

    def close(self):
        self.calls.append("close")


def test_the_tracker_is_told_of_settings_seeds_and_rows(tmp_path):
    recorder, options = Recorder(), {"steps": 8, "log_every": 3, "progress": False}
    run = minirnn.fit(*parts(7), **options, tracker=recorder, config={"note": "x"})
    (name, config), *logged, last = recorder.calls
    assert name == "config"
    assert config == {
        "note": "x",
        "steps": 8,
        "seeds": {"minirnn": 7, "model": [5], "data": [7]},
    }
    assert [{"step": step, **values} for step, values in logged] == run.history
    assert last == "close"
    # Of a run that goes on the tracker has all of it, under the seeds that it began with.
    options |= {"checkpoint": tmp_path / "c", "save_every": 4}
    with pytest.raises(Cut):
        minirnn.fit(*parts(7), **options, tracker=Recorder(), callbacks=[cut(5)])
    again = Recorder()
    minirnn.fit(*parts(8), **options, tracker=again, resume=True, config={"note": "x"})
    assert again.calls == recorder.calls


def test_a_tracker_that_fails_does_not_stop_the_run():
    whole = minirnn.fit(*parts(), steps=8, progress=False)

    class Failing(Recorder):
        def log(self, step, values):
            values.clear()
            raise OSError("full")

    with pytest.warns(RuntimeWarning, match=r"Failing\.log failed") as caught:
        run = minirnn.fit(*parts(), steps=8, log_every=2, progress=False, tracker=Failing())
    assert len(caught) == 1
    assert run.history[-1] == whole.history[-1]
    all_equal(run.model.state_dict(), whole.model.state_dict())


def test_the_tracker_is_closed_if_the_run_fails():
    recorder = Recorder()
    with pytest.raises(Cut):
        minirnn.fit(*parts(), steps=8, progress=False, tracker=recorder, callbacks=[cut(2)])
    assert recorder.calls[-1] == "close"


def test_what_is_shown(monkeypatch, capsys):
    pytest.importorskip("tqdm", reason="needs the track extra")
    minirnn.fit(*parts(), steps=8, log_every=4)
    shown = capsys.readouterr()
    assert "8/8" in shown.err
    assert "loss" in shown.err
    assert not shown.out
    monkeypatch.setitem(sys.modules, "tqdm", None)
    run = minirnn.fit(*parts(), steps=8, log_every=4)
    shown = capsys.readouterr()
    loss, rate = run.history[0]["loss"], run.history[0]["lr"]
    assert shown.out.splitlines()[0] == f"step 4 of 8: loss {loss:.4g}, lr {rate:.4g}"
    assert len(shown.out.splitlines()) == 2
    minirnn.fit(*parts(), steps=8, progress=False)
    shown = capsys.readouterr()
    assert not shown.out + shown.err


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({}, ValueError, "expected steps, or else epochs"),
        (
            {"steps": 2, "epochs": 3},
            ValueError,
            "steps, epochs: expected one .*, got both, 2 and 3",
        ),
        ({"steps": 0}, ValueError, "steps: expected"),
        ({"epochs": 0}, ValueError, "epochs: expected"),
        ({"steps": 2, "log_every": 0}, ValueError, "log_every: expected"),
        ({"steps": 2, "eval_every": 0}, ValueError, "eval_every: expected"),
        ({"steps": 2, "max_norm": -1.0}, ValueError, "max_norm: expected"),
        ({"steps": 2, "patience": 1}, ValueError, "evaluation: expected batches"),
        ({"steps": 2, "patience": -1, "evaluation": []}, ValueError, "patience: expected"),
        ({"steps": 2, "resume": True}, ValueError, "checkpoint: expected"),
        ({"steps": 2, "evaluation": iter([])}, TypeError, "more than once"),
        ({"steps": 2, "evaluation": []}, ValueError, "evaluation: expected at least one"),
        ({"steps": 2, "tracker": []}, TypeError, "tracker: expected"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_first_step(options, error, says):
    args = parts()
    before = args[0].state_dict()
    with pytest.raises(error, match=says):
        minirnn.fit(*args, **options, progress=False)
    all_equal(args[0].state_dict(), before)


def test_a_cycle_as_long_as_the_run():
    args = parts()
    cycle = minirnn.OneCycleLR(args[2], 0.1, epochs=2, steps_per_epoch=len(args[3]))
    run = minirnn.fit(*args, epochs=2, scheduler=cycle, progress=False)
    assert run.step == cycle.last_epoch == cycle.total_steps


def test_an_optimizer_of_another_model_is_refused():
    model, criterion, optimizer, data = parts()
    other, head = parts()[2], minirnn.SGD([*model.parameters()][-1:])
    with pytest.raises(
        ValueError, match="optimizer: expected parameters of the model, got those of an"
    ):
        minirnn.fit(model, criterion, other, data, steps=1, progress=False)
    assert other.steps == 0
    for of_it in optimizer, head:  # all of them, or some
        minirnn.fit(model, criterion, of_it, data, steps=1, progress=False)


def test_data_that_give_no_pairs_or_end():
    model, criterion, optimizer, data = parts()
    for wrong, error, says in [
        (3, TypeError, "data: expected pairs"),
        ([3], TypeError, "data: expected pairs"),
        ([], ValueError, "data: expected at least one batch, got none"),
        (
            iter([]),
            ValueError,
            "data: expected 2 batches, there were 0; what can be iterated over once",
        ),
        (iter([next(iter(data))]), ValueError, "data: expected 2 batches, there were 1"),
    ]:
        with pytest.raises(error, match=says):
            minirnn.fit(model, criterion, optimizer, wrong, steps=2, progress=False)
    with pytest.raises(ValueError, match="data: expected at least one batch, got none"):
        minirnn.fit(model, criterion, optimizer, [], epochs=2, progress=False)
    with pytest.raises(
        ValueError, match="expected steps, or else epochs of data that have a length"
    ):
        minirnn.fit(model, criterion, optimizer, iter(data), epochs=2, progress=False)


def test_another_checkpoint_is_refused(tmp_path):
    args = parts()
    minirnn.save_checkpoint(tmp_path / "c", model=args[0], optimizer=args[2])
    with pytest.raises(ValueError, match="c: expected a checkpoint that fit wrote"):
        minirnn.fit(*args, steps=2, checkpoint=tmp_path / "c", resume=True, progress=False)
    with pytest.raises(FileNotFoundError):
        minirnn.fit(*args, steps=2, checkpoint=tmp_path / "d", resume=True, progress=False)


@pytest.mark.parametrize(
    "change",
    [
        {"history": 5},
        {"history": [3]},
        {"best": None},
        {"best": {"loss": 1.0, "since": 0, "weights": {}}},
        {"best": {"loss": 1.0, "since": 0, "weights": {"x": 3}}},
        {"data": 3},
        {"data": {}},
    ],
)
def test_a_checkpoint_whose_run_is_no_run_is_refused(change, tmp_path):
    path = tmp_path / "c"
    args, options = resumable(plain=False)
    run = minirnn.fit(*args, steps=6, checkpoint=path, **options)
    kept = minirnn.load_checkpoint(path, model=run.model)
    minirnn.save_checkpoint(path, **run._parts(), step=6, extra=kept["extra"] | change)
    with pytest.raises(ValueError, match=r"c: expected a checkpoint that fit wrote|state_dict: "):
        minirnn.fit(*args, steps=9, checkpoint=path, resume=True, **options)


def test_a_file_of_json_lines_keeps_the_run(tmp_path):
    tracker = trackers.tracker("jsonl", tmp_path)
    run = minirnn.fit(*parts(), steps=4, log_every=2, progress=False, tracker=tracker)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(lines) == 1 + len(run.history)
    assert f'"loss": {run.history[0]["loss"]}' in lines[1]
