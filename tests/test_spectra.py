"""Spectra of recurrent matrices, and Jacobians over time, against numerical ones."""

import numpy as np
import pytest
from diagnosed import LAYERS, packed, stretched
from helpers import close

import minirnn
from minirnn import diagnostics as see


@pytest.mark.parametrize("kind", LAYERS)
def test_spectra_of_every_matrix_and_gate(kind):
    layer = LAYERS[kind](3, 4, num_layers=2, bidirectional=True, dtype=np.float64, rng=0)
    radius, sigma = see.spectral_radius(layer), see.largest_singular_value(layer)
    gates = layer.recurrence.GATES
    assert list(radius) == list(sigma)
    assert len(radius) == 4 * len(gates)
    for suffix in ("l0", "l0_reverse", "l1", "l1_reverse"):
        w = getattr(layer, f"weight_hh_{suffix}").data.reshape(len(gates), 4, 4)
        for gate, block in zip(gates, w, strict=True):
            name = f"weight_hh_{suffix}" + (f".{gate}" if len(gates) > 1 else "")
            largest_root = abs(np.roots(np.poly(block))).max()
            assert radius[name] == pytest.approx(largest_root, rel=1e-8)
            squares = np.linalg.eigvalsh(block.T @ block).max()
            assert sigma[name] == pytest.approx(squares**0.5, rel=1e-10)


def test_spectral_radius_with_a_projection():
    lstm = minirnn.LSTM(3, 5, proj_size=2, dtype=np.float64, rng=0)
    block = lstm.weight_hh_l0.data[5:10]  # f
    expected = max(abs(np.linalg.eigvals(lstm.weight_hr_l0.data @ block)))
    assert see.spectral_radius(lstm)["weight_hh_l0.f"] == pytest.approx(expected, rel=1e-10)
    with pytest.raises(TypeError, match="layer: expected an RNN"):
        see.spectral_radius(minirnn.Linear(2, 2))


def numerical_jacobian(layer, x, state):
    """Return d state after all of x / d state before, with h and c side by side."""
    sizes = [s.shape[-1] for s in state]
    flat = np.concatenate([s.ravel() for s in state])

    def last(values):
        parts = [v[None] for v in np.split(values, np.cumsum(sizes)[:-1])]
        _, h_n = layer.forward(x, tuple(parts) if len(parts) > 1 else parts[0])[0]
        return np.concatenate([s.ravel() for s in (h_n if len(parts) > 1 else [h_n])])

    eye, e = np.eye(len(flat)), 1e-4
    columns = [
        (
            last(flat - 2 * e * v)
            - 8 * last(flat - e * v)
            + 8 * last(flat + e * v)
            - last(flat + 2 * e * v)
        )
        / (12 * e)
        for v in eye
    ]
    return np.array(columns).T


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("RNN", {}),
        ("RNN", {"nonlinearity": "relu"}),
        ("GRU", {}),
        ("GRU", {"bias": False}),
        ("GRU", {"reset_after": False}),
        ("LSTM", {}),
        ("LSTM", {"proj_size": 2}),
    ],
)
def test_jacobian_norms_agree_with_numerical_ones(rng, kind, options):
    layer = stretched(LAYERS[kind](3, 4, dtype=np.float64, rng=1, **options))
    x = rng.standard_normal((6, 3))
    _, ctx = layer.forward(x)
    norms = see.jacobian_norms(layer, ctx)
    assert norms.shape == (1, 6)
    for t in range(6):
        if t == 5:
            assert norms[0, t] == 1
            continue
        _, state = layer(x[: t + 1])
        state = state if kind == "LSTM" else (state,)
        expected = np.linalg.norm(numerical_jacobian(layer, x[t + 1 :], state), 2)
        assert norms[0, t] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("checkpoint", [False, True])
def test_jacobian_norms_of_packed_layers_are_those_of_each_sequence(rng, kind, checkpoint):
    layer = LAYERS[kind](
        3, 4, num_layers=2, bidirectional=True, checkpoint=checkpoint, dtype=np.float64, rng=1
    )
    x = packed(rng, 3)
    _, ctx = layer.forward(x)
    norms = see.jacobian_norms(stretched(layer, 1.0), ctx)
    assert norms.shape == (4, 5, 5)
    for b, one in enumerate(minirnn.unpack_sequence(x)):
        _, ctx = layer.forward(one)
        close(norms[:, : len(one), b], see.jacobian_norms(layer, ctx), 1e-12)
        assert np.isnan(norms[:, len(one) :, b]).all()
    assert (norms[1::2, 0][:, [0, 1, 3, 4]] == 1).all()  # a reverse direction ends at step 0


def test_jacobian_norms_see_recurrent_dropout(rng):
    rnn = minirnn.RNN(3, 4, recurrent_dropout=0.5, dtype=np.float64, rng=0)
    _, ctx = rnn.forward(rng.standard_normal((2, 1, 3)))
    (p,) = ctx.saved.stack.passes
    h = ctx.saved.contexts[0].h[2]
    jacobian = (1 - h**2)[:, None] * rnn.weight_hh_l0.data * p.mask[0]
    assert (p.mask == 0).any()
    assert see.jacobian_norms(rnn, ctx)[0, 0, 0] == pytest.approx(np.linalg.norm(jacobian, 2))


def test_jacobian_norms_obey_the_bound(rng):
    rnn = minirnn.RNN(3, 8, dtype=np.float64, rng=0)
    _, ctx = rnn.forward(rng.standard_normal((30, 1, 3)))
    norms = see.jacobian_norms(rnn, ctx)[0, :, 0]
    sigma = see.largest_singular_value(rnn)["weight_hh_l0"]
    assert (norms <= sigma ** np.arange(29, -1, -1) * (1 + 1e-12)).all()
