"""Ask a trained model for the sum of digits mod 10.

python examples/sum_mod/predict.py --sequence "3 7 1 9"
python examples/sum_mod/predict.py
"""

import argparse
import json
from pathlib import Path

import numpy as np
from model import SumMod, place

import minirnn


def newest_checkpoint(save_dir):
    """Return the weights that were written last, of any run."""
    found = list(Path(save_dir).glob("*/weights-*.npz"))
    if not found:
        raise SystemExit(
            f"no weights in {save_dir}/*/: run examples/sum_mod/train.py first, "
            "or say with --save_dir where they are"
        )
    return max(found, key=lambda path: (path.stat().st_mtime, path.name))


def load(path):
    """Return the model of a run with the given weights, and the run's arguments."""
    args = json.loads((path.parent / "args.json").read_text())
    names = ("cell", "max_number", "embed_dim", "hidden_dim", "num_layers")
    model = SumMod(*(args[name] for name in names))
    with np.load(path) as weights:
        model.load_state_dict(weights)
    return model.eval(), args


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
    """Answer one sequence, or what is typed until q or the end of input."""
    p = argparse.ArgumentParser(description="Ask a trained sum-mod model.")
    p.add_argument("--sequence", help='digits, like "3 7 1 9"')
    p.add_argument("--save_dir", type=Path, default=Path("runs"))
    args = p.parse_args(argv)
    path = newest_checkpoint(args.save_dir)
    model, run = load(path)
    if args.sequence is not None:
        try:
            print(answer(model, parse(args.sequence, run["max_number"]), run["max_number"]))
        except ValueError as error:
            raise SystemExit(str(error)) from None
        return
    print(f"{path}, trained on length {run['min_seq_len']}-{run['max_seq_len']}; q to end")
    while True:
        try:
            line = input("digits> ")
        except EOFError:
            return
        if line.strip() == "q":
            return
        try:
            print(answer(model, parse(line, run["max_number"]), run["max_number"]))
        except ValueError as error:
            print(error)


if __name__ == "__main__":
    main()
