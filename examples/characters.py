r"""A text, character by character
==============================

A language model that learns a text by truncated backpropagation through time, and then writes on.

::

    python examples/characters.py                     # the language reference that Python's help() shows
    python examples/characters.py --text novel.txt

The text is cut into rows that are read side by side. A window of 64 characters goes forward and back, the
optimiser steps, and the next window starts from the state in which this one ended: the state is carried,
the gradient is not. For writing, ``layer.stepper`` keeps the state from character to character.
"""

import argparse
from pathlib import Path

import numpy as np

import minirnn
from minirnn.atomic import atomic_write


def read(path):
    """Return the text at `path`, or the one that ships with Python."""
    if path is not None:
        return path.read_text(encoding="utf-8")
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def model_for(vocabulary, embed_dim=32, hidden_dim=128):
    """Return a model from tokens (T, B) to the next token's logits (T, B, vocabulary)."""
    return minirnn.Sequential(
        minirnn.Embedding(vocabulary, embed_dim),
        minirnn.GRU(embed_dim, hidden_dim),
        minirnn.Linear(hidden_dim, vocabulary),
    )


def rows(tokens, batch_size):
    """Return the tokens as (T, B): B stretches of the text, each read from top to bottom."""
    T = (len(tokens) - 1) // batch_size
    return [part[: T * batch_size].reshape(batch_size, T).T for part in (tokens, tokens[1:])]


def bits(model, tokens, window):
    """Return how many bits a character of `tokens` takes, read from its beginning."""
    inputs, targets = rows(tokens, 1)
    criterion, total, state = minirnn.CrossEntropyLoss(reduction="sum"), 0.0, None
    embedding, layer, head = model
    for steps, _, part in minirnn.windows(inputs, window):
        output, state = layer(embedding(part), state)
        total += float(criterion(head(output)[:, 0], targets[steps, 0]))
    return total / len(inputs) / np.log(2)


def train(model, inputs, targets, args, report):
    """Train window by window; `report` gets the step and the bits a character of each."""
    criterion = minirnn.CrossEntropyLoss()
    optimizer = minirnn.Adam(model.parameters(), args.lr)
    scheduler = minirnn.CosineAnnealingLR(optimizer, args.steps, eta_min=args.lr / 20)
    step = 0
    while step < args.steps:
        for window in minirnn.truncated_bptt(model, inputs, args.window):
            loss, ctx_loss = criterion.forward(window.output.swapaxes(1, 2), targets[window.steps])
            optimizer.zero_grad()
            model.backward(window.ctx, criterion.backward(ctx_loss).swapaxes(1, 2))
            minirnn.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            step += 1
            report(step, float(loss) / np.log(2))
            if step == args.steps:
                return


def write(model, start, length, temperature, rng):
    """Return `start`, a list of tokens, and as many as `length` that the model draws after it."""
    embedding, layer, head = model
    stepper, written = layer.stepper(), list(start)
    output = None
    for n in range(len(start) + length):
        if n >= len(start):
            logits = head(output[None])[0] / temperature
            p = np.exp(logits - logits.max(), dtype=np.float64)
            written.append(int(rng.choice(len(p), p=p / p.sum())))
        output = stepper(embedding(np.array([written[n]]))[0])
    return written


def draw(history, entropy, held_out, path):
    """Draw the bits a character over the steps."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError:
        print("no picture: pip install 'minirnn[plot]'")
        return
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    axes.plot(*np.transpose(history), color="#9ecae9", linewidth=0.8, label="each window")
    width = max(1, len(history) // 50)
    smooth = np.convolve(np.transpose(history)[1], np.ones(width) / width, "valid")
    axes.plot(np.arange(len(smooth)) + width, smooth, color="#0072b2", label=f"mean of {width}")
    axes.axhline(entropy, color="#666", linestyle=":", label="letters by their frequency")
    axes.axhline(held_out, color="#d55e00", label="text never seen")
    axes.set(title="A text, character by character", xlabel="window", ylabel="bits a character")
    axes.legend()
    with atomic_write(path) as file:
        figure.savefig(file, dpi=130, format=path.suffix[1:] or "png")
    print(f"picture in {path}")


def main(argv=None):
    """Train, evaluate on the end of the text, and write on."""
    p = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--text", type=Path, help="a file in UTF-8; by default Python's own reference")
    p.add_argument("--steps", type=int, default=1500, help="windows to train on")
    p.add_argument("--window", type=int, default=64, help="characters that a gradient goes back")
    p.add_argument("--batch_size", type=int, default=32)
    p.add_argument("--hidden_dim", type=int, default=128)
    p.add_argument("--lr", type=float, default=5e-3)
    p.add_argument("--temperature", type=float, default=0.7)
    p.add_argument("--length", type=int, default=300, help="characters to write")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--picture", type=Path, default=Path("characters.png"))
    args = p.parse_args(argv)
    minirnn.manual_seed(args.seed)
    text = read(args.text)
    alphabet = sorted(set(text))
    number = {c: k for k, c in enumerate(alphabet)}
    tokens = np.array([number[c] for c in text])
    cut = len(tokens) * 19 // 20
    if cut // args.batch_size < 2:
        p.error(f"--text: expected more than {2 * args.batch_size} characters, got {len(tokens)}")
    share = np.bincount(tokens) / len(tokens)
    entropy = float(-(share * np.log2(share)).sum())
    print(
        f"{len(text)} characters, {len(alphabet)} different ones, {entropy:.2f} bits each by frequency"
    )
    model, history = model_for(len(alphabet), hidden_dim=args.hidden_dim), []

    def report(step, value):
        history.append((step, value))
        if step % 100 == 0 or step == args.steps:
            print(f"window {step}: {np.mean([v for _, v in history[-100:]]):.2f} bits a character")

    train(model, *rows(tokens[:cut], args.batch_size), args, report)
    held_out = bits(model, tokens[cut:], args.window)
    print(f"text never seen: {held_out:.2f} bits a character")
    start = tokens[cut : cut + 40].tolist()
    written = write(model, start, args.length, args.temperature, np.random.default_rng(args.seed))
    print("".join(alphabet[k] for k in written))
    draw(history, entropy, held_out, args.picture)


if __name__ == "__main__":
    main()

# %%
# .. image:: /pictures/characters.png
#    :alt: Bits a character fall with training

# sphinx_gallery_thumbnail_path = "pictures/characters.png"
