"""The GRU whose reset gate acts before the product: against autograd, Keras' formula, and its own cell."""

import copy
import pickle

import numpy as np
import pytest
from helpers import close
from makers import F8

import minirnn


def equations(sigmoid, tanh, x, h, w_ih, w_hh, b_ih, b_hh):
    """Return h_t: the equations of the docstring, in torch or NumPy."""
    H = h.shape[1]
    a, u = x @ w_ih.T + b_ih, h @ w_hh[: 2 * H].T + b_hh[: 2 * H]
    r, z = sigmoid(a[:, :H] + u[:, :H]), sigmoid(a[:, H : 2 * H] + u[:, H:])
    n = tanh(a[:, 2 * H :] + (r * h) @ w_hh[2 * H :].T + b_hh[2 * H :])
    return (1 - z) * n + z * h


@pytest.mark.parametrize("bias", [True, False])
def test_every_gradient_is_that_of_autograd(bias):
    torch = pytest.importorskip("torch")
    rng, (T, B, E, H) = np.random.default_rng(0), (7, 3, 4, 5)
    gru = minirnn.GRU(E, H, 2, bias=bias, reset_after=False, dtype=F8, rng=0)
    x, h_0 = rng.standard_normal((T, B, E)), rng.standard_normal((2, B, H))
    dy, dh_n = rng.standard_normal((T, B, H)), rng.standard_normal((2, B, H))

    leaves = {k: torch.tensor(v, requires_grad=True) for k, v in gru.state_dict().items()}
    leaves |= {
        "x": torch.tensor(x, requires_grad=True),
        "h_0": torch.tensor(h_0, requires_grad=True),
    }
    rows, ends = leaves["x"], []
    for layer in range(2):
        names = [f"{kind}_l{layer}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        own = [leaves.get(name, torch.zeros(3 * H, dtype=torch.float64)) for name in names]
        h, outputs = leaves["h_0"][layer], []
        for x_t in rows:
            h = equations(torch.sigmoid, torch.tanh, x_t, h, *own)
            outputs.append(h)
        rows, ends = torch.stack(outputs), [*ends, h]
    h_n = torch.stack(ends)
    ((rows * torch.tensor(dy)).sum() + (h_n * torch.tensor(dh_n)).sum()).backward()

    (output, last), ctx = gru.forward(x, h_0)
    close(output, rows.detach())
    close(last, h_n.detach())
    dx, dh_0 = gru.backward(ctx, dy, dh_n)
    close(dx, leaves["x"].grad)
    close(dh_0, leaves["h_0"].grad)
    for name, p in gru.named_parameters():
        close(p.grad, leaves[name].grad, name=name)


def test_it_is_not_the_other_one():
    x = np.random.default_rng(0).standard_normal((6, 2, 3))
    before, after = (minirnn.GRU(3, 4, reset_after=r, dtype=F8, rng=0) for r in (False, True))
    for name, p in after.named_parameters():
        np.testing.assert_array_equal(p.data, before.state_dict()[name])
    assert abs(before(x)[0] - after(x)[0]).max() > 1e-3
    assert "reset_after=False" in repr(before)
    assert "reset_after" not in repr(after)


def blocks(w, order):
    """Return the blocks of the rows of `w`, three of equal size, in this order."""
    return w.reshape(3, -1, *w.shape[1:])[order].reshape(w.shape)


def keras_gru(x, kernel, recurrent_kernel, bias, reset_after):
    """Keras' GRU over (B, T, I), as keras/src/layers/rnn/gru.py has its cell: blocks z, r, h, in columns."""
    H = recurrent_kernel.shape[0]
    h = np.zeros((len(x), H))
    bias, recurrent_bias = bias if reset_after else (bias, np.zeros(3 * H))

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    for x_t in x.swapaxes(0, 1):
        x_z, x_r, x_h = np.split(x_t @ kernel + bias, 3, axis=1)
        u_z, u_r, u_h = np.split(recurrent_kernel, 3, axis=1)
        c_z, c_r, c_h = np.split(recurrent_bias, 3)
        z, r = sigmoid(x_z + h @ u_z + c_z), sigmoid(x_r + h @ u_r + c_r)
        hh = np.tanh(x_h + (r * (h @ u_h + c_h) if reset_after else (r * h) @ u_h))
        h = z * h + (1 - z) * hh
    return h


@pytest.mark.parametrize("reset_after", [True, False])
def test_keras_weights_load(reset_after):
    """Transposed, and their blocks z, r, h brought into the order r, z, n."""
    rng, (B, T, E, H) = np.random.default_rng(0), (3, 6, 4, 5)
    kernel, recurrent = rng.standard_normal((E, 3 * H)), rng.standard_normal((H, 3 * H))
    bias = rng.standard_normal((2, 3 * H) if reset_after else 3 * H)
    x = rng.standard_normal((B, T, E))

    gru = minirnn.GRU(E, H, batch_first=True, reset_after=reset_after, dtype=F8)
    b_ih, b_hh = bias if reset_after else (bias, np.zeros(3 * H))
    order = [1, 0, 2]
    gru.load_state_dict(
        {
            "weight_ih_l0": blocks(kernel.T, order),
            "weight_hh_l0": blocks(recurrent.T, order),
            "bias_ih_l0": blocks(b_ih, order),
            "bias_hh_l0": blocks(b_hh, order),
        }
    )
    _, h_n = gru(x)
    close(h_n[0], keras_gru(x, kernel, recurrent, bias, reset_after), 1e-12)


def test_the_cell_takes_the_layers_steps():
    rng = np.random.default_rng(0)
    gru = minirnn.GRU(3, 4, reset_after=False, dtype=F8, rng=0)
    cell = minirnn.GRUCell(3, 4, reset_after=False, dtype=F8)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in gru.state_dict().items()})
    x, dy = rng.standard_normal((5, 2, 3)), rng.standard_normal((5, 2, 4))
    (output, _), ctx = gru.forward(x)
    dx, _ = gru.backward(ctx, dy)
    h, contexts = None, []
    for x_t, y in zip(x, output, strict=True):
        close(cell(x_t, h), y)
        h, one = cell.forward(x_t, h)
        contexts.append(one)
        close(h, y)
    dh = np.zeros((2, 4))
    for one, dy_t, dx_t in reversed(list(zip(contexts, dy, dx, strict=True))):
        d, dh = cell.backward(one, dh + dy_t)
        close(d, dx_t)
    for name, p in cell.named_parameters():
        close(p.grad, getattr(gru, f"{name}_l0").grad)
    assert "reset_after=False" in repr(cell)


def test_copies_are_of_the_same_kind():
    gru = minirnn.GRU(3, 4, reset_after=False, rng=0)
    x = np.ones((5, 2, 3), np.float32)
    for other in (copy.deepcopy(gru), pickle.loads(pickle.dumps(gru))):
        np.testing.assert_array_equal(other(x)[0], gru(x)[0])


@pytest.mark.parametrize("layer", [minirnn.GRU, minirnn.GRUCell])
def test_the_switch_is_true_or_false(layer):
    with pytest.raises(TypeError, match="reset_after"):
        layer(3, 4, reset_after="no")


def test_the_diagnostics_take_it():
    from minirnn import diagnostics

    gru = minirnn.GRU(3, 4, reset_after=False, dtype=F8)
    assert "weight_hh_l0.r" in diagnostics.spectral_radius(gru)
    diagnostics.check_gradients(gru, np.random.default_rng(0).standard_normal((5, 2, 3)))


def test_keras_weights_of_the_other_layers_load():
    """Keras' LSTM has torch's order i, f, c, o; its SimpleRNN needs no order at all."""
    rng, (B, T, E, H) = np.random.default_rng(0), (3, 6, 4, 5)
    x = rng.standard_normal((B, T, E))

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    for gates, layer in ((4, minirnn.LSTM), (1, minirnn.RNN)):
        kernel, recurrent = rng.standard_normal((E, gates * H)), rng.standard_normal((H, gates * H))
        bias = rng.standard_normal(gates * H)
        ours = layer(E, H, batch_first=True, dtype=F8)
        weights = {"weight_ih_l0": kernel.T, "weight_hh_l0": recurrent.T, "bias_ih_l0": bias}
        ours.load_state_dict({**weights, "bias_hh_l0": np.zeros(gates * H)})
        h, c = np.zeros((2, B, H))
        for x_t in x.swapaxes(0, 1):
            z = np.split(x_t @ kernel + h @ recurrent + bias, gates, axis=1)
            if gates == 1:
                h = np.tanh(z[0])
            else:
                c = sigmoid(z[1]) * c + sigmoid(z[0]) * np.tanh(z[2])
                h = sigmoid(z[3]) * np.tanh(c)
        _, state = ours(x)
        close((state[0] if gates == 4 else state)[0], h, 1e-12)
