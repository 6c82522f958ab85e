"""What a trace shows, against the equations and against nudges."""

import numpy as np
import pytest
from helpers import close
from makers import F8, MinimalGatedUnit, arrays, packed_input

import minirnn


def test_trace(make):
    rng = np.random.default_rng(0)
    layer = make(3, 4, num_layers=2, bidirectional=True, dtype=F8)
    x = packed_input(rng, lengths=[3, 40, 17])
    output, h_n = layer(x)
    (output_2, _, trace), _ = layer.forward(x, trace=True)
    np.testing.assert_array_equal(output.data, output_2.data)
    np.testing.assert_array_equal(trace.h[-1].data, output.data)
    (_, _, again) = layer(x, trace=True)
    np.testing.assert_array_equal(again.h[0].data, trace.h[0].data)
    H = layer.hidden_size
    if isinstance(layer, (minirnn.LSTM, minirnn.LayerNormLSTM)):
        i, f, g, o = (trace.gates[name][1].data for name in "ifgo")
        c = trace.c[1]
        previous = np.zeros_like(c.data)
        previous[:, :H] = np.r_[np.zeros((3, H)), c.data[:, :H]][c.layout.previous_state]
        # Directions stand side by side; check the equation of the forward one.
        one = slice(0, H)
        close(c.data[:, one], (f * previous + i * g)[:, one])
        if isinstance(layer, minirnn.LSTM) and not layer.proj_size:
            close(trace.h[1].data[:, one], (o * np.tanh(c.data))[:, one])
        final = minirnn.last_step(c)
        close(h_n[1][2], final[:, :H])
    elif isinstance(layer, (minirnn.GRU, minirnn.LayerNormGRU)):
        _, z, n = (trace.gates[name][1].data[:, :H] for name in "rzn")
        h = trace.h[1]
        previous = np.r_[np.zeros((3, H)), h.data[:, :H]][h.layout.previous_state]
        close(h.data[:, :H], (1 - z) * n + z * previous)
    elif isinstance(layer, MinimalGatedUnit):
        f, n = (trace.gates[name][1].data[:, :H] for name in "fn")
        h = trace.h[1]
        previous = np.r_[np.zeros((3, H)), h.data[:, :H]][h.layout.previous_state]
        close(h.data[:, :H], (1 - f) * previous + f * n)
    else:
        assert trace.gates == {}
        assert trace.c == ()


def test_backward_trace_is_the_gradient_of_each_state(make):
    """dL/dh_t is what a nudge of h_t changes: nudge it by starting again from there."""
    rng = np.random.default_rng(0)
    T, B = 37, 2
    layer = make(3, 4, dtype=F8)
    x = rng.standard_normal((T, B, 3))
    (output, _), ctx = layer.forward(x)
    d = rng.standard_normal(output.shape)
    plain, _ = layer.backward(ctx, d)
    dx, _, trace = layer.backward(ctx, d, trace=True)
    np.testing.assert_array_equal(dx, plain)
    for t in (0, 5, T - 2):
        _, state = layer(x[: t + 1])
        (_, _), rest = layer.forward(x[t + 1 :], state)
        _, dstate = layer.backward(rest, d[t + 1 :])
        close(trace.h[0][t], arrays(dstate)[0][0] + d[t])
        if isinstance(layer, minirnn.LSTM) and not layer.proj_size:
            # dL/dc_t also counts what c_t does through h_t.
            (_, _, states) = layer(x, trace=True)
            o, c = states.gates["o"][0][t], states.c[0][t]
            through_h = trace.h[0][t] * o * (1 - np.tanh(c) ** 2)
            close(trace.c[0][t], dstate[1][0] + through_h)


@pytest.mark.parametrize("native", [False, minirnn.native_available()])
@pytest.mark.parametrize("cell", [minirnn.LSTM, minirnn.GRU, minirnn.LayerNormLSTM])
def test_gates_come_in_the_order_of_the_weights(cell, native):
    """In memory they may lie otherwise, and otherwise in C than in NumPy."""
    minirnn.set_native(native)
    layer = cell(3, 4)
    (_, _, trace), _ = layer.forward(np.ones((2, 1, 3), np.float32), trace=True)
    assert tuple(trace.gates) == layer.recurrence.GATES
    assert {gate[0].dtype for gate in trace.gates.values()} == {np.dtype(np.float32)}
