"""Zoneout against its equation, in a loop over a cell against torch's autograd."""

import numpy as np
import pytest
from helpers import all_close, close
from makers import F8

import minirnn
from minirnn.diagnostics import check_gradients


def test_a_unit_keeps_its_state_or_takes_the_new_one():
    before, after = np.zeros((200, 50), "f4"), np.ones((200, 50), "f4")
    layer = minirnn.Zoneout(0.3, rng=0)
    h, _ = layer.forward(before, after)
    assert h.dtype == np.float32
    assert set(np.unique(h)) == {0, 1}
    assert abs((h == 0).mean() - 0.3) < 0.02
    np.testing.assert_array_equal(minirnn.Zoneout(0.3, rng=0).forward(before, after)[0], h)
    close(layer.eval()(before, after), np.full_like(h, 0.7), 1e-6)
    for p, expected in ((0, after), (1, before)):
        np.testing.assert_array_equal(minirnn.Zoneout(p)(before, after), expected)
    rng = np.random.default_rng(0)
    assert check_gradients(layer, rng.standard_normal((3, 2)), rng.standard_normal((3, 2)))


def test_an_lstm_with_zoneout_has_the_gradients_of_autograd():
    torch = pytest.importorskip("torch", reason="compares with torch")
    rng = np.random.default_rng(0)
    cell = minirnn.LSTMCell(3, 4, dtype=F8, rng=1)
    of_h, of_c = minirnn.Zoneout(0.4, rng=2), minirnn.Zoneout(0.3, rng=3)
    x, d = rng.standard_normal((6, 2, 3)), rng.standard_normal((6, 2, 4))
    twin = torch.nn.LSTMCell(3, 4, dtype=torch.float64)
    twin.load_state_dict({name: torch.tensor(a) for name, a in cell.state_dict().items()})

    h = c = np.zeros((2, 4))
    th = tc = torch.zeros(2, 4, dtype=torch.float64)
    contexts, loss = [], 0
    for x_t, d_t in zip(x, d, strict=True):
        (h_new, c_new), ctx = cell.forward(x_t, (h, c))
        (h, ctx_h), (c, ctx_c) = of_h.forward(h, h_new), of_c.forward(c, c_new)
        contexts.append((ctx, ctx_h, ctx_c))
        new, kept = twin(torch.tensor(x_t), (th, tc)), (ctx_h.saved[0].kept, ctx_c.saved[0].kept)
        (kh, kc) = (torch.tensor(k) for k in kept)
        th, tc = kh * th + (1 - kh) * new[0], kc * tc + (1 - kc) * new[1]
        close(h, th.detach().numpy())
        loss = loss + (th * torch.tensor(d_t)).sum()
    loss.backward()
    dh = dc = np.zeros((2, 4))
    for (ctx, ctx_h, ctx_c), d_t in zip(reversed(contexts), reversed(d), strict=True):
        (dh_kept, dh), (dc_kept, dc) = of_h.backward(ctx_h, dh + d_t), of_c.backward(ctx_c, dc)
        _, (dh, dc) = cell.backward(ctx, (dh, dc))
        dh, dc = dh + dh_kept, dc + dc_kept
    all_close(
        {name: p.grad for name, p in cell.named_parameters()},
        {name: p.grad.numpy() for name, p in twin.named_parameters()},
    )


def test_bad_input_is_refused():
    layer, a = minirnn.Zoneout(0.5), np.ones((2, 3), "f4")
    for before, after, error, says in [
        (a, a[:1], ValueError, "after: expected shape"),
        (a, a.astype("f8"), TypeError, "after: expected"),
        (a.astype(int), a, TypeError, "before: expected"),
    ]:
        with pytest.raises(error, match=says):
            layer.forward(before, after)
    _, ctx = layer.forward(a, a)
    with pytest.raises(ValueError, match="dh: expected shape"):
        layer.backward(ctx, a[:1])
    with pytest.raises(ValueError, match="p: expected"):
        minirnn.Zoneout(1.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_left_out_has_no_influence_whatever_it_holds(bad):
    layer = minirnn.Zoneout(0.5, rng=0)
    before, after = np.full((4, 6), 2.0), np.full((4, 6), 3.0)
    kept = minirnn.Zoneout(0.5, rng=0).forward(before, after)[0] == 2
    h, ctx = layer.forward(np.where(kept, before, bad), np.where(kept, bad, after))
    np.testing.assert_array_equal(h, np.where(kept, before, after))
    dh = np.where(np.arange(6) < 3, bad, 1.0) * np.ones((4, 6))
    dbefore, dafter = layer.backward(ctx, dh)
    np.testing.assert_array_equal(dbefore, np.where(kept, dh, 0))
    np.testing.assert_array_equal(dafter, np.where(kept, 0, dh))
