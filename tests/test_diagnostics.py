"""minirnn.diagnostics: every number against one that was got in another way."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import close

import minirnn
from minirnn import diagnostics as see
from minirnn.bptt import execution

LAYERS = {"RNN": minirnn.RNN, "GRU": minirnn.GRU, "LSTM": minirnn.LSTM}
LENGTHS = (2, 5, 0, 3, 5)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def packed(rng, features, lengths=LENGTHS):
    sequences = [rng.standard_normal((n, features)) for n in lengths]
    return minirnn.pack_sequence(sequences, enforce_sorted=False)


def stretched(layer, factor=3.0):
    """Return the layer with larger recurrent weights, so that no gradient is all but zero."""
    for name, p in layer.named_parameters():
        if "weight_hh" in name:
            p.data *= factor
    return layer


def test_is_imported_when_first_asked_for():
    code = (
        "import sys, minirnn; assert 'minirnn.diagnostics' not in sys.modules; "
        "minirnn.diagnostics.gradient_flow; assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- GradientMonitor -----------------------------------------------------------------------------


def with_gradients(**gradients):
    found = []
    for name, values in gradients.items():
        p = minirnn.Parameter(np.zeros(np.shape(values), np.float32))
        p.name, p.grad = name, np.array(values, np.float32)
        found.append(p)
    return found


def test_monitor_takes_norms_and_finds_the_first_alarm():
    a, b = with_gradients(a=[3.0, 4.0], b=[[1.0], [1.0]])
    monitor = see.GradientMonitor([a, b], every=10)
    assert monitor.observe(7) is None
    assert monitor.history == []
    seen = monitor.observe(10)
    assert seen == (10, pytest.approx(27**0.5), {"a": 5.0, "b": pytest.approx(2**0.5)})
    # The total is out of its band, and says so as no parameter is.
    assert monitor.first_alarm == (10, "total", pytest.approx(27**0.5), "warning")
    b.grad *= 100
    monitor.observe(20)
    assert monitor.first_alarm.step == 10
    assert [s.step for s in monitor.history] == [10, 20]


def test_monitor_names_the_parameter_that_is_farthest_out():
    monitor = see.GradientMonitor(with_gradients(a=[6.0], b=[20.0], c=[0.0125], d=[1.0]))
    monitor.observe(3)
    assert monitor.first_alarm == (3, "c", pytest.approx(0.0125), "vanishing")  # 8 times, b 4 times


@pytest.mark.parametrize(
    ("norm", "band"),
    [
        (0.0999, "vanishing"),
        (0.1, "healthy"),
        (5.0, "healthy"),
        (5.01, "warning"),
        (10.0, "warning"),
        (10.1, "exploding"),
        (np.inf, "exploding"),
        (np.nan, "exploding"),
    ],
)
def test_monitor_bands(norm, band):
    assert see.GradientMonitor(with_gradients(a=[1.0])).band(norm) == band
    wide = see.GradientMonitor(with_gradients(a=[1.0]), vanishing=0, warning=1e9, exploding=1e9)
    assert wide.band(norm) == ("healthy" if np.isfinite(norm) else "exploding")


def test_monitor_in_float64_of_a_buffer_without_copying_it():
    model = minirnn.RNN(3, 4, rng=0)
    buffer = model.flatten_parameters()
    monitor = see.GradientMonitor(buffer)
    buffer.grad.fill(np.float32(1e-30))  # its square is zero in float32
    one = monitor.observe(0)
    assert one.total == pytest.approx(1e-30 * buffer.grad.size**0.5, rel=1e-6)
    assert one.norms["bias_hh_l0"] == pytest.approx(2e-30, rel=1e-6)
    assert all(p.grad.base is not None for p in monitor.parameters)
    assert buffer.complete


def test_monitor_refuses():
    with pytest.raises(ValueError, match="every: expected a positive"):
        see.GradientMonitor(with_gradients(a=[1.0]), every=0)
    with pytest.raises(ValueError, match="vanishing <= warning"):
        see.GradientMonitor(with_gradients(a=[1.0]), vanishing=6)
    with pytest.raises(ValueError, match="every name once"):
        see.GradientMonitor(with_gradients(a=[1.0]) + with_gradients(a=[1.0]))


# -- gradient_flow -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["padded", "batch_first", "unbatched", "packed"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradient_flow_leaves_padding_out(rng, form, bidirectional):
    layer = minirnn.GRU(
        3,
        4,
        num_layers=2,
        bidirectional=bidirectional,
        batch_first=form == "batch_first",
        dtype=np.float64,
    )
    x = packed(rng, 3) if form == "packed" else rng.standard_normal((5, 6, 3))
    x = x[:, 0] if form == "unbatched" else x
    (y, _), ctx = layer.forward(x)
    dy = y.map(np.cos) if form == "packed" else np.cos(y)
    _, _, trace = layer.backward(ctx, dy, trace=True)
    flow = see.gradient_flow(trace, batch_first=form == "batch_first")
    for per_step, h in zip(flow, trace.h, strict=True):
        if form == "packed":
            h, _ = minirnn.pad_packed_sequence(h)
        steps = np.moveaxis(h, 1, 0) if form == "batch_first" else h
        close(per_step, [np.linalg.norm(step) for step in steps], 1e-13)


def test_gradient_flow_does_not_underflow():
    tiny = np.full((1, 1, 1), 1e-30, np.float32)
    close(see.gradient_flow(minirnn.Trace((tiny,))) / 1e-30, [[1.0]], 1e-6)
    with pytest.raises(TypeError, match="trace"):
        see.gradient_flow(tiny)


# -- spectra -------------------------------------------------------------------------------------


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


# -- check_gradients -----------------------------------------------------------------------------


class Wrong(minirnn.Module):
    """A layer with one gradient that is off by a factor."""

    def __init__(self, weight=1.0, bias=1.0, dx=1.0):
        self.linear = minirnn.Linear(3, 2, dtype=np.float64, rng=0)
        self.factors = weight, bias, dx

    def forward(self, x):
        return self.linear.forward(x)

    def backward(self, ctx, dy):
        dx = self.linear.backward(ctx, dy)
        self.linear.weight.grad *= self.factors[0]
        self.linear.bias.grad *= self.factors[1]
        return dx * self.factors[2]


@pytest.mark.parametrize(
    ("factors", "named"),
    [({"weight": 1.001}, "linear.weight"), ({"bias": -1}, "linear.bias"), ({"dx": 0.5}, "input 0")],
)
def test_check_gradients_finds_a_wrong_factor(rng, factors, named):
    x = rng.standard_normal((4, 3))
    assert set(see.check_gradients(Wrong(), x)) == {"linear.weight", "linear.bias", "input 0"}
    with pytest.raises(AssertionError, match=named) as error:
        see.check_gradients(Wrong(**factors), x)
    assert str(error.value).count(":") == 1 + 2  # that array alone, in each direction


@pytest.mark.parametrize("kind", LAYERS)
def test_check_gradients_of_layers_with_states_and_packed(rng, kind):
    layer = LAYERS[kind](3, 4, num_layers=2, bidirectional=True, dtype=np.float64, rng=0)
    x, h = packed(rng, 3), rng.standard_normal((4, 5, 4))
    before = x.data.copy()
    layer.weight_hh_l0.grad.fill(7)
    errors = see.check_gradients(layer, x, (h, h.copy()) if kind == "LSTM" else h)
    assert np.array_equal(x.data, before)
    assert (layer.weight_hh_l0.grad == 7).all()
    inputs = {"input 0", "input 1[0]", "input 1[1]"} if kind == "LSTM" else {"input 0", "input 1"}
    assert set(errors) == inputs | {name for name, _ in layer.named_parameters()}
    assert max(errors.values()) < 1e-8


def test_check_gradients_refuses_float32_and_dropout(rng):
    with pytest.raises(TypeError, match="weight: expected float64"):
        see.check_gradients(minirnn.Linear(3, 2), rng.standard_normal((4, 3)))
    with pytest.raises(ValueError, match="eval"):
        see.check_gradients(minirnn.Dropout(0.5), rng.standard_normal((4, 3)))


def test_threads_share_a_batch_and_it_still_comes_out_whole(rng, monkeypatch):
    layer = minirnn.GRU(3, 4, dtype=np.float64, rng=0)
    x = packed(rng, 3)
    expected = see.jacobian_norms(layer, layer.forward(x)[1])
    monkeypatch.setattr(execution, "_THREADED_SIZE", 1)
    monkeypatch.setattr(execution, "_THREADED_STEP", 1)
    minirnn.set_num_threads(2)
    try:
        _, ctx = layer.forward(x)
        assert isinstance(ctx.saved.stack.execution, execution.InParts)
        close(see.jacobian_norms(layer, ctx), expected, 1e-12)
    finally:
        minirnn.set_num_threads(1)


# -- per-sample gradients ------------------------------------------------------------------------


def gradients_of(model, forward, upstream):
    """Return all parameters' gradients of one forward and backward, by name."""
    model.zero_grad()
    _, ctx = model.forward(*forward)
    model.backward(ctx, *upstream)
    return {name: p.grad.copy() for name, p in model.named_parameters()}


def by_loop(model, one_sample, samples):
    """Return each sample's gradients from a backward pass of its own, and their norms."""
    each = [gradients_of(model, *one_sample(b)) for b in range(samples)]
    norms = [np.sqrt(sum((g**2).sum() for g in one.values())) for one in each]
    return {name: np.array([one[name] for one in each]) for name in each[0]}, np.array(norms)


def agree(model, forward, upstream, one_sample, samples, **options):
    """Compare per-sample norms and gradients, and the sum that backward leaves, with the loop."""
    expected, norms = by_loop(model, one_sample, samples)
    total = gradients_of(model, forward, upstream)
    model.zero_grad()
    _, ctx = model.forward(*forward)
    actual = see.per_sample_gradient_norms(model, ctx, *upstream, **options)
    assert actual.dtype == np.float64
    close(actual, norms, 1e-10)
    for name, p in model.named_parameters():
        close(p.grad, total[name], 1e-12)
    each = see.per_sample_gradients(model, ctx, *upstream, **options)
    assert each.keys() == expected.keys()
    for name in each:
        close(each[name], expected[name], 1e-10)
    assert "backward" not in vars(model)


VARIANTS = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu", "bias": False}),
    ("GRU", {}),
    ("GRU", {"bias": False}),
    ("GRU", {"reset_after": False}),
    ("LSTM", {}),
    ("LSTM", {"proj_size": 2}),
]


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("form", ["padded", "batch_first", "packed", "checkpoint"])
def test_per_sample_norms_of_recurrent_layers(rng, kind, options, bidirectional, form):
    layer = LAYERS[kind](
        3,
        4,
        num_layers=2,
        bidirectional=bidirectional,
        batch_first=form == "batch_first",
        checkpoint=form == "checkpoint",
        dtype=np.float64,
        rng=0,
        **options,
    )
    ragged = form in ("packed", "checkpoint")
    x = packed(rng, 3) if ragged else rng.standard_normal((5, 5, 3))
    y, state = layer(x)
    dy = y.map(lambda a: rng.standard_normal(a.shape)) if ragged else rng.standard_normal(y.shape)
    state = state if kind == "LSTM" else (state,)
    h_0 = tuple(rng.standard_normal(s.shape) for s in state)
    dh_n = tuple(rng.standard_normal(s.shape) for s in state)

    def whole(parts):
        return parts if kind == "LSTM" else parts[0]

    def cut(a, b):
        if ragged:
            return minirnn.unpack_sequence(a)[b][:, None]
        return a[b : b + 1] if form == "batch_first" else a[:, b : b + 1]

    def one_sample(b):
        alone = [whole(tuple(s[:, b : b + 1] for s in parts)) for parts in (h_0, dh_n)]
        return (cut(x, b), alone[0]), (cut(dy, b), alone[1])

    agree(layer, (x, whole(h_0)), (dy, whole(dh_n)), one_sample, 5)


class Tagger(minirnn.Module):
    """A model whose head reads every step, and whose embedding is used twice."""

    def __init__(self, batch_first=False):
        wide = {"dtype": np.float64, "rng": 0}
        self.embedding = minirnn.Embedding(6, 3, padding_idx=5, **wide)
        self.gru = minirnn.GRU(3, 4, bidirectional=True, batch_first=batch_first, **wide)
        self.head = minirnn.Linear(8, 2, **wide)

    def forward(self, tokens, others):
        x, ctx_x = self.embedding.forward(tokens)
        z, ctx_z = self.embedding.forward(others)
        x = x.map(lambda a: a + z.data) if isinstance(x, minirnn.PackedSequence) else x + z
        (y, _), ctx_y = self.gru.forward(x)
        logits, ctx_h = self.head.forward(y)
        return logits, (ctx_x, ctx_z, ctx_y, ctx_h)

    def backward(self, ctx, dlogits):
        ctx_x, ctx_z, ctx_y, ctx_h = ctx
        dx, _ = self.gru.backward(ctx_y, self.head.backward(ctx_h, dlogits))
        self.embedding.backward(ctx_z, dx)
        self.embedding.backward(ctx_x, dx)


@pytest.mark.parametrize("form", ["padded", "batch_first", "packed"])
def test_per_sample_norms_of_a_model_that_uses_a_table_twice(rng, form):
    model, ragged = Tagger(form == "batch_first"), form == "packed"
    tokens, others = rng.integers(0, 6, (2, 5, 5))
    if ragged:
        tokens, others = (
            minirnn.pack_padded_sequence(t, LENGTHS, enforce_sorted=False) for t in (tokens, others)
        )
    y = model(tokens, others)
    dy = y.map(lambda a: rng.standard_normal(a.shape)) if ragged else rng.standard_normal(y.shape)

    def cut(a, b):
        if ragged:
            return minirnn.unpack_sequence(a)[b][:, None]
        return a[b : b + 1] if form == "batch_first" else a[:, b : b + 1]

    def one_sample(b):
        return (cut(tokens, b), cut(others, b)), (cut(dy, b),)

    agree(model, (tokens, others), (dy,), one_sample, 5)


class Tied(minirnn.Module):
    """An embedding and a head of one weight."""

    def __init__(self):
        self.embedding = minirnn.Embedding(6, 3, dtype=np.float64, rng=0)
        self.head = minirnn.Linear(3, 6, bias=False, dtype=np.float64)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        x, ctx_x = self.embedding.forward(tokens)
        y, ctx_y = self.head.forward(x)
        return y, (ctx_x, ctx_y)

    def backward(self, ctx, dy):
        self.embedding.backward(ctx[0], self.head.backward(ctx[1], dy))


def test_per_sample_norms_of_tied_weights_and_of_single_rows(rng):
    tokens, dy = rng.integers(0, 6, 4), rng.standard_normal((4, 6))
    agree(Tied(), (tokens,), (dy,), lambda b: ((tokens[b : b + 1],), (dy[b : b + 1],)), 4)


def test_per_sample_norms_of_many_steps_and_of_threads(rng, monkeypatch):
    layer = minirnn.LSTM(3, 4, dtype=np.float64, rng=0)
    x = packed(rng, 3, (12, 9, 0, 10))  # so long that the gradients are smaller than Gram matrices
    (y, _), ctx = layer.forward(x)
    expected = see.per_sample_gradient_norms(layer, ctx, y)
    monkeypatch.setattr(see.samples, "_ENTRIES", 1)
    close(see.per_sample_gradient_norms(layer, ctx, y), expected, 1e-12)
    monkeypatch.setattr(execution, "_THREADED_SIZE", 1)
    monkeypatch.setattr(execution, "_THREADED_STEP", 1)
    minirnn.set_num_threads(2)
    try:
        _, ctx = layer.forward(x)
        close(see.per_sample_gradient_norms(layer, ctx, y), expected, 1e-12)
    finally:
        minirnn.set_num_threads(1)


@pytest.mark.parametrize(
    "layer",
    [
        minirnn.RNN(3, 4, recurrent_dropout=0.5, dtype=np.float64, rng=0),
        minirnn.GRU(3, 4, recurrent_dropout=0.5, dtype=np.float64, rng=0),
        minirnn.GRU(3, 4, recurrent_dropout=0.5, reset_after=False, dtype=np.float64, rng=0),
        minirnn.LSTM(3, 4, recurrent_dropout=0.5, dtype=np.float64, rng=0),
    ],
    ids=["RNN", "GRU", "GRU before", "LSTM"],
)
def test_per_sample_gradients_with_recurrent_dropout_add_up_to_the_batchs(rng, layer):
    (y, _), ctx = layer.forward(packed(rng, 3))
    layer.zero_grad()
    each = see.per_sample_gradients(layer, ctx, y)
    for name, p in layer.named_parameters():
        close(each[name].sum(0), p.grad, 1e-12)
    norms = see.per_sample_gradient_norms(layer, ctx, y)
    close(norms, np.sqrt(sum((g.reshape(5, -1) ** 2).sum(1) for g in each.values())), 1e-12)


class Looped(minirnn.Module):
    """A loop over a cell, whose gradient lies in memory that is written over at every step."""

    def __init__(self, cell):
        self.cell = cell

    def forward(self, x):
        states, ctxs = None, []
        for x_t in x:
            states, ctx = self.cell.forward(x_t, states)
            ctxs.append(ctx)
        return states, ctxs

    def backward(self, ctxs, dh):
        pair = isinstance(dh, tuple)
        running = [a.copy() for a in (dh if pair else (dh,))]
        for ctx in reversed(ctxs):
            _, new = self.cell.backward(ctx, tuple(running) if pair else running[0])
            for a, b in zip(running, new if pair else (new,), strict=True):
                a[...] = b


CELLS = [
    (minirnn.RNNCell, {}),
    (minirnn.RNNCell, {"nonlinearity": "relu", "bias": False}),
    (minirnn.GRUCell, {}),
    (minirnn.GRUCell, {"reset_after": False}),
    (minirnn.LSTMCell, {}),
]


@pytest.mark.parametrize(("cell", "options"), CELLS)
@pytest.mark.parametrize("steps", [1, 4])
def test_per_sample_norms_of_cells_in_a_loop(rng, cell, options, steps):
    model = Looped(cell(3, 4, dtype=np.float64, rng=0, **options))
    x, pair = rng.standard_normal((steps, 5, 3)), cell is minirnn.LSTMCell
    dh = rng.standard_normal((2, 5, 4))

    def upstream(part):
        return (tuple(dh[:, part]) if pair else dh[0, part],)

    def one_sample(b):
        return (x[:, b : b + 1],), upstream(slice(b, b + 1))

    agree(model, (x,), upstream(slice(None)), one_sample, 5)
    _, ctx = model.forward(x[:, 0])
    (alone,) = upstream(0)
    norms = see.per_sample_gradient_norms(model, ctx, alone)
    _, ctx = model.forward(x)
    close(norms, see.per_sample_gradient_norms(model, ctx, *upstream(slice(None)))[:1], 1e-12)


@pytest.mark.parametrize("form", ["rows", "padded", "batch_first", "packed"])
@pytest.mark.parametrize(
    "norm",
    [
        minirnn.LayerNorm(6, dtype=np.float64),
        minirnn.LayerNorm((3, 2), dtype=np.float64),
        minirnn.LayerNorm(6, bias=False, dtype=np.float64),
    ],
    ids=["vector", "matrix", "no bias"],
)
def test_per_sample_norms_of_a_layer_norm(rng, norm, form):
    row = norm.normalized_shape
    if form == "packed":
        x = packed(rng, 6).map(lambda a: a.reshape(-1, *row))
        dy = x.map(lambda a: rng.standard_normal(a.shape))
    else:
        x, dy = rng.standard_normal((2, *((5,) if form == "rows" else (5, 5)), *row))

    def cut(a, b):
        if form == "packed":
            return minirnn.unpack_sequence(a)[b][:, None]
        return a[:, b : b + 1] if form == "padded" else a[b : b + 1]

    def one_sample(b):
        return (cut(x, b),), (cut(dy, b),)

    agree(norm, (x,), (dy,), one_sample, 5, batch_first=form == "batch_first")


class Scale(minirnn.Module):
    """A layer of one's own."""

    def __init__(self):
        self.scale = minirnn.Parameter(np.ones(1))

    def forward(self, x):
        return x * self.scale.data, x

    def backward(self, ctx, dy):
        self.scale.grad += (ctx * dy).sum()
        return dy * self.scale.data


def test_per_sample_norms_refuse_what_they_do_not_know(rng):
    cell = Scale()
    h, ctx = cell.forward(rng.standard_normal((2, 3)))
    with pytest.raises(TypeError, match="cells, got some in Scale"):
        see.per_sample_gradient_norms(cell, ctx, h)
    assert "backward" not in vars(cell)
    model = Tagger()
    tokens = rng.integers(0, 6, (5, 2))
    y, ctx = model.forward(tokens, tokens)
    with pytest.raises(ValueError, match="number of samples"):
        see.per_sample_gradient_norms(model, ctx, y, batch_first=True)


# -- noise scale ---------------------------------------------------------------------------------


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


# -- pictures ------------------------------------------------------------------------------------


@pytest.fixture
def ax():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, ax = pyplot.subplots()
    yield ax
    pyplot.close(figure)


def test_pictures_show_the_numbers(rng, ax):
    flow = np.array([[1e-4, 1e-2, 1.0], [1e-2, 1e-1, 10.0]])
    assert see.plot_gradient_curves(flow, ax) is ax
    close([line.get_ydata() for line in ax.lines], flow)
    ax.clear()
    assert see.plot_gradient_flow(flow, ax) is ax
    close(ax.images[0].get_array(), np.log10(flow))
    ax.clear()
    monitor = see.GradientMonitor(with_gradients(a=[3.0, 4.0], b=[12.0]))
    monitor.observe(0)
    monitor.observe(5)
    assert see.plot_gradient_norms(monitor, ax) is ax
    a, b, total, *bounds = ax.lines
    close([line.get_ydata() for line in (a, b, total)], [[5, 5], [12, 12], [13, 13]])
    close(total.get_xdata(), [0, 5])
    close([line.get_ydata()[0] for line in bounds], [0.1, 5, 10])
    ax.clear()
    norms = np.array([[0.2, 0.4, 0.3], [0.5, 0.5, 0.5], [1, 1, 1]])
    assert see.plot_jacobian_norms(norms, 0.9, 0.5, ax) is ax
    close([line.get_ydata() for line in ax.lines], [[0.3, 0.5, 1], [0.81, 0.9, 1], [0.25, 0.5, 1]])
