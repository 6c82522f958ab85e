"""LSTM and GRU with layer normalisation against torch's autograd, and their first values."""

import numpy as np
import pytest
from helpers import all_close, close
from makers import F8, arrays, packed_input

import minirnn

CELLS = ["lstm", "gru"]


def made(cell, *args, **options):
    layer = {"lstm": minirnn.LayerNormLSTM, "gru": minirnn.LayerNormGRU}[cell]
    return layer(*args, dtype=F8, rng=0, **options)


def drawn(layer, rng):
    """Give every parameter a value of its own, gains and biases too."""
    for p in layer.parameters():
        p.data = rng.standard_normal(p.shape)
    return layer


def by_autograd(torch, cell, x, state, weights, masks):
    """Run one layer in one direction over sequences of shape (T, I), each by itself, as the equations say."""
    norm, w = torch.nn.functional.layer_norm, weights
    outputs, ends = [], []
    for k, sequence in enumerate(x):
        h, c = (*(s[k] for s in state), None)[:2]
        rows = []
        for x_t in sequence:
            a, q = w["weight_ih"] @ x_t, w["weight_hh"] @ (h * masks[k])
            a = norm(a, a.shape, w["gain_ih"], w.get("bias_ih"))
            q = norm(q, q.shape, w["gain_hh"], w.get("bias_hh"))
            if cell == "lstm":
                i, f, g, o = (a + q).chunk(4)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * norm(c, c.shape, w["gain_c"], w.get("bias_c")).tanh()
            else:
                (a_r, a_z, a_n), (q_r, q_z, q_n) = a.chunk(3), q.chunk(3)
                r, z = (a_r + q_r).sigmoid(), (a_z + q_z).sigmoid()
                n = (a_n + r * q_n).tanh()
                h = (1 - z) * n + z * h
            rows.append(h)
        outputs.append(torch.stack(rows) if rows else torch.empty(0, len(h), dtype=h.dtype))
        ends.append((h, c) if cell == "lstm" else (h,))
    return outputs, ends


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_outputs_and_every_gradient_are_those_of_autograd(cell, dropped, bias):
    torch = pytest.importorskip("torch", reason="compares with torch")
    rng = np.random.default_rng(0)
    layer = drawn(made(cell, 3, 4, bias=bias, recurrent_dropout=0.5 * dropped), rng)
    lengths = [3, 6, 0, 5]
    x = packed_input(rng, lengths=lengths)
    count = len(layer._state_sizes)
    state = [rng.standard_normal((1, 4, 4)) for _ in range(count)]
    (output, h_n), ctx = layer.forward(x, tuple(state) if count > 1 else state[0])
    mask = layer._saved(ctx).stack.passes[0].mask
    masks = np.ones((4, 4)) if mask is None else mask[np.asarray(x.unsorted_indices)]

    weights = {
        p.name.removesuffix("_l0"): torch.tensor(p.data, requires_grad=True)
        for p in layer.parameters()
    }
    xs = [torch.tensor(s, requires_grad=True) for s in minirnn.unpack_sequence(x)]
    states = [torch.tensor(s[0], requires_grad=True) for s in state]
    ys, ends = by_autograd(torch, cell, xs, states, weights, torch.tensor(masks))
    for a, b in zip(minirnn.unpack_sequence(output), ys, strict=True):
        close(a, b.detach().numpy())
    for k, s in enumerate(arrays(h_n)):
        close(s[0], np.stack([end[k].detach().numpy() for end in ends]))

    dy = [rng.standard_normal(y.shape) for y in ys]
    dends = [rng.standard_normal((1, 4, 4)) for _ in range(count)]
    dx, dstate = layer.backward(
        ctx,
        minirnn.pack_sequence(dy, enforce_sorted=False),
        tuple(dends) if count > 1 else dends[0],
    )
    loss = sum((y * torch.tensor(d)).sum() for y, d in zip(ys, dy, strict=True))
    for k, d in enumerate(dends):
        loss += sum((end[k] * torch.tensor(d[0, b])).sum() for b, end in enumerate(ends))
    loss.backward()
    all_close(
        {p.name.removesuffix("_l0"): p.grad for p in layer.parameters()},
        {name: w.grad.numpy() for name, w in weights.items()},
    )
    for a, b in zip(minirnn.unpack_sequence(dx), xs, strict=True):
        close(a, b.grad.numpy() if b.grad is not None else np.zeros(b.shape))
    for a, b in zip(arrays(dstate), states, strict=True):
        close(a[0], b.grad.numpy())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_the_parameters_are_those_of_the_equations(cell, bias):
    kinds = ["weight", "gain", "bias"] if bias else ["weight", "gain"]
    expected = {f"{kind}_{side}_l0" for kind in kinds for side in ("ih", "hh")}
    if cell == "lstm":
        expected |= {f"{kind}_c_l0" for kind in kinds[1:]}
    assert {name for name, _ in made(cell, 3, 4, bias=bias).named_parameters()} == expected


@pytest.mark.parametrize("init", ["torch", "orthogonal"])
@pytest.mark.parametrize("cell", CELLS)
def test_gains_begin_at_one_and_a_forward_pass_is_normalised(cell, init):
    layer = made(cell, 3, 8, num_layers=2, bidirectional=True, init=init)
    named = dict(layer.named_parameters())
    gains = [p for name, p in named.items() if name.startswith("gain")]
    assert len(gains) == 4 * (3 if cell == "lstm" else 2)
    for p in gains:
        np.testing.assert_array_equal(p.data, 1)
    # However large the input is: that is what the normalisation is for.
    x = np.random.default_rng(0).standard_normal((5, 2, 3))
    close(layer(1e9 * x)[0], layer(1e6 * x)[0], 1e-8)


@pytest.mark.parametrize("cell", CELLS)
def test_spectra_are_those_of_the_recurrent_matrices(cell):
    layer = drawn(made(cell, 3, 4), np.random.default_rng(0))
    blocks = np.split(layer.weight_hh_l0.data, 4 if cell == "lstm" else 3)
    found = minirnn.diagnostics.spectral_radius(layer)
    for value, w in zip(found.values(), blocks, strict=True):
        close(value, abs(np.linalg.eigvals(w)).max())


@pytest.mark.parametrize("cell", CELLS)
def test_all_lengths_may_be_zero(cell):
    layer = made(cell, 3, 4)
    (output, _), ctx = layer.forward(np.ones((0, 2, 3)))
    assert output.shape == (0, 2, 4)
    d = np.ones((1, 2, 4))
    dx, dstate = layer.backward(ctx, None, (d, d) if cell == "lstm" else d)
    assert dx.shape == (0, 2, 3)
    for s in arrays(dstate):
        np.testing.assert_array_equal(s, 1)
    assert not any(p.grad.any() for p in layer.parameters())
