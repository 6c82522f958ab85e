r"""A model that was trained in torch
=================================

Ship it without torch: the weights load as they are, and the answers are the same.

::

    python examples/port_torch.py

A tagger is trained in torch for a moment: it reads brackets and says after each how deep it is. Its
``state_dict`` goes into the same model of minirnn, whose answers are compared; there it is trained on, and
goes back. Only this script needs torch, the file that it writes does not.
"""

import argparse
from pathlib import Path

import numpy as np

import minirnn
from minirnn.atomic import atomic_write

SIZES = {"embed_dim": 8, "hidden_dim": 32, "depth": 6}


class Tagger(minirnn.Module):
    """The model, with the names and sizes that it has in torch."""

    def __init__(self, embed_dim, hidden_dim, depth):
        self.embedding = minirnn.Embedding(2, embed_dim)
        self.lstm = minirnn.LSTM(embed_dim, hidden_dim, num_layers=2, batch_first=True)
        self.head = minirnn.Linear(hidden_dim, depth + 1)

    def forward(self, tokens):
        """Return the logits (B, T, depth + 1) of tokens (B, T)."""
        x, ctx_e = self.embedding.forward(tokens)
        (output, _), ctx_l = self.lstm.forward(x)
        logits, ctx_h = self.head.forward(output)
        return logits, (ctx_e, ctx_l, ctx_h)

    def backward(self, ctx, dlogits):
        """Add all gradients."""
        ctx_e, ctx_l, ctx_h = ctx
        dx, _ = self.lstm.backward(ctx_l, self.head.backward(ctx_h, dlogits))
        self.embedding.backward(ctx_e, dx)


def brackets(rng, B, T, depth):
    """Return random walks of opening (1) and closing (0) brackets, and the depth after each."""
    tokens, depths, now = [], [], np.zeros(B, np.int64)
    for _ in range(T):
        opens = np.where(now == 0, 1, np.where(now == depth, 0, rng.integers(0, 2, B)))
        now = now + 2 * opens - 1
        tokens.append(opens)
        depths.append(now)
    return np.stack(tokens, 1), np.stack(depths, 1)


def torch_model(steps, rng, depth, embed_dim, hidden_dim):
    """Return torch's model after some training."""
    import torch

    class TorchTagger(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(2, embed_dim)
            self.lstm = torch.nn.LSTM(embed_dim, hidden_dim, num_layers=2, batch_first=True)
            self.head = torch.nn.Linear(hidden_dim, depth + 1)

        def forward(self, tokens):
            return self.head(self.lstm(self.embedding(tokens))[0])

    model, criterion = TorchTagger(), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        tokens, depths = map(torch.from_numpy, brackets(rng, 32, 30, depth))
        optimizer.zero_grad()
        criterion(model(tokens).swapaxes(1, 2), depths).backward()
        optimizer.step()
    return model


def train_on(model, steps, rng, depth):
    """Train the model on in minirnn."""
    criterion, optimizer = minirnn.CrossEntropyLoss(), minirnn.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        tokens, depths = brackets(rng, 32, 30, depth)
        logits, ctx = model.forward(tokens)
        _, ctx_loss = criterion.forward(logits.swapaxes(1, 2), depths)
        optimizer.zero_grad()
        model.backward(ctx, criterion.backward(ctx_loss).swapaxes(1, 2))
        optimizer.step()


def draw(tokens, depths, before, after, path):
    """Draw what one sequence's depth is, and what both models say of it."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError:
        print("no picture: pip install 'minirnn[plot]'")
        return
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    axes.step(range(len(depths)), depths, where="mid", color="#666", label="true depth")
    axes.plot(
        before.argmax(-1), "x", color="#d55e00", markersize=9, label="torch's weights, ported"
    )
    axes.plot(after.argmax(-1), "o", color="#0072b2", markersize=4, label="trained on")
    axes.set_xticks(range(len(tokens)), ["()"[1 - t] for t in tokens])
    axes.set(title="How deep is the bracket?", xlabel="read", ylabel="depth")
    axes.legend()
    with atomic_write(path) as file:
        figure.savefig(file, dpi=130, format=path.suffix[1:] or "png")
    print(f"picture in {path}")


def main(argv=None):
    """Train in torch, port, compare, train on, port back, compare again."""
    p = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument(
        "--steps", type=int, default=60, help="of training, in torch and then in minirnn"
    )
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--weights", type=Path, default=Path("brackets.npz"))
    p.add_argument("--picture", type=Path, default=Path("port_torch.png"))
    args = p.parse_args(argv)
    try:
        import torch
    except ImportError:
        p.error("it trains a model in torch first: pip install torch")
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    theirs = torch_model(args.steps, rng, **SIZES)
    ours = Tagger(**SIZES)
    ours.load_state_dict(theirs.state_dict())
    tokens, depths = brackets(np.random.default_rng(1), 200, 40, SIZES["depth"])

    def compare(when):
        with torch.no_grad():
            expected = theirs(torch.from_numpy(tokens)).numpy()
        logits = ours(tokens)
        right = (logits.argmax(-1) == depths).mean()
        print(
            f"{when}: {right:.3f} right, logits differ by {np.abs(logits - expected).max():.1e} at most"
        )
        return logits

    before = compare("ported")
    train_on(ours, args.steps, rng, SIZES["depth"])
    theirs.load_state_dict({name: torch.from_numpy(w) for name, w in ours.state_dict().items()})
    after = compare("trained on, and ported back")
    minirnn.save_weights(ours, args.weights)
    print(f"weights in {args.weights}, to be loaded without torch")
    draw(tokens[0], depths[0], before[0], after[0], args.picture)


if __name__ == "__main__":
    main()

# %%
# .. image:: /pictures/port_torch.png
#    :alt: The depth of brackets, before and after training on

# sphinx_gallery_thumbnail_path = "pictures/port_torch.png"
