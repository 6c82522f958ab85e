"""A training loop for people in a hurry. What it does stands in :func:`fit` and :meth:`Run.train`."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import count, islice
from typing import Any

from . import checks
from .atomic import PathLike
from .clip import clip_grad_norm_
from .module import Module
from .packed_sequence import PackedSequence
from .plateau import ReduceLROnPlateau
from .resume import load_checkpoint, save_checkpoint
from .trackers import Tracker, Unfailing, seeds

Row = dict[str, Any]
Metrics = Mapping[str, Callable[[Any, Any], Any]]


class Run:
    """What :func:`fit` returns, and a callback is given after each step.

    Attributes
    ----------
    model, criterion, optimizer, data, scheduler, max_norm, metrics
        What :func:`fit` was given.
    step, steps : int
        How many have been taken, and how many there will be.
    loss, output, target, grad_norm, lr
        Of the step that was taken last; grad_norm is None if it is not limited.
    history : list of dict
        A row of numbers for each step that was reported: ``"step"``; ``"loss"``, the metrics, ``"grad_norm"``
        and ``"lr"`` of its batch; and with an evaluation ``"eval_loss"`` and the metrics likewise.
    stop : bool
        A callback may set it: the run ends after this step.
    """

    def __init__(
        self,
        model: Module,
        criterion: Module,
        optimizer: Any,
        data: Any,
        scheduler: Any,
        max_norm: float | None,
        metrics: Metrics | None,
    ) -> None:
        self.model, self.criterion, self.optimizer = model, criterion, optimizer
        self.data, self.scheduler = data, scheduler
        self.max_norm = max_norm
        self.metrics: Metrics = {} if metrics is None else metrics
        self.step, self.steps, self.stop = 0, 0, False
        self.loss = self.output = self.target = self.grad_norm = self.lr = None
        self.history: list[Row] = []
        self.config: Row = {}
        self._best: Row = {"loss": math.inf, "since": 0, "weights": None}

    def train(self, input: Any, target: Any) -> None:
        """Take a step."""
        output, ctx = self.model.forward(input)
        self.output, self.target = _rows(output), _rows(target)
        self.loss, ctx_loss = self.criterion.forward(self.output, self.target)
        d = self.criterion.backward(ctx_loss)
        self.optimizer.zero_grad()
        self.model.backward(ctx, d if self.output is output else output.map(lambda _: d))
        if self.max_norm is not None:
            self.grad_norm = clip_grad_norm_(self.model.parameters(), self.max_norm)
        self.lr = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        if self.scheduler is not None and not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()
        self.step += 1

    def row(self) -> Row:
        """Return the numbers of the step that was taken last: here a GPU is waited for, and nowhere else."""
        of_batch = {name: metric(self.output, self.target) for name, metric in self.metrics.items()}
        values = {"loss": self.loss, **of_batch, "grad_norm": self.grad_norm, "lr": self.lr}
        numbers = {name: float(value) for name, value in values.items() if value is not None}
        return {"step": self.step} | numbers

    def evaluate(self, batches: Iterable[Any]) -> Row:
        """Return mean loss and metrics over batches, each by its number of targets, without dropout."""
        measures: dict[str, Callable[[Any, Any], Any]] = {"loss": self.criterion, **self.metrics}
        totals, size = dict.fromkeys(measures, 0.0), 0
        self.model.eval()
        for input, target in batches:
            rows, targets = _rows(self.model(input)), _rows(target)
            for name, measure in measures.items():
                totals[name] += float(measure(rows, targets)) * targets.size
            size += targets.size
        self.model.train()
        return {f"eval_{name}": total / size for name, total in totals.items()}

    def judge(self, loss: float, patience: int | None) -> None:
        """Lower the rate, or stop, when the evaluation's loss no longer falls."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(loss)
        if patience is not None:
            self._best["since"] += 1
            if loss < self._best["loss"]:
                self._best = {"loss": loss, "since": 0, "weights": self.model.state_dict()}
            self.stop |= self._best["since"] > patience

    def finish(self) -> None:
        """Take the best weights, if they were kept, and switch dropout off."""
        self.model.eval()
        if self._best["weights"] is not None:
            self.model.load_state_dict(self._best["weights"])

    def save(self, path: PathLike) -> None:
        """Write a checkpoint."""
        data = self.data.state_dict() if hasattr(self.data, "state_dict") else None
        extra = {
            "history": self.history,
            "seeds": self.config["seeds"],
            "best": self._best,
            "data": data,
        }
        save_checkpoint(path, **self._parts(), step=self.step, extra=extra)

    def load(self, path: PathLike) -> None:
        """Go on from a checkpoint."""
        kept = load_checkpoint(path, **self._parts())
        try:
            self.step, extra = kept["step"], kept["extra"]
            self.history, self._best = [dict(row) for row in extra["history"]], dict(extra["best"])
            self.config["seeds"] = extra["seeds"]
            best = self._best["weights"]
            own = {name: a.shape for name, a in self.model.state_dict().items()}
            if best is not None and {name: best[name].shape for name in best} != own:
                raise TypeError("best weights of other shapes")
            if extra["data"] is not None:
                self.data.load_state_dict(extra["data"])
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: expected a checkpoint that fit wrote, {error!r}") from None

    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}


def fit(
    model: Module,
    criterion: Module,
    optimizer: Any,
    data: Any,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    scheduler: Any = None,
    max_norm: float | None = None,
    metrics: Metrics | None = None,
    evaluation: Iterable[Any] | None = None,
    eval_every: int | None = None,
    patience: int | None = None,
    checkpoint: PathLike | None = None,
    save_every: int = 1000,
    resume: bool = False,
    callbacks: Iterable[Callable[[Run], None]] = (),
    tracker: Tracker | None = None,
    config: Mapping[str, Any] | None = None,
    log_every: int = 100,
    progress: bool = True,
) -> Run:
    """Train a model; it ends in evaluation mode.

    Parameters
    ----------
    model, criterion : Module
        ``criterion.forward(output, target)``. If the model's output is packed, as its targets then are, the
        criterion and the metrics are given their rows.
    optimizer : Optimizer
        Steps after each backward; the first group's rate is the one that is reported.
    data : iterable of pairs (input, target)
        Such as :func:`minirnn.data.batches` or a list: run through once an epoch.
    epochs, steps : int
        One of the two; epochs, if `data` has a length.
    scheduler : LRScheduler or ReduceLROnPlateau, optional
        A step after each of the optimiser's, or with the loss of each evaluation.
    max_norm : float, optional
        Limit of the gradient's norm.
    metrics : mapping from str to function, optional
        ``metric(output, target)`` is a number, the mean over the batch.
    evaluation : iterable of pairs (input, target), optional
        Looked at every `eval_every` steps, by default after each epoch, and at the end.
    patience : int, optional
        Stop early, after more than so many evaluations in a row without a lower loss. The model ends with the
        weights of the lowest.
    checkpoint : path, optional
        Written every `save_every` steps, at the end, and on Ctrl-C, which waits for the step to end.
    resume : bool
        Go on from `checkpoint`, to the same bits as if it had never been stopped, if `data` has a
        ``state_dict`` or comes in the same order again.
    callbacks : iterable of functions
        Each is called with the ``Run`` after each step.
    tracker : Tracker, optional
        From :mod:`minirnn.trackers`. It is told settings, seeds and the rows of the history, and closed.
    config : mapping, optional
        What else the tracker shall know of the run.
    log_every : int
        Steps between two rows.
    progress : bool
        Show a bar, if tqdm is installed, or else print the rows.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        If arguments do not go together, or `data` has no batches.
    TypeError
        If `data` does not yield pairs, or a switch is neither True nor False.
    KeyboardInterrupt
        After Ctrl-C.

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> from minirnn.data import batches
    >>> minirnn.manual_seed(0)
    >>> bits = [np.random.default_rng(n).integers(0, 2, 3 + n % 5) for n in range(64)]
    >>> layers = minirnn.Embedding(2, 4), minirnn.GRU(4, 8), minirnn.Linear(8, 2)
    >>> model = minirnn.Sequential(*layers)  # for each step, the parity so far
    >>> data = batches(bits, [np.cumsum(b) % 2 for b in bits], batch_size=16, rng=0)
    >>> optimizer = minirnn.Adam(model.parameters(), 0.03)
    >>> run = minirnn.fit(
    ...     model, minirnn.CrossEntropyLoss(), optimizer, data, epochs=100, max_norm=1.0, progress=False
    ... )
    >>> run.step, run.history[-1]["loss"] < 0.05
    (400, True)
    """
    run = Run(model, criterion, optimizer, data, scheduler, max_norm, metrics)
    callbacks = _checked_parts(run, callbacks, checkpoint, tracker, config)
    run.steps, eval_every = _steps(data, epochs, steps, eval_every)
    checks.positive(eval_every=eval_every, save_every=save_every, log_every=log_every)
    checks.flags(resume=resume, progress=progress)
    _check(run, evaluation, patience, checkpoint, resume)
    run.config = {**(config or {}), "steps": run.steps, "seeds": seeds(model=model, data=data)}
    if resume and checkpoint is not None:
        run.load(checkpoint)
    model.train()
    with _Report(run, tracker, progress) as report, _interrupts(checkpoint is not None) as pressed:
        for input, target in _batches(run):
            run.train(input, target)
            last = run.step == run.steps
            evaluated = evaluation is not None and (last or run.step % eval_every == 0)
            if last or evaluated or run.step % log_every == 0:
                row = run.row()
                if evaluation is not None and evaluated:
                    row |= run.evaluate(evaluation)
                    run.judge(row["eval_loss"], patience)
                report.row(row)
            for callback in callbacks:
                callback(run)
            run.stop |= bool(pressed)
            if checkpoint is not None and (last or run.stop or run.step % save_every == 0):
                run.save(checkpoint)
    if pressed:
        raise KeyboardInterrupt(f"saved after step {run.step}; resume=True goes on from there")
    run.finish()
    return run


def _steps(
    data: Any, epochs: int | None, steps: int | None, eval_every: int | None
) -> tuple[int, int]:
    length = len(data) if hasattr(data, "__len__") else None
    if epochs is not None and steps is not None:
        raise ValueError(
            f"steps, epochs: expected one of the two, got both, {checks.got(steps)} and {checks.got(epochs)}"
        )
    if length == 0:
        raise ValueError("data: expected at least one batch, got none")
    if epochs is not None and length is not None:
        checks.positive(epochs=epochs)
        steps = epochs * length
    elif steps is None:
        raise ValueError("expected steps, or else epochs of data that have a length")
    checks.positive(steps=steps)
    return int(steps), length or steps if eval_every is None else eval_every


def _checked_parts(
    run: Run, callbacks: Any, checkpoint: Any, tracker: Any, config: Any
) -> list[Callable[[Run], None]]:
    """Return the callbacks, if all that a run consists of is what it has to be."""
    checks.having("model", run.model, "a Module", "forward", "backward", "train", "parameters")
    checks.having("criterion", run.criterion, "a Module", "forward", "backward")
    checks.having("optimizer", run.optimizer, "an Optimizer", "step", "zero_grad", "param_groups")
    if run.scheduler is not None:
        checks.having("scheduler", run.scheduler, "a schedule", "step")
    if tracker is not None:
        checks.having("tracker", tracker, "a Tracker", "config", "log", "close")
    for name, mapping in ("metrics", run.metrics), ("config", {} if config is None else config):
        if not isinstance(mapping, Mapping):
            raise TypeError(f"{name}: expected a mapping, got {checks.got(mapping)}")
    for name, metric in run.metrics.items():
        checks.function(f"metrics[{name!r}]", metric)
    if checkpoint is not None:
        checks.path("checkpoint", checkpoint)
    listed = checks.listed("callbacks", callbacks, "functions")
    return [checks.function(f"callbacks[{k}]", callback) for k, callback in enumerate(listed)]


def _check(run: Run, evaluation: Any, patience: int | None, checkpoint: Any, resume: bool) -> None:
    own = {id(p) for p in run.model.parameters()}
    stepped = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    if own and own.isdisjoint(stepped):
        raise ValueError(
            "optimizer: expected parameters of the model, got those of another: make it anew with "
            "model.parameters()"
        )
    if run.max_norm is not None:
        checks.number("max_norm", run.max_norm, "[0, inf]")
    if patience is not None:
        checks.whole("patience", patience, 0)
    if not hasattr(run.data, "__iter__"):
        raise TypeError(f"data: expected pairs (input, target), got {type(run.data).__name__}")
    if isinstance(evaluation, Iterator):
        raise TypeError("evaluation: expected a list, or what can be iterated over more than once")
    if evaluation is not None and hasattr(evaluation, "__len__") and not len(evaluation):
        raise ValueError("evaluation: expected at least one batch, got none")
    if evaluation is None and (
        patience is not None or isinstance(run.scheduler, ReduceLROnPlateau)
    ):
        raise ValueError(
            "evaluation: expected batches, for patience or ReduceLROnPlateau to look at"
        )
    if resume and checkpoint is None:
        raise ValueError("checkpoint: expected a file to resume from, got None")


def _batches(run: Run) -> Iterator[Any]:
    """Iterate over the data, epoch after epoch, as long as the run goes on."""
    seen = run.step if not hasattr(run.data, "__len__") else run.step % max(1, len(run.data))
    skip = 0 if hasattr(run.data, "state_dict") else seen
    if run.step >= run.steps or run.stop:
        return
    for epoch in count():
        before = run.step
        for batch in islice(run.data, skip, None):
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise TypeError(f"data: expected pairs (input, target), got {type(batch).__name__}")
            yield batch
            if run.step >= run.steps or run.stop:
                return
        # A run that goes on may have been stopped at the end of an epoch: the first may be empty.
        if epoch and run.step == before:
            raise ValueError(
                f"data: expected {run.steps} batches, there were {run.step}; "
                "what can be iterated over once only cannot be for a second epoch"
            )
        skip = 0


class _Report:
    """Where a run reports: its history, the tracker, and the screen."""

    def __init__(self, run: Run, tracker: Tracker | None, progress: bool) -> None:
        self._run, self._progress = run, progress
        self._bar: Any = None
        self._trackers = [] if tracker is None else [Unfailing(tracker)]

    def __enter__(self) -> _Report:
        for tracker in self._trackers:
            tracker.config(self._run.config)
        for row in self._run.history:  # of the run before, if this one goes on with it
            self._track(row)
        if self._progress:
            with suppress(ImportError):
                tqdm: Any = import_module("tqdm").tqdm
                run = self._run
                self._bar = tqdm(total=run.steps, initial=run.step, unit="step", mininterval=0.5)
        return self

    def row(self, row: Row) -> None:
        self._run.history.append(row)
        self._track(row)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "step")
        if self._bar is not None:
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(row["step"] - self._bar.n)
        elif self._progress:
            print(f"step {row['step']} of {self._run.steps}: {shown}", flush=True)

    def _track(self, row: Row) -> None:
        for tracker in self._trackers:
            tracker.log(row["step"], {name: row[name] for name in row if name != "step"})

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.close()
        for tracker in self._trackers:
            tracker.close()


def _rows(x: Any) -> Any:
    return x.data if isinstance(x, PackedSequence) else x


@contextmanager
def _interrupts(wait: bool) -> Iterator[list[bool]]:
    """Collect Ctrl-C instead of raising it, the first time; in the main thread, the only one that gets it."""
    pressed: list[bool] = []
    before = signal.getsignal(signal.SIGINT)
    ours = before not in (
        signal.SIG_IGN,
        None,
    )  # ignored: that of a shell's background; None: not Python's
    if not wait or not ours or threading.current_thread() is not threading.main_thread():
        yield pressed
        return

    def press(*_: Any) -> None:
        pressed.append(True)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
