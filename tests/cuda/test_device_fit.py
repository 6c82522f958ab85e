"""What is built on the layers, on the device: training, cells without kernels, whole models in windows."""

import numpy as np
import pytest
from both import Model, batches_of, floats, initial, moved, on_both, packed, recur, same

import minirnn


def accuracy(output, target):
    return (output.argmax(1) == target).mean()


def test_fit_and_a_run_that_goes_on(xp, rng, tmp_path):
    batches = list(batches_of(rng, 4))

    def fitted(place, model, steps, **options):
        data = moved(xp, batches) if place == "cupy" else batches
        optimizer = minirnn.Adam(model.parameters(), 0.05)
        criterion = minirnn.CrossEntropyLoss()
        options |= {"metrics": {"accuracy": accuracy}, "evaluation": data, "patience": 9}
        options |= {"checkpoint": tmp_path / place, "max_norm": 0.5, "progress": False}
        return minirnn.fit(model, criterion, optimizer, data, steps=steps, **options)

    host = fitted("numpy", Model("GRU"), 8)
    device = fitted("cupy", Model("GRU").to("cupy"), 8)
    assert [list(row) for row in device.history] == [list(row) for row in host.history]
    for a, b in zip(device.history, host.history, strict=True):
        np.testing.assert_allclose(list(a.values()), list(b.values()), atol=1e-3)
    fitted("cupy", Model("GRU").to("cupy"), 5)
    again = fitted("cupy", Model("GRU").to("cupy"), 8, resume=True)
    same(again.model.state_dict(), device.model.state_dict(), 0)


@pytest.mark.parametrize("cell", [minirnn.LayerNormLSTM, minirnn.LayerNormGRU])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "recurrent_dropout": 0.3}])
def test_normalised_cells(xp, rng, cell, options):
    layer = cell(4, 9, 2, rng=1, **options)
    D = layer.num_directions
    x, state, dstate = packed(rng, 4), initial(rng, layer, 5), initial(rng, layer, 5)
    dy = x.map(lambda rows: floats(rng, len(rows), D * 9))
    on_both(xp, layer, recur, x, state, dy, dstate, tolerance=1e-4)


def test_zoneout(xp, rng):
    def run(layer, before, after, dh):
        layer._rng = np.random.default_rng(5)
        h, ctx = layer.forward(before, after)
        return h, layer.backward(ctx, dh), layer.eval()(before, after)

    on_both(xp, minirnn.Zoneout(0.3), run, *(floats(rng, 3, 9) for _ in range(3)))


def test_a_model_in_windows(xp, rng):
    layers = minirnn.Embedding(11, 6, rng=1), minirnn.LSTM(6, 9, rng=2), minirnn.Linear(9, 4, rng=3)

    def run(model, tokens):
        outputs = []
        for window in minirnn.truncated_bptt(model, tokens, 2):
            model.backward(window.ctx, window.output)
            outputs.append(window.output)
        return outputs

    tokens = minirnn.pack_sequence(
        [rng.integers(0, 11, n) for n in (5, 0, 3)], enforce_sorted=False
    )
    on_both(xp, minirnn.Sequential(*layers), run, tokens)
