"""What is of the wrong type is refused by its name: no bare error of Python's or NumPy's."""

import numpy as np
import pytest

import minirnn
from minirnn import diagnostics, parallel, trackers

ROWS = np.ones((3, 2), np.float32)
STEPS = np.ones((4, 2, 3), np.float32)
NO_OBJECTS = [None, "x", True, 1.5, [], {}, np.ones(1), int]
NO_NUMBERS = [None, "1", True, 1j, [], {}, np.ones(2), object(), float("nan"), -1]
NO_FUNCTIONS = [None, "x", 1, [], np.ones(2)]
NO_LISTS = ["x", b"x", 1, {}, set(), np.array(1), np.ones((1, 3)), object()]
NO_PATHS = [None, 1, True, [], b"x", object()]


def parameter():
    return minirnn.Parameter(np.ones(3, np.float32))


def sgd():
    return minirnn.SGD([parameter()], lr=0.1)


def fit(**changed):
    model = minirnn.Linear(2, 2)
    given = {
        "model": model,
        "criterion": minirnn.MSELoss(),
        "data": [(ROWS, ROWS)],
        "steps": 1,
        "optimizer": minirnn.SGD(model.parameters()),
        "progress": False,
    }
    minirnn.fit(**{**given, **changed})


def checked(**changed):
    layer = minirnn.Linear(2, 1, dtype=np.float64)
    given = {"module": layer, **changed}
    return diagnostics.check_gradients(given.pop("module"), np.ones((1, 2)), **given)


def averaged(**changed):
    given = {"model": minirnn.Linear(2, 2), "comm": parallel.Alone(), "weight": 1.0}
    parallel.average_gradients(**{**given, **changed})


def per_sample(module):
    layer = minirnn.Linear(2, 2)
    diagnostics.per_sample_gradient_norms(module, layer.forward(ROWS)[1], ROWS)


PACKED = minirnn.pack_sequence([ROWS])
ALONE = parallel.Alone()
LINEAR = minirnn.Linear(2, 2)
CALLS = {
    "model": [
        *[(lambda x: fit(model=x), NO_OBJECTS), (lambda x: averaged(model=x), NO_OBJECTS)],
        (lambda x: parallel.broadcast(x, ALONE), NO_OBJECTS),
        (lambda x: parallel.check_in_step(x, ALONE), NO_OBJECTS),
        (lambda x: minirnn.save_weights(x, "weights.npz"), NO_OBJECTS),
        (lambda x: minirnn.load_weights(x, "weights.npz"), NO_OBJECTS),
        (lambda x: minirnn.save_checkpoint("run", model=x), NO_OBJECTS),
        (lambda x: minirnn.load_checkpoint("run", model=x), NO_OBJECTS),
    ],
    "module": [(per_sample, NO_OBJECTS), (lambda x: checked(module=x), NO_OBJECTS)],
    "criterion": [(lambda x: fit(criterion=x), NO_OBJECTS)],
    "optimizer": [
        (lambda x: fit(optimizer=x), NO_OBJECTS),
        (
            lambda x: minirnn.ChainedScheduler([minirnn.StepLR(sgd(), 1)], x),
            [*NO_OBJECTS[1:], 0, ""],
        ),
        (lambda x: minirnn.save_checkpoint("run", model=LINEAR, optimizer=x), NO_OBJECTS[1:]),
    ],
    "scheduler": [
        (lambda x: fit(scheduler=x), NO_OBJECTS[1:]),
        (lambda x: minirnn.load_checkpoint("run", model=LINEAR, scheduler=x), NO_OBJECTS[1:]),
    ],
    "tracker": [(lambda x: fit(tracker=x), NO_OBJECTS[1:])],
    "comm": [
        *[(lambda x: averaged(comm=x), NO_OBJECTS)],
        (lambda x: parallel.broadcast(LINEAR, x), NO_OBJECTS),
        (lambda x: parallel.check_in_step(LINEAR, x), NO_OBJECTS),
    ],
    "metrics": [(lambda x: fit(metrics=x), ["x", 1, [], {"a": 1}, set()])],
    "config": [(lambda x: fit(config=x), ["x", 1, [], set()])],
    "callbacks": [
        (lambda x: fit(callbacks=x), NO_LISTS),
        (lambda x: fit(callbacks=[x]), NO_FUNCTIONS),
    ],
    "fn": [
        (PACKED.map, NO_FUNCTIONS),
    ],
    "closure": [(lambda x: sgd().step(x), NO_FUNCTIONS[1:])],
    "milestones": [
        (lambda x: minirnn.MultiStepLR(sgd(), x), NO_LISTS),
        (lambda x: minirnn.SequentialLR(o := sgd(), [minirnn.StepLR(o, 1)], x), NO_LISTS),
    ],
    "schedulers": [
        (lambda x: minirnn.SequentialLR(sgd(), x, []), NO_LISTS),
        (minirnn.ChainedScheduler, NO_LISTS),
    ],
    "min_lr": [(lambda x: minirnn.ReduceLROnPlateau(sgd(), min_lr=x), NO_LISTS[:2] + NO_LISTS[3:])],
    "lr_lambda": [(lambda x: minirnn.LambdaLR(sgd(), x), [*NO_LISTS, None, [1]])],
    "path": [
        (lambda x: minirnn.save_weights(LINEAR, x), NO_PATHS),
        (lambda x: minirnn.load_weights(LINEAR, x), NO_PATHS),
        (lambda x: minirnn.save_checkpoint(x, model=LINEAR), NO_PATHS),
        (lambda x: minirnn.load_checkpoint(x, model=LINEAR), NO_PATHS),
    ],
    "folder": [(lambda x: trackers.tracker("jsonl", x), NO_PATHS)],
    "name": [(lambda x: trackers.tracker(x, "."), [None, "x", 1, [], np.ones(2)])],
    "checkpoint": [(lambda x: fit(checkpoint=x), NO_PATHS[1:])],
    "directions": [(lambda x: checked(directions=x), [*NO_NUMBERS, 0, 1.5, 2**70])],
    "tolerance": [(lambda x: checked(tolerance=x), NO_NUMBERS)],
    "step": [
        (lambda x: checked(step=x), [*NO_NUMBERS, 0, float("inf")]),
        (diagnostics.GradientMonitor([parameter()]).observe, [*NO_NUMBERS, 1.5]),
    ],
    "vanishing": [
        (lambda x: diagnostics.GradientMonitor([parameter()], vanishing=x), NO_NUMBERS),
    ],
    "weight": [
        (lambda x: averaged(weight=x), [*NO_NUMBERS, float("inf")]),
        *[
            (make, ["x", 1.0, [1.0], np.ones(2, int), np.array(["a"]), object()])
            for make in (
                *(minirnn.CrossEntropyLoss, minirnn.NLLLoss, minirnn.BCELoss),
                *(minirnn.BCEWithLogitsLoss,),
            )
        ],
        *[(m, [np.ones(()), np.ones((1, 2))]) for m in (minirnn.CrossEntropyLoss, minirnn.NLLLoss)],
    ],
    "sample_norms": [(lambda x: diagnostics.noise_scale(x, 1.0), [["a", "b"], None, {}, [1, -1]])],
    "batch_norms": [
        (
            lambda x: diagnostics.noise_scale([1.0, 2.0], x),
            [None, "1", True, 1j, -1, np.datetime64("2020"), np.ma.masked_array(1.0)],
        )
    ],
    "input": [
        (
            lambda x: minirnn.windows(x, 2),
            [ROWS.view(np.matrix), np.ma.masked_array(ROWS), None, "x", [1.0]],
        )
    ],
    "lengths": [
        (
            lambda x: minirnn.last_step(STEPS, x),
            ["xy", [1.5, 2.0], [[1, 2]], np.ma.masked_array([1, 2]), 1, {}],
        )
    ],
    "normalized_shape": [(minirnn.LayerNorm, [[], (), None, "x", True, 1.5, (2, 0)])],
    "layers": [(minirnn.Sequential, [{}])],
    "dloss": [
        (
            lambda x: (c := minirnn.MSELoss()).backward(c.forward(ROWS, ROWS)[1], x),
            [None, "x", True, 1j, [1.0], np.ones(1, np.float32)],
        )
    ],
    "PackedSequence": [(lambda x: PACKED * x, [None, "x", True, 1j, [1.0]])],
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_of_the_wrong_type_is_refused_by_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call, values in CALLS[name]:
        for value in values:
            with pytest.raises((TypeError, ValueError), match=rf"{name}\S*: .*expected"):
                call(value)
    assert not list(tmp_path.iterdir())


def places_of_floats(dtype):
    """Return calls with an array of some type in place of one of `dtype`."""
    steps = STEPS.astype(dtype)
    layer, cell = minirnn.GRU(3, 3, dtype=dtype), minirnn.LSTMCell(3, 3, dtype=dtype)
    ctx = layer.forward(steps)[1]
    losses = minirnn.MSELoss(), minirnn.BCEWithLogitsLoss(), minirnn.BCELoss()
    return {
        "input": [
            lambda x: layer.forward(x),
            lambda x: cell.forward(x[0]),
            *[
                lambda x, made=made: made.forward(x)
                for made in (
                    minirnn.Linear(3, 2, dtype=dtype),
                    minirnn.LayerNorm(3, dtype=dtype),
                    minirnn.LayerNormLSTM(3, 2, dtype=dtype),
                )
            ],
        ],
        "x_t": [lambda x: layer.step(x[0]), lambda x: layer.stepper(2)(x[0])],
        "h_0": [lambda x: layer.forward(steps, x[:1])],
        "doutput": [lambda x: layer.backward(ctx, x)],
        "target": [lambda x, loss=loss: loss.forward(steps / 2, x) for loss in losses],
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_integers_in_place_of_floats_are_told_the_conversion(dtype):
    for name, calls in places_of_floats(dtype).items():
        for call in calls:
            for given in (int, bool, np.uint8, complex, object):
                wrong = STEPS.astype(given)
                with pytest.raises(TypeError, match=f"^{name}: expected a floating-point") as info:
                    call(wrong)
                convert = f"; convert it with .astype(np.{dtype})"
                assert (convert in str(info.value)) == (given not in (complex, object))
            call(STEPS.astype(dtype))


@pytest.mark.parametrize("made", [minirnn.Tanh(), minirnn.Dropout(0.5), minirnn.CrossEntropyLoss()])
def test_what_has_no_dtype_of_its_own_names_the_default(made):
    target = [np.zeros(3, int)] if isinstance(made, minirnn.CrossEntropyLoss) else []
    with pytest.raises(TypeError, match=r"convert it with \.astype\(np\.float32\)"):
        made.forward(ROWS.astype(int), *target)


def test_indices_that_are_no_integers_are_told_the_conversion():
    for call, name in (
        (lambda x: minirnn.Embedding(5, 2).forward(x), "input"),
        (lambda x: minirnn.CrossEntropyLoss().forward(ROWS, x), "target"),
        (lambda x: minirnn.NLLLoss().forward(ROWS, x), "target"),
    ):
        for given in (float, bool, complex):
            with pytest.raises(TypeError, match=f"^{name}: expected an integer array") as info:
                call(np.zeros(3, given))
            told = "; if they are indices, convert them with .astype(np.int64)" in str(info.value)
            assert told == (given is not complex)


# -- parameters ------------------------------------------------------------------------------------------


MODELS = [LINEAR, minirnn.Sequential(LINEAR), minirnn.GRU(2, 2)]
TAKES = [
    minirnn.Adam,
    lambda given: minirnn.clip_grad_norm_(given, 1.0),
    lambda given: minirnn.clip_grad_value_(given, 1.0),
    diagnostics.GradientMonitor,
    minirnn.ParameterBuffer,
]


@pytest.mark.parametrize("take", TAKES)
def test_a_model_in_place_of_its_parameters_is_told_the_call(take):
    for model in MODELS:
        says = r"expected Parameters, got \w+; pass model\.parameters\(\), not the model$"
        for given in (model, [model]):
            with pytest.raises(TypeError, match=says):
                take(given)
        with pytest.raises(TypeError, match=r"got method; call it: model\.parameters\(\)$"):
            take(model.parameters)
    with pytest.raises(TypeError, match=r"expected Parameters, got type$"):
        take(minirnn.GRU)


def test_a_parameter_of_another_library_is_named_with_its_module():
    other = type("Parameter", (), {"__module__": "another.library"})()
    for take in TAKES:
        with pytest.raises(
            TypeError, match=r"expected Parameters, got another\.library\.Parameter$"
        ):
            take([other])
