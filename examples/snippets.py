r"""Classes of short texts, from a file of yours
============================================

Film snippets, support tickets, titles: a file with a line each, ``label<TAB>text``.

::

    python examples/snippets.py snippets.tsv

A bidirectional GRU reads the words; the classes are the labels that the file has. A fifth of the lines is
kept for the test, a tenth of the others says when to stop. The classes are told from the last states of
both directions: ``h_n[-1]`` would be the reverse direction alone.
"""

import argparse
import re
from collections import Counter
from pathlib import Path

import numpy as np

import minirnn
from minirnn.atomic import atomic_write
from minirnn.data import batches

UNKNOWN = 0


class TextClassifier(minirnn.Module):
    """Words, dropout, a bidirectional GRU, and a linear layer on both last states."""

    def __init__(self, vocabulary, classes, embed_dim=50, hidden_dim=64, dropout=0.5):
        self.embedding = minirnn.Embedding(vocabulary, embed_dim)
        self.before = minirnn.Dropout(dropout)
        self.rnn = minirnn.GRU(embed_dim, hidden_dim, bidirectional=True)
        self.after = minirnn.Dropout(dropout)
        self.head = minirnn.Linear(2 * hidden_dim, classes)

    def forward(self, tokens):
        """Return the logits (B, classes) of a PackedSequence of words' numbers."""
        x, ctx_e = self.embedding.forward(tokens)
        x, ctx_b = self.before.forward(x)
        (_, h_n), ctx_r = self.rnn.forward(x)
        both, ctx_a = self.after.forward(np.concatenate([h_n[0], h_n[1]], axis=1))
        logits, ctx_h = self.head.forward(both)
        return logits, (ctx_e, ctx_b, ctx_r, ctx_a, ctx_h)

    def backward(self, ctx, dlogits):
        """Add all gradients."""
        ctx_e, ctx_b, ctx_r, ctx_a, ctx_h = ctx
        dboth = self.after.backward(ctx_a, self.head.backward(ctx_h, dlogits))
        dx, _ = self.rnn.backward(ctx_r, None, np.stack(np.split(dboth, 2, axis=1)))
        self.embedding.backward(ctx_e, self.before.backward(ctx_b, dx))


def read(path):
    """Return the labels and the words of every line, or raise ValueError that names the line at fault."""
    labels, texts = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        label, tab, text = line.partition("\t")
        words = re.findall(r"\w+|[^\w\s]", text.lower())
        if not tab or not words:
            raise ValueError(f"{path}, line {number}: expected label<TAB>text, got {line[:40]!r}")
        labels.append(label)
        texts.append(words)
    return labels, texts


def numbered(texts, vocabulary):
    """Return each text as its words' numbers; what is not in the vocabulary is UNKNOWN."""
    return [np.array([vocabulary.get(word, UNKNOWN) for word in words]) for words in texts]


def draw(confusion, classes, path):
    """Draw which class was taken for which."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError:
        print("no picture: pip install 'minirnn[plot]'")
        return
    figure, axes = plt.subplots(figsize=(4.8, 4), layout="constrained")
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion):
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, count, ha="center", va="center", color=colour)
    axes.set(title="Texts of the test", xlabel="the network says", ylabel="the file says")
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    with atomic_write(path) as file:
        figure.savefig(file, dpi=130, format=path.suffix[1:] or "png")
    print(f"picture in {path}")


def main(argv=None):
    """Train on most of the file and test on the rest."""
    p = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("file", type=Path, help="UTF-8, a line each: label<TAB>text")
    p.add_argument(
        "--epochs", type=int, default=20, help="at most; it stops when it gets no better"
    )
    p.add_argument("--batch_size", type=int, default=64)
    p.add_argument("--hidden_dim", type=int, default=64)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--picture", type=Path, default=Path("snippets.png"))
    args = p.parse_args(argv)
    try:
        labels, texts = read(args.file)
    except (OSError, ValueError) as error:
        p.error(str(error))
    classes = sorted(set(labels))
    if len(classes) < 2 or len(labels) < 50:
        p.error(f"{args.file}: expected 50 lines and two labels, got {len(labels)}, {len(classes)}")
    order = np.random.default_rng(args.seed).permutation(len(labels))
    test, held, train = np.split(order, [len(order) // 5, len(order) * 7 // 25])
    seen = Counter(word for k in train for word in texts[k])
    known = [word for word, times in sorted(seen.items()) if times > 1]
    sequences = numbered(texts, {word: number for number, word in enumerate(known, 1)})
    targets = np.array([classes.index(label) for label in labels])
    print(f"{len(labels)} texts, {len(known)} words that come twice, classes {', '.join(classes)}")

    def part(which, **options):
        return batches([sequences[k] for k in which], targets[which], args.batch_size, **options)

    minirnn.manual_seed(args.seed)
    model = TextClassifier(len(known) + 1, len(classes), hidden_dim=args.hidden_dim)
    minirnn.fit(
        model,
        minirnn.CrossEntropyLoss(),
        minirnn.AdamW(model.parameters(), 2e-3, weight_decay=0.01),
        part(train, bucket=True, rng=args.seed),
        epochs=args.epochs,
        max_norm=1.0,
        evaluation=[*part(held, shuffle=False)],
        patience=3,
        progress=False,
    )
    model.eval()
    confusion = np.zeros((len(classes), len(classes)), int)
    for tokens, truth in part(test, shuffle=False):
        np.add.at(confusion, (truth, model(tokens).argmax(1)), 1)
    right, most = np.trace(confusion) / len(test), confusion.sum(1).max() / len(test)
    print(f"right: {right:.3f} of {len(test)} texts; always the most frequent class: {most:.3f}")
    draw(confusion, classes, args.picture)


if __name__ == "__main__":
    main()

# %%
# .. image:: /pictures/snippets.png
#    :alt: Which class was taken for which, for 10,605 sentences from film reviews

# sphinx_gallery_thumbnail_path = "pictures/snippets.png"
