"""Digits that add up: asking
==========================

Ask a trained model for the sum of digits mod 10.

::

    python examples/sum_mod/predict.py --sequence "3 7 1 9"
    python examples/sum_mod/predict.py
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from model import SumMod, place

import minirnn

SIZES = ("max_number", "embed_dim", "hidden_dim", "num_layers")
LENGTHS = ("min_seq_len", "max_seq_len")


def weights_in(save_dir):
    """Return the weights in the folder of a run, or of several, the newest first."""
    found = [path for pattern in ("", "*/") for path in save_dir.glob(f"{pattern}weights-*.npz")]
    if not found:
        raise SystemExit(
            f"no weights in {save_dir} or {save_dir}/*/: run examples/sum_mod/train.py first, "
            "or say with --save_dir where they are"
        )
    return sorted(found, key=lambda path: (path.stat().st_mtime, path.name), reverse=True)


def arguments_of(path):
    """Return the arguments of the run that wrote the weights at `path`, or raise ValueError."""
    file = path.parent / "args.json"
    try:
        if not file.is_file():
            raise ValueError("expected a file")
        args = json.loads(file.read_text())
        sizes = [args[name] for name in SIZES]
        whole = all(type(args[name]) is int and args[name] > 0 for name in (*SIZES, *LENGTHS))
        if args["cell"] not in ("rnn", "gru", "lstm") or not whole:
            raise ValueError("expected a cell, and sizes that are positive integers")
        max_number, embed_dim, hidden_dim, num_layers = sizes
        least = 4 * ((max_number + 1) * embed_dim + num_layers * hidden_dim**2)
        if least > path.stat().st_size:
            raise ValueError(f"its sizes need at least {least} bytes of weights, {path} has fewer")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file}: not the arguments of this run: {error!r}") from None
    return args


def load(path):
    """Return the model of a run with the given weights, and the run's arguments."""
    args = arguments_of(path)
    model = SumMod(args["cell"], *(args[name] for name in SIZES))
    minirnn.load_weights(model, path)
    return model.eval(), args


def load_newest(save_dir):
    """Return the newest weights' path, model and arguments, passing over files that are damaged."""
    for path in weights_in(save_dir):
        try:
            return path, *load(path)
        except (OSError, ValueError) as error:
            print(f"not used: {error}", file=sys.stderr)
    raise SystemExit(f"no weights in {save_dir} can be used")


def parse(text, max_number):
    """Return the digits in `text`, or raise ValueError that says what is expected."""
    expected = f"expected digits from 0 to {max_number}, separated by spaces, like 3 7 1 9"
    words = text.replace(",", " ").split()
    if not words:
        raise ValueError(f"{expected}; got nothing")
    for word in words:
        digits = word.isascii() and word.isdigit() and len(word) < 20
        if not digits or int(word) > max_number:
            raise ValueError(f"{expected}; got {word[:20]!r}")
    return [int(word) for word in words]


def answer(model, digits, max_number):
    """Return a line with the model's answer and the truth."""
    tokens = place(model).asarray(digits)
    logits = minirnn.asnumpy(model(minirnn.pack_sequence([tokens]))[0])
    p = np.exp(logits - logits.max())
    guess = int(logits.argmax())
    truth = sum(digits) % (max_number + 1)
    verdict = "right" if guess == truth else f"wrong, it is {truth}"
    total = " + ".join(map(str, digits))
    return f"{total} = {guess} mod {max_number + 1} (p = {p[guess] / p.sum():.4f}; {verdict})"


def main(argv=None):
    """Answer one sequence, or what is typed until q, quit, Ctrl-C or the end of input."""
    p = argparse.ArgumentParser(description="Ask a trained sum-mod model.")
    p.add_argument("--sequence", help='digits, like "3 7 1 9"')
    p.add_argument("--save_dir", type=Path, default=Path("runs"))
    args = p.parse_args(argv)
    path, model, run = load_newest(args.save_dir)
    if args.sequence is not None:
        try:
            line = answer(model, parse(args.sequence, run["max_number"]), run["max_number"])
        except ValueError as error:
            raise SystemExit(str(error)) from None
        print(f"{path} answers:", file=sys.stderr)
        print(line)
        return
    print(f"{path}, trained on length {run['min_seq_len']}-{run['max_seq_len']}; q to end")
    while True:
        try:
            line = input("digits> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line.strip().lower() in ("q", "quit"):
            return
        try:
            print(answer(model, parse(line, run["max_number"]), run["max_number"]))
        except ValueError as error:
            print(error)


if __name__ == "__main__":
    main()

# sphinx_gallery_thumbnail_path = "pictures/sum_mod.png"
