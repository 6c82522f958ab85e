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


PACKED = minirnn.pack_sequence([zeros(3, 2), zeros(1, 2)])
PAIR = zeros(1, 2, 3), zeros(1, 2, 3)


def packed_by_torch():
    torch = pytest.importorskip("torch")
    return torch.nn.utils.rnn.pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])


@pytest.mark.parametrize(
    "call",
    [
        lambda: minirnn.CrossEntropyLoss().forward(PACKED, np.zeros(4, int)),
        lambda: minirnn.MSELoss().forward(PACKED.data, PACKED),
        packed_gradient_of_a_padded_output,
        lambda: gru().step(PACKED),
        lambda: gru().stepper(2)(PACKED),
        lambda: minirnn.GRUCell(2, 3)(PACKED),
    ],
)
def test_what_is_packed_in_place_of_an_array(call):
    with pytest.raises(TypeError, match=r"PackedSequence; .*\.data .*pad_packed_sequence"):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda packed: gru()(packed),
        lambda packed: minirnn.Linear(2, 3)(packed),
        minirnn.last_step,
        minirnn.pad_packed_sequence,
    ],
)
def test_what_torch_has_packed_is_told_the_conversion(call):
    packed = packed_by_torch()
    with pytest.raises(TypeError, match=r"make minirnn's: minirnn\.PackedSequence") as info:
        call(packed)
    written = str(info.value).split("minirnn's: ")[1]
    own = eval(written, {"minirnn": minirnn, "x": packed})
    np.testing.assert_array_equal(own.batch_sizes, [2, 1, 1])
    call(own)


@pytest.mark.parametrize(
    "call",
    [
        lambda: gru()(zeros(5, 2, 2), PAIR),
        lambda: minirnn.GRUCell(2, 3)(zeros(2, 2), (zeros(2, 3), zeros(2, 3))),
        lambda: minirnn.by_layer_direction(PAIR, 1),
        lambda: minirnn.Linear(3, 3)(gru()(zeros(5, 2, 2))),
    ],
)
def test_a_pair_in_place_of_an_array(call):
    with pytest.raises(TypeError, match=r"state \(h, c\) pass h, .*`output, h_n = layer\(x\)`"):
        call()


def test_a_result_with_its_context_in_place_of_an_array():
    with pytest.raises(TypeError, match=r"`y, ctx = layer\.forward\(x\)`"):
        minirnn.Tanh()(minirnn.Linear(2, 3).forward(zeros(4, 2)))


def test_a_context_of_another_layer_is_called_what_it_is():
    layer, other = gru(), gru()
    _, ctx = layer.forward(zeros(2, 2, 2))
    with pytest.raises(ValueError, match="of this GRU, got one that another GRU made"):
        other.backward(ctx, zeros(2, 2, 3))
    with pytest.raises(ValueError, match="of this LSTM, got one that a layer of class GRU made"):
        minirnn.LSTM(2, 3).backward(ctx, zeros(2, 2, 3))


def test_a_loss_in_place_of_its_context():
    criterion = minirnn.MSELoss()
    loss = criterion(zeros(2), zeros(2))
    with pytest.raises(
        ValueError, match=r"`layer\(x\)` does not: it returns loss without a context"
    ):
        criterion.backward(loss)


def test_another_precision_is_told_both_remedies():
    both = r"\.astype\(np\.float32\), or make the layer with dtype=np\.float64$"
    for layer, x in ((gru(), np.ones((5, 2, 2))), (minirnn.Linear(2, 3), np.ones((5, 2)))):
        with pytest.raises(TypeError, match=both):
            layer(x)
    with pytest.raises(TypeError, match=r"\.astype\(np\.float32\)$"):  # a loss has no dtype
        minirnn.MSELoss()(zeros(2), np.zeros(2))


def test_a_total_length_that_is_no_integer():
    with pytest.raises(
        ValueError, match=r"total_length: expected an integer, at least .* got 7\.0"
    ):
        minirnn.pad_packed_sequence(PACKED, total_length=7.0)


@pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors"])
def test_weights_in_place_of_a_checkpoint(name, tmp_path):
    if name.endswith(".safetensors"):
        pytest.importorskip("safetensors")
    minirnn.save_weights(gru(), tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}: .*load_weights\(model, path\)"):
        minirnn.load_checkpoint(tmp_path / name, model=gru())


@pytest.mark.parametrize("name", ["run.ckpt", "run.npz"])
def test_a_checkpoint_in_place_of_weights(name, tmp_path):
    minirnn.save_checkpoint(tmp_path / name, model=gru())
    with pytest.raises(ValueError, match=rf"{name}.*load_checkpoint\(path, model=model\)"):
        minirnn.load_weights(gru(), tmp_path / name)


@pytest.mark.parametrize(
    "save",
    [
        lambda path: minirnn.save_weights(gru(), path / "it.npz"),
        lambda path: minirnn.save_checkpoint(path / "it.npz", model=gru()),
        lambda path: minirnn.to_onnx(gru(), path / "it.npz"),
    ],
)
def test_a_folder_that_is_missing_is_told_by_the_name_that_was_asked_for(save, tmp_path):
    if "to_onnx" in save.__code__.co_names:
        pytest.importorskip("onnx")
    with pytest.raises(FileNotFoundError) as info:
        save(tmp_path / "none")
    assert info.value.filename == str(tmp_path / "none" / "it.npz")


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
