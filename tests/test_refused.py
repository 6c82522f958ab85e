"""What is refused where nobody else looks: each by its message, and what was there stays."""

import json
import re

import numpy as np
import pytest
from helpers import all_equal

import minirnn
from minirnn import diagnostics

F4 = np.float32


def zeros(*shape):
    return np.zeros(shape, F4)


def gru():
    return minirnn.GRU(2, 3, rng=0)


def adam(params):
    return minirnn.Adam(params)


def last_of_nothing():
    packed = minirnn.pack_sequence([zeros(2, 2), zeros(0, 2)], enforce_sorted=False)
    minirnn.last_step(gru()(packed)[0])


def norms_along_three_axes():
    linear = minirnn.Linear(2, 3, rng=0)
    y, ctx = linear.forward(zeros(2, 3, 4, 2))
    diagnostics.per_sample_gradient_norms(linear, ctx, y)


def packed_gradient_of_a_padded_output():
    layer = gru()
    _, ctx = layer.forward(zeros(2, 2, 2))
    layer.backward(ctx, minirnn.pack_sequence([zeros(2, 3)]))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: minirnn.CrossEntropyLoss().forward(zeros(), np.zeros((), int)),
            ValueError,
            "input: expected shape (N, C), got ()",
        ),
        (
            lambda: minirnn.CrossEntropyLoss().forward(zeros(0, 3), np.zeros(0, int)),
            ValueError,
            "input: expected at least one row and class, got (0, 3)",
        ),
        (
            lambda: minirnn.CrossEntropyLoss().forward(zeros(3, 0), np.zeros(3, int)),
            ValueError,
            "input: expected at least one row and class, got (3, 0)",
        ),
        (last_of_nothing, ValueError, "output: a sequence of length zero has no last step"),
        (
            lambda: minirnn.unpad_sequence(zeros(3), [1]),
            ValueError,
            "padded_sequences: expected at least 2 dimensions, got (3,)",
        ),
        (
            lambda: minirnn.PackedSequence(zeros(0, 2), []),
            ValueError,
            "batch_sizes: expected at least one step, got none",
        ),
        (
            lambda: minirnn.PackedSequence(zeros(3, 2), [2, 1], [0]),
            ValueError,
            "sorted_indices: expected at least batch_sizes[0] = 2 entries, got 1",
        ),
        (
            lambda: minirnn.data.batches([zeros(2, 2)], 3),
            TypeError,
            "targets: expected one a sequence, got int",
        ),
        (
            lambda: minirnn.data.batches([zeros()]),
            ValueError,
            "sequences[0]: expected shape (length, ...), got ()",
        ),
        (
            lambda: adam([{"lr": 1.0}]),
            TypeError,
            "params: expected dicts with 'params' in them, got ['lr']",
        ),
        (
            lambda: adam([{"params": gru().parameters()}, 3]),
            TypeError,
            "params: expected dicts with 'params' in them, got int",
        ),
        (
            lambda: diagnostics.jacobian_norms(minirnn.Linear(2, 3), None),
            TypeError,
            "layer: expected an RNN, GRU or LSTM, got Linear",
        ),
        (
            norms_along_three_axes,
            ValueError,
            "module: expected rows along at most two axes, got (2, 3, 4)",
        ),
        (
            packed_gradient_of_a_padded_output,
            TypeError,
            "doutput: expected a NumPy or CuPy array, got minirnn.packed_sequence.PackedSequence",
        ),
        (lambda: minirnn.set_tf32(1), TypeError, "enabled: expected True or False, got int"),
        (
            lambda: minirnn.Module().forward(),
            NotImplementedError,
            "Module does not define forward",
        ),
        (
            lambda: minirnn.Module().backward(None),
            NotImplementedError,
            "Module does not define backward",
        ),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def ragged(slots):
    return [[[1.0], [2.0, 3.0]]]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (ragged, "state[0]: setting an array element with a sequence"),
        (lambda slots: [-np.ones_like(slots)], "state[0]: exp_avg_sq: expected means of squares"),
        (lambda slots: [slots * np.inf], "state[0]: expected finite numbers of float32"),
        (lambda slots: [slots[:, 1:]], "state[0]: expected shape (2, 63), got (2, 62)"),
        (lambda slots: [slots.astype(int)], "state[0]: expected floating point, got dtype int64"),
        (None, "state_dict: expected steps, state and groups, ['state'] missing"),
    ],
)
def test_an_optimisers_state_that_it_cannot_go_on_from(state, message):
    optimizer = adam(gru().parameters())
    optimizer.step()
    before = optimizer.state_dict()
    other = {name: value for name, value in before.items() if name != "state"}
    if state is not None:
        other["state"] = state(np.ones_like(before["state"][0]))
    with pytest.raises(ValueError, match=re.escape(message)):
        optimizer.load_state_dict(other)
    after = optimizer.state_dict()
    np.testing.assert_array_equal(after["state"][0], before["state"][0])
    assert after["steps"] == before["steps"]


def test_what_a_checkpoint_keeps_beside_the_model(tmp_path):
    model, path = gru(), tmp_path / "run.ckpt"
    with pytest.raises(TypeError, match="extra: expected names as keys, got 1"):
        minirnn.save_checkpoint(path, model=model, extra={1: 2})
    assert not path.exists()
    extra = {"n": np.int64(3), "right": np.bool_(True), "rates": (F4(0.5), None)}
    minirnn.save_checkpoint(path, model=model, extra=extra)
    kept = minirnn.load_checkpoint(path, model=model)["extra"]
    assert kept == {"n": 3, "right": True, "rates": [0.5, None]}
    assert [type(value) for value in kept.values()] == [int, bool, list]


ENTRY = {"shape": [1], "dtype": "F32", "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": {**ENTRY, "shape": ["x"]}}, "no .safetensors header: 'a' is described by"),
        ({"a": {**ENTRY, "dtype": 3}}, "no .safetensors header: 'a' is described by"),
        ({"__metadata__": {"crc32": "[]"}}, "crc32: expected the checksums of the arrays"),
        (
            {"__metadata__": {"crc32": "{}", "made_by": "minirnn"}, "a": ENTRY},
            "crc32: expected a checksum for each array",
        ),
    ],
)
def test_a_safetensors_header_that_describes_no_arrays(header, message, tmp_path):
    pytest.importorskip("safetensors")
    text = json.dumps(header).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    model = gru()
    before = model.state_dict()
    with pytest.raises(ValueError, match=re.escape(message)):
        minirnn.load_weights(model, path)
    all_equal(model.state_dict(), before)


def test_a_monitor_of_healthy_gradients_has_no_alarm_and_a_dead_one_is_the_furthest_out():
    model = gru()
    monitor = diagnostics.GradientMonitor(model.parameters())
    for p in model.parameters():
        p.grad[...] = 0.5 / np.sqrt(p.size)
    monitor.observe(0)
    assert monitor.first_alarm is None
    model.weight_hh_l0.grad[...] = 0.001
    model.bias_hh_l0.grad[...] = 0
    monitor.observe(1)
    alarm = monitor.first_alarm
    assert (alarm.step, alarm.parameter, alarm.band) == (1, "bias_hh_l0", "vanishing")


def test_norms_of_sequences_without_a_step_are_zero():
    layer = gru()
    (output, _), ctx = layer.forward(minirnn.pack_sequence([zeros(0, 2), zeros(0, 2)]))
    norms = diagnostics.per_sample_gradient_norms(layer, ctx, output)
    np.testing.assert_array_equal(norms, [0, 0])
