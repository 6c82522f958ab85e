"""Every public function refuses, by its name, what is no plain array of numbers that it computes with."""

import warnings

import numpy as np
import pytest

import minirnn
from minirnn import diagnostics

X, ROWS, TOKENS = (
    np.ones((4, 2, 3), np.float32),
    np.ones((4, 3), np.float32),
    np.array([0, 1, 2, 1]),
)
PACKED = minirnn.pack_sequence([ROWS, ROWS[:2]])


def backward_of(make, *given):
    """Return a function of an output's gradient."""

    def call(dy):
        layer = make()
        _, ctx = layer.forward(*given)
        return layer.backward(ctx, dy)

    return call


CALLS = {
    **{
        f"{cell.__name__} {what}": call
        for cell in (minirnn.RNN, minirnn.LSTM, minirnn.GRU)
        for what, call in {
            "input": (cell(3, 4).forward, X),
            "inference": (cell(3, 4), X),
            "state": (
                lambda h, cell=cell: cell(3, 4).forward(X, (h, h) if cell is minirnn.LSTM else h),
                np.zeros((1, 2, 4), np.float32),
            ),
            "gradient": (
                backward_of(lambda cell=cell: cell(3, 4), X),
                np.zeros((4, 2, 4), np.float32),
            ),
            "step": (cell(3, 4).step, ROWS),
            "stepper": (cell(3, 4).stepper(4), ROWS),
            "truncated": (lambda x, cell=cell: list(minirnn.truncated_bptt(cell(3, 4), x, 2)), X),
        }.items()
    },
    **{
        f"{cell.__name__} input": (cell(3, 4).forward, ROWS)
        for cell in (minirnn.RNNCell, minirnn.LSTMCell, minirnn.GRUCell)
    },
    **{
        f"{type(layer).__name__}": (layer.forward, ROWS)
        for layer in (
            minirnn.Linear(3, 4),
            minirnn.LayerNorm(3),
            minirnn.Dropout(0.5),
            minirnn.ReLU(),
            minirnn.Tanh(),
            minirnn.Sigmoid(),
            minirnn.Sequential(minirnn.Linear(3, 4)),
        )
    },
    "Linear gradient": (backward_of(lambda: minirnn.Linear(3, 3), ROWS), ROWS),
    "Embedding gradient": (backward_of(lambda: minirnn.Embedding(5, 3), TOKENS), ROWS),
    "softmax": (minirnn.softmax, ROWS),
    "log_softmax": (minirnn.log_softmax, ROWS),
    "CrossEntropyLoss": (lambda x: minirnn.CrossEntropyLoss()(x, TOKENS), ROWS),
    "class weights": (lambda w: minirnn.CrossEntropyLoss(w)(ROWS, TOKENS), np.ones(3, np.float32)),
    "distributions": (lambda t: minirnn.CrossEntropyLoss()(ROWS, t), ROWS / 3),
    "MSELoss": (lambda x: minirnn.MSELoss()(x, ROWS), ROWS),
    "MSELoss target": (lambda t: minirnn.MSELoss()(ROWS, t), ROWS),
    "BCEWithLogitsLoss": (lambda x: minirnn.BCEWithLogitsLoss()(x, ROWS), ROWS),
    "pos_weight": (lambda w: minirnn.BCEWithLogitsLoss(pos_weight=w)(ROWS, ROWS), ROWS[0]),
    "pack_padded_sequence": (lambda x: minirnn.pack_padded_sequence(x, [4, 2]), X),
    "pack_sequence": (lambda x: minirnn.pack_sequence([x]), ROWS),
    "pad_sequence": (lambda x: minirnn.pad_sequence([x]), ROWS),
    "unpad_sequence": (lambda x: minirnn.unpad_sequence(x, [4, 2]), X),
    "PackedSequence": (lambda x: minirnn.PackedSequence(x, [2, 2]), ROWS),
    "map": (lambda x: minirnn.Linear(3, 4)(PACKED.map(lambda rows: x)), PACKED.data),
    "last_step": (minirnn.last_step, X),
    "by_layer_direction": (lambda h: minirnn.by_layer_direction(h, 2), X),
    "Parameter": (minirnn.Parameter, ROWS),
    "data": (lambda x: setattr(minirnn.Parameter(ROWS.copy()), "data", x), ROWS),
    "grad": (lambda x: setattr(minirnn.Parameter(ROWS.copy()), "grad", x), ROWS),
    "parameters": (lambda x: minirnn.SGD(x, lr=0.1), ROWS),
    "clipping": (lambda x: minirnn.clip_grad_norm_(x, 1.0), ROWS),
    "init": (minirnn.init.xavier_uniform_, ROWS),
}
ODD = {
    "masked": np.ma.masked_array,
    "a matrix": lambda x: np.matrix(x.reshape(len(x), -1)),
    "objects": lambda x: x.astype(object),
    "strings": lambda x: x.astype(str),
    "complex": lambda x: x.astype(complex),
    "half": lambda x: x.astype(np.float16),
    "long": lambda x: x.astype(np.longdouble),
    "foreign": lambda x: x.astype(">f4"),
    "dates": lambda x: np.zeros(x.shape, "M8[s]"),
    "records": lambda x: np.zeros(x.shape, [("a", np.float32)]),
    "None": lambda x: None,
    "a dict": lambda x: {},
    "a string": lambda x: "abc",
    "a parameter": lambda x: minirnn.Parameter(np.ones(2, np.float32)),
}
# What is no fault: a loss without weights, a single parameter.
FINE = {
    ("class weights", "None"),
    ("pos_weight", "None"),
    ("parameters", "a parameter"),
    ("clipping", "a parameter"),
    ("init", "a parameter"),
    *((f"{cell} {what}", "None") for cell in ("RNN", "LSTM", "GRU") for what in ("state",)),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("what", CALLS)
def test_what_is_no_plain_array_is_refused(what, odd):
    call, lawful = CALLS[what]
    if (what, odd) in FINE:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        given = ODD[odd](lawful)
    with pytest.raises((TypeError, ValueError), match=r"expected|a Parameter is no array") as info:
        call(given)
    assert len(str(info.value)) < 700


@pytest.mark.parametrize("kind", ["read-only", "every second", "order of Fortran", "turned round"])
@pytest.mark.parametrize("what", [name for name in CALLS if name not in ("parameters", "clipping")])
def test_any_order_of_memory_is_taken(what, kind):
    call, lawful = CALLS[what]
    if what == "init" and kind == "read-only":
        return
    call(
        {
            "read-only": lambda x: np.broadcast_to(x, x.shape),
            "every second": lambda x: np.repeat(x, 2, axis=0)[::2],
            "order of Fortran": np.asfortranarray,
            "turned round": lambda x: x[::-1].copy()[::-1],
        }[kind](lawful)
    )


MASKED = np.ma.masked_array([4, 2], [False, True])


@pytest.mark.parametrize(
    "call",
    [
        lambda: minirnn.pack_padded_sequence(X, MASKED),
        lambda: minirnn.unpad_sequence(X, MASKED),
        lambda: minirnn.last_step(X, MASKED),
        lambda: minirnn.PackedSequence(np.ones((6, 1)), MASKED),
        lambda: minirnn.Linear(1, 2, bias=False).load_state_dict(
            {"weight": np.ma.masked_array(np.ones((2, 1)))}
        ),
        lambda: minirnn.asnumpy(MASKED),
        lambda: list(minirnn.data.batches([np.ma.masked_array([1, 2])], batch_size=1)),
    ],
)
def test_no_mask_is_lost_on_the_way(call):
    with pytest.raises((TypeError, ValueError), match=r"MaskedArray|mask"):
        call()


@pytest.mark.parametrize("value", ["False", 1, None, 0.0])
def test_a_switch_of_a_function_is_true_or_false(value, tmp_path):
    layer, gru = minirnn.Linear(3, 4), minirnn.GRU(3, 4)
    (output, _), ctx = gru.forward(X)
    flow = gru.backward(ctx, output, trace=True)[-1]

    def fit(**switch):
        data, options = [(X, np.ones((4, 2, 4), np.float32))], {"steps": 1, "progress": False}
        minirnn.fit(
            layer, minirnn.MSELoss(), minirnn.SGD(layer.parameters()), data, **options | switch
        )

    calls = {
        **{
            name: [lambda name=name: minirnn.data.batches([ROWS], **{name: value})]
            for name in ("shuffle", "bucket", "drop_last")
        },
        **{name: [lambda name=name: fit(**{name: value})] for name in ("resume", "progress")},
        "initial_states": [
            lambda: minirnn.to_onnx(gru, tmp_path / "gru.onnx", initial_states=value)
        ],
        "batch_first": [
            lambda: minirnn.pack_padded_sequence(X, [4, 4], batch_first=value),
            lambda: minirnn.pad_packed_sequence(PACKED, batch_first=value),
            lambda: minirnn.pad_sequence([ROWS], batch_first=value),
            lambda: minirnn.unpad_sequence(X, [4, 4], batch_first=value),
            lambda: minirnn.last_step(X, batch_first=value),
            lambda: diagnostics.gradient_flow(flow, batch_first=value),
        ],
        "enforce_sorted": [
            lambda: minirnn.pack_padded_sequence(X, [4, 4], enforce_sorted=value),
            lambda: minirnn.pack_sequence([ROWS], enforce_sorted=value),
        ],
        "mode": [lambda: layer.train(value)],
        "strict": [lambda: layer.load_state_dict(layer.state_dict(), strict=value)],
        "trace": [
            lambda: gru.forward(X, trace=value),
            lambda: gru.backward(ctx, output, trace=value),
        ],
        "enabled": [lambda: minirnn.set_checks(value), lambda: minirnn.set_native(value)],
        "set_to_none": [
            lambda: layer.zero_grad(value),
            lambda: minirnn.SGD([layer.weight]).zero_grad(value),
        ],
    }
    if value is not None:  # which stands for what the recurrent layers say
        calls["batch_first"] += [
            lambda: diagnostics.per_sample_gradient_norms(gru, ctx, output, batch_first=value),
            lambda: diagnostics.per_sample_gradients(gru, ctx, output, batch_first=value),
        ]
    for name, several in calls.items():
        for call in several:
            with pytest.raises(TypeError, match=f"{name}: expected True or False"):
                call()


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), "1", None, 1j, np.ones(2)])
def test_a_number_of_a_function_is_one(value):
    """An integer beyond all floats is no OverflowError; NaN may pad."""
    refused = pytest.raises((TypeError, ValueError), match="expected")
    if not isinstance(value, float):
        for pad in (
            lambda: minirnn.pad_sequence([ROWS], padding_value=value),
            lambda: minirnn.pad_packed_sequence(PACKED, padding_value=value),
        ):
            with refused:
                pad()
    with refused:
        minirnn.pad_packed_sequence(PACKED, total_length="x" if value is None else value)
    for setting in ("proj_size", "forget_bias"):
        if value is not None:
            with refused:
                minirnn.LSTM(3, 4, **{setting: value})
    with refused:
        minirnn.by_layer_direction(X, value)
    with refused:
        minirnn.init.constant_(ROWS.copy(), value)
