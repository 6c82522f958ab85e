"""What momentum does on a saddle, in a ravine, before a small barrier, and to a network that learns to add.

    python examples/studies/momentum.py

Momentum steps along m_t = momentum * m_{t-1} + g_t. Unrolled, m_t is the sum of all gradients so far, each
decayed by momentum for every step of its age. In a steady gradient that is g / (1 - momentum), so that with
momentum .9 the steps are also ten times as long. Therefore all is run twice: at the same learning rate, as
momentum is usually shown, and at the same lr / (1 - momentum), where what is left is momentum itself.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from claims import ABOVE, Claim, claim, difference_interval, exact, share_interval
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
from training import accuracy, loop, new_model

import minirnn

MOMENTA = (0.0, 0.5, 0.9, 0.99)
LOOKS = dict(zip(MOMENTA, (BLUE, GREEN, ORANGE, RED), strict=True))
# How many steps of a path are drawn, and how wide.
SHOWN = dict(zip(MOMENTA, (200, 200, 100, 50), strict=True))
WIDTHS = dict(zip(MOMENTA, (1.2, 2.6, 1.8, 0.9), strict=True))
RATES = ("same lr", "same lr / (1 - momentum)")
NETWORK_LR = (0.05, 0.5)  # without momentum


class Surface(NamedTuple):
    """A function of x and y to go down on."""

    value: Callable[[Any, Any], Any]
    gradient: Callable[[float, float], tuple[float, float]]
    start: tuple[float, float]
    spread: tuple[float, float]  # of the starts, normal
    lr: float
    done: float  # below this value a run has arrived
    shown: tuple[float, float, float, float]  # the picture's limits
    title: str


def bump(x: Any) -> Any:
    """Return the barrier: a small hill across the way."""
    return 0.25 * np.exp(-((x - 2) ** 2) / 0.18)


SURFACES = {
    "saddle": Surface(
        value=lambda x, y: x**2 / 2 - y**2 / 2 + y**4 / 4,
        gradient=lambda x, y: (x, y**3 - y),
        start=(1.6, 1e-3), spread=(0.1, 1e-3), lr=0.05, done=-0.249,
        shown=(-1.2, 1.8, -0.6, 1.6), title="Saddle",
    ),
    "ravine": Surface(
        value=lambda x, y: (x**2 + 50 * y**2) / 2,
        gradient=lambda x, y: (x, 50 * y),
        start=(-4.0, 0.6), spread=(0.3, 0.1), lr=0.035, done=1e-6,
        shown=(-4.6, 3.0, -0.9, 0.9), title="Ravine",
    ),
    "barrier": Surface(
        value=lambda x, y: (x**2 + y**2) / 10 + bump(x),
        gradient=lambda x, y: (x / 5 - (x - 2) / 0.09 * bump(x), y / 5),
        start=(4.5, 1.5), spread=(0.3, 0.3), lr=0.1, done=1e-4,
        shown=(-3.5, 5.0, -2.2, 2.2), title="Small barrier at x = 2",
    ),
}  # fmt: skip


def settings(quick: bool) -> Iterable[Row]:
    """Return every surface and the network, with every momentum, at both rates; and the check of the sum."""
    for surface in SURFACES:
        for rate, momentum in rates():
            steps = 200 if quick else 4000
            yield {"part": surface, "rate": rate, "momentum": momentum, "steps": steps}
    for rate, lr in zip(RATES, NETWORK_LR, strict=True):
        for momentum in MOMENTA:
            steps = 20 if quick else 10_000
            yield {"part": "sum-mod", "rate": rate, "momentum": momentum, "steps": steps, "lr": lr}
    for momentum in MOMENTA[1:]:
        yield {"part": "decayed sum", "momentum": momentum, "steps": 20 if quick else 200}


def rates() -> list[tuple[str, float]]:
    """Return the pairs of rate and momentum; without momentum both rates are the same."""
    return [(rate, m) for rate in RATES for m in MOMENTA if m or rate == RATES[0]]


def run(part: str, **flags: Any) -> Row:
    """Return one run on a surface or of the network, or the check of the sum."""
    if part in SURFACES:
        return down(SURFACES[part], **flags)
    return decayed_sum(**flags) if part == "decayed sum" else network(**flags)


def scaled(lr: float, rate: str, momentum: float) -> float:
    """Return the learning rate."""
    return lr if rate == RATES[0] else lr * (1 - momentum)


def down(surface: Surface, rate: str, momentum: float, steps: int, seed: int) -> Row:
    """Go down on a surface; seed 0 starts where the picture does, the others around it."""
    near = np.random.default_rng(seed).standard_normal(2) if seed else np.zeros(2)
    p = minirnn.Parameter(np.array(surface.start) + near * surface.spread)
    optimizer = minirnn.SGD([p], scaled(surface.lr, rate, momentum), momentum)
    path, heights = [p.data.tolist()], [float(surface.value(*p.data))]
    for _ in range(steps):
        p.grad = np.array(surface.gradient(*p.data))
        optimizer.step()
        path.append([round(float(v), 5) for v in p.data])
        heights.append(float(surface.value(*p.data)))
    outside = np.flatnonzero(~(np.array(heights) <= surface.done))
    there = int(outside[-1]) + 1 if len(outside) else 0
    return {
        "arrived": there <= steps,
        "steps to arrive": min(there, steps),  # at least, of a run that did not
        "height": heights[-1],
        "path": path[:400] if seed == 0 else [],
    }


def decayed_sum(momentum: float, steps: int, seed: int) -> Row:
    """Compare the optimiser's m_t with the decayed sum of all gradients, at every step of a training run."""
    model = new_model(seed, "rnn", 16, 1, "orthogonal").to("float64")
    optimizer = minirnn.SGD(model.parameters(), 0.05, momentum)
    gradients, worst = [], 0.0
    constant = minirnn.LambdaLR(optimizer, lambda step: 1.0)
    for step in loop(model, optimizer, constant, seed, steps, 16):
        gradients.append(np.concatenate([p.grad.ravel() for p in step.model.parameters()]))
        ages = np.arange(len(gradients))[::-1]
        expected = np.tensordot(momentum**ages, np.array(gradients), 1)
        m = np.concatenate([slots[0].ravel() for slots in optimizer.state_dict()["state"]])
        worst = max(worst, float(np.linalg.norm(m - expected) / np.linalg.norm(expected)))
    return {"error": worst}


def network(rate: str, momentum: float, steps: int, lr: float, seed: int) -> Row:
    """Train on sum-mod."""
    model = new_model(seed, "rnn", 64, 1, "orthogonal")
    optimizer = minirnn.SGD(model.parameters(), scaled(lr, rate, momentum), momentum)
    cosine = minirnn.CosineAnnealingLR(optimizer, steps, eta_min=1e-5)
    losses = [step.loss for step in loop(model, optimizer, cosine, seed, steps, 64)]
    return {"accuracy": accuracy(model, 2, 5), "last loss": float(np.mean(losses[-100:]))}


# -- what the runs say -----------------------------------------------------------------------------


def judge(rows: list[Row]) -> list[Claim]:
    """Return the claims, decided."""

    def of(part: str, rate: str, momentum: float, measure: str) -> list[float]:
        rate = RATES[0] if momentum == 0 and part != "sum-mod" else rate
        return values(select(rows, part=part, rate=rate, momentum=momentum), measure)

    worst = max(values(select(rows, part="decayed sum"), "error"))
    said = [exact("m_t is the decayed sum of all gradients", "relative distance", worst, 1e-12)]
    for part, text in (
        ("saddle", "leaves the saddle sooner"),
        ("ravine", "is through the ravine sooner"),
    ):
        for rate in RATES:
            none, some = (of(part, rate, m, "steps to arrive") for m in (0.0, 0.9))
            quantity, interval = "steps without minus with .9", difference_interval(none, some)
            said.append(claim(f"momentum .9 {text}, {rate}", quantity, interval, ABOVE))
    for momentum, rate, text, region in (
        (0.0, RATES[0], "gradient descent stays before the barrier", (0.0, 0.3)),
        (0.5, RATES[0], "momentum .5 gets over the barrier", (0.7, 1.0)),
        *((0.9, rate, f"momentum .9 gets over the barrier, {rate}", (0.7, 1.0)) for rate in RATES),
    ):
        over = of("barrier", rate, momentum, "arrived")
        count = int(sum(over))
        quantity = f"share of starts that get over: {count} of {len(over)}"
        said.append(claim(text, quantity, share_interval(count, len(over)), region))
    for part in SURFACES:
        less, more = (of(part, RATES[0], m, "steps to arrive") for m in (0.9, 0.99))
        interval = difference_interval(less, more)
        said.append(
            claim(
                f"momentum .99 is faster than .9: {part}",
                "steps with .9 minus .99",
                interval,
                ABOVE,
            )
        )
    for rate in RATES:
        for low, high in ((0.0, 0.9), (0.9, 0.99)):
            interval = difference_interval(
                *(of("sum-mod", rate, m, "accuracy") for m in (high, low))
            )
            text = f"sum-mod: momentum {high} learns more than {low}, {rate}"
            said.append(claim(text, "accuracy with more minus with less", interval, ABOVE))
    return said


def tables(rows: list[Row]) -> dict[str, str]:
    """Return the steps to arrive, and the network's accuracies."""
    body = []
    for (rate, momentum), its in groups(select_surfaces(rows), "rate", "momentum").items():
        line = [rate if momentum else "any", f"{momentum}"]
        for part in SURFACES:
            steps = np.array(values(select(its, part=part), "steps to arrive"))
            arrived = sum(values(select(its, part=part), "arrived"))
            span = f"{np.median(steps):,.0f} ({steps.min():,.0f} to {steps.max():,.0f})"
            line.append(span if arrived == len(steps) else f"{arrived} of {len(steps)} arrived")
        body.append(line)
    nets = select(rows, part="sum-mod")
    return {
        "steps": table(["rate", "momentum", *(f"{name}: steps" for name in SURFACES)], body),
        "accuracy": summary(nets, ["rate", "momentum"], "accuracy"),
    }


def select_surfaces(rows: list[Row]) -> list[Row]:
    """Return the runs on surfaces."""
    return [r for r in rows if r["part"] in SURFACES]


def draw(figure: Any, rows: list[Row]) -> None:
    """Draw the paths over contours, and what the network reaches."""
    above, below = figure.subfigures(2, 1, height_ratios=[1.9, 1])
    axes = above.subplots(2, 3)
    for first, line, rate in zip((True, False), axes, RATES, strict=True):
        for axis, (name, surface) in zip(line, SURFACES.items(), strict=True):
            contours(axis, surface)
            for momentum in reversed(MOMENTA):  # the narrow lines above the wide ones
                used = rate if momentum else RATES[0]
                its = select(rows, part=name, rate=used, momentum=momentum, seed=0)
                x, y = np.array(its[0]["path"][: SHOWN[momentum]]).T
                colour = LOOKS[momentum]
                axis.plot(x, y, color=colour, linewidth=WIDTHS[momentum], alpha=0.85)
                axis.plot(x[-1], y[-1], "o", color=colour, markersize=6, markeredgecolor="white")
            axis.plot(*surface.start, "k*", markersize=10)
            axis.set_title(surface.title if first else "", fontsize=11)
        line[0].set_ylabel(rate.replace(" / ", " /\n"))
    for momentum, colour in LOOKS.items():
        text = f"{momentum:g} (first {SHOWN[momentum]} steps)"
        axes[0, 0].plot([], [], color=colour, linewidth=2, label=text)
    handles = axes[0, 0].get_legend_handles_labels()
    above.legend(*handles, loc="outside upper center", ncols=4, title="momentum")
    for axis, rate in zip(below.subplots(1, 2, sharey=True), RATES, strict=True):
        nets = groups(select(rows, part="sum-mod", rate=rate), "momentum")
        strip(
            axis, [values(of, "accuracy") for of in nets.values()], [f"{m:g}" for (m,) in nets],
            list(LOOKS.values()),
        )  # fmt: skip
        axis.set(xlabel="accuracy on fresh sequences", xlim=(0, 1.02))
        axis.set_title(f"Sum-mod, {rate}", fontsize=11)
        if rate == RATES[0]:
            axis.set_ylabel("momentum")


def contours(axis: Any, surface: Surface) -> None:
    """Draw a surface's height."""
    left, right, bottom, top = surface.shown
    x, y = np.meshgrid(np.linspace(left, right, 200), np.linspace(bottom, top, 200))
    z = surface.value(x, y)
    axis.contourf(x, y, np.sqrt(z - z.min()), 14, cmap="Greys", alpha=0.55)
    axis.contour(x, y, np.sqrt(z - z.min()), 14, colors="0.6", linewidths=0.4)
    axis.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])


STUDY = Study(
    name="momentum",
    question="What does momentum do that a larger step would not?",
    settings=settings,
    run=run,
    tables=tables,
    claims=judge,
    draw=draw,
    size=(8, 8.5),
)

if __name__ == "__main__":
    main(STUDY)
