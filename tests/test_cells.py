"""One step at a time: the cells, against torch."""

import copy

import numpy as np
import pytest
from helpers import close
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import F8, arrays

import minirnn

CELLS = [("RNNCell", {}), ("RNNCell", {"nonlinearity": "relu"}), ("LSTMCell", {}), ("GRUCell", {})]


@settings(max_examples=60, deadline=None)
@given(
    cell=st.sampled_from(CELLS),
    sizes=st.tuples(*[st.integers(1, 6)] * 3),
    bias=st.booleans(),
    batched=st.booleans(),
    with_state=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_cells_agree_with_torch(cell, sizes, bias, batched, with_state, seed):
    torch = pytest.importorskip("torch")
    (name, options), (B, E, H) = cell, sizes
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    ours = getattr(minirnn, name)(E, H, bias=bias, dtype=F8, **options)
    theirs = getattr(torch.nn, name)(E, H, bias=bias, dtype=torch.float64, **options)
    ours.load_state_dict(theirs.state_dict())
    lead = (B,) if batched else ()
    x = rng.standard_normal((*lead, E))
    pair = name == "LSTMCell"
    state = [rng.standard_normal((*lead, H)) for _ in range(2 if pair else 1)]
    their_x = torch.from_numpy(x).requires_grad_(True)
    their_state = [torch.from_numpy(s).requires_grad_(True) for s in state]

    def pack(s):
        return None if not with_state else tuple(s) if pair else s[0]

    h, ctx = ours.forward(x, pack(state))
    expected = theirs(their_x, pack(their_state))
    for a, b in zip(arrays(ours(x, pack(state))), arrays(h), strict=True):
        close(a, b)  # inference takes a way of its own
    d = [rng.standard_normal((*lead, H)) for _ in state]
    loss = 0
    for a, b, g in zip(arrays(h), expected if pair else [expected], d, strict=True):
        close(a, b.detach())
        loss = loss + (b * torch.from_numpy(g)).sum()
    loss.backward()
    dx, dstate = ours.backward(ctx, tuple(d) if pair else d[0])
    close(dx, their_x.grad)
    if with_state:
        for a, b in zip(arrays(dstate), their_state, strict=True):
            close(a, b.grad)
    for key, p in theirs.named_parameters():
        close(getattr(ours, key).grad, p.grad)


def test_a_cell_hears_of_what_has_changed():
    """What it found for one input it keeps for the next."""
    cell, layer = (make(3, 4, dtype=F8, rng=0) for make in (minirnn.RNNCell, minirnn.RNN))
    x = np.random.default_rng(0).standard_normal((5, 3))

    def agrees():
        layer.load_state_dict({f"{k}_l0": w for k, w in cell.state_dict().items()})
        h, ctx = cell.forward(x)
        for y in (h, cell(x)):
            close(y, layer.step(x)[0], 1e-14)
        assert cell.backward(ctx, np.ones_like(h))[0].shape == x.shape
        return h

    before = agrees()
    cell.weight_hh.data[...] += 1  # in its place
    cell.weight_ih.data = cell.weight_ih.data * 2
    assert (agrees() != before).all()
    cell.nonlinearity = layer.nonlinearity = "relu"
    assert (agrees() >= 0).all()
    for rows in (x[:2], x[2], x):
        x = rows
        h = agrees()
    minirnn.set_native(False)
    close(agrees(), h, 1e-14)
    np.testing.assert_array_equal(copy.deepcopy(cell)(x), cell(x))
