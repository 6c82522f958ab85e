"""Weights over to torch and back, by file, for every kind of layer; and a run that changes sides twice."""

import itertools

import numpy as np
import pytest
from helpers import close

import minirnn

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")

CELLS = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu"}),
    ("LSTM", {}),
    ("LSTM", {"proj_size": 3}),
    ("GRU", {}),
]
SHAPES = list(itertools.product((1, 3), (False, True), (True, False)))


def write(tensors, path):
    """Write torch's side: safetensors' own library, or plain NumPy."""
    if path.suffix == ".npz":
        np.savez(path, **{k: v.numpy() for k, v in tensors.items()})
    else:
        pytest.importorskip("safetensors.torch").save_file(tensors, path)


def read(path):
    if path.suffix == ".npz":
        with np.load(path) as file:
            return {k: torch.from_numpy(v) for k, v in file.items()}
    return pytest.importorskip("safetensors.torch").load_file(path)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(("cell", "options"), CELLS)
def test_over_and_back(cell, options, suffix, dtype, tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / f"w{suffix}"
    tolerance = 1e-10 if dtype == "float64" else 1e-5
    x = rng.standard_normal((7, 3, 5)).astype(dtype)
    for num_layers, bidirectional, bias in SHAPES:
        more = {"num_layers": num_layers, "bidirectional": bidirectional, "bias": bias}
        theirs = getattr(torch.nn, cell)(5, 4, **options, **more, dtype=getattr(torch, dtype))
        ours = getattr(minirnn, cell)(5, 4, **options, **more, dtype=dtype)
        write(theirs.state_dict(), path)
        minirnn.load_weights(ours, path)
        (output, _), ctx = ours.forward(x)
        close(output, theirs(torch.tensor(x))[0].detach(), tolerance)
        for name, value in theirs.state_dict().items():
            np.testing.assert_array_equal(ours.state_dict()[name], value)
            assert ours.state_dict()[name].dtype == dtype

        ours.backward(ctx, rng.standard_normal(output.shape).astype(dtype))
        minirnn.SGD(ours.parameters(), lr=0.1).step()
        minirnn.save_weights(ours, path)
        theirs.load_state_dict(read(path))
        close(ours(x)[0], theirs(torch.tensor(x))[0].detach(), tolerance)
        for name, value in theirs.state_dict().items():
            np.testing.assert_array_equal(ours.state_dict()[name], value)


class Ours(minirnn.Module):
    """A classifier of sequences, once in each library under the same names."""

    def __init__(self):
        self.embedding = minirnn.Embedding(9, 4, padding_idx=0, dtype="float64")
        self.rnn = minirnn.LSTM(4, 6, 2, bidirectional=True, proj_size=3, dtype="float64")
        self.norm = minirnn.LayerNorm(3, dtype="float64")
        self.head = minirnn.Linear(3, 5, dtype="float64")

    def forward(self, tokens):
        x, ctx_x = self.embedding.forward(tokens)
        (_, (h_n, _)), ctx_h = self.rnn.forward(x)
        y, ctx_y = self.norm.forward(h_n[-1])
        logits, ctx_z = self.head.forward(y)
        return logits, (ctx_x, ctx_h, ctx_y, ctx_z, h_n)

    def backward(self, ctx, dlogits):
        ctx_x, ctx_h, ctx_y, ctx_z, h_n = ctx
        dh_n = np.zeros_like(h_n)
        dh_n[-1] = self.norm.backward(ctx_y, self.head.backward(ctx_z, dlogits))
        dx, _ = self.rnn.backward(ctx_h, None, (dh_n, None))
        self.embedding.backward(ctx_x, dx)


class Theirs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(9, 4, padding_idx=0)
        self.rnn = torch.nn.LSTM(4, 6, 2, bidirectional=True, proj_size=3)
        self.norm = torch.nn.LayerNorm(3)
        self.head = torch.nn.Linear(3, 5)
        self.double()

    def forward(self, tokens):
        _, (h_n, _) = self.rnn(self.embedding(tokens))
        return self.head(self.norm(h_n[-1]))


def train_ours(model, optimizer, batches):
    criterion = minirnn.CrossEntropyLoss(label_smoothing=0.1)
    for tokens, target in batches:
        logits, ctx = model.forward(tokens)
        _, ctx_loss = criterion.forward(logits, target)
        optimizer.zero_grad()
        model.backward(ctx, criterion.backward(ctx_loss))
        optimizer.step()


def train_theirs(model, optimizer, batches):
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    for tokens, target in batches:
        loss = criterion(model(torch.tensor(tokens)), torch.tensor(target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
        ("Adam", {"lr": 0.02, "amsgrad": True}),
        ("AdamW", {"lr": 0.02}),
        ("RMSprop", {"lr": 0.01, "centered": True, "momentum": 0.5}),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_run_that_changes_sides_twice(name, options, suffix, tmp_path):
    """Ten steps in torch, twenty here, twenty in torch: as fifty in torch."""
    rng, path = np.random.default_rng(0), tmp_path / f"w{suffix}"
    batches = [(rng.integers(0, 9, (6, 4)), rng.integers(0, 5, 4)) for _ in range(50)]
    torch.manual_seed(0)
    whole = Theirs()
    first, last, ours = Theirs(), Theirs(), Ours()
    first.load_state_dict(whole.state_dict())
    makers = getattr(torch.optim, name), getattr(minirnn, name)
    train_theirs(whole, makers[0](whole.parameters(), **options), batches)

    optimizer = makers[0](first.parameters(), **options)
    train_theirs(first, optimizer, batches[:10])
    write(first.state_dict(), path)
    minirnn.load_weights(ours, path)
    mine = makers[1](ours.parameters())
    mine.load_state_dict(optimizer.state_dict())
    train_ours(ours, mine, batches[10:30])
    minirnn.save_weights(ours, path)
    last.load_state_dict(read(path))
    optimizer = makers[0](last.parameters())
    state = mine.torch_state_dict()
    for arrays in state["state"].values():
        arrays.update({k: torch.as_tensor(v) for k, v in arrays.items()})
    optimizer.load_state_dict(state)
    train_theirs(last, optimizer, batches[30:])
    for key, value in whole.state_dict().items():
        close(last.state_dict()[key], value, 1e-9, key)
