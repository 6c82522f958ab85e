"""What the studies have in common: many seeds in parallel, kept runs, tables, claims, a picture.

A study is a :class:`Study`, and ``main(study)`` is its command line. Every finished run becomes one line of
NAME.runs.jsonl, keyed by its settings, and is not run again. All else is made of those lines, whenever the
command is given: NAME.csv, NAME.json, NAME.png, and the numbers in the page NAME.md, where there is one.
"""

import argparse
import csv
import io
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from claims import Claim, median_interval

import minirnn
from minirnn.weight_files import atomic_write

DOCS = Path(__file__).resolve().parents[2] / "docs" / "studies"
QUICK = Path("runs") / "studies"
# There is a process for every core already.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# Okabe and Ito's colours, told apart by the colour-blind as well.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, BLACK = COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000",
)  # fmt: skip

Row = dict[str, Any]  # a run: its settings and its results


class Study(NamedTuple):
    """One question, and how it is answered.

    Attributes
    ----------
    name : str
        Of the script and of the files that it writes.
    question : str
    settings : callable(quick) -> iterable of dict
        What is run, once for each seed; once only where the settings name a ``seed`` themselves. Numbers and
        strings; those for ``quick`` take seconds.
    run : callable(**settings) -> dict
        One run, in a process of its own: a function of the script. Numbers go into tables, lists are kept.
    tables : callable(rows) -> dict from str to str
        Markdown by name; see :func:`summary`.
    claims : callable(rows) -> list of Claim
    draw : callable(figure, rows)
    size : (float, float)
        Of the picture, in inches of 100 pixels as the page shows it.
    """

    name: str
    question: str
    settings: Callable[[bool], Iterable[Row]]
    run: Callable[..., Row]
    tables: Callable[[list[Row]], dict[str, str]]
    claims: Callable[[list[Row]], list[Claim]]
    draw: Callable[[Any, list[Row]], None]
    size: tuple[float, float] = (8.0, 5.0)


def main(study: Study, argv: Sequence[str] | None = None) -> None:
    """Run what has not been run, then write and print what all runs say."""
    args = _arguments(study, argv)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{study.name}.runs.jsonl"
    rows = finished(study.run, wanted(study, args.seeds, args.quick), path, args.jobs, args.mpi)
    claims = study.claims(rows)
    shown = blocks(study, rows, claims)
    print("\n\n".join([study.question, *shown.values()]))
    _write(args.out / f"{study.name}.csv", _csv(rows))
    _write(args.out / f"{study.name}.json", _json(study, rows, claims))
    _fill(args.out / f"{study.name}.md", shown)
    with _figure(args.out / f"{study.name}.png", study.size) as figure:
        if figure is not None:
            study.draw(figure, rows)


def wanted(study: Study, seeds: int, quick: bool = False) -> list[Row]:
    """Return the settings of all runs of the study."""
    return [
        settings if "seed" in settings else {**settings, "seed": seed}
        for settings in study.settings(quick)
        for seed in ([settings["seed"]] if "seed" in settings else range(seeds))
    ]


def blocks(study: Study, rows: list[Row], claims: list[Claim]) -> dict[str, str]:
    """Return what the page shows, by name: the study's tables, and its claims."""
    return {**study.tables(rows), "claims": _claims_table(claims)}


def _arguments(study: Study, argv: Sequence[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=study.question)
    p.add_argument("--seeds", type=int, help="seeds 0 to N - 1: 10, or 2 if quick")
    p.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes side by side")
    p.add_argument(
        "--mpi", action="store_true", help="run under mpiexec -n N python -m mpi4py.futures"
    )
    p.add_argument("--out", type=Path, help=f"folder of results: docs/studies, or {QUICK} if quick")
    p.add_argument("--quick", action="store_true", help="a rehearsal of seconds; decides nothing")
    args = p.parse_args(argv)
    args.seeds = args.seeds if args.seeds is not None else 2 if args.quick else 10
    args.out = args.out or (QUICK if args.quick else DOCS)
    for name in ("seeds", "jobs"):
        if getattr(args, name) < 1:
            p.error(f"--{name}: expected at least 1, got {getattr(args, name)}")
    return args


# -- runs ------------------------------------------------------------------------------------------


def finished(
    run: Callable[..., Row], needed: list[Row], path: Path, jobs: int = 1, mpi: bool = False
) -> list[Row]:
    """Return a row for each of the `needed` settings; run those that `path` does not have, and add them.

    Whatever stops it, finished runs stay.
    """
    found = kept(path)
    missing = [s for s in needed if key(s) not in found]
    if missing:
        with _executor(min(jobs, len(missing)), mpi) as pool, _progress(len(missing)) as advance:
            futures = {pool.submit(timed, run, s): s for s in missing}
            try:
                for future in as_completed(futures):
                    settings = futures[future]
                    found[key(settings)] = result = future.result()
                    _append(path, {"settings": settings, "result": result})
                    advance(settings)
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                error.add_note(f"{len(found)} runs are kept; the same command goes on from there")
                raise
    return [{**s, **found[key(s)]} for s in needed]


def key(settings: Mapping[str, Any]) -> str:
    """Return what tells one run's settings from another's."""
    return json.dumps(settings, sort_keys=True)


def kept(path: Path) -> dict[str, Row]:
    """Return the finished runs' results by their settings; a line that was cut off is none."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with suppress(json.JSONDecodeError):
            run = json.loads(line)
            found[key(run["settings"])] = run["result"]
    return found


def timed(run: Callable[..., Row], settings: Row) -> Row:
    """Return one run's results in JSON's types, and its seconds."""
    start = time.perf_counter()
    result = dict(run(**settings))
    return {**_plain(result), "seconds": round(time.perf_counter() - start, 2)}


def _executor(jobs: int, mpi: bool) -> Executor:
    """Return what runs calls elsewhere: processes of this machine, or those that mpiexec started."""
    if mpi:
        from mpi4py.futures import MPIPoolExecutor

        return MPIPoolExecutor(env=ONE_THREAD)
    os.environ.update(ONE_THREAD)  # which the workers inherit before they load NumPy
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


def _append(path: Path, line: Row) -> None:
    """Add a line by one write; after a line that was cut off, a new one begins."""
    cut_off = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size
    text = ("\n" if cut_off else "") + json.dumps(line, allow_nan=False) + "\n"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, text.encode())
        os.fsync(file)
    finally:
        os.close(file)


def _plain(value: Any) -> Any:
    """Return `value` in JSON's types, floats to seven digits, None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Row], None]]:
    """Yield what is called after each run: it moves a bar, or prints a line where there is no tqdm."""
    try:
        from tqdm import tqdm
    except ImportError:
        done = iter(range(1, total + 1))
        yield lambda settings: print(f"{next(done)} of {total}: {settings}", flush=True)
    else:
        with tqdm(total=total, unit="run", smoothing=0.1) as bar:

            def advance(settings: Row) -> None:
                first = next(iter(settings.values()))
                bar.set_postfix_str(f"{first}, seed {settings['seed']}", refresh=False)
                bar.update()

            yield advance


# -- results ---------------------------------------------------------------------------------------


def select(rows: Iterable[Row], **settings: Any) -> list[Row]:
    """Return the runs that have all of these settings."""
    return [r for r in rows if all(r.get(name) == v for name, v in settings.items())]


def values(rows: Iterable[Row], measure: str) -> list[float]:
    """Return one measure of every run; NaN where a run did not reach it."""
    return [math.nan if r.get(measure) is None else r[measure] for r in rows]


def groups(rows: Iterable[Row], *by: str) -> dict[tuple[Any, ...], list[Row]]:
    """Return the runs by the values of their settings `by`, in the order of their first."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row.get(name) for name in by), []).append(row)
    return found


def summary(rows: list[Row], by: Sequence[str], measure: str, form: str = ".3f") -> str:
    """Return a Markdown table: for each group median, interval of the median, lowest, highest, every run."""
    body = []
    for group, its in groups(rows, *by).items():
        every = values(its, measure)
        there = [v for v in every if not math.isnan(v)]
        middle = [np.median(there), np.min(there), np.max(there)] if there else [math.nan] * 3
        low, high = median_interval(every)
        shown = [_number(v, form) for v in (*middle, *every)]
        interval = f"{low:{form}} to {high:{form}}" if math.isfinite(low) else "-"
        body.append(
            [*map(str, group), shown[0], interval, f"{shown[1]} to {shown[2]}", " ".join(shown[3:])]
        )
    head = [*by, f"median {measure}", "95 % interval", "range", "every run, by seed"]
    return table([name.replace("_", " ") for name in head], body)


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else f"{value:{form}}"


def _claims_table(claims: list[Claim]) -> str:
    body = [
        [c.text, f"**{c.verdict}**", c.quantity, f"{c.interval}", f"{c.region}"] for c in claims
    ]
    return table(["claim", "verdict", "what was measured", "95 % interval", "held if within"], body)


def _csv(rows: list[Row]) -> str:
    """Return every run's settings and numbers."""
    names = dict.fromkeys(k for r in rows for k, v in r.items() if not isinstance(v, list | dict))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _json(study: Study, rows: list[Row], claims: list[Claim]) -> str:
    said = [{**c._asdict(), "interval": list(c.interval), "region": list(c.region)} for c in claims]
    return (
        json.dumps(
            {
                "study": study.name,
                "question": study.question,
                "versions": {
                    "minirnn": minirnn.__version__,
                    "numpy": np.__version__,
                    "python": sys.version.split()[0],
                },
                "runs": len(rows),
                "rule": "held: the interval lies in the region; not held: outside; else undecided",
                "claims": _plain(said),
            },
            indent=1,
        )
        + "\n"
    )


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def _fill(page: Path, blocks: Mapping[str, str]) -> None:
    """Put each block into the page between ``<!-- NAME -->`` and ``<!-- end -->``."""
    if not page.exists():
        return
    text = page.read_text(encoding="utf-8")
    for name, block in blocks.items():
        begin = f"<!-- {name} -->\n"
        if begin in text:
            before, _, rest = text.partition(begin)
            text = f"{before}{begin}{block}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    _write(page, text)


# -- pictures --------------------------------------------------------------------------------------


@contextmanager
def _figure(path: Path, size: tuple[float, float]) -> Iterator[Any]:
    """Yield a figure in the studies' style, which is then saved; None without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        print("no picture: pip install 'minirnn[plot]'")
        yield None
        return
    from cycler import cycler  # of matplotlib's own dependencies
    from matplotlib.figure import Figure

    style: Any = {
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.alpha": 0.25,
        "axes.titlesize": 12, "axes.titleweight": "bold", "axes.titlelocation": "left",
        "axes.labelsize": 11, "font.size": 10.5, "legend.fontsize": 9.5, "legend.frameon": False,
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        with atomic_write(path) as file:
            figure.savefig(file, dpi=150, format="png")


def strip(
    axis: Any,
    every: Sequence[Sequence[float]],
    names: Sequence[str],
    colours: Sequence[str] = COLOURS,
) -> None:
    """Draw every run as a dot, group by group from top to bottom, with a bar at the median."""
    for k, (runs, colour) in enumerate(zip(every, [*colours] * len(every), strict=False)):
        x = np.array([v for v in runs if not math.isnan(v)])
        spread = 0.24 * np.sin(np.arange(len(x)) * 2.4)  # apart, and the same in every picture
        axis.plot(
            x, k + spread, "o", color=colour, alpha=0.65, markersize=6, markeredgecolor="none"
        )
        if len(x):
            axis.plot([np.median(x)] * 2, [k - 0.38, k + 0.38], color="black", linewidth=2.2)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
