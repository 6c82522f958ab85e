"""Why does a recurrent network's accuracy jump from epoch to epoch, and what stops it?

    python examples/studies/instability.py

It is said that the test accuracy of an RNN swings by 6 points either way since its gradient explodes, that
the gradient explodes since the spectral radius of W_hh passes 1, and that clipping the norm at 5, and better
at 1, brings the swings down to 2 points and to 1. Every run here logs all of these, on the Japanese vowels;
instability_film.py does so on sentences from film reviews, of which the text speaks.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from claims import (
    ABOVE,
    Claim,
    claim,
    correlation,
    difference_interval,
    median_interval,
    share_interval,
)
from study import (
    BLUE,
    GREEN,
    RED,
    Row,
    Study,
    groups,
    main,
    select,
    strip,
    summary,
    table,
    values,
)
from vowels import SPEAKERS, standardised, vowels

import minirnn
from minirnn.diagnostics import spectral_radius

EPOCHS, HIDDEN = 50, 64
EXPLODING = 10.0  # a gradient's norm
BASE = {
    "cell": "RNN", "lr": 1e-3, "batch": 64, "clip": 0.0, "decay": 0.0, "dropout": 0.0, "plateau": False,
}  # fmt: skip
# One thing changed at a time. The rate of 1e-2 is nobody's advice: it is to see an explosion at all.
CHANGES: dict[str, Row] = {
    "as said": {},
    "clip 5": {"clip": 5.0},
    "clip 1": {"clip": 1.0},
    "lr 3e-4": {"lr": 3e-4},
    "lr 1e-4": {"lr": 1e-4},
    "batch 128": {"batch": 128},
    "batch 256": {"batch": 256},
    "weight decay": {"decay": 1e-4},
    "recurrent dropout": {"dropout": 0.2},
    "plateau": {"plateau": True},
    "LSTM": {"cell": "LSTM"},
    "GRU": {"cell": "GRU"},
    "lr 1e-2": {"lr": 1e-2},
    "lr 1e-2, clip 1": {"lr": 1e-2, "clip": 1.0},
}
NAMES = {"as said": "without clipping", "clip 5": "clipping at 5", "clip 1": "clipping at 1"}
SAID = {
    "as said": (6, 0.02),
    "clip 5": (2, 0.01),
    "clip 1": (1, 0.005),
}  # points, and what is near enough
CALMER = ["clip 5", "clip 1", "lr 3e-4", "lr 1e-4", "batch 128", "batch 256", "weight decay",
          "recurrent dropout", "plateau", "LSTM", "GRU"]  # fmt: skip
WORDS = {"largest_norm": "largest gradient", "largest_radius": "spectral radius", "swing": "swing"}
COLOURS = {"RNN": RED, "LSTM": BLUE, "GRU": GREEN}


class Data(NamedTuple):
    """Sequences and classes; sequences of integers are words, and are embedded."""

    sequences: Sequence[np.ndarray]
    classes: np.ndarray


class Classifier(minirnn.Module):
    """A layer of one direction, and a linear head on its last state."""

    def __init__(
        self, cell: str, features: int, hidden: int, classes: int, dropout: float, words: int = 0
    ) -> None:
        layer = {"RNN": minirnn.RNN, "LSTM": minirnn.LSTM, "GRU": minirnn.GRU}[cell]
        self.embedding = minirnn.Embedding(words, features) if words else None
        self.rnn = layer(features, hidden, recurrent_dropout=dropout)
        self.head = minirnn.Linear(hidden, classes)

    def forward(self, x: minirnn.PackedSequence) -> tuple[np.ndarray, Any]:
        """Return the logits of packed sequences."""
        ctx_x = None
        if self.embedding is not None:
            x, ctx_x = self.embedding.forward(x)
        (_, state), ctx_r = self.rnn.forward(x)
        h_n = state[0] if isinstance(state, tuple) else state
        logits, ctx_h = self.head.forward(h_n[-1])
        return logits, (ctx_x, ctx_r, ctx_h)

    def backward(self, ctx: Any, dlogits: np.ndarray) -> None:
        """Add all gradients."""
        ctx_x, ctx_r, ctx_h = ctx
        dh_n = self.head.backward(ctx_h, dlogits)[None]
        dx, _ = self.rnn.backward(
            ctx_r, None, (dh_n, None) if isinstance(self.rnn, minirnn.LSTM) else dh_n
        )
        if self.embedding is not None:
            self.embedding.backward(ctx_x, dx)


def packed(data: Data, numbers: np.ndarray) -> minirnn.PackedSequence:
    """Return some of the sequences in one batch."""
    return minirnn.pack_sequence([data.sequences[i] for i in numbers], enforce_sorted=False)


def watched(
    model: Classifier,
    train: Data,
    test: Data,
    seed: int,
    epochs: int,
    lr: float,
    batch: int,
    clip: float,
    decay: float,
    plateau: bool,
) -> Row:
    """Train by Adam; return accuracy on `test` and spectral radius by epoch, and what the gradient did."""
    rng, criterion = np.random.default_rng(seed), minirnn.CrossEntropyLoss()
    optimizer = minirnn.Adam(model.parameters(), lr, weight_decay=decay)
    scheduler = minirnn.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=3)
    norms, accuracies, radii = [], [], []
    for _ in range(epochs):
        order = rng.permutation(len(train.classes))
        for k in range(0, len(order), batch):
            numbers = order[k : k + batch]
            logits, ctx = model.forward(packed(train, numbers))
            _, ctx_l = criterion.forward(logits, train.classes[numbers])
            optimizer.zero_grad()
            model.backward(ctx, criterion.backward(ctx_l))
            norms.append(float(minirnn.clip_grad_norm_(model.parameters(), clip or math.inf)))
            optimizer.step()
        accuracies.append(scored(model, test))
        radii.append(max(spectral_radius(model.rnn).values()))
        if plateau:
            scheduler.step(accuracies[-1])
    return {**swung(accuracies), **blown(norms, radii, epochs), "accuracy_by_epoch": accuracies}


def scored(model: Classifier, test: Data) -> float:
    """Return the share of right answers."""
    right = 0
    model.eval()
    for numbers in np.array_split(np.arange(len(test.classes)), max(1, len(test.classes) // 500)):
        right += int((model(packed(test, numbers)).argmax(1) == test.classes[numbers]).sum())
    model.train()
    return right / len(test.classes)


def swung(accuracies: Sequence[float]) -> Row:
    """Return how far accuracies swing in the second half of training, the last and the best.

    The swing is half of the largest change from one epoch to the next: "6 points either way" is .06. That a
    network still learns does not count for much, as its gains are spread over many epochs.
    """
    late = np.array(accuracies[len(accuracies) // 2 :])
    swing = round(float(abs(np.diff(late)).max(initial=0) / 2), 5)
    return {"swing": swing, "accuracy": float(late[-1]), "best": max(accuracies)}


def blown(norms: Sequence[float], radii: Sequence[float], epochs: int) -> Row:
    """Return how large gradient and spectral radius became, and which of 10 and 1 was passed first."""
    by_epoch = np.array(norms).reshape(epochs, -1).max(1)
    large, wide = np.flatnonzero(by_epoch > EXPLODING), np.flatnonzero(np.array(radii) > 1)
    exploded = int(large.size > 0)
    return {
        "largest_norm": max(norms), "median_norm": float(np.median(norms)),
        "largest_radius": max(radii), "last_radius": radii[-1],
        "exploded": exploded,
        "radius_first": int(exploded and wide.size > 0 and wide[0] <= large[0]),
        "norm_by_epoch": by_epoch,
    }  # fmt: skip


# -- the vowels --------------------------------------------------------------------------------------


def settings(quick: bool) -> Iterable[Row]:
    """Return the text's recipe, and each with one thing changed."""
    for name, change in CHANGES.items():
        yield {"recipe": name, **BASE, **change, "epochs": 4 if quick else EPOCHS}


def run(recipe: str, cell: str, dropout: float, seed: int, **flags: Any) -> Row:
    """Train once on the Japanese vowels."""
    train, test = standardised(*vowels())
    minirnn.manual_seed(seed)
    model = Classifier(cell, train.sequences[0].shape[1], HIDDEN, SPEAKERS, dropout)
    return watched(model, Data(*train), Data(*test), seed, **flags)


# -- what the runs say, on any data ------------------------------------------------------------------


def tables(rows: list[Row]) -> dict[str, str]:
    """Return swing and accuracy by recipe, and what gradient and spectral radius did."""
    body = [
        [
            recipe,
            f"{np.median(values(its, 'median_norm')):.2f}",
            f"{np.median(values(its, 'largest_norm')):.1f}",
            f"{sum(values(its, 'exploded')):.0f} of {len(its)}",
            f"{np.median(values(its, 'last_radius')):.2f}",
            f"{sum(v > 1 for v in values(its, 'largest_radius'))} of {len(its)}",
        ]
        for (recipe,), its in groups(rows, "recipe").items()
    ]
    head = ["recipe", "median norm", "largest norm", "runs with a norm > 10", "radius at the end",
            "runs with a radius > 1"]  # fmt: skip
    return {
        "swings": summary(rows, ["recipe"], "swing", ".4f"),
        "accuracies": summary(rows, ["recipe"], "accuracy"),
        "gradients": table(head, body),
    }


def swings(rows: list[Row]) -> list[Claim]:
    """Decide what is said of clipping, of the other remedies and of the cause."""
    of = {name: values(its, "swing") for (name,), its in groups(rows, "recipe").items()}
    found = [
        claim(
            f"{NAMES[recipe]}, the accuracy swings by {points} % either way",
            f"median swing, {NAMES[recipe]}",
            median_interval(of[recipe]),
            (points / 100 - near, points / 100 + near),
        )
        for recipe, (points, near) in SAID.items()
    ]
    found += [
        claim(
            f"{recipe} makes swings smaller",
            "swing as said less that",
            difference_interval(of["as said"], of[recipe]),
            ABOVE,
        )
        for recipe in CALMER
        if recipe in of
    ]
    free = [r for r in rows if not r["clip"] and r["cell"] == "RNN"]
    exploded = select(free, exploded=1)
    for cause, effect in (("largest_norm", "swing"), ("largest_radius", "largest_norm")):
        text = f"the larger the {WORDS[cause]}, the larger the {WORDS[effect]}"
        for where, sides in (
            (
                f"over {len(free)} tanh runs without clipping",
                (values(free, cause), values(free, effect)),
            ),
            ("of what one recipe's runs differ by", (apart(free, cause), apart(free, effect))),
        ):
            interval = correlation(*sides)[1]
            found.append(claim(text, f"rank correlation {where}", interval, (1e-9, 1)))
    found.append(
        claim(
            "a gradient explodes (norm > 10) only after the spectral radius has passed 1",
            f"share of the {len(exploded)} runs that explode in which it had",
            share_interval(int(sum(values(exploded, "radius_first"))), len(exploded)),
            (0.5, 1),
        )
    )
    return found


def apart(rows: list[Row], measure: str) -> list[float]:
    """Return how far each run is from the median of its recipe: what is left when the recipe is known."""
    middle = {k: np.median(values(its, measure)) for k, its in groups(rows, "recipe").items()}
    return [r[measure] - middle[r["recipe"],] for r in rows]


def judge(rows: list[Row]) -> list[Claim]:
    """Decide what is said, and whether the LSTM is more accurate."""
    accuracy = {name: values(its, "accuracy") for (name,), its in groups(rows, "recipe").items()}
    better = difference_interval(accuracy["LSTM"], accuracy["as said"])
    return [
        *swings(rows),
        claim("an LSTM is more accurate than the RNN", "difference of accuracies", better, ABOVE),
    ]


def draw(figure: Any, rows: list[Row]) -> None:
    """Draw accuracies by epoch, swings by recipe, and each alleged cause against its effect."""
    grid = figure.add_gridspec(2, 6, height_ratios=[1, 1.25])
    curves = [figure.add_subplot(grid[0, 2 * k : 2 * k + 2]) for k in range(3)]
    shown = {"as said": RED, "clip 1": BLUE, "LSTM": GREEN}
    for axis, (recipe, colour) in zip(curves, shown.items(), strict=True):
        for r in select(rows, recipe=recipe):
            by_epoch = r["accuracy_by_epoch"]
            axis.plot(range(1, len(by_epoch) + 1), by_epoch, color=colour, alpha=0.5, linewidth=1)
        axis.set(xlabel="epoch")
        axis.sharey(curves[0])
        swing = 100 * np.median(values(select(rows, recipe=recipe), "swing"))
        axis.set_title(f"{NAMES.get(recipe, recipe)}: ±{swing:.1f}", fontsize=11)
    curves[0].set(ylabel="test accuracy")
    by = groups(rows, "recipe")
    left = figure.add_subplot(grid[1, :3])
    colours = [COLOURS[its[0]["cell"]] for its in by.values()]
    strip(left, [100 * np.array(values(its, "swing")) for its in by.values()],
          [name for (name,) in by], colours)  # fmt: skip
    claimed = {list(by).index((name,)): points for name, (points, _) in SAID.items()}
    left.plot(
        claimed.values(), claimed.keys(), "D", color="k", fillstyle="none", label="as claimed"
    )
    left.legend(loc="lower right")
    left.set(xlabel="swing, points either way")
    left.set_title("Every run's swing, by recipe")
    _draw_causes(figure.add_subplot(grid[1, 3:]), rows)


def _draw_causes(axis: Any, rows: list[Row]) -> None:
    most = max(values(rows, "swing")) or 1.0
    for cell, colour in COLOURS.items():
        for clipped, filled in ((False, colour), (True, "none")):
            its = [r for r in select(rows, cell=cell) if bool(r["clip"]) == clipped]
            if not its:
                continue
            size = 12 + 160 * np.array(values(its, "swing")) / most
            axis.scatter(
                values(its, "largest_radius"), values(its, "largest_norm"), size, alpha=0.7,
                facecolors=filled, edgecolors=colour, linewidths=0.8,
                label=None if clipped else cell,
            )  # fmt: skip
    axis.set_yscale("log")
    axis.set_ylim(top=3 * max(values(rows, "largest_norm")))  # room for the legend
    axis.axhline(EXPLODING, color="0.3", linestyle="--", linewidth=1)
    axis.axvline(1, color="0.3", linestyle=":", linewidth=1.5)
    axis.set(xlabel=r"largest spectral radius of $W_{hh}$", ylabel="largest gradient norm")
    axis.set_title("Cause and effect? Size: swing")
    axis.legend(title="hollow: clipped", title_fontsize=8.5)


STUDY = Study(
    name="instability",
    question="Does the accuracy swing because gradients explode, and those because a radius passes 1?",
    settings=settings,
    run=run,
    tables=tables,
    claims=judge,
    draw=draw,
    size=(8, 8),
)

if __name__ == "__main__":
    main(STUDY)
