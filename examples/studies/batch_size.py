"""What the size of a batch does to its gradient.

    python examples/studies/batch_size.py

Four questions, each answered by numbers: is the gradient of a batch the mean of its samples' gradients, or
that of one sample divided by their number; does the number of parameters depend on the batch; does the noise
fall as 1/sqrt(B); and what are the right numbers of a small example, one step of eight samples against two of
four.
"""

import argparse
import json
from fractions import Fraction
from pathlib import Path

import numpy as np

import minirnn
from minirnn.diagnostics import noise_scale, per_sample_gradients

DOCS = Path(__file__).resolve().parents[2] / "docs" / "studies"


class SumMod(minirnn.Module):
    """Digits in, the sum modulo ten out, in float64."""

    def __init__(self, seed):
        options = {"dtype": np.float64, "rng": seed}
        self.embedding = minirnn.Embedding(10, 8, **options)
        self.rnn = minirnn.RNN(8, 16, **options)
        self.head = minirnn.Linear(16, 10, **options)

    def forward(self, tokens):
        """Return the logits, (B, 10), of packed tokens."""
        x, ctx_x = self.embedding.forward(tokens)
        (_, h_n), ctx_h = self.rnn.forward(x)
        logits, ctx_y = self.head.forward(h_n[-1])
        return logits, (ctx_x, ctx_h, ctx_y)

    def backward(self, ctx, dlogits):
        """Add to the gradients."""
        ctx_x, ctx_h, ctx_y = ctx
        dx, _ = self.rnn.backward(ctx_h, None, self.head.backward(ctx_y, dlogits)[None])
        self.embedding.backward(ctx_x, dx)


def samples_gradients(seed, samples):
    """Return the gradients of `samples` samples, (samples, parameters), and that of their mean loss."""
    rng = np.random.default_rng(seed)
    sequences = [rng.integers(0, 10, n) for n in rng.integers(2, 6, samples)]
    targets = np.array([s.sum() % 10 for s in sequences])
    model, criterion = SumMod(seed), minirnn.CrossEntropyLoss()
    logits, ctx = model.forward(minirnn.pack_sequence(sequences, enforce_sorted=False))
    _, ctx_l = criterion.forward(logits, targets)
    each = per_sample_gradients(model, ctx, criterion.backward(ctx_l))
    # Of the mean loss: each comes with the factor 1 / samples.
    own = samples * np.concatenate(
        [each[p.name].reshape(samples, -1) for p in model.parameters()], 1
    )
    return own, np.concatenate([p.grad.ravel() for p in model.parameters()])


def identities(seed, samples=8):
    """Return how far the batch's gradient is from the samples' mean, and from one sample's / samples."""
    own, batch = samples_gradients(seed, samples)
    size = np.linalg.norm(batch)
    from_mean = np.linalg.norm(batch - own.mean(0)) / size
    return from_mean, min(np.linalg.norm(batch - g / samples) for g in own) / size


def noise(seed, samples, sizes, draws=200):
    """Return the root mean square deviation of a batch's gradient for each size, and the noise scale."""
    own, mean = samples_gradients(seed, samples)
    rng = np.random.default_rng(seed)
    deviations = []
    for B in sizes:
        batches = rng.integers(0, samples, (draws, B))
        squares = [((own[batch].mean(0) - mean) ** 2).sum() for batch in batches]
        deviations.append(np.sqrt(np.mean(squares)))
    return deviations, noise_scale(np.linalg.norm(own, axis=1), np.linalg.norm(mean)).scale


def worked_example():
    """Return dw, db, w, b after each step on x = 1..8 with label x > 5, exactly and by the library.

    The model is w x + b from w = 0.1, b = 0.2, the loss the mean square, the learning rate 0.1.
    """
    rows = []
    for name, batches in (
        ("one batch of 8", [range(1, 9)]),
        ("two of 4", [range(1, 5), range(5, 9)]),
    ):
        w, b, rate = Fraction(1, 10), Fraction(2, 10), Fraction(1, 10)
        layer, criterion = minirnn.Linear(1, 1, dtype=np.float64), minirnn.MSELoss()
        layer.weight.data, layer.bias.data = [[float(w)]], [float(b)]
        for step, xs in enumerate(batches, 1):
            r = [w * x + b - (x > 5) for x in xs]
            dw, db = (
                2 * sum(e * x for e, x in zip(r, xs, strict=True)) / len(xs),
                2 * sum(r) / len(xs),
            )
            w, b = w - rate * dw, b - rate * db
            x = np.array(xs, np.float64)[:, None]
            y, ctx = layer.forward(x)
            _, ctx_l = criterion.forward(y, (x > 5).astype(np.float64))
            layer.zero_grad()
            layer.backward(ctx, criterion.backward(ctx_l))
            minirnn.SGD(layer.parameters(), 0.1).step()
            exact = [float(v) for v in (dw, db, w, b)]
            ours = [layer.weight.grad, layer.bias.grad, layer.weight.data, layer.bias.data]
            error = max(abs(a.item() - e) for a, e in zip(ours, exact, strict=True))
            rows.append({"run": name, "step": step, "exact": exact, "error": error})
    return rows


def verdict(held, undecided=False):
    """Return the word for a claim, from the data."""
    return "undecided" if undecided else "held" if held else "not held"


def draw(picture, sizes, deviations, slope):
    """Draw the noise against the batch's size; say so if there is no matplotlib."""
    try:
        import matplotlib
    except ImportError:
        print("no picture: pip install 'minirnn[plot]'")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for k, one in enumerate(deviations):
        axis.loglog(sizes, one, "o-", color="#0072B2", alpha=0.35, label=None if k else "one seed")
    middle = np.median(deviations, 0)
    line = middle[0] * np.array(sizes) ** -0.5
    axis.loglog(sizes, line, "--", color="#D55E00", linewidth=2, label=r"$1/\sqrt{B}$")
    axis.set_xlabel("batch size B (samples)")
    axis.set_ylabel("rms distance from the full gradient")
    axis.set_title(f"Gradient noise on sum-mod: fitted exponent {slope:.3f}")
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    figure.savefig(picture, dpi=100)


def main(argv=None):
    """Run the study, print tables and conclusions, write JSON and a picture."""
    p = argparse.ArgumentParser(description="What the size of a batch does to its gradient.")
    p.add_argument("--seeds", type=int, default=10)
    p.add_argument("--out", type=Path, default=DOCS)
    p.add_argument("--quick", action="store_true", help="few seeds, samples and sizes")
    args = p.parse_args(argv)
    if args.seeds < 2:
        p.error(f"--seeds: expected at least 2, got {args.seeds}")
    seeds = range(2 if args.quick else args.seeds)
    samples, sizes = (256, [1, 4, 16]) if args.quick else (2048, [2**k for k in range(9)])

    from_mean, from_one = zip(*map(identities, seeds), strict=True)
    runs = [noise(seed, samples, sizes) for seed in seeds]
    deviations, scales = [d for d, _ in runs], [s for _, s in runs]
    slopes = np.array([np.polyfit(np.log(sizes), np.log(d), 1)[0] for d in deviations])
    half = (
        2.5 * slopes.std(ddof=1) / np.sqrt(len(slopes))
    )  # above Student's 97.5 % point from 6 seeds on
    low, high = slopes.mean() - half, slopes.mean() + half
    parameters = {B: len(samples_gradients(0, B)[1]) for B in (1, 8, 64)}
    example = worked_example()

    print(f"{'worked example':16}{'step':>5}{'dw':>11}{'db':>11}{'w':>11}{'b':>11}{'error':>10}")
    for row in example:
        numbers = "".join(f"{v:11.4f}" for v in row["exact"])
        print(f"{row['run']:16}{row['step']:5}{numbers}{row['error']:10.0e}")
    print(f"\nseed  exponent  noise scale\n{'':16}at the start")
    for seed, slope, scale in zip(seeds, slopes, scales, strict=True):
        print(f"{seed:4}{slope:10.3f}{scale:13.1f}")
    print(f"exponent: {slopes.mean():.3f}, interval {low:.3f} to {high:.3f}\n")
    claims = {
        "a batch's gradient is the mean of its samples'": verdict(max(from_mean) < 1e-12),
        "a batch's gradient is that of one sample / 8": verdict(min(from_one) < 1e-2),
        "the number of parameters depends on the batch": verdict(len(set(parameters.values())) > 1),
        "the noise falls as 1/sqrt(B)": verdict(low <= -0.5 <= high, high - low > 0.1),
    }
    for claim, word in claims.items():
        print(f"{claim}: {word}")
    args.out.mkdir(parents=True, exist_ok=True)
    result = {
        "claims": claims,
        "parameters by batch size": parameters,
        "batch sizes": sizes,
        "deviations": deviations,
        "exponents": slopes.tolist(),
        "interval": [low, high],
        "noise scales": scales,
        "distance from the mean": from_mean,
        "distance from one sample / 8": from_one,
        "worked example": example,
    }
    (args.out / "batch_size.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(args.out / "batch_size.png", sizes, deviations, slopes.mean())


if __name__ == "__main__":
    main()
