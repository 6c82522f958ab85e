"""The examples of torch's own documentation, line by line in minirnn, with the same numbers.

https://docs.pytorch.org/docs/stable/nn.html and .../optim.html, the pages of the names in the tests.
"""

import numpy as np
import pytest
from helpers import close

import minirnn

torch = pytest.importorskip("torch")
nn = torch.nn


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def ours(module):
    """Return minirnn's twin of a module of torch's with the same weights."""
    sizes = {
        nn.Linear: ("in_features", "out_features"),
        nn.Embedding: ("num_embeddings", "embedding_dim", "padding_idx"),
        nn.LayerNorm: ("normalized_shape",),
    }.get(type(module), ("input_size", "hidden_size"))
    options = {"num_layers": module.num_layers} if isinstance(module, nn.RNNBase) else {}
    name = type(module).__name__
    twin = getattr(minirnn, name)(*(getattr(module, n) for n in sizes), **options)
    twin.load_state_dict(module.state_dict())
    return twin


def same(mine, theirs, tolerance=1e-6):
    if isinstance(theirs, tuple):
        for a, b in zip(mine, theirs, strict=True):
            same(a, b, tolerance)
    else:
        close(mine, theirs.detach(), tolerance)


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_layers(name):
    rnn = getattr(nn, name)(10, 20, 2)
    input, h0, c0 = torch.randn(5, 3, 10), torch.randn(2, 3, 20), torch.randn(2, 3, 20)
    state = (h0, c0) if name == "LSTM" else h0
    arrays = (h0.numpy(), c0.numpy()) if name == "LSTM" else h0.numpy()
    same(ours(rnn)(input.numpy(), arrays), rnn(input, state))


@pytest.mark.parametrize("name", ["RNNCell", "GRUCell", "LSTMCell"])
def test_cells(name):
    rnn = getattr(nn, name)(10, 20)
    mine = ours(rnn)
    input, hx, cx = torch.randn(6, 3, 10), torch.randn(3, 20), torch.randn(3, 20)
    state = (hx, cx) if name == "LSTMCell" else hx
    arrays = (hx.numpy(), cx.numpy()) if name == "LSTMCell" else hx.numpy()
    for i in range(6):
        state = rnn(input[i], state)
        arrays = mine(input[i].numpy(), arrays)
        same(arrays, state)


def test_embedding():
    embedding = nn.Embedding(10, 3)
    input = torch.LongTensor([[1, 2, 4, 5], [4, 3, 2, 9]])
    same(ours(embedding)(input.numpy()), embedding(input))
    embedding = nn.Embedding(10, 3, padding_idx=0)
    input = torch.LongTensor([[0, 2, 0, 5]])
    same(ours(embedding)(input.numpy()), embedding(input))

    embedding = minirnn.Embedding(3, 3, padding_idx=0)
    assert (embedding.weight.data[0] == 0).all()
    embedding.weight.data[0] = np.ones(3)  # torch: with torch.no_grad(): embedding.weight[0] = ...
    assert (embedding.weight.data[0] == 1).all()

    weight = np.array([[1, 2.3, 3], [4, 5.1, 6.3]])
    assert minirnn.Embedding.from_pretrained(weight)(np.array([1])).tolist() == [[4, 5.1, 6.3]]


def test_linear_dropout_and_norm():
    m, input = nn.Linear(20, 30), torch.randn(128, 20)
    same(ours(m)(input.numpy()), m(input))
    y = minirnn.Dropout(p=0.2, rng=0)(np.ones((20, 16)))
    assert set(np.unique(y)) == {0, 1.25}
    norm, input = nn.LayerNorm(10), torch.randn(20, 5, 10)
    same(ours(norm)(input.numpy()), norm(input))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Softmax", {"dim": 1}),
        ("LogSoftmax", {"dim": 1}),
        ("ReLU", {}),
        ("Tanh", {}),
        ("Sigmoid", {}),
    ],
)
def test_activations(name, options):
    input = torch.randn(2, 3)
    same(getattr(minirnn, name)(**options)(input.numpy()), getattr(nn, name)(**options)(input))


def test_cross_entropy():
    loss, mine = nn.CrossEntropyLoss(), minirnn.CrossEntropyLoss()
    for target in (torch.tensor([1, 0, 4]), torch.randn(3, 5).softmax(dim=1)):
        input = torch.randn(3, 5, requires_grad=True)
        output = loss(input, target)
        output.backward()
        value, ctx = mine.forward(input.detach().numpy(), target.numpy())
        same(value, output)
        same(mine.backward(ctx), input.grad)


def test_nll_loss():
    m, loss = nn.LogSoftmax(dim=1), nn.NLLLoss()
    my_m, my_loss = minirnn.LogSoftmax(dim=1), minirnn.NLLLoss()
    for input, target in (
        (torch.randn(3, 5, requires_grad=True), torch.tensor([1, 0, 4])),
        (torch.randn(5, 4, 8, 8, requires_grad=True), torch.empty(5, 8, 8).random_(0, 4).long()),
    ):
        output = loss(m(input), target)
        output.backward()
        log_p, ctx_m = my_m.forward(input.detach().numpy())
        value, ctx = my_loss.forward(log_p, target.numpy())
        same(value, output)
        same(my_m.backward(ctx_m, my_loss.backward(ctx)), input.grad)


def test_binary_losses_and_mse():
    m, my_m = nn.Sigmoid(), minirnn.Sigmoid()
    loss, my_loss = nn.BCELoss(), minirnn.BCELoss()
    input, target = torch.randn(3, 2, requires_grad=True), torch.rand(3, 2)
    output = loss(m(input), target)
    output.backward()
    p, ctx_m = my_m.forward(input.detach().numpy())
    value, ctx = my_loss.forward(p, target.numpy())
    same(value, output)
    same(my_m.backward(ctx_m, my_loss.backward(ctx)), input.grad)

    target, output, pos_weight = torch.ones(10, 64), torch.full((10, 64), 1.5), torch.ones(64)
    mine = minirnn.BCEWithLogitsLoss(pos_weight=pos_weight.numpy())
    same(
        mine(output.numpy(), target.numpy()),
        nn.BCEWithLogitsLoss(pos_weight=pos_weight)(output, target),
    )
    input, target = torch.randn(3, 5), torch.randn(3, 5)
    same(minirnn.MSELoss()(input.numpy(), target.numpy()), nn.MSELoss()(input, target))


class Model(minirnn.Module):
    def __init__(self):
        self.base, self.classifier = minirnn.Linear(3, 3, rng=0), minirnn.Linear(3, 2, rng=1)


def test_optimisers_are_made_as_in_torch():
    model = Model()
    var1, var2 = (minirnn.Parameter(np.zeros(2)) for _ in range(2))
    minirnn.SGD(model.parameters(), lr=0.01, momentum=0.9)
    minirnn.Adam([var1, var2], lr=0.0001)
    groups = [
        {"params": model.base.parameters(), "lr": 1e-2},
        {"params": model.classifier.named_parameters()},
    ]
    optimizer = minirnn.SGD(groups, lr=1e-3, momentum=0.9)
    assert [g["lr"] for g in optimizer.param_groups] == [1e-2, 1e-3]
    bias = [p for name, p in model.named_parameters() if "bias" in name]
    others = [p for name, p in model.named_parameters() if "bias" not in name]
    minirnn.SGD(
        [{"params": others}, {"params": bias, "weight_decay": 0}], weight_decay=1e-2, lr=1e-2
    )


def test_a_closure():
    layer, criterion = minirnn.Linear(3, 1, rng=0), minirnn.MSELoss()
    optimizer = minirnn.SGD(layer.parameters(), lr=0.1)
    x, target = np.ones((4, 3), np.float32), np.zeros((4, 1), np.float32)

    def closure():
        optimizer.zero_grad()
        output, ctx = layer.forward(x)
        loss, ctx_loss = criterion.forward(output, target)
        layer.backward(ctx, criterion.backward(ctx_loss))
        return loss

    assert optimizer.step(closure) > optimizer.step(closure)


SCHEDULES = [
    [("ExponentialLR", {"gamma": 0.9}), ("MultiStepLR", {"milestones": [30, 80], "gamma": 0.1})],
    [("LambdaLR", {"lr_lambda": lambda epoch: 0.95**epoch})],
    [("StepLR", {"step_size": 30, "gamma": 0.1})],
    [("ConstantLR", {"factor": 0.5, "total_iters": 4})],
    [("LinearLR", {"start_factor": 0.05, "total_iters": 4})],
    [("PolynomialLR", {"total_iters": 4, "power": 1.0})],
    [("CosineAnnealingLR", {"T_max": 100})],
    [("CosineAnnealingWarmRestarts", {"T_0": 20})],
    [("OneCycleLR", {"max_lr": 0.01, "steps_per_epoch": 11, "epochs": 10})],
]


@pytest.mark.parametrize("schedules", SCHEDULES, ids=lambda s: s[0][0])
def test_schedules(schedules):
    p, q = minirnn.Parameter(np.zeros(1)), nn.Parameter(torch.zeros(1))
    mine, theirs = minirnn.SGD([p], lr=0.05), torch.optim.SGD([q], lr=0.05)
    a = [getattr(minirnn, name)(mine, **options) for name, options in schedules]
    b = [getattr(torch.optim.lr_scheduler, name)(theirs, **options) for name, options in schedules]
    for _ in range(100):
        mine.step()
        theirs.step()
        for scheduler in (*a, *b):
            scheduler.step()
        lr = theirs.param_groups[0]["lr"]
        assert mine.param_groups[0]["lr"] == pytest.approx(lr, rel=1e-10, abs=1e-15)


def test_schedules_in_a_row_and_on_a_plateau():
    mine = minirnn.SGD([minirnn.Parameter(np.zeros(1))], lr=0.05)
    theirs = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.05)
    schedules = []
    for library, of in ((minirnn, mine), (torch.optim.lr_scheduler, theirs)):
        first = library.ConstantLR(of, factor=0.1, total_iters=20)
        second = library.ExponentialLR(of, gamma=0.9)
        schedules.append(library.SequentialLR(of, schedulers=[first, second], milestones=[20]))
    for _ in range(60):
        for optimizer, schedule in zip((mine, theirs), schedules, strict=True):
            optimizer.step()
            schedule.step()
        assert mine.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-10)
    plateaus = [
        minirnn.ReduceLROnPlateau(mine, "min"),
        torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, "min"),
    ]
    for val_loss in np.random.default_rng(0).random(80):
        for schedule in plateaus:
            schedule.step(val_loss)
        assert mine.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-10)
