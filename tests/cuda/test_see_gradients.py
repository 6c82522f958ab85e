"""The diagnostics on arrays of CuPy's, against themselves on the host."""

import copy

import numpy as np
import pytest

import minirnn
from minirnn import diagnostics as see

LAYERS = {"RNN": minirnn.RNN, "LSTM": minirnn.LSTM, "GRU": minirnn.GRU}


def close(actual, expected, tolerance=1e-5):
    actual = minirnn.asnumpy(actual)
    assert actual.dtype == np.float64
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=tolerance * max(1, np.nanmax(expected))
    )


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("checkpoint", [False, True])
def test_layers_seen_on_the_device(xp, kind, checkpoint):
    rng = np.random.default_rng(0)
    layer = LAYERS[kind](3, 4, num_layers=2, bidirectional=True, checkpoint=checkpoint, rng=0)
    twin = copy.deepcopy(layer).to("cupy")
    sequences = [rng.standard_normal((n, 3)).astype(np.float32) for n in (2, 5, 0, 3)]
    x = minirnn.pack_sequence(sequences, enforce_sorted=False)
    found = []
    for model, rows in ((layer, x), (twin, x.map(xp.asarray))):
        (y, _), ctx = model.forward(rows)
        _, _, trace = model.backward(ctx, y, trace=True)
        norms = see.per_sample_gradient_norms(model, ctx, y)
        each = see.per_sample_gradients(model, ctx, y)
        seen = see.GradientMonitor(model.parameters()).observe(0)
        radius = see.spectral_radius(model)
        found.append(
            [
                see.gradient_flow(trace),
                see.jacobian_norms(model, ctx),
                norms,
                *each.values(),
                np.array([*seen.norms.values(), *radius.values()]),
            ]
        )
    host, device = found
    assert isinstance(device[2], xp.ndarray)
    for actual, expected in zip(device, host, strict=True):
        close(actual, expected)


def test_tables_and_heads_on_the_device(xp):
    model = minirnn.Sequential(minirnn.Embedding(5, 3, padding_idx=2, rng=0), minirnn.Linear(3, 2))
    twin = copy.deepcopy(model).to("cupy")
    tokens = np.random.default_rng(0).integers(0, 5, (4, 3))
    norms = []
    for m, x in ((model, tokens), (twin, xp.asarray(tokens))):
        y, ctx = m.forward(x)
        norms.append(see.per_sample_gradient_norms(m, ctx, y))
        scale = see.noise_scale(norms[-1], 1.0)
    close(norms[1], norms[0])
    assert scale == pytest.approx(see.noise_scale(norms[0], 1.0), rel=1e-4)


def test_check_gradients_on_the_device(xp):
    layer = minirnn.GRU(2, 3, dtype=np.float64, rng=0).to("cupy")
    x = xp.asarray(np.random.default_rng(0).standard_normal((3, 2, 2)))
    assert max(see.check_gradients(layer, x).values()) < 1e-7
