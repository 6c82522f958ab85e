"""docs/from_torch.md: what it says of every row is so."""

import inspect
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import close

import minirnn

torch = pytest.importorskip("torch")

PAGE = (Path(__file__).parent.parent / "docs" / "from_torch.md").read_text(encoding="utf-8")
ROWS = {}


def row(title):
    def add(claim):
        ROWS[title] = claim
        return claim

    return add


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def twins(name, *args, **options):
    """Return the same layer in both libraries, in float64."""
    theirs = getattr(torch.nn, name)(*args, **options, dtype=torch.float64)
    ours = getattr(minirnn, name)(*args, **options, dtype="float64")
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def test_what_is_left_out_is_what_torch_takes():
    """But for `dim`, which torch guesses with a warning, and `dtype`, which is a global setting there."""
    places = torch.optim, torch.optim.lr_scheduler, torch.nn, torch.nn.utils, torch.nn.utils.rnn
    named = [(name, p) for name in minirnn.__all__ for p in places if hasattr(p, name)]
    compared = set()
    for name, place in named:
        if not callable(getattr(minirnn, name)):
            continue
        ours, theirs = (inspect.signature(getattr(m, name)).parameters for m in (minirnn, place))
        for setting in ours.keys() & theirs.keys() - {"dim", "dtype"}:
            if ours[setting].default is not inspect.Parameter.empty:
                assert ours[setting].default == theirs[setting].default, (name, setting)
                compared.add(name)
    assert {"SGD", "RMSprop", "OneCycleLR", "CrossEntropyLoss", "LayerNorm"} <= compared


def tensors(arrays):
    return {k: torch.as_tensor(v) for k, v in arrays.items()}


@row("Weights")
def weights():
    ours, theirs = twins("LSTM", 3, 4, 2, bidirectional=True)
    for p in ours.parameters():
        p.data *= 2
    theirs.load_state_dict(tensors(ours.state_dict()))
    x = draw(5, 2, 3)
    close(ours(x)[0], theirs(torch.tensor(x))[0].detach())


@row("Results")
def results():
    ours, theirs = twins("GRU", 3, 4, 2)
    x, d = draw(5, 2, 3), draw(5, 2, 4)
    leaf = torch.tensor(x, requires_grad=True)
    output, h_n = theirs(leaf)
    output.backward(torch.tensor(d))
    (y, end), ctx = ours.forward(x)
    dx, _ = ours.backward(ctx, d)
    close(y, output.detach())
    close(end, h_n.detach())
    close(dx, leaf.grad)
    for name, p in theirs.named_parameters():
        close(getattr(ours, name).grad, p.grad)


@row("Layout")
def layout():
    for batch_first, shape in ((False, (5, 2, 3)), (True, (2, 5, 3))):
        ours, theirs = twins("RNN", 3, 4, 2, batch_first=batch_first, bidirectional=True)
        y, h_n = ours(draw(*shape))
        output, end = theirs(torch.tensor(draw(*shape)))
        close(y, output.detach())
        close(h_n, end.detach())
        assert h_n.shape == (4, 2, 4)


@row("Packing")
def packing():
    x, lengths = draw(4, 3, 2), [2, 4, 1]
    ours = minirnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    theirs = torch.nn.utils.rnn.pack_padded_sequence(torch.tensor(x), lengths, enforce_sorted=False)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    padded, again = minirnn.pad_packed_sequence(ours, padding_value=-1.0)
    expected, their_again = torch.nn.utils.rnn.pad_packed_sequence(theirs, padding_value=-1.0)
    np.testing.assert_array_equal(padded, expected)
    np.testing.assert_array_equal(again, their_again)
    assert lengths == list(again)


@row("Losses")
def losses():
    logits, weight = draw(4, 3), np.array([1.0, 2.0, 0.5])
    target, soft = np.array([0, 2, -100, 1]), minirnn.softmax(draw(4, 3, seed=1))
    for t in (target, soft):
        for reduction in ("mean", "sum", "none"):
            options = {"label_smoothing": 0.1, "reduction": reduction}
            ours = minirnn.CrossEntropyLoss(weight, **options)
            theirs = torch.nn.CrossEntropyLoss(torch.tensor(weight), **options)
            close(ours(logits, t), theirs(torch.tensor(logits), torch.tensor(t)))
    assert list(ours.state_dict()) == ["weight"]


def step_both(ours, theirs, mine, reference, steps, seed):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        for name, p in ours.named_parameters():
            p.grad = rng.standard_normal(p.shape)
            dict(theirs.named_parameters())[name].grad = torch.tensor(p.grad)
        mine.step()
        reference.step()
    for name, p in theirs.named_parameters():
        close(getattr(ours, name).data, p.detach())


@row("Optimisers")
def optimisers():
    for name, options in (("SGD", {"lr": 0.1, "momentum": 0.9}), ("AdamW", {"lr": 0.1})):
        ours, theirs = twins("Linear", 3, 4)
        mine = getattr(minirnn, name)(ours.parameters(), **options)
        reference = getattr(torch.optim, name)(theirs.parameters(), **options)
        step_both(ours, theirs, mine, reference, 10, 0)
        mine = getattr(minirnn, name)(ours.parameters())
        mine.load_state_dict(reference.state_dict())
        step_both(ours, theirs, mine, reference, 10, 1)
        reference = getattr(torch.optim, name)(theirs.parameters())
        state = mine.torch_state_dict()
        state["state"] = {k: tensors(v) for k, v in state["state"].items()}
        reference.load_state_dict(state)
        step_both(ours, theirs, mine, reference, 10, 2)


@row("Schedules")
def schedules():
    ours, theirs = twins("Linear", 3, 4)
    mine = minirnn.SGD(ours.parameters(), lr=0.5)
    reference = torch.optim.SGD(theirs.parameters(), lr=0.5)
    a = minirnn.CosineAnnealingLR(mine, 20)
    b = torch.optim.lr_scheduler.CosineAnnealingLR(reference, 20)
    for _ in range(20):
        assert a.get_last_lr() == pytest.approx(b.get_last_lr(), rel=1e-10)
        for optimizer, schedule in ((mine, a), (reference, b)):
            optimizer.step()
            schedule.step()


@row("First values")
def first_values():
    for layer in (minirnn.LSTM(30, 25, rng=0), torch.nn.LSTM(30, 25)):
        for p in layer.parameters():
            x = np.asarray(p.data)
            assert abs(x).max() <= 0.2
            assert x.std() == pytest.approx(0.2 / np.sqrt(3), rel=0.15)
    assert minirnn.Embedding(200, 50, rng=0).weight.data.std() == pytest.approx(1, rel=0.05)
    theirs = {n for n in dir(torch.nn.init) if re.fullmatch(r"[a-z]\w*[a-z]_", n)}
    not_here = {"dirac_", "sparse_"}
    assert {n for n in theirs - not_here if callable(getattr(torch.nn.init, n))} <= set(
        dir(minirnn.init)
    )


@row("Dropout")
def dropout():
    for library, x in ((minirnn, np.ones((50, 4))), (torch.nn, torch.ones(50, 4))):
        layer = library.Dropout(0.5)
        assert (np.asarray(layer(x)) == 0).any()
        assert (np.asarray(layer.eval()(x)) == 1).all()


@row("A call is inference")
def a_call_is_inference():
    layer, x = minirnn.GRU(2, 3), draw(4, 1, 2).astype("f4")
    (output, h_n), _ = layer.forward(x)
    for a, b in zip(layer(x), (output, h_n), strict=True):
        close(a, b, 1e-6)
    y, half = minirnn.Linear(2, 3)(np.ones((2, 2), "f4"))  # two rows, taken apart without a word
    with pytest.raises(ValueError, match=r"layer\.forward\(x\)"):
        minirnn.Linear(2, 3).backward(half, y)


@row("A gradient is never None")
def a_gradient_is_never_none():
    p, q = minirnn.Parameter(np.ones(2)), torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    grad = p.grad
    assert (grad == 0).all()
    grad[:] = 3
    mine, theirs = minirnn.SGD([p], lr=0.5, weight_decay=0.5), torch.optim.SGD([q], 0.5)
    mine.zero_grad()
    assert p.grad is grad
    assert (grad == 0).all()
    mine.step()
    theirs.step()
    assert (p.data == 0.75).all()
    assert (q.detach().numpy() == 1).all()
    p.requires_grad = False
    mine.step()
    assert (p.data == 0.75).all()


@row("Gradients add up")
def gradients_add_up():
    layer, x = minirnn.Linear(2, 3, dtype="float64"), draw(4, 2)
    y, ctx = layer.forward(x)
    layer.backward(ctx, y)
    once = layer.weight.grad.copy()
    layer.backward(ctx, y)
    close(layer.weight.grad, 2 * once)


@row("Using h_n[-1]")
def using_the_last_state():
    ours, theirs = twins("RNN", 3, 4, 2)
    x, dlast = draw(5, 2, 3), draw(2, 4)
    leaf = torch.tensor(x, requires_grad=True)
    theirs(leaf)[1][-1].backward(torch.tensor(dlast))
    (_, h_n), ctx = ours.forward(x)
    dh_n = np.zeros_like(h_n)
    dh_n[-1] = dlast
    close(ours.backward(ctx, None, dh_n)[0], leaf.grad)


@row("Data are not cast")
def data_are_not_cast():
    layer = minirnn.RNN(2, 3)
    for x, hint in (
        (draw(4, 1, 2), r"\.astype\(np\.float32\)"),
        (draw(4, 1, 2).astype("f2"), r"\.astype\(np\.float32\)"),
        (np.ones((4, 1, 2), int), r"floating-point.*\.astype\(np\.float32\)"),
        (np.ones((4, 1, 2), bool), r"floating-point.*\.astype\(np\.float32\)"),
        (torch.zeros(4, 1, 2), r"numpy\.asarray"),
    ):
        with pytest.raises(TypeError, match=hint):
            layer(x)


@row("Parameters keep their dtype")
def parameters_keep_their_dtype():
    layer = minirnn.Linear(2, 3)
    p, whole = layer.weight, {name: draw(*a.shape) for name, a in layer.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p.data, p.grad = whole["weight"] + 1, whole["weight"]
        assert p.data.dtype == p.grad.dtype == np.float32
        close(p.data, (whole["weight"] + 1).astype(np.float32), 1e-7)
        close(p.grad, whole["weight"].astype(np.float32), 1e-7)
        for kind in "f8", "f2":
            layer.load_state_dict({name: a.astype(kind) for name, a in whole.items()})
            assert p.data.dtype == np.float32
            close(p.data, whole["weight"].astype(kind).astype(np.float32), 1e-7)
    for bad in np.ones((3, 2), "f2"), np.ones((3, 2), int):
        for what in "data", "grad":
            with pytest.raises(TypeError, match=rf"weight\.{what}: expected"):
                setattr(p, what, bad)


@row("A Parameter is two arrays")
def a_parameter_is_two_arrays():
    p = minirnn.Parameter(np.ones(2))
    for call in (lambda: np.ones(2) * p, lambda: np.asarray(p), lambda: p[0]):
        with pytest.raises(TypeError, match=r"\.data"):
            call()
    ours, theirs = twins("Linear", 2, 3)
    assert ours.weight.shape == theirs.weight.size()
    assert ours.weight.size == 6


@row("Outputs are read-only")
def outputs_are_read_only():
    layer, x, d = minirnn.RNN(2, 3, dtype="float64"), draw(4, 1, 2), draw(4, 1, 3)
    (y, _), ctx = layer.forward(x)
    with pytest.raises(ValueError, match="read-only"):
        y *= 2
    dx, _ = layer.backward(ctx, d)
    x[:] = 0
    close(layer.backward(ctx, d)[0], dx, 1e-15)


@row("Step after backward")
def step_after_backward():
    layer = minirnn.Linear(2, 3, dtype="float64", rng=0)
    optimizer = minirnn.SGD(layer.parameters(), lr=0.1)
    y, ctx = layer.forward(draw(4, 2))
    dx = layer.backward(ctx, y)
    optimizer.step()
    assert abs(layer.backward(ctx, y) - dx).max() > 1e-6


@row("Sequences of length zero")
def sequences_of_length_zero():
    layer, h_0 = minirnn.RNN(2, 3, dtype="float64"), draw(1, 2, 3)
    _, h_n = layer(minirnn.pack_padded_sequence(draw(4, 2, 2), [4, 0]), h_0)
    np.testing.assert_array_equal(h_n[:, 1], h_0[:, 1])
    with pytest.raises(RuntimeError, match="greater than 0"):
        torch.nn.utils.rnn.pack_padded_sequence(torch.zeros(4, 2, 2), [4, 0])


@row("Wrong tokens and classes")
def wrong_tokens_and_classes():
    with pytest.raises(IndexError, match=r"got 9 at position \(1, 0\)"):
        minirnn.Embedding(5, 2)(np.array([[0, 1], [9, 7]]))
    with pytest.raises(IndexError, match="got 3 at position 1"):
        minirnn.CrossEntropyLoss()(draw(2, 3), np.array([0, 3]))


@row("Schedules multiply")
def schedules_multiply():
    made = minirnn.SGD([minirnn.Parameter(np.ones(1))], lr=1.0, momentum=0.5)
    first, second = minirnn.StepLR(made, 1, 0.5), minirnn.ExponentialLR(made, 0.1)
    made.step()
    first.step()
    second.step()
    assert made.param_groups[0]["lr"] == pytest.approx(0.05)
    assert first.rate(1.0, 3, 0) == 0.125


@row("Random numbers")
def random_numbers():
    minirnn.manual_seed(0)
    first = minirnn.Linear(3, 4).weight.data
    torch.manual_seed(0)
    assert (first != torch.nn.Linear(3, 4).weight.detach().numpy()).any()
    one, two = minirnn.Linear(3, 4, rng=7), minirnn.Linear(3, 4, rng=7)
    np.testing.assert_array_equal(one.weight.data, two.weight.data)


@row("Where arrays lie")
def where_arrays_lie():
    with pytest.raises(TypeError, match="set_backend"):
        minirnn.LSTM(2, 3, device="cuda")
    layer = minirnn.LSTM(2, 3)
    assert layer.to("numpy") is layer


@row("Softmax")
def softmax():
    x = draw(3, 4)
    for dim in (0, 1):
        expected = torch.softmax(torch.tensor(x), dim)
        close(minirnn.softmax(x, dim), expected)
        close(minirnn.Softmax(dim)(x), expected)
        close(minirnn.LogSoftmax(dim)(x), torch.log_softmax(torch.tensor(x), dim))


@row("Weights of Keras")
def weights_of_keras():  # test_gru_before.py computes with Keras' own formula
    assert minirnn.GRU(2, 3).reset_after
    assert not minirnn.GRU(2, 3, reset_after=False).reset_after


@row("Files of torch")
def files_of_torch(tmp_path):
    ours, theirs = twins("Linear", 2, 3)
    path = tmp_path / "weights.pt"
    torch.save(theirs.state_dict(), path)
    with pytest.raises(ValueError, match=r"weights\.pt"):
        minirnn.load_weights(ours, path)
    ours.weight.data[:] = 0
    ours.load_state_dict(torch.load(path))
    np.testing.assert_array_equal(ours.weight.data, theirs.weight.detach())


@row("What there is not")
def what_there_is_not():
    with pytest.raises(TypeError, match="dense"):
        minirnn.Embedding(3, 2, sparse=True)
    with pytest.raises(AttributeError, match="save_weights"):
        minirnn.save({}, "x")
    for look, instead in (
        (lambda: minirnn.zeros(2), "numpy"),
        (lambda: minirnn.DataLoader([]), r"minirnn\.data\.batches"),
        (lambda: minirnn.functional.cross_entropy(1, 2), r"CrossEntropyLoss\(\)\.forward"),
    ):
        with pytest.raises(AttributeError, match=f"has no attribute .*: .*{instead}"):
            look()
    with pytest.raises(AttributeError, match=r"has no attribute 'Conv1d'$"):
        minirnn.Conv1d(2, 3, 3)


def titles():
    """Return the first cells of the tables below the first, whose rows are code."""
    below = PAGE[PAGE.index("## What is the same") :]
    return re.findall(r"^\| ([^|`-][^|]*?) \|", below, re.M)


def test_every_row_is_run():
    assert titles() == list(ROWS)


@pytest.mark.parametrize("title", ROWS)
def test_a_row(title, tmp_path):
    claim = ROWS[title]
    claim(*[tmp_path] * claim.__code__.co_argcount)


def test_the_two_columns_of_a_training_step_agree():
    ours, theirs = twins("Linear", 3, 2)
    x, target = draw(5, 3), draw(5, 2, seed=1)
    mine, reference = (
        minirnn.SGD(ours.parameters(), lr=0.1),
        torch.optim.SGD(theirs.parameters(), lr=0.1),
    )
    names = {"np": np, "minirnn": minirnn, "torch": torch}
    sides = [
        {**names, "layer": theirs, "optimizer": reference, "criterion": torch.nn.MSELoss()},
        {**names, "layer": ours, "optimizer": mine, "criterion": minirnn.MSELoss()},
    ]
    sides[0] |= {"x": torch.tensor(x), "target": torch.tensor(target)}
    sides[0]["clip_grad_norm_"] = torch.nn.utils.clip_grad_norm_
    sides[1] |= {"x": x, "target": target}
    table = PAGE[: PAGE.index("A model of your own")]
    lines = [re.findall(r"`([^`]+)`", line) for line in table.splitlines() if line[:3] == "| `"]
    assert len(lines) == 7
    for line in lines:
        for code, side in zip(line, sides, strict=True):
            exec(code, side)
    close(sides[1]["loss"], sides[0]["loss"].detach())
    close(sides[1]["y"], sides[0]["y"].detach())
    for name, p in theirs.named_parameters():
        close(getattr(ours, name).data, p.detach())
