"""Checkpoints: the same bits from less memory."""

import tracemalloc

import numpy as np
import pytest
from helpers import all_equal, spans
from makers import arrays, named

import minirnn
from minirnn.bptt import checkpoints
from minirnn.bptt.passes import Pass


@pytest.mark.parametrize(
    ("wanted", "save", "traced", "kind"),
    [
        (True, True, False, checkpoints.Checkpointed),
        (False, True, False, Pass),
        (True, False, False, Pass),  # inference
        (True, True, True, Pass),  # a trace needs every step
    ],
)
def test_checkpoints_are_chosen_where_something_is_saved(wanted, save, traced, kind):
    assert checkpoints.choose(wanted, save, traced) is kind


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("span_rows", [20, 100, 1024])
def test_checkpointing_changes_no_bit(make, packed, span_rows):
    with spans(span_rows, steps=2):
        checkpointing_changes_no_bit(make, packed)


def checkpointing_changes_no_bit(make, packed):
    rng = np.random.default_rng(0)
    layer = make(3, 8, num_layers=2, bidirectional=True)
    layer_2 = make(3, 8, num_layers=2, bidirectional=True, checkpoint=True)
    layer_2.load_state_dict(layer.state_dict())
    lengths = list(range(1, 80, 7))
    x = rng.standard_normal((80, len(lengths), 3)).astype(np.float32)
    if packed:
        x = minirnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    results = []
    start = [rng.standard_normal(p.shape).astype(np.float32) for p in layer.parameters()]
    for one in (layer, layer_2):
        for p, g in zip(one.parameters(), start, strict=True):
            p.grad = g  # to be added to, as after another batch
        (output, h_n), ctx = one.forward(x)
        doutput = output.map(np.cos) if packed else np.cos(output)
        dx, dh_0 = one.backward(ctx, doutput, h_n)
        results.append(named(output=output, h_n=h_n, dx=dx, dh_0=dh_0, layer=one))
    all_equal(*results)


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_checkpointing_and_inference_need_less_memory(name):
    T, B, H = 512, 64, 32
    x = np.ones((T, B, H), np.float32)
    unit = x.nbytes

    def peak(work):
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / unit

    def train(checkpoint):
        layer = getattr(minirnn, name)(H, H, num_layers=1, checkpoint=checkpoint)
        layer.zero_grad()

        def work():
            (_, h_n), ctx = layer.forward(x)
            layer.backward(ctx, None, h_n)

        return work

    plain, checkpointed = peak(train(False)), peak(train(True))
    layer = getattr(minirnn, name)(H, H)
    inference = peak(lambda: layer(x))
    assert checkpointed < 0.5 * plain
    assert inference < 1.5 + (name == "LSTM")  # the output, a span, and c
    assert checkpointed < 3.3  # output, dx, and 20 arrays of a window, 1/32 of the steps


def test_checkpoints_of_no_steps(make):
    layer = make(3, 4, num_layers=2, checkpoint=True)
    x = minirnn.pack_padded_sequence(np.ones((3, 2, 3), np.float32), [0, 0])
    (_, h_n), ctx = layer.forward(x)
    dx, dh_0 = layer.backward(ctx, None, h_n)
    assert dx.data.shape == (0, 3)
    for a, b in zip(arrays(dh_0), arrays(h_n), strict=True):
        np.testing.assert_array_equal(a, b)
