"""What padding does to the last state, what packing saves, and what happens with lengths in the wrong order.

    python examples/studies/packing.py

A recurrent layer does not know padding from data. What becomes of its last state if it runs on over padded
steps, and of a trained network's answers? How much time does packing save, against how much of the batch is
padding? What does enforce_sorted do, and what does it not do? And if the lengths come in the wrong order, who
notices?
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from claims import INFINITY, Claim, claim, exact, median_interval
from study import BLUE, GREEN, ORANGE, Row, Study, groups, main, select, summary, table, values
from training import batches, new_model, training

import minirnn
from minirnn import pack_padded_sequence, pad_packed_sequence

CELLS = {"rnn": BLUE, "gru": GREEN, "lstm": ORANGE}
LAYERS = {"rnn": minirnn.RNN, "gru": minirnn.GRU, "lstm": minirnn.LSTM}
PADDED = 40  # the most steps of padding
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)


def settings(quick: bool) -> Iterable[Row]:
    """Return the settings of all parts."""
    for cell in CELLS:
        yield {"part": "drift", "cell": cell, "steps": 0}
        yield {"part": "drift", "cell": cell, "steps": 20 if quick else 4000}
        size = (
            {"hidden": 8, "longest": 10, "repeats": 3}
            if quick
            else {"hidden": 64, "longest": 50, "repeats": 41}
        )
        yield {"part": "time", "cell": cell, **size}
        yield {"part": "sorting", "cell": cell, "repeats": 3 if quick else 101}
    yield {"part": "order", "trials": 20 if quick else 200}


def run(part: str, **flags: Any) -> Row:
    """Return the results of one part."""
    parts: dict[str, Callable[..., Row]] = {
        "drift": drift,
        "time": saved,
        "sorting": sorting,
        "order": order,
    }
    return parts[part](**flags)


# -- what is run -----------------------------------------------------------------------------------


def drift(cell: str, steps: int, seed: int) -> Row:
    """Let a layer, fresh or trained on packed batches, run on over padding; return states and answers."""
    model = new_model(seed, cell, 64, 1, None)
    if steps:
        flags: Row = {
            "lr": 5e-3 if cell == "rnn" else 1e-2,
            "warmup": steps // 20,
            "min_lr": 1e-5,
            "clip": 0.5,
        }
        *_, last = training(seed=seed, cell=cell, steps=steps, batch=256, **flags)
        model = last.model
    tokens, sums = next(batches(np.random.default_rng(2**31), 2000, ahead=1))
    _, state = model.rnn(model.embedding(tokens))
    h = state[0] if cell == "lstm" else state
    # What an embedding makes of padding: zeros.
    after, _ = model.rnn(np.zeros((PADDED, 2000, 10), np.float32), state)
    every = np.concatenate([h, after])
    far = np.linalg.norm(every - h, axis=2) / np.linalg.norm(h, axis=2)
    right = [float((model.head(one).argmax(1) == sums).mean()) for one in every]
    lengths = np.random.default_rng(seed).permutation(
        np.asarray(minirnn.pad_packed_sequence(tokens)[1])
    )
    digits, _ = pad_packed_sequence(tokens)
    confused = model(pack_padded_sequence(digits, lengths, enforce_sorted=False))
    return {
        "drift after 1": np.median(far[1]),
        "drift after 5": np.median(far[5]),
        "accuracy": right[0],
        "accuracy after 1": right[1],
        "accuracy after 5": right[5],
        "accuracy, lengths shuffled": float((confused.argmax(1) == sums).mean()),
        "drift": np.median(far, 1),
        "right": right,
    }


def lengths_of(share: float, longest: int, size: int) -> np.ndarray:
    """Return descending lengths, the first of them the longest, that leave about this share of padding."""
    u = (np.arange(size)[::-1] + 0.5) / size
    lengths = np.maximum(1, np.rint(longest * u ** (share / (1 - share)))).astype(int)
    lengths[0] = longest
    return lengths


def saved(cell: str, hidden: int, longest: int, repeats: int, seed: int, size: int = 16) -> Row:
    """Return the time of forward and backward, packed against padded, by the share of padding.

    Of the fastest of the repeats, since whatever else the machine does only adds.
    """
    rng = np.random.default_rng(seed)
    layer = LAYERS[cell](hidden, hidden, rng=seed)
    x = rng.standard_normal((longest, size, hidden)).astype(np.float32)
    every = [lengths_of(share, longest, size) for share in SHARES]
    ready = [pack_padded_sequence(x, lengths) for lengths in every]

    def once(given: Any) -> Any:
        (output, _), ctx = layer.forward(given)
        return layer.backward(ctx, output)

    def whole(lengths: np.ndarray) -> None:
        (output, _), ctx = layer.forward(pack_padded_sequence(x, lengths))
        wide, _ = pad_packed_sequence(output)
        layer.backward(ctx, pack_padded_sequence(wide, lengths))

    padded: list[float] = []
    packed: list[list[float]] = [[] for _ in every]
    packing: list[list[float]] = [[] for _ in every]
    for _ in range(repeats):  # in turns
        padded.append(clocked(once, x))
        for k, lengths in enumerate(every):
            packed[k].append(clocked(once, ready[k]))
            packing[k].append(clocked(whole, lengths))
    times, times_whole = ([min(t) / min(padded) for t in took] for took in (packed, packing))
    shares = [1 - float(lengths.sum()) / (longest * size) for lengths in every]
    half = SHARES.index(0.5)
    return {
        "time without padding": times[0],
        "saved of half": (1 - times[half]) / shares[half],
        "saved of half, packing included": (1 - times_whole[half]) / shares[half],
        "shares": shares,
        "times": times,
        "times, packing included": times_whole,
    }


def clocked(work: Any, *args: Any) -> float:
    """Return seconds."""
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def sorting(cell: str, repeats: int, seed: int, size: int = 16) -> Row:
    """Return what enforce_sorted=False does to results and to time."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 21, size)
    x = rng.standard_normal((20, size, 16))
    layer = LAYERS[cell](16, 64, dtype=np.float64, rng=seed)

    def last(packed: Any) -> np.ndarray:
        _, state = layer(packed)
        return state[0] if cell == "lstm" else state

    def both(packed_x: np.ndarray, its: np.ndarray, enforce: bool) -> None:
        layer(pack_padded_sequence(packed_x, its, enforce_sorted=enforce))

    together = last(pack_padded_sequence(x, lengths, enforce_sorted=False))
    alone = [last(x[:n, k : k + 1]) for k, n in enumerate(lengths)]
    by_length = np.argsort(-lengths, kind="stable")
    before, after = x[:, by_length], lengths[by_length]
    ratios = []
    for _ in range(repeats):
        theirs = clocked(both, before, after, True)
        ratios.append(clocked(both, x, lengths, False) / theirs)
    return {
        "distance from each alone": float(np.abs(together - np.concatenate(alone, 1)).max()),
        "time unsorted / sorted": float(np.median(ratios)),
        "unsorted accepted": float(accepted(x, lengths, enforce_sorted=True)),
    }


def accepted(x: np.ndarray, lengths: np.ndarray, **options: Any) -> bool:
    """Tell whether a batch can be packed."""
    try:
        pack_padded_sequence(x, lengths, **options)
    except ValueError:
        return False
    return True


def order(trials: int, seed: int, size: int = 16) -> Row:
    """Return how often wrong lengths pass each of the ways of packing; padding is -1, or a digit."""
    rng = np.random.default_rng(seed)
    passed = dict.fromkeys(
        ("unsorted", "data unsorted", "checked", "right, checked", "right, padded by a digit"), 0
    )
    for _ in range(trials):
        lengths = np.append(rng.integers(1, 20, size - 1), 20)
        there = np.arange(20)[:, None] < lengths
        digits = np.where(there, rng.integers(0, 10, there.shape), -1)
        wrong = lengths
        while (wrong == lengths).all():
            wrong = rng.permutation(lengths)
        descending = np.sort(lengths)[::-1]  # of data that nobody sorted
        passed["unsorted"] += accepted(digits, wrong, enforce_sorted=False)
        passed["data unsorted"] += accepted(digits, descending, enforce_sorted=True)
        passed["checked"] += accepted(digits, wrong, enforce_sorted=False, check_padding=-1)
        passed["right, checked"] += accepted(
            digits, lengths, enforce_sorted=False, check_padding=-1
        )
        zeros = np.where(there, digits, 0)
        passed["right, padded by a digit"] += accepted(
            zeros, lengths, enforce_sorted=False, check_padding=0
        )
    return {name: count / trials for name, count in passed.items()}


# -- what the runs say -----------------------------------------------------------------------------


def judge(rows: list[Row]) -> list[Claim]:
    """Return the claims, decided."""
    trained = [r for r in select(rows, part="drift") if r["steps"]]
    said = []
    for cell in CELLS:
        its = select(trained, cell=cell)
        far = median_interval(values(its, "drift after 1"))
        said.append(
            claim(
                f"{cell}: padding leaves the last state as it is",
                "relative drift after 1 step",
                far,
                (0, 0.01),
            )
        )
        lost = [r["accuracy"] - r["accuracy after 5"] for r in its]
        text = f"{cell}: a trained network does not mind 5 padded steps"
        said.append(claim(text, "accuracy lost", median_interval(lost), (-0.01, 0.01)))
    for cell in CELLS:
        its = select(rows, part="time", cell=cell)
        gain = median_interval(values(its, "saved of half"))
        text = f"{cell}: packing saves as much time as there is padding"
        said.append(claim(text, "time saved / padding, of half padding", gain, (0.9, 1.1)))
        cost = median_interval(values(its, "time without padding"))
        gain = median_interval(values(its, "saved of half, packing included"))
        said.append(claim(f"{text}, to pack and unpack included", "the same", gain, (0.9, 1.1)))
        text = f"{cell}: a packed batch costs nothing where there is no padding"
        said.append(claim(text, "time packed / padded", cost, (0, 1.05)))
    sorts = select(rows, part="sorting")
    distance = max(values(sorts, "distance from each alone"))
    said.append(
        exact(
            "enforce_sorted=False: every sequence gets what it gets alone, in its place",
            "largest distance",
            distance,
            1e-12,
        )
    )
    every = values(sorts, "time unsorted / sorted")
    said.append(
        claim(
            "sorting beforehand makes it faster",
            "time unsorted / sorted",
            median_interval(every),
            (1.05, INFINITY),
        )
    )
    passes = {name: values(select(rows, part="order"), name) for name in PASSES}
    accepted_unsorted = max(values(sorts, "unsorted accepted"))
    said.append(
        exact(
            "enforce_sorted=True refuses unsorted lengths",
            "share that passes",
            accepted_unsorted,
            0,
        )
    )
    said.append(
        exact(
            "enforce_sorted=True notices data that were not sorted along",
            "share that passes",
            min(passes["data unsorted"]),
            0,
        )
    )
    said.append(
        exact(
            "check_padding notices every wrong order",
            "share that passes",
            max(passes["checked"]),
            0,
        )
    )
    refused = 1 - min(passes["right, checked"])
    said.append(
        exact(
            "check_padding never refuses right lengths, padding no digit",
            "share refused",
            refused,
            0,
        )
    )
    refused = 1 - min(passes["right, padded by a digit"])
    said.append(
        exact(
            "check_padding never refuses right lengths, padding a digit",
            "share refused",
            refused,
            0,
        )
    )
    return said


PASSES = {
    "unsorted": "wrong order, enforce_sorted=False",
    "data unsorted": "lengths sorted, data not, enforce_sorted=True",
    "checked": "wrong order, check_padding=-1",
    "right, checked": "right, check_padding=-1",
    "right, padded by a digit": "right, padded by zeros, check_padding=0",
}


def tables(rows: list[Row]) -> dict[str, str]:
    """Return drifts, accuracies, times and what passes."""
    drifts = [
        {**r, "network": f"{r['cell']}, {'trained' if r['steps'] else 'fresh'}"}
        for r in select(rows, part="drift")
    ]
    trained = [r for r in drifts if r["steps"]]
    head = ["cell", "packed", *(f"{k} padded" for k in (1, 2, 5, 10, 40)), "lengths shuffled"]
    body = []
    for (cell,), its in groups(trained, "cell").items():
        right = np.median([r["right"] for r in its], 0)
        confused = np.median(values(its, "accuracy, lengths shuffled"))
        body.append([cell, *(f"{right[k]:.3f}" for k in (0, 1, 2, 5, 10, 40)), f"{confused:.3f}"])
    times = []
    for (cell,), its in groups(select(rows, part="time"), "cell").items():
        for name, also in (("times", ""), ("times, packing included", ", packed and unpacked")):
            ratios = np.median([r[name] for r in its], 0)
            times.append([cell + also, *(f"{t:.2f}" for t in ratios)])
    shares = select(rows, part="time")[0]["shares"]
    orders = select(rows, part="order")
    return {
        "drift": summary(drifts, ["network"], "drift after 1"),
        "accuracy": table(head, body),
        "time": table(["share of padding", *(f"{s:.2f}" for s in shares)], times),
        "order": table(
            ["batch", "share that passes"],
            [[said, f"{np.mean(values(orders, name)):.3f}"] for name, said in PASSES.items()],
        ),
    }


def draw(figure: Any, rows: list[Row]) -> None:
    """Draw drift, answers, and time."""
    above, below = figure.subfigures(2, 1)
    left, right = above.subplots(1, 2)
    spent, orders = below.subplots(1, 2)
    steps = np.arange(PADDED + 1)
    for cell, colour in CELLS.items():
        for length in sorted({r["steps"] for r in select(rows, part="drift")}):
            its = select(rows, part="drift", cell=cell, steps=length)
            far = np.array([r["drift"] for r in its])
            look = "-" if length else ":"
            left.plot(
                steps,
                np.median(far, 0),
                look,
                color=colour,
                linewidth=2,
                label=cell.upper() if length else None,
            )
            if length:
                left.fill_between(
                    steps, far.min(0), far.max(0), color=colour, alpha=0.15, linewidth=0
                )
                good = np.array([r["right"] for r in its])
                right.plot(steps, np.median(good, 0), color=colour, linewidth=2, label=cell.upper())
                right.fill_between(
                    steps, good.min(0), good.max(0), color=colour, alpha=0.15, linewidth=0
                )
    left.plot([], [], ":", color="0.3", linewidth=2, label="not trained")
    left.set(
        xlabel="padded steps after the end",
        ylabel=r"$\|h_{T+k} - h_T\|\,/\,\|h_T\|$",
        ylim=(0, None),
    )
    left.set_title("How far the last state drifts")
    left.legend(ncols=2)
    right.axhline(0.1, color="0.4", linestyle="--", linewidth=1)
    right.set(xlabel="padded steps after the end", ylabel="accuracy on sum-mod", ylim=(0, 1.02))
    right.set_title("What it answers then")
    right.text(PADDED, 0.115, "chance", ha="right", color="0.4")
    for cell, colour in CELLS.items():
        its = select(rows, part="time", cell=cell)
        shares = its[0]["shares"]
        for name, look in (("times", "o-"), ("times, packing included", "s:")):
            ratios = np.array([r[name] for r in its])
            spent.plot(shares, np.median(ratios, 0), look, color=colour, linewidth=2, markersize=5)
            spent.fill_between(
                shares, ratios.min(0), ratios.max(0), color=colour, alpha=0.15, linewidth=0
            )
    spent.plot([], [], "o-", color="0.3", label="packed")
    spent.plot([], [], "s:", color="0.3", label="with packing and unpacking")
    spent.plot([0, 1], [1, 0], "--", color="0.3", label="share that is no padding")
    spent.set(xlabel="share of padding", ylabel="time packed / padded", xlim=(0, 1), ylim=(0, 2.6))
    spent.set_title("What packing saves")
    spent.legend(loc="upper right")
    passes = select(rows, part="order")
    shares = [np.mean(values(passes, name)) for name in PASSES]
    names = [said.replace(", ", ",\n", 1) for said in PASSES.values()]
    bars = orders.barh(names, shares, color=["#D55E00", "#D55E00", "#0072B2", "#0072B2", "#E69F00"])
    orders.bar_label(bars, [f"{s:.0%}" for s in shares], padding=3)
    orders.set(xlabel="share of batches that pass", xlim=(0, 1.18))
    orders.invert_yaxis()
    orders.tick_params(axis="y", labelsize=8.5)
    orders.grid(axis="y", visible=False)
    orders.set_title("Lengths: who notices?")


STUDY = Study(
    name="packing",
    question="What does padding do, what does packing save, and who notices wrong lengths?",
    settings=settings,
    run=run,
    tables=tables,
    claims=judge,
    draw=draw,
    size=(8, 7.5),
)

if __name__ == "__main__":
    main(STUDY)
