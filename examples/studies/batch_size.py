"""What the size of a batch does: to its gradient, to the time of a sample, and to what is learned.

    python examples/studies/batch_size.py

Is the gradient of a batch the mean of its samples' gradients, or that of one sample divided by their number?
Does the number of parameters depend on the batch? Does the noise fall as 1/sqrt(B), and how noisy is the
gradient during training? Is a sample cheaper in a large batch, and is a small batch better on fresh data,
with equal samples and with equal steps? And what are the right numbers of a small example, one step of eight
samples against two of four?
"""

import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from claims import ABOVE, Claim, claim, difference_interval, exact, median_interval
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
from training import SumMod, accuracy, batches, training

import minirnn
from minirnn.diagnostics import noise_scale, per_sample_gradient_norms, per_sample_gradients

# What the text prints otherwise than it comes out.
PRINTED_WRONG = {
    "two of 4, second": ("db", "b"),
    "one batch of 8": ("dw", "db", "w", "b"),
}
SMALL, LARGE, RATE = 32, 256, 1e-3
RATIO = LARGE // SMALL
# How Adam's rate may follow the batch: not at all, by the square root of the ratio, or by the ratio.
SCALED = {"same lr": 1, "lr by sqrt": RATIO**0.5, "lr by ratio": RATIO}


def settings(quick: bool) -> Iterable[Row]:
    """Return the settings of all five parts."""
    yield {"part": "example", "seed": 0}
    yield {"part": "gradient", "samples": 256 if quick else 2048, "sizes": 5 if quick else 9}
    yield {"part": "training", "steps": 40 if quick else 10_000, "looks": 2 if quick else 21}
    yield {"part": "time", "largest": 64 if quick else 1024, "repeats": 5 if quick else 41}
    steps = 16 if quick else 10_000
    yield {"part": "accuracy", "batch": SMALL, "steps": steps, "rate": "small batch"}
    for equal, its in (("samples", steps // RATIO), ("steps", steps)):
        for rate in SCALED:
            yield {
                "part": "accuracy", "batch": LARGE, "steps": its, "rate": rate, "equal": equal,
            }  # fmt: skip


def run(part: str, **flags: Any) -> Row:
    """Return the results of one part."""
    parts: dict[str, Callable[..., Row]] = {
        "example": example,
        "gradient": gradient,
        "training": noise_in_training,
        "time": seconds_a_sample,
        "accuracy": learned,
    }
    return parts[part](**flags)


# -- the worked example ----------------------------------------------------------------------------


def example(seed: int = 0) -> Row:
    """Return dw, db, w, b after each step on x = 1..8 with label x > 5, exactly and by the library.

    The model is w x + b from w = 0.1, b = 0.2, the loss the mean square, the learning rate 0.1.
    """
    result, errors = {}, []
    runs = {"one batch of 8": [range(1, 9)], "two of 4": [range(1, 5), range(5, 9)]}
    for name, its in runs.items():
        layer = minirnn.Linear(1, 1, dtype=np.float64)
        weight, bias = layer.parameters()
        weight.data, bias.data = [[0.1]], [0.2]
        exactly = in_fractions(its)
        for place, xs in zip(("first", "second"), its, strict=False):
            numbers, ours = next(exactly), by_library(layer, xs)
            errors.append(max(abs(a - float(b)) for a, b in zip(ours, numbers, strict=True)))
            step = name if len(its) == 1 else f"{name}, {place}"
            for what, number in zip(("dw", "db", "w", "b"), numbers, strict=True):
                result[f"{step}: {what}"] = float(number)
    return {**result, "error": max(errors)}


def in_fractions(its: list[range]) -> Iterator[tuple[Fraction, ...]]:
    """Iterate over dw, db and the new w, b without any rounding."""
    w, b, rate = Fraction(1, 10), Fraction(2, 10), Fraction(1, 10)
    for xs in its:
        r = [w * x + b - (x > 5) for x in xs]
        dw = 2 * sum((e * x for e, x in zip(r, xs, strict=True)), Fraction()) / len(xs)
        db = 2 * sum(r, Fraction()) / len(xs)
        w, b = w - rate * dw, b - rate * db
        yield dw, db, w, b


def by_library(layer: minirnn.Linear, xs: range) -> list[float]:
    """Return dw, db and the new w, b of one step."""
    x, criterion = np.array(xs, np.float64)[:, None], minirnn.MSELoss()
    y, ctx = layer.forward(x)
    _, ctx_l = criterion.forward(y, (x > 5).astype(np.float64))
    layer.zero_grad()
    layer.backward(ctx, criterion.backward(ctx_l))
    minirnn.SGD(layer.parameters(), 0.1).step()
    weight, bias = layer.parameters()
    return [a.item() for a in (weight.grad, bias.grad, weight.data, bias.data)]


# -- the gradient and its noise --------------------------------------------------------------------


def samples_gradients(seed: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients of samples, (samples, parameters), and that of their mean loss, in float64."""
    model, criterion = SumMod(hidden_dim=16).to("float64"), minirnn.CrossEntropyLoss()
    tokens, sums = next(batches(np.random.default_rng(seed), samples, ahead=1))
    logits, ctx = model.forward(tokens)
    _, ctx_l = criterion.forward(logits, sums)
    each = per_sample_gradients(model, ctx, criterion.backward(ctx_l))
    # Of the mean loss: each comes with the factor 1 / samples.
    own = np.concatenate([each[p.name].reshape(samples, -1) for p in model.parameters()], 1)
    return samples * own, np.concatenate([p.grad.ravel() for p in model.parameters()])


def gradient(seed: int, samples: int, sizes: int, draws: int = 200) -> Row:
    """Return what a batch's gradient is and what it is not, and how its noise falls with the batch's size."""
    minirnn.manual_seed(seed)
    own, mean = samples_gradients(seed, 8)
    size = np.linalg.norm(mean)
    counted = {len(samples_gradients(seed, B)[1]) for B in (1, 8, 64)}
    many, full = samples_gradients(seed, samples)
    rng, deviations = np.random.default_rng(seed), []
    for B in 2 ** np.arange(sizes):
        drawn = rng.integers(0, samples, (draws, B))
        squares = [((many[batch].mean(0) - full) ** 2).sum() for batch in drawn]
        deviations.append(np.sqrt(np.mean(squares)))
    return {
        "from mean": np.linalg.norm(mean - own.mean(0)) / size,
        "from one / 8": min(np.linalg.norm(mean - g / 8) for g in own) / size,
        "parameter counts": len(counted),
        "exponent": np.polyfit(np.log(2 ** np.arange(sizes)), np.log(deviations), 1)[0],
        "noise scale": noise_scale(np.linalg.norm(many, axis=1), np.linalg.norm(full)).scale,
        "deviations": deviations,
    }


def noise_in_training(seed: int, steps: int, looks: int, samples: int = 4096) -> Row:
    """Return the noise scale along a training run, of samples that it does not train on."""
    at = np.unique(np.geomspace(1, steps, looks).astype(int))
    tokens, sums = next(batches(np.random.default_rng(2**31 + seed), samples, ahead=1))
    criterion, seen = minirnn.CrossEntropyLoss(), []
    flags: Row = {"steps": steps, "batch": 64, "lr": 3e-3, "warmup": steps // 20, "clip": 0.5}
    for step in training(seed=seed, **flags):
        if step.number in at:
            model = step.model
            logits, ctx = model.forward(tokens)
            loss, ctx_l = criterion.forward(logits, sums)
            model.zero_grad()
            own = samples * per_sample_gradient_norms(model, ctx, criterion.backward(ctx_l))
            total = np.sqrt(
                sum(float((p.grad.astype(np.float64) ** 2).sum()) for p in model.parameters())
            )
            seen.append((float(loss), *noise_scale(own, total)))
    losses, noise, signal, scales = zip(*seen, strict=True)
    return {
        "accuracy": accuracy(step.model, 2, 5),
        "first scale": scales[0], "last scale": scales[-1],
        "at": at, "losses": losses, "noise": noise, "signal": signal, "scales": scales,
    }  # fmt: skip


# -- time and accuracy -----------------------------------------------------------------------------


def seconds_a_sample(seed: int, largest: int, repeats: int) -> Row:
    """Return the time of forward and backward by batch size, sizes taking turns.

    Of the fastest of the repeats, since whatever else the machine does only adds.
    """
    model, criterion = SumMod(), minirnn.CrossEntropyLoss()
    sizes = [2**k for k in range(largest.bit_length())]
    data = [next(batches(np.random.default_rng(seed), B, ahead=1)) for B in sizes]
    took: list[list[float]] = [[] for _ in sizes]
    for _ in range(repeats):
        for B, (tokens, sums), times in zip(sizes, data, took, strict=True):
            for _ in range(2):  # once to come back from the size before, once for the clock
                start = time.perf_counter()
                logits, ctx = model.forward(tokens)
                model.backward(ctx, criterion.backward(criterion.forward(logits, sums)[1]))
                seconds = time.perf_counter() - start
            times.append(seconds / B)
    best = [min(times) for times in took]
    return {"gain": best[0] / best[-1], "microseconds": [1e6 * t for t in best]}


def learned(seed: int, batch: int, steps: int, rate: str, equal: str | None = None) -> Row:
    """Return what a training run with this batch ends at."""
    flags: Row = {
        "lr": RATE * SCALED.get(rate, 1),
        "warmup": steps // 20,
        "min_lr": 1e-5,
        "clip": 0.5,
    }
    *_, last = training(seed=seed, steps=steps, batch=batch, **flags)
    return {"accuracy": accuracy(last.model, 2, 5), "samples": steps * batch}


# -- what the runs say -----------------------------------------------------------------------------


def judge(rows: list[Row]) -> list[Claim]:
    """Return the claims, decided."""
    seen, only = select(rows, part="gradient"), select(rows, part="example")[0]
    gain = median_interval(values(select(rows, part="time"), "gain"))
    small = values(select(rows, rate="small batch"), "accuracy")
    said = [
        exact(
            "a batch's gradient is the mean of its samples'",
            "relative distance", max(values(seen, "from mean")), 1e-12,
        ),
        exact(
            "a batch's gradient is that of one sample / 8",
            "relative distance, the nearest of 8", min(values(seen, "from one / 8")), 1e-2,
        ),
        claim(
            "the number of parameters depends on the batch",
            "different numbers for batches of 1, 8 and 64",
            [max(values(seen, "parameter counts"))] * 2, (2, 3),
        ),
        claim(
            "the noise falls as 1/sqrt(B)", "fitted exponent, its median",
            median_interval(values(seen, "exponent")), (-0.51, -0.49),
        ),
        exact("the library makes the example's numbers", "largest error", only["error"], 1e-14),
        claim(
            "the noise scale grows during training", "log10 of last noise scale / first",
            median_interval(growth(select(rows, part="training"))), ABOVE,
        ),
        claim(
            "a sample is cheaper in a large batch",
            "time a sample alone / in the largest batch", gain, (1, np.inf),
        ),
    ]  # fmt: skip
    for equal in ("samples", "steps"):
        for rate in SCALED:
            large = values(select(rows, rate=rate, equal=equal), "accuracy")
            said.append(
                claim(
                    f"a small batch is better at equal {equal}, {rate}",
                    f"accuracy: batch {SMALL} minus batch {LARGE}",
                    difference_interval(small, large), ABOVE,
                )
            )  # fmt: skip
    return said


def growth(rows: list[Row]) -> list[float]:
    """Return how many powers of ten the noise scale gains; infinite where the signal is lost."""
    grown = []
    for first, last in zip(values(rows, "first scale"), values(rows, "last scale"), strict=True):
        grown.append(
            np.log10(last / first) if first > 0 and last > 0 else np.inf if first > 0 else np.nan
        )
    return grown


def tables(rows: list[Row]) -> dict[str, str]:
    """Return the worked example, the noise, the time and the accuracies."""
    its = select(rows, part="time")
    micro = np.median([r["microseconds"] for r in its], 0)
    spent = table(
        ["batch", *(str(2**k) for k in range(len(micro)))],
        [["µs a sample", *(f"{t:.3g}" for t in micro)]],
    )
    gradients, trained = select(rows, part="gradient"), select(rows, part="training")
    return {
        "example": printed(select(rows, part="example")[0]),
        "exponent": summary(gradients, ["samples"], "exponent", ".4f"),
        "first scale": summary(gradients, ["samples"], "noise scale", ".0f"),
        "scale": along(trained),
        "time": spent,
        "accuracy": summary(select(rows, part="accuracy"), ["batch", "steps", "rate"], "accuracy"),
    }


def printed(only: Row) -> str:
    """Return the worked example's numbers, and which of them the text prints otherwise."""
    body = []
    for step in ("one batch of 8", "two of 4, first", "two of 4, second"):
        numbers = {what: f"{only[f'{step}: {what}']:.6g}" for what in ("dw", "db", "w", "b")}
        wrong = [f"{what} = {numbers[what]}" for what in PRINTED_WRONG.get(step, ())]
        body.append([step, *numbers.values(), ", ".join(wrong) or "none"])
    head = ["step", "dw", "db", "w after", "b after", "printed wrong; right is"]
    return table(head, body)


def along(rows: list[Row], every: int = 4) -> str:
    """Return the noise scale during training, its median over runs and its range."""
    loss, scales = (np.array([r[name] for r in rows], float) for name in ("losses", "scales"))
    body = [
        [
            f"{step:,}",
            f"{np.median(loss[:, k]):.2g}",
            f"{np.median(scales[:, k]):,.0f}",
            f"{scales[:, k].min():,.0f} to {scales[:, k].max():,.0f}",
        ]
        for k, step in enumerate(rows[0]["at"])
        if (len(rows[0]["at"]) - 1 - k) % every == 0
    ]
    return table(["after step", "median loss", "median noise scale", "range over the seeds"], body)


def draw(figure: Any, rows: list[Row]) -> None:
    """Draw noise against size, noise scale against step, time and accuracy."""
    (noise, scale), (spent, right) = figure.subplots(2, 2)
    its = select(rows, part="gradient")
    deviations = np.array([r["deviations"] for r in its])
    sizes = 2.0 ** np.arange(deviations.shape[1])
    noise.loglog(sizes, deviations.T, "o-", color=BLUE, alpha=0.35, linewidth=1, markersize=4)
    noise.plot([], [], "o-", color=BLUE, label="one seed")
    middle = np.median(deviations[:, 0])
    noise.loglog(sizes, middle * sizes**-0.5, "--", color=RED, linewidth=2, label=r"$1/\sqrt{B}$")
    noise.set(xlabel="batch size B", ylabel="rms distance from the full gradient")
    noise.set_title(f"Noise falls as $B^{{{np.median(values(its, 'exponent')):.3f}}}$")
    noise.legend()
    for r in select(rows, part="training"):
        there = np.array([np.nan if s is None or s <= 0 else s for s in r["scales"]])
        scale.loglog(r["at"], there, color=GREEN, alpha=0.5, linewidth=1.2)
    scale.set(xlabel="training step", ylabel="noise scale (samples)")
    scale.set_title("The noise scale during training")
    for r in select(rows, part="time"):
        batch = 2.0 ** np.arange(len(r["microseconds"]))
        spent.loglog(batch, r["microseconds"], color=ORANGE, alpha=0.6, linewidth=1.2)
    spent.set(xlabel="batch size B", ylabel="forward + backward\n(µs a sample)")
    spent.set_title("Time of a sample")
    trained = groups(select(rows, part="accuracy"), "equal", "rate")
    names = [f"batch {SMALL}" if equal is None else rate for equal, rate in trained]
    looks = {None: BLUE, "samples": ORANGE, "steps": GREEN}
    every = [values(its, "accuracy") for its in trained.values()]
    strip(right, every, names, [looks[equal] for equal, _ in trained])
    right.set(xlabel="accuracy on fresh sequences")
    right.plot([], [], "o", color=ORANGE, label=f"batch {LARGE}, equal samples")
    right.plot([], [], "o", color=GREEN, label=f"batch {LARGE}, equal steps")
    right.legend(loc="lower left")
    right.set_title(f"Batch {SMALL} against {LARGE}")


STUDY = Study(
    name="batch_size",
    question="What does the size of a batch do to gradient, time and accuracy?",
    settings=settings,
    run=run,
    tables=tables,
    claims=judge,
    draw=draw,
    size=(8, 7),
)

if __name__ == "__main__":
    main(STUDY)
