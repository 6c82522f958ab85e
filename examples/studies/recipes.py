"""Six recipes that a tutorial tells as a story, and this project's two, with many seeds each.

    python examples/studies/recipes.py

The tutorial trained each of its recipes once or thrice, and told of an improvement from recipe to recipe.
Here every recipe has ten seeds. Which claims survive? When does the network understand, and is it the loss's
early oscillation that tells the runs that will converge from those that will not?
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from claims import (
    ABOVE,
    Claim,
    claim,
    correlation,
    difference_interval,
    exact,
    median_interval,
    share_interval,
)
from study import (
    BLUE,
    GREEN,
    ORANGE,
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
from training import accuracy, fresh, training

TUTORIAL = {"lr": 1e-3, "min_lr": 1e-4, "init": None, "hidden": 16, "layers": 1, "batch": 16}
RECIPES: dict[str, Row] = {
    "baseline": TUTORIAL,
    "batch 64": {**TUTORIAL, "batch": 64},
    "batch 64, lr 5e-3": {**TUTORIAL, "batch": 64, "lr": 5e-3},
    "hidden 32, 3 layers": {**TUTORIAL, "hidden": 32, "layers": 3},
    "all of it": {**TUTORIAL, "batch": 64, "lr": 5e-3, "hidden": 32, "layers": 3},
    "all of it, warm-up": {
        **TUTORIAL, "batch": 64, "lr": 5e-3, "hidden": 32, "layers": 3, "warmup": 2000,
    },
    "this project's RNN": {
        "batch": 256, "lr": 5e-3, "warmup": 1000, "min_lr": 1e-5, "clip": 0.5, "weight_decay": 0.03,
    },
    "this project's GRU": {
        "batch": 256, "lr": 1e-2, "warmup": 1000, "min_lr": 1e-5, "clip": 0.5, "weight_decay": 0.03,
        "cell": "gru", "steps": 30_000,
    },
}  # fmt: skip
OURS = [name for name in RECIPES if name.startswith("this")]
# What the tutorial says each reaches: as a number, or as a range.
PUBLISHED = {
    "baseline": (0.75, 0.75),
    "batch 64, lr 5e-3": (0.91, 0.91),
    "hidden 32, 3 layers": (0.97, 0.99),
    "all of it, warm-up": (1.0, 1.0),
}
NEAR = 0.02  # on either side of a published accuracy
CONVERGED = 0.95
AHA = (0.5, 0.75, 0.99)
EARLY = 2000  # steps


def settings(quick: bool) -> Iterable[Row]:
    """Return every recipe's flags."""
    for name, flags in RECIPES.items():
        steps = 40 if quick else flags.get("steps", 20_000)
        yield {"recipe": name, **flags, "steps": steps}


def run(recipe: str, steps: int, **flags: Any) -> Row:
    """Train once; return accuracies, curves, the steps of the aha, and how the loss oscillates early."""
    every, early = max(1, steps // 200), min(EARLY, steps // 2)
    tokens, sums = fresh()
    curve: list[float] = []
    losses: list[float] = []
    norms: list[float] = []
    aha: dict[str, int] = {}
    for step in training(steps=steps, **flags):
        losses.append(step.loss)
        norms.append(step.norm)
        if step.number % every == 0:
            right = float((step.model(tokens).argmax(1) == sums).mean())
            curve.append(round(right, 4))
            for level in AHA:
                if right > level:
                    aha.setdefault(f"step above {level}", step.number)
    answers = step.model(tokens).argmax(1)
    means = np.mean(np.reshape(losses[: len(curve) * every], (-1, every)), 1).round(4).tolist()
    return {
        "accuracy": accuracy(step.model, 2, 5),
        "accuracy at 10": accuracy(step.model, 10, 10),
        **{f"right mod {m}": float((answers % m == sums % m).mean()) for m in (2, 5)},
        **{f"step above {level}": aha.get(f"step above {level}") for level in AHA},
        "oscillation": oscillation(means[: early // every]),
        "largest norm early": max(norms[:early]),
        "curve": curve,
        "loss": means,
    }


def oscillation(losses: list[float]) -> float:
    """Return how much the loss rises from one mean to the next, in all: a loss that only falls has none."""
    return float(np.maximum(0, np.diff(losses)).sum())


def converged(rows: Iterable[Row]) -> list[bool]:
    """Return which runs ended at a high accuracy."""
    return [v >= CONVERGED for v in values(rows, "accuracy")]


def judge(rows: list[Row]) -> list[Claim]:
    """Return the tutorial's claims, decided."""
    of = {name: select(rows, recipe=name) for name in RECIPES}
    right = {name: values(its, "accuracy") for name, its in of.items()}
    middle = {name: median_interval(every) for name, every in right.items()}
    said = [
        claim(
            f"{name} reaches {low if low == high else f'{low}-{high}'}",
            "median accuracy", middle[name], (low - NEAR, min(1.0, high + NEAR)),
        )
        for name, (low, high) in PUBLISHED.items()
    ]  # fmt: skip
    for text, better, worse in (
        ("a larger batch alone is worse", "baseline", "batch 64"),
        ("a larger lr mends it", "batch 64, lr 5e-3", "batch 64"),
        ("batch 64 with lr 5e-3 is better than the baseline", "batch 64, lr 5e-3", "baseline"),
        ("wide and deep is better than the baseline", "hidden 32, 3 layers", "baseline"),
        ("all of it is better than wide and deep alone", "all of it", "hidden 32, 3 layers"),
        ("warm-up mends all of it", "all of it, warm-up", "all of it"),
    ):
        interval = difference_interval(right[better], right[worse])
        said.append(claim(text, f"accuracy: {better} minus {worse}", interval, ABOVE))
    good = converged(of["all of it"])
    quantity = f"share of runs that reach {CONVERGED}: {sum(good)} of {len(good)}"
    share = share_interval(sum(good), len(good))
    said.append(claim("all of it fails in most runs", quantity, share, (0.0, 0.5)))
    for name in ("all of it, warm-up", *OURS):
        good = converged(of[name])
        failed = len(good) - sum(good)
        quantity = f"share of runs below {CONVERGED}: {failed} of {len(good)}"
        said.append(exact(f"{name} converges in every run", quantity, failed / len(good), 0))
    return said + stairs(rows) + oscillations(rows)


def stairs(rows: list[Row]) -> list[Claim]:
    """Return whether runs that end near .2 and .5 know the sum mod 2 and mod 5, where that was asked."""
    said = []
    for level, m in ((0.2, 2), (0.5, 5)):
        near = [r for r in rows if f"right mod {m}" in r and abs(r["accuracy"] - level) < 0.05]
        if near:
            worst = min(values(near, f"right mod {m}"))
            text = f"a deep run that ends near {level} knows the sum mod {m}"
            quantity = f"share right mod {m}, the lowest of {len(near)} runs"
            said.append(claim(text, quantity, (worst, worst), (0.95, 1)))
    return said


def oscillations(rows: list[Row]) -> list[Claim]:
    """Return whether failing runs of one recipe oscillate more early than converging ones."""
    said = []
    for (name,), its in groups(rows, "recipe").items():
        good, waves = np.array(converged(its)), np.array(values(its, "oscillation"))
        if 0 < good.sum() < len(good):
            interval = difference_interval(waves[~good], waves[good])
            text = f"{name}: runs that fail oscillate more early"
            quantity = f"oscillation: {(~good).sum()} failing minus {good.sum()} converging"
            said.append(claim(text, quantity, interval, ABOVE))
    ranks = [ranked(its) for its in groups(select(rows, init=None), "recipe").values()]
    r, interval = correlation(*map(np.concatenate, zip(*ranks, strict=True)))
    said.append(
        claim(
            "the more a run oscillates early, the worse it ends",
            f"rank correlation within the tutorial's recipes: {r:.2f}",
            interval,
            (-1, -0.3),
        )
    )
    return said


def ranked(rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Return the runs' places by oscillation and by accuracy within their recipe, from 0 to 1."""
    pairs = (values(rows, name) for name in ("oscillation", "accuracy"))
    a, b = (np.argsort(np.argsort(v)) / max(1, len(v) - 1) for v in pairs)
    return a, b


def tables(rows: list[Row]) -> dict[str, str]:
    """Return accuracies, and the steps of the aha."""
    body = []
    for (name,), its in groups(rows, "recipe").items():
        line = [name]
        for level in AHA:
            steps = [v for v in values(its, f"step above {level}") if not math.isnan(v)]
            reached = f"{len(steps)} of {len(its)}"
            line.append(f"{np.median(steps):,.0f} ({reached})" if steps else f"- ({reached})")
        body.append(line)
    return {
        "accuracy": summary(rows, ["recipe"], "accuracy"),
        "length ten": summary(rows, ["recipe"], "accuracy at 10", ".2f"),
        "aha": table(["recipe", *(f"first above {level}" for level in AHA)], body),
        "stairs": table(
            ["seed", "accuracy", "right mod 2", "right mod 5"],
            [
                [
                    f"{r['seed']}",
                    *(f"{r[k]:.3f}" for k in ("accuracy", "right mod 2", "right mod 5")),
                ]
                for r in select(rows, recipe="hidden 32, 3 layers")
            ],
        ),
    }


def draw(figure: Any, rows: list[Row]) -> None:
    """Draw accuracies, when they come, and what early oscillation has to do with it."""
    above, below = figure.subfigures(2, 1, height_ratios=[1.15, 1])
    axis = above.subplots()
    every = [values(select(rows, recipe=name), "accuracy") for name in RECIPES]
    strip(axis, every, list(RECIPES), [BLUE] * 6 + [GREEN] * 2)
    for k, name in enumerate(RECIPES):
        if name in PUBLISHED:
            low, high = PUBLISHED[name]
            middle = (low + high) / 2
            axis.errorbar(
                middle, k, xerr=(high - low) / 2, fmt="D", color=RED, markersize=8, zorder=3,
                markeredgecolor="white", capsize=4, label="published" if k == 0 else None,
            )  # fmt: skip
    axis.plot([], [], "o", color=BLUE, label="one run")
    axis.plot([], [], color="black", linewidth=2.2, label="median")
    axis.set(
        xlim=(0, 1.02), xlabel="accuracy on 10,000 fresh sequences of 2 to 5 digits (chance: 0.1)"
    )
    axis.set_title("One recipe, ten seeds")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 0.02))
    left, right = below.subplots(1, 2, gridspec_kw={"width_ratios": [1.2, 1]})
    for r in select(rows, recipe="all of it, warm-up"):
        steps = np.arange(1, len(r["curve"]) + 1) * (r["steps"] / len(r["curve"])) / 1000
        colour = BLUE if r["accuracy"] >= CONVERGED else ORANGE
        left.plot(steps, r["curve"], color=colour, linewidth=1.2)
    for level, at, text in ((0.2, 0.22, "if mod 2 is known"), (0.5, 0.44, "if mod 5 is known")):
        left.axhline(level, color="0.4", linestyle=":", linewidth=1)
        left.text(20, at, text, ha="right", color="0.35", fontsize=9)
    left.set(xlabel="step (thousands)", ylabel="accuracy", ylim=(0, 1.02))
    left.set_title("All of it, with warm-up")
    for name, marker in (
        ("hidden 32, 3 layers", "s"),
        ("all of it", "^"),
        ("all of it, warm-up", "o"),
    ):
        its = select(rows, recipe=name)
        right.plot(
            values(its, "oscillation"), values(its, "accuracy"), marker, alpha=0.7, label=name,
            markeredgecolor="none",
        )  # fmt: skip
    right.set(xlabel=f"rises of the loss, steps 1-{EARLY:,} (nats)", ylabel="accuracy at the end")
    right.set(xscale="log", ylim=(0, 1.02))
    right.set_title("Does early noise tell?")
    right.legend(loc="center right", bbox_to_anchor=(1.02, 0.7))


STUDY = Study(
    name="recipes",
    question="Which claims of a tutorial's training recipes survive ten seeds?",
    settings=settings,
    run=run,
    tables=tables,
    claims=judge,
    draw=draw,
    size=(8, 8.5),
)

if __name__ == "__main__":
    main(STUDY)
