"""Where arrays lie and what that changes: moves, the backend, mixed arrays, TF32, the environment."""

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import strict_cupy
from both import HERE, LAYERS, floats, initial, moved, same

import minirnn
from minirnn import init


def test_state_dicts_cross(xp):
    host, device = minirnn.LSTM(3, 4, rng=1), minirnn.LSTM(3, 4, rng=2).to("cupy")
    device.load_state_dict(host.state_dict())
    same(device.state_dict(), host.state_dict(), 0)
    assert all(isinstance(v, xp.ndarray) for v in device.state_dict().values())
    other = minirnn.LSTM(3, 4, rng=3)
    other.load_state_dict(device.state_dict())
    same(other.state_dict(), host.state_dict(), 0)
    same(device.to("numpy").state_dict(), host.state_dict(), 0)
    assert all(isinstance(p.data, np.ndarray) for p in device.parameters())


def test_to_keeps_values_gradients_and_buffer(xp, rng):
    layer = minirnn.GRU(3, 4, rng=1)
    layer.flatten_parameters()
    layer.weight_hh_l0.grad += floats(rng, 12, 4)
    expected = [(p.data.copy(), p.grad.copy()) for p in layer.parameters()]
    layer.to("cupy").to(np.float64)
    assert all(p.buffer is layer.weight_ih_l0.buffer is not None for p in layer.parameters())
    assert layer.weight_ih_l0.dtype == np.float64
    layer.to(np.float32)
    same([(p.data, p.grad) for p in layer.parameters()], expected, 0)


def test_set_backend(xp):
    def made():
        minirnn.manual_seed(4)
        layers = [
            minirnn.RNN(3, 4, init="orthogonal"),
            minirnn.LSTM(3, 4, forget_bias=1.0),
            minirnn.GRUCell(3, 4),
            minirnn.Embedding(5, 3, padding_idx=1),
            minirnn.Linear(3, 4),
        ]
        init.uniform_(layers[-1].bias)
        init.constant_(layers[2].bias_ih, 2.0)
        return [p.data for layer in layers for p in layer.parameters()]

    expected = made()
    minirnn.set_backend("cupy")
    actual = made()
    assert all(isinstance(a, xp.ndarray) for a in actual)
    same(actual, expected, 0)


def test_mixed_arrays_are_refused(xp, rng):
    layer = minirnn.GRU(3, 4).to("cupy")
    x = floats(rng, 2, 1, 3)
    with pytest.raises(TypeError, match="input"):
        layer(x)
    with pytest.raises(TypeError, match="h_0"):
        layer(xp.asarray(x), np.zeros((1, 1, 4), np.float32))
    (y, _), ctx = layer.forward(xp.asarray(x))
    with pytest.raises(TypeError, match="doutput"):
        layer.backward(ctx, minirnn.asnumpy(y))
    with pytest.raises(TypeError, match="input lies in"):
        minirnn.Embedding(3, 4).to("cupy")(np.array([1]))
    with pytest.raises(TypeError, match="target lies in"):
        minirnn.CrossEntropyLoss()(xp.asarray(x[0]), np.array([1]))
    with pytest.raises(
        TypeError, match=r"weight_hh_l0\.data lies in numpy, parameter lies in cupy"
    ):
        layer.weight_hh_l0.data = np.zeros((12, 4), np.float32)


def test_checks_of_values_run_when_asked_for(xp):
    layer = minirnn.Embedding(3, 4).to("cupy")
    minirnn.set_checks(True)
    try:
        with pytest.raises(IndexError, match="position 1"):
            layer(xp.asarray([0, 3]))
    finally:
        minirnn.set_checks(False)


@pytest.fixture
def tf32(xp):
    """Return the least relative error that TF32 leaves, where there is TF32; it is off again afterwards.

    On a GPU none is asked for: cuBLAS may compute a small product in float32 all the same.
    """
    real = not isinstance(xp, strict_cupy.Module)
    if real and int(xp.cuda.Device().compute_capability) < 80:
        pytest.skip("TF32 needs compute capability 8.0")
    yield 0.0 if real else 1e-6
    minirnn.set_tf32(False)


def test_tf32(xp, rng, tf32):
    """Off at first; on, it is in the products of float32, forward and backward, and can be switched off."""

    def run(layer, dtype=np.float32):
        layer.zero_grad()
        y, ctx = layer.forward(xp.asarray(x.astype(dtype)))
        dx = layer.backward(ctx, xp.asarray(dy.astype(dtype)))
        return [xp.asnumpy(a) for a in (y, dx, layer.weight.grad)]

    def errors(found):
        return [np.abs(a - e).max() / np.abs(e).max() for a, e in zip(found, exact, strict=True)]

    x, dy = floats(rng, 96, 64), floats(rng, 96, 80)
    layer = minirnn.Linear(64, 80, rng=0).to("cupy")
    wide = copy.deepcopy(layer).to(np.float64)
    exact, single = run(wide, np.float64), run(layer)
    assert max(errors(single)) < 3e-6
    minirnn.set_tf32(True)
    assert all(10 * tf32 <= e < 2e-3 for e in errors(run(layer)))
    same(run(wide, np.float64), exact, 0)
    minirnn.set_tf32(False)
    same(run(layer), single, 0)


@pytest.mark.parametrize("cell", LAYERS)
def test_tf32_stays_out_of_persistent_kernels(xp, rng, cell, tf32):
    """Without input a step's product is all there is."""
    for hidden, persistent in ((32, True), (200, False)):
        layer = LAYERS[cell](1, hidden, rng=0).to("cupy")
        x, h_0 = np.zeros((5, 64, 1), np.float32), moved(xp, initial(rng, layer, 64))
        y = []
        for enabled in (False, True):
            minirnn.set_tf32(enabled)
            y.append(xp.asnumpy(layer(xp.asarray(x), h_0)[0]))
        apart = np.abs(y[0] - y[1]).max()
        assert apart == 0 if persistent else tf32 <= apart < 1e-2


def test_tf32_of_cupys_own_variable(double, rng, monkeypatch):
    """It holds until minirnn is told otherwise."""
    layer = minirnn.Linear(64, 80, rng=0).to("cupy")
    x = double.asarray(floats(rng, 96, 64))
    single = layer(x)
    double._core._routines_linalg.kinds.clear()
    monkeypatch.setenv("CUPY_TF32", "1")
    assert np.abs((layer(x) - single).get()).max() > 1e-5
    minirnn.set_tf32(False)
    same(layer(x), single, 0)


def python(code, **environment):
    """Run `code` in a fresh interpreter, in which `strict_cupy` can be imported."""
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_minirnn_does_not_load_the_kernels():
    python(
        "import sys, minirnn\n"
        "assert 'cupy' not in sys.modules\n"
        "assert not [m for m in sys.modules if m.startswith('minirnn.cuda.')]"
    )


def test_environment_variable():
    python(
        "import sys, strict_cupy\n"
        "sys.modules['cupy'] = strict_cupy.make()\n"
        "import minirnn\n"
        "assert type(minirnn.Linear(2, 2).weight.data) is strict_cupy.ndarray",
        MINIRNN_BACKEND="cupy",
    )


EXAMPLE = HERE.parents[1] / "examples" / "sum_mod"


@pytest.mark.parametrize("lesson", ["", "--carry "])
def test_the_example_trains_and_answers(lesson, double, tmp_path, monkeypatch, capsys):
    """The same scripts: `MINIRNN_BACKEND=cupy python examples/sum_mod/train.py`."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import predict
    import train

    flags = "--total_steps 4 --warmup_step 1 --hidden_dim 8 --batch_size 6 --log_every 2 --run_name"
    flags = lesson + flags
    results = []
    for backend in ("numpy", "cupy"):
        minirnn.set_backend(backend)
        args = train.arguments([*flags.split(), backend, "--save_dir", str(tmp_path)])
        rows, saved = [], {}
        train.train(
            args, rows.append, lambda model, step, kept=saved: kept.update(model.state_dict())
        )
        results.append(
            [np.array([row[k] for row in rows]) for k in ("loss", "grad_norm")] + [saved]
        )
        assert isinstance(saved["head.bias"], double.ndarray if backend == "cupy" else np.ndarray)
    same(results[1], results[0], 1e-4)
    monkeypatch.setattr(train, "accuracy", lambda *args: 0.5)
    monkeypatch.setattr(train, "plot", lambda *args: None)
    train.main([*flags.split(), "run", "--save_dir", str(tmp_path)])
    predict.main(["--sequence", "3 7 1", "--save_dir", str(tmp_path)])
    assert "3 + 7 + 1 = " in capsys.readouterr().out
