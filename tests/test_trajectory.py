"""Fifty steps of training, side by side with torch, with each optimiser."""

import numpy as np
import pytest
from helpers import close

import minirnn

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
def test_loss_trajectory(optimizer, cell):
    V, E, H, B, T = 11, 5, 8, 6, 7
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    options = {"SGD": {"lr": 0.1, "momentum": 0.9}, "Adam": {"lr": 0.01}, "AdamW": {"lr": 0.01}}
    theirs = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(V, E, padding_idx=10),
            "rnn": getattr(torch.nn, cell)(E, H, num_layers=2, bidirectional=True),
            "head": torch.nn.Linear(2 * H, 10),
        }
    ).double()
    reference = getattr(torch.optim, optimizer)(theirs.parameters(), **options[optimizer])

    class Model(minirnn.Module):
        def __init__(self):
            self.embedding = minirnn.Embedding(V, E, padding_idx=10)
            self.rnn = getattr(minirnn, cell)(E, H, num_layers=2, bidirectional=True)
            self.head = minirnn.Linear(2 * H, 10)

    ours = Model().to("float64")
    ours.load_state_dict(theirs.state_dict())
    ours.flatten_parameters()
    mine = getattr(minirnn, optimizer)(ours.parameters(), **options[optimizer])
    criterion = minirnn.CrossEntropyLoss()
    for _ in range(50):
        lengths = rng.integers(1, T + 1, B)
        tokens = np.where(np.arange(T) < lengths[:, None], rng.integers(0, 10, (B, T)), 10)
        targets = rng.integers(0, 10, B)

        packed = torch.nn.utils.rnn.pack_padded_sequence(
            theirs["embedding"](torch.from_numpy(tokens)),
            torch.from_numpy(lengths),
            batch_first=True,
            enforce_sorted=False,
        )
        _, state = theirs["rnn"](packed)
        h = state[0] if cell == "LSTM" else state
        loss = torch.nn.functional.cross_entropy(
            theirs["head"](torch.cat([h[-2], h[-1]], 1)), torch.from_numpy(targets)
        )
        reference.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        reference.step()

        packed = minirnn.pack_padded_sequence(tokens, lengths, True, False, check_padding=10)
        x, ctx_x = ours.embedding.forward(packed)
        (_, state), ctx_h = ours.rnn.forward(x)
        h_n = state[0] if cell == "LSTM" else state
        logits, ctx_y = ours.head.forward(np.concatenate([h_n[-2], h_n[-1]], 1))
        our_loss, ctx_l = criterion.forward(logits, targets)
        mine.zero_grad()
        dh = ours.head.backward(ctx_y, criterion.backward(ctx_l))
        dh_n = np.zeros_like(h_n)
        dh_n[-2], dh_n[-1] = dh[:, :H], dh[:, H:]
        dx, _ = ours.rnn.backward(ctx_h, None, (dh_n, None) if cell == "LSTM" else dh_n)
        ours.embedding.backward(ctx_x, dx)
        our_norm = minirnn.clip_grad_norm_(ours.parameters(), 1.0)
        mine.step()
        close(our_loss, loss.detach(), 1e-8)
        close(our_norm, norm, 1e-8)
    for name, value in theirs.state_dict().items():
        close(ours.state_dict()[name], value, 1e-8)
