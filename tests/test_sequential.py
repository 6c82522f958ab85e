"""Sequential: layers one after the other, and back."""

import numpy as np
import pytest
from helpers import close
from makers import Scale, linear

import minirnn


def test_sequential_with_a_recurrent_layer():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ours = minirnn.Sequential(
        minirnn.LSTM(3, 4, dtype=np.float64), minirnn.Linear(4, 2, dtype=np.float64)
    )
    lstm, head = torch.nn.LSTM(3, 4).double(), torch.nn.Linear(4, 2).double()
    ours[0].load_state_dict(lstm.state_dict())
    ours[1].load_state_dict(head.state_dict())
    x = rng.standard_normal((5, 2, 3))
    their_x = torch.from_numpy(x).requires_grad_(True)
    y, ctx = ours.forward(x)
    expected = head(lstm(their_x)[0])
    close(y, expected.detach())
    d = rng.standard_normal(y.shape)
    expected.backward(torch.from_numpy(d))
    close(ours.backward(ctx, d), their_x.grad)
    close(ours[0].weight_hh_l0.grad, lstm.weight_hh_l0.grad)
    with pytest.raises(ValueError, match="2 contexts"):
        ours.backward(ctx[:1], d)
    with pytest.raises(TypeError, match="layer 1"):
        minirnn.Sequential(minirnn.Linear(1, 1), np.tanh)


def test_sequential_counts_its_layers_only():
    model = minirnn.Sequential(minirnn.Linear(3, 2))
    model.name = "mine"
    assert len(model) == 1


def test_sequential_refuses_a_foreign_context_before_anything_is_added():
    a, b, c = (minirnn.Linear(3, 3, rng=k) for k in range(3))
    y, ctx = minirnn.Sequential(c, b).forward(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="expected a context of this Linear"):
        minirnn.Sequential(a, b).backward(ctx, y)
    assert not b.weight.grad.any()


def test_sequential_checks_every_context_before_a_gradient_is_added():
    model = minirnn.Sequential(minirnn.Linear(2, 2), minirnn.Linear(2, 2))
    y, (_, ctx) = model.forward(np.ones((1, 2), np.float32))
    with pytest.raises(ValueError, match="ctx"):
        model.backward((None, ctx), np.ones_like(y))
    assert all((p.grad == 0).all() for p in model.parameters())
    model = minirnn.Sequential(linear(), Scale())
    y, ctx = model.forward(np.ones((1, 2), np.float32))
    model.backward(ctx, np.ones_like(y))
    assert (model[0].weight.grad == 2).all()


def test_layers_by_name():
    """As torch's with an OrderedDict; the names are those of the state."""
    torch = pytest.importorskip("torch")
    from collections import OrderedDict

    theirs = torch.nn.Sequential(
        OrderedDict(fc=torch.nn.Linear(3, 4), act=torch.nn.Tanh(), head=torch.nn.Linear(4, 2))
    )
    ours = minirnn.Sequential(
        {"fc": minirnn.Linear(3, 4), "act": minirnn.Tanh(), "head": minirnn.Linear(4, 2)}
    )
    ours.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    np.testing.assert_allclose(ours(x), theirs(torch.tensor(x)).detach(), rtol=1e-5, atol=1e-6)
    for bad in ("forward", "a.b", "", 3):
        with pytest.raises(ValueError, match="layers: expected names"):
            minirnn.Sequential({bad: minirnn.Tanh()})
    with pytest.raises(TypeError, match="layer act: expected a Module"):
        minirnn.Sequential({"act": "tanh"})
