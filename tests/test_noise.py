"""The noise scale against brute force."""

import numpy as np
import pytest
from helpers import close

import minirnn
from minirnn import diagnostics as see


def test_noise_scale_agrees_with_brute_force(rng):
    model = minirnn.Sequential(
        minirnn.Linear(3, 4, dtype=np.float64), minirnn.Linear(4, 2, dtype=np.float64)
    )
    x, target, B = rng.standard_normal((6, 3)), rng.integers(0, 2, 6), 6
    criterion = minirnn.CrossEntropyLoss()
    logits, ctx = model.forward(x)
    _, ctx_l = criterion.forward(logits, target)
    norms = see.per_sample_gradient_norms(model, ctx, criterion.backward(ctx_l))
    found = see.noise_scale(B * norms, minirnn.clip_grad_norm_(model.parameters(), 1e9))
    each = []
    for b in range(B):
        model.zero_grad()
        logits, ctx = model.forward(x[b : b + 1])
        _, ctx_l = criterion.forward(logits, target[b : b + 1])
        model.backward(ctx, criterion.backward(ctx_l))
        each.append(np.concatenate([p.grad.ravel() for p in model.parameters()]))
    noise = np.var(each, axis=0, ddof=1).sum()
    # |mean|^2 is too large by the variance of the mean; equally the mean of g_i . g_j over i != j.
    products = np.array(each) @ np.array(each).T
    signal = (products.sum() - np.trace(products)) / (B * (B - 1))
    close(found, [noise, signal, noise / signal], 1e-10)


def test_noise_scale_is_unbiased_and_averages_terms_not_ratios(rng):
    g = 0.5 + rng.standard_normal((4000, 8, 3)) * [1.0, 2.0, 0.5]
    norms, means = np.linalg.norm(g, axis=2), np.linalg.norm(g.mean(1), axis=1)
    found = see.noise_scale(norms, means)
    assert found.noise == pytest.approx(5.25, rel=0.03)
    assert found.signal == pytest.approx(0.75, rel=0.1)
    assert found.scale == found.noise / found.signal


def test_noise_scale_refuses():
    with pytest.raises(ValueError, match="sample_norms"):
        see.noise_scale(np.ones(1), 1.0)
    with pytest.raises(ValueError, match="batch_norms"):
        see.noise_scale(np.ones((2, 3)), np.ones(3))
