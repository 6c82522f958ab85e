"""The sum-mod training loop against PyTorch's.

    python benchmarks/sum_mod.py
    python benchmarks/sum_mod.py --seeds 3      what torch learns by the tutorial's recipes, nothing timed

The loop is that of the tutorial's best recipe: batches of 64 sequences of 2-5 digits, Embedding(11, 10),
three tanh layers of 32, a linear head on the last state, Adam at 5e-3 after 2,000 steps of warm-up,
cosine down to 1e-4. A single step is that of the example: it clips the gradients, too. Both sides start
from the same weights, and their losses are compared before anything is timed. "The same data" are padded
batches, sorted by length, that were drawn as arrays; each side packs them itself, minirnn the tokens and
torch, as tutorials do, what they are embedded as. "Plain" is the step as anyone writes it first, lengths
in no order, the parameters asked of the model in every step. "In turn" alternates single steps, so that
each side finds the caches as the other has left them.
"""

import timing  # noqa: F401  # isort: skip (first: it sets the number of threads)
import argparse
import importlib.util
import random
import sys
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from timing import (
    THREADS,
    compare,
    conditions,
    marked,
    on_cores,
    progress,
    require_equal,
    seconds,
    table,
)
from torch.nn.utils import rnn as torch_packing

import minirnn

sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "sum_mod"))
from model import SumMod, drawn

PAD = 10
CHUNK = 20  # steps in one timing
WARMUP, TOTAL = 2000, 20_000
# Hidden size, layers, batch size, what the step is held to, and what the plain one in turn.
STEPS = [(16, 1, 16, 5.5, 4.0), (32, 3, 64, 5, 3.8)]
# The tutorial's recipes: batch size, hidden size, layers, highest rate, steps of warm-up.
RECIPES = {
    "baseline": (16, 16, 1, 1e-3, 0),
    "large batch": (64, 16, 1, 1e-3, 0),
    "deeper": (16, 32, 3, 1e-3, 0),
    "best, without warm-up": (64, 32, 3, 5e-3, 0),
    "best, with warm-up": (64, 32, 3, 5e-3, WARMUP),
}
LENGTHS = [(2, 5), (10, 10), (11, 11), (20, 20)]


class Ours(SumMod):
    """The example's model with the tutorial's embedding, which has a row for the padding."""

    def __init__(self, hidden, layers):
        super().__init__("rnn", 9, 10, hidden, layers)
        self.embedding = minirnn.Embedding(11, 10, padding_idx=PAD)


class Theirs(torch.nn.Module):
    """The same model in torch."""

    def __init__(self, hidden, layers):
        super().__init__()
        self.embedding = torch.nn.Embedding(11, 10, padding_idx=PAD)
        self.rnn = torch.nn.RNN(10, hidden, layers)
        self.head = torch.nn.Linear(hidden, 10)

    def forward(self, tokens, lengths, is_sorted):
        """Return the logits of padded tokens (T, B)."""
        x = self.embedding(tokens)
        x = torch_packing.pack_padded_sequence(x, lengths, enforce_sorted=is_sorted)
        _, h_n = self.rnn(x)
        return self.head(h_n[-1])


class Training:
    """Both models with optimiser and schedule, from the same weights."""

    def __init__(self, hidden=32, layers=3, clip=None, **adam):
        self.clip = clip
        torch.manual_seed(0)
        self.theirs = Theirs(hidden, layers)
        self.ours = Ours(hidden, layers)
        self.ours.load_state_dict(self.theirs.state_dict())
        self.criterion = minirnn.CrossEntropyLoss()
        self.parameters = list(self.ours.parameters())
        self.torch_parameters = list(self.theirs.parameters())
        self.optimizer = minirnn.Adam(self.parameters, lr=5e-3)
        self.torch_criterion = torch.nn.CrossEntropyLoss()
        self.torch_optimizer = torch.optim.Adam(self.torch_parameters, lr=5e-3, **adam)
        self.scheduler = _schedule(minirnn, self.optimizer)
        self.torch_scheduler = _schedule(torch.optim.lr_scheduler, self.torch_optimizer)

    def step(self, digits, lengths, sums):
        logits, ctx = self.ours.forward(minirnn.pack_padded_sequence(digits, lengths))
        loss, ctx_loss = self.criterion.forward(logits, sums)
        self.optimizer.zero_grad()
        self.ours.backward(ctx, self.criterion.backward(ctx_loss))
        if self.clip is not None:
            minirnn.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        return loss

    def plain_step(self, digits, lengths, sums):
        tokens = minirnn.pack_padded_sequence(digits, lengths, enforce_sorted=False)
        logits, ctx = self.ours.forward(tokens)
        loss, ctx_loss = self.criterion.forward(logits, sums)
        self.optimizer.zero_grad()
        self.ours.backward(ctx, self.criterion.backward(ctx_loss))
        minirnn.clip_grad_norm_(self.ours.parameters(), self.clip)
        self.optimizer.step()
        return loss

    def plain_torch_step(self, batch, sums):
        loss = self.torch_criterion(self.theirs(*batch), sums)
        self.torch_optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.theirs.parameters(), self.clip)
        self.torch_optimizer.step()
        return loss

    def torch_step(self, batch, sums):
        loss = self.torch_criterion(self.theirs(*batch), sums)
        self.torch_optimizer.zero_grad()
        loss.backward()
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.torch_parameters, self.clip)
        self.torch_optimizer.step()
        return loss

    def loop(self, batches):
        """Return a function that takes the next `CHUNK` steps of the training loop."""

        def chunk():
            for _ in range(CHUNK):
                self.step(*next(batches))
                self.scheduler.step()

        return chunk

    def torch_loop(self, batches):
        def chunk():
            for _ in range(CHUNK):
                self.torch_step(*next(batches))
                self.torch_scheduler.step()

        return chunk

    def check(self, steps=CHUNK):
        """Raise unless the losses of the first steps agree."""
        both = zip(batches(64, seed=1), map(to_torch, batches(64, seed=1)), strict=True)
        for _, (ours, theirs) in zip(range(steps), both, strict=False):
            require_equal("loss", self.step(*ours), self.torch_step(*theirs).detach(), 1e-3)
            self.scheduler.step()
            self.torch_scheduler.step()


def _schedule(library, optimizer, steps=WARMUP):
    cosine = library.CosineAnnealingLR(optimizer, TOTAL - steps, eta_min=1e-4)
    if not steps:
        return cosine
    warmup = library.LinearLR(optimizer, 1 / steps, total_iters=steps)
    return library.SequentialLR(optimizer, [warmup, cosine], [steps])


def batches(batch_size, seed=0):
    """Yield padded batches, drawn as the example draws them."""
    return drawn(np.random.default_rng(seed), batch_size)


def to_torch(batch, is_sorted=True):
    """Return such a batch as torch takes it; nothing but the lengths is copied."""
    digits, lengths, sums = batch
    tokens = torch.from_numpy(digits), torch.from_numpy(lengths.copy()), is_sorted
    return tokens, torch.from_numpy(sums)


def shuffled(batch, rng):
    """Return such a batch with its sequences in another order."""
    digits, lengths, sums = batch
    order = rng.permutation(len(lengths))
    return digits[:, order], lengths[order], sums[order]


class Sequences(torch.utils.data.Dataset):
    """One sequence at a time, as tutorials write it."""

    def __len__(self):
        return 64 * TOTAL

    def __getitem__(self, index):
        digits = [random.randint(0, 9) for _ in range(random.randint(2, 5))]
        return torch.tensor(digits), sum(digits) % 10


def collate(samples):
    """Pad the sequences of a batch."""
    sequences, sums = zip(*samples, strict=True)
    lengths = torch.tensor([len(s) for s in sequences])
    padded = torch_packing.pad_sequence(sequences, padding_value=PAD)
    return (padded, lengths, False), torch.tensor(sums)


def loader():
    """Yield batches for ever from a DataLoader in this process."""
    while True:
        yield from torch.utils.data.DataLoader(Sequences(), batch_size=64, collate_fn=collate)


def loops(budget):
    """Return the comparisons of the whole loop, for one step."""
    training = Training()
    training.check()
    same = compare(
        training.loop(batches(64)), training.torch_loop(map(to_torch, batches(64))), budget
    )
    own = compare(training.loop(batches(64)), training.torch_loop(loader()), budget)
    return same.per(CHUNK), own.per(CHUNK)


def steps(hidden, layers, batch_size, budget, **adam):
    """Return the comparison of one training step on batches drawn beforehand."""
    training = Training(hidden, layers, clip=0.5, **adam)
    training.check()
    several = [batch for _, batch in zip(range(100), batches(batch_size), strict=False)]
    ours, theirs = cycle(several), cycle(list(map(to_torch, several)))

    def run():
        for _ in range(CHUNK):
            training.step(*next(ours))

    def torch_run():
        for _ in range(CHUNK):
            training.torch_step(*next(theirs))

    return compare(run, torch_run, budget).per(CHUNK)


def plain_steps(hidden, layers, batch_size, budget, cold):
    """Return the comparison of one step as it is written first, in chunks or in turn."""
    training, rng = Training(hidden, layers, clip=0.5), np.random.default_rng(1)
    several = [
        shuffled(batch, rng) for _, batch in zip(range(1000), batches(batch_size), strict=False)
    ]
    ours = cycle(several)
    theirs = cycle([to_torch(batch, False) for batch in several])
    require_equal(
        "loss",
        training.plain_step(*next(ours)),
        training.plain_torch_step(*next(theirs)).detach(),
        1e-3,
    )
    count = 1 if cold else CHUNK

    def run():
        for _ in range(count):
            training.plain_step(*next(ours))

    def torch_run():
        for _ in range(count):
            training.plain_torch_step(*next(theirs))

    return compare(run, torch_run, budget, cold).per(count)


def jax_steps(hidden, layers, batch_size, budget):
    """Return the comparisons of one step with JAX's, whose loss is read at the end or in every step."""
    import jax_peer

    training = Training(hidden, layers, clip=0.5)
    peer = jax_peer.SumMod(training.theirs.state_dict(), layers, 0.5, lambda t: 5e-3 / WARMUP)
    several = [batch for _, batch in zip(range(100), batches(batch_size), strict=False)]
    for batch in several[:CHUNK]:
        require_equal("loss", peer.step(*batch), training.step(*batch), 1e-3)
    ours, theirs = cycle(several), cycle(several)

    def run():
        for _ in range(CHUNK):
            training.step(*next(ours))

    def at_the_end():
        for _ in range(CHUNK):
            loss = peer.step(*next(theirs))
        loss.block_until_ready()

    def every_step():
        for _ in range(CHUNK):
            float(peer.step(*next(theirs)))

    return [compare(run, side, budget).per(CHUNK) for side in (at_the_end, every_step)]


def report(budget, optimizers=("", "foreach", "fused")):
    """Measure loops and steps, against torch's Adam with each option, and return Markdown tables."""
    rows = []

    def row(name, result, floor):
        progress("sum_mod:", name, result)
        rows.append([name, seconds(result.theirs), seconds(result.ours), marked(result, floor)])

    same, own = loops(budget)
    row("training loop, both with the same vectorised batches", same, 5)
    row("training loop, each with its own data pipeline", own, 5)
    for hidden, layers, batch_size, floor, plain in STEPS:
        for option in optimizers:
            adam = {option: True} if option else {}
            name = f"step, H {hidden}, layers {layers}, B {batch_size}, torch's "
            name += f"Adam({option}=True)" if option else "Adam()"
            result = steps(hidden, layers, batch_size, budget, **adam)
            row(name, result, None if option else floor)
        name = f"plain step, H {hidden}, layers {layers}, B {batch_size}"
        row(name, plain_steps(hidden, layers, batch_size, budget, False), None)
        row(f"{name}, in turn", plain_steps(hidden, layers, batch_size, budget, True), plain)
    page = table(["one step of", "torch", "minirnn", "torch / minirnn"], rows)
    return page + "\n\n" + jax_report(budget)


def jax_report(budget):
    """Measure the step against JAX's, and return a Markdown table, or why there is none."""
    if importlib.util.find_spec("jax") is None:
        return "JAX is not installed: pip install 'minirnn[bench]'"
    rows = []
    for hidden, layers, batch_size, *_ in STEPS:
        both = jax_steps(hidden, layers, batch_size, budget)
        for when, result in zip(("at the end", "in every step"), both, strict=True):
            name = f"H {hidden}, layers {layers}, B {batch_size}, the loss read {when}"
            progress("sum_mod, JAX:", name, result)
            rows.append([name, seconds(result.theirs), seconds(result.ours), str(result)])
    return table(["one step of", "JAX", "minirnn", "JAX / minirnn"], rows)


def learned(seed, batch_size, hidden, layers, lr, warmup):
    """Train torch's model by a recipe; return its accuracy on 10,000 fresh sequences of each length."""
    torch.manual_seed(seed)
    model, criterion = Theirs(hidden, layers), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr)
    scheduler = _schedule(torch.optim.lr_scheduler, optimizer, warmup)
    for _, batch in zip(range(TOTAL), batches(batch_size, seed), strict=False):
        tokens, sums = to_torch(batch)
        optimizer.zero_grad()
        criterion(model(*tokens), sums).backward()
        optimizer.step()
        scheduler.step()
    right = []
    for lengths in LENGTHS:
        tokens, sums = to_torch(
            next(drawn(np.random.default_rng(2**31), 10_000, *lengths, ahead=1))
        )
        with torch.no_grad():
            right.append(float((model(*tokens).argmax(1) == sums).float().mean()))
    return right


def learning(seeds):
    """Return Markdown tables of what torch learns: by recipe and seed, and of the last at each length."""
    names = [f"seed {seed}" for seed in range(seeds)]
    rows = []
    for name, recipe in RECIPES.items():
        found = [learned(seed, *recipe) for seed in range(seeds)]
        progress("sum_mod, learning:", name, found)
        rows.append([name, *recipe, *(f"{right[0]:.4f}" for right in found)])
    header = ["recipe", "batch", "hidden", "layers", "lr", "warm-up", *names]
    last = [
        [seed, *(f"{share:.4f}" for share in right)]
        for seed, right in zip(names, found, strict=True)
    ]
    lengths = [f"{low}-{high}" if low < high else str(low) for low, high in LENGTHS]
    return table(header, rows) + "\n\n" + table([f"{name}, by length", *lengths], last)


def main(argv=None):
    """Print the report, or what torch learns."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--budget", type=float, default=10, help="seconds for each row (default 10)")
    p.add_argument("--seeds", type=int, help="train torch's side with so many seeds instead")
    args = p.parse_args(argv)
    with on_cores(THREADS):
        print(conditions(), learning(args.seeds) if args.seeds else report(args.budget), sep="\n\n")


if __name__ == "__main__":
    main()
