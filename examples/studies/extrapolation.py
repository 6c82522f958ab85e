"""A tanh RNN is trained on sums of 2 to 5 digits, and asked for a thousand.

    python examples/studies/extrapolation.py

Independent short sequences teach it short sequences. What if states are carried over from batch to batch
(truncated BPTT)? Why does one seed in ten then stop early, and what makes it ten of ten? And what can be had
from independent short sequences alone, on the same budget?
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from claims import ABOVE, Claim, claim, difference_interval, share_interval
from study import BLUE, ORANGE, RED, SKY, Row, Study, groups, main, strip, summary, table, values
from training import SumMod
from tricks import LESSONS, by_hand

# Beside `training`, which knows where the example is.
from train import arguments, train  # isort: skip

from minirnn.diagnostics import jacobian_norms

STEPS = 20_000  # train.py's own
BUDGET = 5_000  # of a try
LONGER = {"gathered, longer": 10_000, "carried": STEPS, "plain": STEPS}
LENGTHS = [2, 3, 5, 7, 10, 14, 20, 30, 50, 100, 200, 500, 1000]
TRAINED = 5  # the longest sequence of a lesson
FLAGS = {
    "gathered": ["--gather", "0.03"],
    "gathered, longer": ["--gather", "0.03"],
    "carried, asked after each": ["--carry", "--gather", "0"],
    "carried, gathered": ["--carry"],
}
COMPARED = {"plain": RED, "carried": ORANGE, "gathered, longer": SKY, "carried, gathered": BLUE}
TRIES = [("weight noise", 0.05), ("L1", 1e-4), ("small Jacobians", 1e-2), ("drawn start", 0.1),
         ("identity start", 0.0), ("asked after each", 0.0), ("carried, asked after each", 0.0)]  # fmt: skip
SEEDS = range(5)  # of all but what is claimed for ten
ALONE = ["plain", "weight noise", "L1", "small Jacobians", "drawn start", "identity start",
         "asked after each", "gathered", "gathered, longer"]  # fmt: skip
NAMES = {
    "plain": "independent sequences",
    "carried": "carried",
    "gathered, longer": "independent, gathered",
    "carried, gathered": "carried and gathered: --carry",
}
OURS = "carried, gathered"  # train.py --carry
JACOBIAN = 40  # steps
ALIKE = 1.0  # two states nearer than this are one; states are up to 2 sqrt(64) = 16 apart


def settings(quick: bool) -> Iterable[Row]:
    """Return what is trained: what --carry does for every seed, all else for fewer."""
    yield {"way": OURS, "strength": 0.0, "steps": 40 if quick else STEPS}
    yield {"way": "by hand", "strength": 0.0, "steps": 0, "seed": 0}
    others = [
        ("gathered", 0.0),
        ("gathered, longer", 0.0),
        ("carried", 0.0),
        *TRIES,
        ("plain", 0.0),
    ]
    for way, strength in others:
        its = {"way": way, "strength": strength, "steps": 40 if quick else LONGER.get(way, BUDGET)}
        yield from ({**its, "seed": seed} for seed in (SEEDS[:1] if quick else SEEDS))


def run(way: str, strength: float, steps: int, seed: int) -> Row:
    """Train once, if anything is to be trained, and look at what has been learned."""
    if way == "by hand":
        model, h_0 = by_hand()
    else:
        flags = ["--seed", str(seed), "--total_steps", str(steps), "--eval_every", str(steps)]
        args = arguments([*flags, *FLAGS.get(way, [])])
        args.strength = strength
        model = train(args, lesson=LESSONS[way]).eval()
        h_0 = np.zeros(model.rnn.hidden_size, np.float32)
        if way == "drawn start":
            h_0 = np.tanh(model.start.weight.data[0])  # which stands for nothing so far
    rng = np.random.default_rng(2**31)
    sequences = 50 if 0 < steps < 100 else 1000
    seen = {
        **counted(model, h_0, rng.integers(0, 10, (LENGTHS[-1], sequences))),
        **rested(model, h_0, rng.integers(0, 10, (20, 300))),
        **stretched(model, h_0, rng.integers(0, 10, (JACOBIAN, 20))),
    }
    if seed == 0 and way in ("plain", OURS):
        seen["cloud"] = cloud(model, h_0, rng.integers(0, 10, (20, 300)))
    if way == "carried":
        seen["dials"] = dials(model, h_0, rng.integers(0, 10, (20, 1000)))
    return seen


# -- what is to be seen of a network -----------------------------------------------------------------


def pieces(model: SumMod, h: np.ndarray, digits: np.ndarray) -> Iterator[tuple[Any, Any]]:
    """Iterate over the states and logits after each digit, from `h` on, ten at a time."""
    state = np.broadcast_to(h, (1, digits.shape[1], model.rnn.hidden_size))
    for k in range(0, len(digits), 10):
        output, state = model.rnn(model.embedding(digits[k : k + 10]), state)
        yield output, model.head(output)


def counted(model: SumMod, h_0: np.ndarray, digits: np.ndarray) -> Row:
    """Return accuracies by length, and how the first wrong answer differs from the right one."""
    answers = np.concatenate([logits.argmax(2) for _, logits in pieces(model, h_0, digits)])
    off = (answers - digits.cumsum(0)) % 10
    wrong = off != 0
    lost = np.flatnonzero(wrong.any(0))
    slips = np.bincount(off[wrong[:, lost].argmax(0), lost], minlength=10)
    right = {n: float(1 - wrong[n - 1].mean()) for n in LENGTHS}
    return {
        **{f"at_{n}": right[n] for n in (5, 20, 100, 1000)},
        "curve": list(right.values()),
        "slips": slips,
    }


def rested(model: SumMod, h_0: np.ndarray, digits: np.ndarray) -> Row:
    """Return how far states of one meaning are apart, and where they go when nothing but 0 is added.

    ``spread``: the root mean square distance from the mean of those with the same sum and last digit, as a
    share of that from the mean of all. ``places``: in how many states they end, ``right_at_rest``: how many
    still with the right answer.
    """
    for states, _ in pieces(model, h_0, digits):
        last = states[-1]
    sums = digits.sum(0) % 10
    meaning = sums * 10 + digits[-1]
    own = [last[meaning == m] for m in set(meaning.tolist())]
    apart = sum(((states - states.mean(0)) ** 2).sum() for states in own)
    for states, logits in pieces(model, last, np.zeros((500, len(sums)), int)):
        end, answers = states[-1], logits[-1].argmax(1)
    places: list[np.ndarray] = []
    for one in end:
        if all(np.linalg.norm(one - p) > ALIKE for p in places):
            places.append(one)
    return {
        "spread": float(np.sqrt(apart / ((last - last.mean(0)) ** 2).sum())),
        "places": len(places),
        "right_at_rest": float((answers == sums).mean()),
    }


def stretched(model: SumMod, h_0: np.ndarray, digits: np.ndarray) -> Row:
    """Return the norm of the Jacobian of the last state with respect to the one k steps before."""
    state = np.repeat(h_0[None, None], digits.shape[1], 1)
    _, ctx = model.rnn.forward(model.embedding(digits), state)
    norms = np.median(jacobian_norms(model.rnn, ctx)[0], 1)[::-1]
    return {"jacobian": norms, "jacobian_20": float(norms[20])}


def cloud(model: SumMod, h_0: np.ndarray, digits: np.ndarray) -> Row:
    """Return states after 5 and after 20 digits in the plane in which the sums are furthest apart after 5."""
    states = np.concatenate([states for states, _ in pieces(model, h_0, digits)])
    sums = digits.cumsum(0) % 10
    middle = states[TRAINED - 1].mean(0)
    means = [states[TRAINED - 1][sums[TRAINED - 1] == s].mean(0) - middle for s in range(10)]
    plane = np.linalg.svd(np.array(means))[2][:2]
    return {
        f"after_{n}": np.round(np.c_[(states[n - 1] - middle) @ plane.T, sums[n - 1]], 2)
        for n in (TRAINED, 20)
    }


def dials(model: SumMod, h_0: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """Return how much of what the mean logits tell of the sum is told by each dial, k = 1 to 5.

    Dial k goes round k times while the sum goes from 0 to 10: a discrete Fourier transform over the sums.
    Dial 2 or 4 knows the sum mod 5, dial 5 its parity, dials 1 and 3 all of it.
    """
    for _, logits in pieces(model, h_0, digits):
        last = logits[-1]
    sums = digits.sum(0) % 10
    means = np.array([last[sums == s].mean(0) for s in range(10)])
    power = (abs(np.fft.fft(means, axis=0)) ** 2).sum(1)[1:6] * [2, 2, 2, 2, 1]  # k and 10 - k
    return power / power.sum()


def loosest(shares: Sequence[float]) -> int:
    """Return the slip, 1 to 5 up or down, that turns the dials least: the sums most easily confused."""
    k, amounts = np.arange(1, 6), np.arange(1, 6)
    turned = 1 - np.cos(2 * np.pi * np.outer(amounts, k) / 10)
    return int(amounts[(turned @ np.array(shares)).argmin()])


def tables(rows: list[Row]) -> dict[str, str]:
    """Return accuracies of what was compared and of what was tried, and what the networks are like inside."""
    by = groups(rows, "way")
    compared = [r for way in (*COMPARED, "by hand") for r in by[way,]]
    tried = [r for way in ALONE for r in by[way,]]
    body = [
        [
            way,
            *(
                f"{np.median(values(its, name)):.3g}"
                for name in ("spread", "places", "jacobian_20")
            ),
            f"{np.median(values(its, 'right_at_rest')):.2f}",
            "{} of {}".format(*commonest_slips(its)),
        ]
        for (way,), its in groups(compared, "way").items()
    ]
    head = ["way", "spread", "resting places", "Jacobian of 20 steps", "right after 500 zeros",
            "slips by the commonest amount"]  # fmt: skip
    told = [
        [
            str(r["seed"]),
            *(f"{share:.2f}" for share in r["dials"]),
            str(loosest(r["dials"])),
            f"{1 + np.argmax(folded([r])[0])} ({sum(r['slips'])})",
        ]
        for r in by["carried",]
    ]
    dial_head = ["seed", *(f"dial {k}" for k in range(1, 6)), "slip that turns them least",
                 "commonest slip (of how many)"]  # fmt: skip
    return {
        "dials": table(dial_head, told),
        "at 1000": summary(compared, ["way"], "at_1000", ".4f"),
        "at 20": summary(tried, ["way", "strength"], "at_20", ".4f"),
        "inside": table(head, body),
    }


def folded(rows: list[Row]) -> list[list[int]]:
    """Return how many of each run's first slips are by 1 to 5, up or down."""
    return [
        [r["slips"][k] + (r["slips"][10 - k] if k < 5 else 0) for k in range(1, 6)] for r in rows
    ]


def commonest_slips(rows: list[Row]) -> tuple[int, int]:
    """Return how many of the runs' first slips are by their run's commonest amount, and of how many."""
    return sum(map(max, folded(rows))), sum(map(sum, folded(rows)))


def judge(rows: list[Row]) -> list[Claim]:
    """Decide what is claimed; of all runs of a way where it says so."""
    by = {way: its for (way,), its in groups(rows, "way").items()}

    def every(way: str, measure: str, least: float, text: str) -> Claim:
        lowest = min(values(by[way], measure))
        said = f"least of {len(by[way])} accuracies at length {measure[3:]}"
        return claim(f"{text}: {least} with every seed", said, (lowest, lowest), (least, 1))

    strongest, slips = commonest_slips(by["carried"] + by["plain"])
    often = [r for r in by["carried"] if sum(r["slips"]) >= 10]
    foretold = [loosest(r["dials"]) == 1 + np.argmax(folded([r])[0]) for r in often]
    contraction = difference_interval(
        np.log(values(by["plain"], "jacobian_20")), np.log(values(by[OURS], "jacobian_20"))
    )
    return [
        every(OURS, "at_1000", 0.999, "carried and gathered (--carry), a thousand digits"),
        every("carried", "at_1000", 0.999, "carried alone, a thousand digits"),
        every("by hand", "at_1000", 1, "weights written by hand, a thousand digits"),
        *(
            every(way, "at_20", 0.99, f"independent short sequences, {way}, 20 digits")
            for way in ALONE
        ),
        claim(
            "a network slips by one amount, by which one of its dials can slip",
            "share of first slips by a run's commonest amount, plain and carried alone",
            share_interval(strongest, slips),
            (0.5, 1),
        ),
        claim(
            "that amount is the one that turns the network's dials least",
            f"share of the {len(often)} carried runs with ten slips or more in which it is",
            share_interval(sum(foretold), len(often)),
            (0.5, 1),
        ),
        claim(
            "to carry and gather makes the network forget disturbances",
            "log of the Jacobian's norm over 20 steps, plain less carried and gathered",
            contraction,
            ABOVE,
        ),
    ]


def draw(figure: Any, rows: list[Row]) -> None:
    """Draw accuracy against length, the states without and with, Jacobians, and all tries."""
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=[1, 1.25, 1])
    by = {way: its for (way,), its in groups(rows, "way").items()}
    _draw_lengths(top.subplots(), by)
    for way, axis in zip(("plain", OURS), middle.subplots(1, 2), strict=True):
        _draw_cloud(axis, next(r for r in by[way] if "cloud" in r)["cloud"])
        axis.set_title(f"{'Without' if way == 'plain' else 'With'}: states after 20 digits")
    left, right = bottom.subplots(1, 2, width_ratios=[1, 1.1])
    for way, colour in COMPARED.items():
        for r in by[way]:
            left.semilogy(r["jacobian"], color=colour, alpha=0.75, linewidth=1.2)
    left.set(
        xlabel="k, steps back",
        ylabel=r"$\|\partial h_T/\partial h_{T-k}\|_2$",
        ylim=(1e-9, 1e4),
    )
    left.set_title("What a disturbance becomes")
    ways = [*ALONE, "carried, asked after each", "carried", OURS]
    strip(
        right,
        [values(by[way], "at_20") for way in ways],
        ways,
        [COMPARED.get(way, "0.45") for way in ways],
    )
    right.axvline(0.99, color="0.3", linestyle="--", linewidth=1)
    right.tick_params(axis="y", labelsize=8.5)
    right.set(xlabel="share of right sums of 20 digits", xlim=(0, 1.03))
    right.set_title("Every run of every try")


def _draw_lengths(axis: Any, by: dict[str, list[Row]]) -> None:
    axis.axvspan(2, TRAINED, color="0.9", linewidth=0)
    axis.text(2.05, 0.03, "trained on", fontsize=9, color="0.35")
    for way, colour in COMPARED.items():
        for k, r in enumerate(by[way]):
            axis.plot(
                LENGTHS,
                r["curve"],
                color=colour,
                alpha=0.75,
                linewidth=3.5 if way.startswith("gathered") else 1.3,  # as another lies on it
                label=None if k else NAMES[way],
            )
    axis.axhline(0.1, color="0.4", linestyle="--", linewidth=1)
    axis.text(1000, 0.115, "chance", ha="right", fontsize=9, color="0.35")
    ticks = [2, 5, 10, 20, 50, 100, 200, 500, 1000]
    axis.set_xscale("log")
    axis.set_xticks(ticks, ticks)
    axis.minorticks_off()
    axis.set(xlabel="digits", ylabel="share of right sums", ylim=(0, 1.06), xlim=(2, 1050))
    axis.set_title("Trained on 2 to 5 digits, asked for more")
    axis.legend(loc="upper right", bbox_to_anchor=(1.0, 0.93))


def _draw_cloud(axis: Any, cloud: Row) -> None:
    """Draw states as the digits of their sums, and behind them where lessons end."""
    from matplotlib import colormaps

    x, y, _ = np.transpose(cloud[f"after_{TRAINED}"])
    axis.plot(x, y, "o", color="0.82", markersize=7, markeredgecolor="none")
    x, y, sums = np.transpose(cloud["after_20"])
    for s in range(10):
        here = sums == s
        colour = colormaps["viridis"](0.9 * s / 9)
        axis.plot(x[here], y[here], linestyle="", marker=f"${s}$", markersize=6, color=colour)
    axis.set(xticks=[], yticks=[], xlabel="grey: after 5 digits")
    axis.grid(visible=False)


STUDY = Study(
    name="extrapolation",
    question="Can a tanh RNN add a thousand digits if it has been trained on pieces of 2 to 5?",
    settings=settings,
    run=run,
    tables=tables,
    claims=judge,
    draw=draw,
    size=(8, 9.5),
)

if __name__ == "__main__":
    main(STUDY)
