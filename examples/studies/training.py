"""Training on sum-mod as the studies need it: by a run's settings, and watched from outside."""

import math
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sum_mod"))

from model import SumMod, accuracy, batches
from train import schedule

import minirnn

__all__ = [
    "Step",
    "SumMod",
    "accuracy",
    "batches",
    "fresh",
    "loop",
    "new_model",
    "schedule",
    "training",
]


class Step(NamedTuple):
    """What is to be seen of a training step, which is done."""

    number: int  # from 1
    model: SumMod
    loss: float
    norm: float  # of the gradient, before it was clipped
    rate: float


def new_model(seed: int, cell: str, hidden: int, layers: int, init: str | None) -> SumMod:
    """Return a model; ``init`` None is torch's initialisation, and "orthogonal" the project's."""
    minirnn.manual_seed(seed)
    model = SumMod(cell, hidden_dim=hidden, num_layers=layers)
    if init is None:
        model.rnn = type(model.rnn)(10, hidden, layers)
    return model


def training(
    *,
    seed: int,
    steps: int,
    batch: int,
    lr: float,
    cell: str = "rnn",
    hidden: int = 64,
    layers: int = 1,
    init: str | None = "orthogonal",
    warmup: int = 0,
    min_lr: float = 1e-4,
    clip: float | None = None,
    weight_decay: float = 0.0,
) -> Iterator[Step]:
    """Train by AdamW, which without weight decay is Adam, and by warm-up and cosine."""
    model = new_model(seed, cell, hidden, layers, init)
    optimizer = minirnn.AdamW(model.parameters(), lr, weight_decay=weight_decay)
    flags = Namespace(total_steps=steps, warmup_step=warmup, min_lr=min_lr)
    return loop(model, optimizer, schedule(optimizer, flags), seed, steps, batch, clip)


def loop(
    model: SumMod,
    optimizer: Any,
    scheduler: Any,
    seed: int,
    steps: int,
    batch: int,
    clip: float | None = None,
) -> Iterator[Step]:
    """Iterate over the steps of a training run."""
    model.flatten_parameters()
    criterion, parameters = minirnn.CrossEntropyLoss(), list(model.parameters())
    data = batches(np.random.default_rng(seed), batch)
    for number in range(1, steps + 1):
        tokens, sums = next(data)
        logits, ctx = model.forward(tokens)
        loss, ctx_l = criterion.forward(logits, sums)
        optimizer.zero_grad()
        model.backward(ctx, criterion.backward(ctx_l))
        norm = minirnn.clip_grad_norm_(parameters, math.inf if clip is None else clip)
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()
        yield Step(number, model, float(loss), float(norm), rate)


def fresh(sequences: int = 2000) -> Any:
    """Return packed sequences that no run trains on, and their sums."""
    return next(batches(np.random.default_rng(2**31 + 1), sequences, ahead=1))
