r"""Digits that add up: training
============================

Learn to add digits mod 10, over packed batches of different lengths.

::

    python examples/sum_mod/train.py
    python examples/sum_mod/train.py --cell gru
    python examples/sum_mod/train.py --cell gru --resume        # after Ctrl-C, or worse
    python examples/sum_mod/train.py --track swanlab            # or tensorboard, jsonl
    mpiexec -n 4 python examples/sum_mod/train.py               # each rank a part of every batch
    python examples/sum_mod/train.py --carry                    # and it adds a thousand digits
    python examples/sum_mod/train.py --batch_size 64 --lr 0.005 --hidden_dim 32 --num_layers 3 \
        --warmup_step 2000 --min_lr 1e-4

Without flags it trains a tanh RNN by a recipe that works for every seed that was tried: one wide layer,
an orthogonal W_hh, a large batch, a large step that is warmed up, annealed and clipped, and some weight
decay. The gated cells can take, and make use of, larger and more steps. With ``--carry`` sequences go
on from the states in which earlier ones have ended: docs/studies/extrapolation.md tells what that changes.
"""

import argparse
import itertools
import json
import os
import shlex
import signal
import time
from pathlib import Path

# Products this small gain nothing from several threads, and rounding depends on their number.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from lessons import AfterEach, AtTheEnd
from model import SumMod, accuracy, batches, place

import minirnn
from minirnn import trackers
from minirnn.atomic import atomic_write
from minirnn.parallel import Alone, average_gradients, broadcast, check_in_step, shard, world

# Where a gated cell's best recipe differs from the tanh RNN's, which is that of the flags' defaults.
GATED = {"lr": 1e-2, "total_steps": 30_000}


def arguments(argv=None):
    """Read the flags."""
    p = argparse.ArgumentParser(
        description="Train a recurrent network to add digits mod 10.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument(
        "--cell",
        choices=["rnn", "gru", "lstm"],
        default="rnn",
        help=f"for gru and lstm other defaults are {GATED}",
    )
    p.add_argument("--batch_size", type=int, default=256)
    p.add_argument("--lr", type=float, default=5e-3, help="highest learning rate")
    p.add_argument("--min_lr", type=float, default=1e-5, help="learning rate at the end")
    p.add_argument(
        "--warmup_step",
        type=int,
        help="steps up to the highest rate; 1000, or a twentieth of a short run's, if not given",
    )
    p.add_argument("--clip", type=float, default=0.5, help="limit of the gradient's norm")
    p.add_argument("--weight_decay", type=float, default=0.03, help="of AdamW")
    p.add_argument("--embed_dim", type=int, default=10)
    p.add_argument("--hidden_dim", type=int, default=64)
    p.add_argument("--num_layers", type=int, default=1)
    p.add_argument("--min_seq_len", type=int, default=2)
    p.add_argument("--max_seq_len", type=int, default=5)
    p.add_argument("--max_number", type=int, default=9, help="largest digit")
    p.add_argument("--total_steps", type=int, default=20_000)
    p.add_argument(
        "--carry",
        action="store_true",
        help="let sequences go on, after a quarter of the steps, from the states in which earlier ones "
        "have ended; implies a --gather of 0.03",
    )
    p.add_argument(
        "--gather",
        type=float,
        default=0.0,
        help="how much states after the same sum and digit are drawn together; the network is then asked "
        "after each digit",
    )
    p.add_argument("--log_every", type=int, default=100)
    p.add_argument("--eval_every", type=int, default=1000)
    p.add_argument("--save_every", type=int, default=5000)
    p.add_argument("--save_dir", type=Path, default=Path("runs"))
    p.add_argument("--run_name", default=None, help="by default, made of the cell and the seed")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument(
        "--track", choices=trackers.NAMES, default="csv", help="who is told, beside log.csv"
    )
    p.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run of this name, by its own arguments",
    )
    known = p.parse_known_args(argv)[0]
    if known.cell != "rnn":
        p.set_defaults(**GATED)
    if known.carry:
        p.set_defaults(gather=0.03)
    args = p.parse_args(argv)
    if args.warmup_step is None:
        args.warmup_step = min(1000, args.total_steps // 20)
    sizes = ("batch_size", "embed_dim", "hidden_dim", "num_layers", "max_number")
    for name in (*sizes, "total_steps", "log_every", "eval_every", "save_every"):
        if getattr(args, name) < 1:
            p.error(f"--{name}: expected at least 1, got {getattr(args, name)}")
    for name in ("lr", "min_lr", "clip", "weight_decay", "gather"):
        if not getattr(args, name) >= 0:
            p.error(f"--{name}: expected a number >= 0, got {getattr(args, name)}")
    if not 1 <= args.min_seq_len <= args.max_seq_len:
        p.error(
            f"expected 1 <= min_seq_len <= max_seq_len, got {args.min_seq_len}, {args.max_seq_len}"
        )
    if args.run_name is None:
        carried = "-carry" if args.carry else ""
        args.run_name = f"sum_mod-{args.cell}{carried}-seed{args.seed}"
    climbs = args.run_name in ("", ".", "..") or Path(args.run_name).name != args.run_name
    if climbs or set(args.run_name) & set("\\/\0"):
        p.error(f"--run_name: expected the name of a folder in --save_dir, got {args.run_name!r}")
    if args.warmup_step < 0 or args.seed < 0:
        p.error("--warmup_step, --seed: expected at least 0")
    return args


def schedule(optimizer, args):
    """Return a linear warm-up and then a cosine down to the lowest rate."""
    after = max(1, args.total_steps - args.warmup_step)  # a short run may end in its warm-up
    cosine = minirnn.CosineAnnealingLR(optimizer, after, eta_min=args.min_lr)
    if args.warmup_step == 0:
        return cosine
    warmup = minirnn.LinearLR(optimizer, 1 / args.warmup_step, total_iters=args.warmup_step)
    return minirnn.SequentialLR(optimizer, [warmup, cosine], [args.warmup_step])


def train(
    args,
    report=lambda row: None,
    save=lambda model, step: None,
    keep=lambda step, carried, **parts: None,
    stopped=lambda: False,
    checkpoint=None,
    comm=None,
    lesson=None,
):
    """Train a model, or go on from a checkpoint.

    `report` gets a row of metrics now and then, `save` the model, and `keep` what else a run needs to go on.
    When `stopped` says so it ends after the step, saved, with a KeyboardInterrupt. Of several processes each
    takes a part of every batch, and `comm` is what they share. A `lesson` is what takes part in a step, made
    of model, criterion and `args`; by default the one that `args` ask for.
    """
    comm = comm or Alone()
    minirnn.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    model = SumMod(args.cell, args.max_number, args.embed_dim, args.hidden_dim, args.num_layers)
    lesson = lesson or (AfterEach if args.carry or args.gather else AtTheEnd)
    lesson = lesson(model, minirnn.CrossEntropyLoss(), args)
    optimizer = minirnn.AdamW(model.parameters(), args.lr, weight_decay=args.weight_decay)
    scheduler = schedule(optimizer, args)
    parameters = list(model.parameters())
    lengths = (args.min_seq_len, args.max_seq_len, args.max_number)
    data = batches(rng, args.batch_size, *lengths, xp=place(model))
    done = 0
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    if checkpoint is not None:
        kept = minirnn.load_checkpoint(checkpoint, **parts)
        done = kept["step"]
        for row in kept["extra"]["rows"]:
            report(row)
        lesson.carried.load_state_dict(kept["extra"]["carried"])
        next(itertools.islice(data, done - 1, done))  # what it has seen
    broadcast(model, comm)
    for step in range(done + 1, args.total_steps + 1):
        part = shard(next(data), comm.Get_rank(), comm.Get_size())
        optimizer.zero_grad()
        count, loss, logits, sums = taught(lesson, step, part)
        average_gradients(model, comm, weight=count)
        norm = minirnn.clip_grad_norm_(parameters, args.clip)
        optimizer.step()
        last = step == args.total_steps
        evaluate = last or step % args.eval_every == 0
        if evaluate or step % args.log_every == 0:
            loss, right = of_all_ranks(comm, count, loss, logits, sums)
            row = {
                "step": step,
                "loss": loss,
                "accuracy": right,
                "grad_norm": float(norm),
                "lr": scheduler.get_last_lr()[0],
                "eval_accuracy": accuracy(model, *lengths) if evaluate else None,
            }
            report(row)
        scheduler.step()
        if last or step % args.save_every == 0:
            check_in_step(model, comm)
        interrupted = not last and stopped()
        if last or interrupted or step % args.save_every == 0:
            keep(step, lesson.carried.state_dict(), **parts)
            save(model, step)
        if interrupted:
            raise KeyboardInterrupt
    return model


def taught(lesson, step, part):
    """Add the gradient of a part of a batch; return its count, mean loss, logits and right answers."""
    if part is None:  # more ranks than sequences
        return 0, None, None, None
    loss, logits, sums = lesson(step, *part)
    return len(sums), loss, logits, sums


def of_all_ranks(comm, count, loss, logits, sums):
    """Return mean loss and accuracy of the whole batch."""
    own = (0, 0.0, 0.0)
    if count:
        own = (count, float(loss) * count, float((logits.argmax(1) == sums).sum()))
    count, loss, right = np.sum(comm.allgather(own), axis=0).tolist()
    return loss / count, right / count


def plot(rows, path):
    """Draw loss, accuracy, gradient norm and learning rate against the step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), sharex=True, layout="constrained")
    steps = [row["step"] for row in rows]
    for axis, name in zip(axes.flat, ["loss", "accuracy", "grad_norm", "lr"], strict=True):
        axis.plot(steps, [row[name] for row in rows], linewidth=0.8, label="training batch")
        axis.set_title(name.replace("_", " "))
        axis.grid(alpha=0.3)
    evaluated = [row for row in rows if row["eval_accuracy"] is not None]
    axes[0, 1].plot(
        [row["step"] for row in evaluated],
        [row["eval_accuracy"] for row in evaluated],
        "o-",
        markersize=3,
        label="10,000 fresh sequences",
    )
    axes[0, 1].legend(loc="lower right")
    axes[0, 0].set_yscale("log")
    for axis in axes[1]:
        axis.set_xlabel("step")
        axis.locator_params(axis="x", nbins=5)
    with atomic_write(path) as file:
        figure.savefig(file, dpi=120, format="png")
    pyplot.close(figure)


def write(path, values):
    """Write `values` as JSON, whole or not at all."""
    with atomic_write(path) as file:
        file.write(json.dumps(values, indent=2).encode() + b"\n")


def set_aside(folder):
    """Rename the folder of an earlier run, whose weights new arguments would not fit."""
    if any(folder.glob("*")):
        for k in itertools.count(1):
            aside = folder.with_name(f"{folder.name}.{k}")
            if not aside.exists():
                print(f"the earlier run of this name is now in {folder.rename(aside)}")
                return


def resumed(args):
    """Return the arguments of the run that `args` names, and its checkpoint."""
    folder = args.save_dir / args.run_name
    checkpoint = folder / "checkpoint"
    if not checkpoint.is_file() or not (folder / "args.json").is_file():
        raise SystemExit(
            f"nothing to go on with in {folder}: expected args.json and checkpoint there"
        )
    given = {"save_dir": args.save_dir, "run_name": args.run_name, "resume": True}
    return argparse.Namespace(
        **(json.loads((folder / "args.json").read_text()) | given)
    ), checkpoint


def main(argv=None):
    """Train, on as many processes as mpiexec started; the first of them writes and shows."""
    with world() as comm:
        args, checkpoint = arguments(argv), None
        if args.resume:
            args, checkpoint = resumed(args)
        if args.carry and comm.Get_size() > 1:
            raise SystemExit("--carry: expected one process, as a checkpoint keeps one's states")
        if comm.Get_rank() == 0:
            return lead(args, checkpoint, comm)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 ends all, when it has saved
        train(args, checkpoint=checkpoint, comm=comm)
        return None


def lead(args, checkpoint, comm):
    """Train, and write all there is to know of the run into its folder."""
    folder, rows = args.save_dir / args.run_name, []
    try:
        told = {name: trackers.tracker(name, folder) for name in ("csv", args.track)}
    except ImportError as error:
        raise SystemExit(str(error)) from None
    if checkpoint is None:
        set_aside(folder)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {name: str(v) if isinstance(v, Path) else v for name, v in vars(args).items()}
        write(folder / "args.json", settings)

    start = time.perf_counter()
    try:
        from tqdm import tqdm
    except ImportError:
        bar = None
        print("no progress bar: pip install 'minirnn[track]'")
    else:
        bar = tqdm(total=args.total_steps, unit="step", mininterval=0.5)

    for tracker in told.values():
        tracker.config(vars(args))

    def report(row):
        rows.append(row)
        for tracker in told.values():
            tracker.log(row["step"], {name: row[name] for name in row if name != "step"})
        shown = {name: f"{row[name]:.4f}" for name in ("loss", "accuracy", "grad_norm")}
        if bar is not None:
            bar.set_postfix(shown, refresh=False)
            bar.update(row["step"] - bar.n)  # the bar itself shows steps/s
        elif row["eval_accuracy"] is not None:
            rate = row["step"] / (time.perf_counter() - start)
            print(f"step {row['step']}: {shown}, {rate:.0f} steps/s", flush=True)

    def save(model, step):
        minirnn.save_weights(model, folder / f"weights-{step:06d}.npz")

    def keep(step, carried, **parts):
        extra = {"rows": rows, "carried": carried}
        minirnn.save_checkpoint(folder / "checkpoint", step=step, extra=extra, **parts)

    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        model = train(args, report, save, keep, lambda: bool(pressed), checkpoint, comm)
    except KeyboardInterrupt:
        flags = (
            f"--save_dir {shlex.quote(str(args.save_dir))} --run_name {shlex.quote(args.run_name)}"
        )
        ranks = f"mpiexec -n {comm.Get_size()} " if comm.Get_size() > 1 else ""
        print(f"\nstopped and saved; go on with: {ranks}python {__file__} {flags} --resume")
        raise SystemExit(130) from None
    except ValueError as error:
        raise SystemExit(str(error)) from None
    finally:
        signal.signal(signal.SIGINT, before)
        if bar is not None:
            bar.close()
        for tracker in told.values():
            tracker.close()

    longer = [(100, 100), (1000, 1000)] if args.carry else []
    result = {
        f"length {low}-{high}" if low != high else f"length {low}": accuracy(
            model, low, high, args.max_number, 1_000 if low > 100 else 10_000
        )
        for low, high in [(args.min_seq_len, args.max_seq_len), (10, 10), (20, 20), *longer]
    }
    for name, value in result.items():
        print(f"accuracy on {name}: {value:.4f}")
    write(folder / "result.json", result)
    curves = " and curves"
    try:
        plot(rows, folder / "curves.png")
    except ImportError:
        curves = ""
        print("no picture of the curves: pip install 'minirnn[plot]'")
    print(f"weights, arguments, log{curves} are in {folder}")
    return result


if __name__ == "__main__":
    main()

# %%
# .. image:: /pictures/sum_mod.png
#    :alt: Loss, accuracy, gradient norm and learning rate of a run

# sphinx_gallery_thumbnail_path = "pictures/sum_mod.png"
