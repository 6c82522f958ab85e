"""One sequence, one step at a time: a stepper and ``layer.step`` against torch's cells and onnxruntime."""

import numpy as np
import torch
from timing import compare, require_equal

import minirnn

STEPS = 50  # in one timing


class Streams:
    """The same cell here, in torch and, if it is installed, in onnxruntime; B = 1 and I = H."""

    def __init__(self, cell, H):
        torch.manual_seed(0)
        self.torch_cell = getattr(torch.nn, cell + "Cell")(H, H)
        weights = {name: p.numpy() for name, p in self.torch_cell.state_dict().items()}
        self.layer = getattr(minirnn, cell)(H, H)
        self.layer.load_state_dict({f"{name}_l0": w for name, w in weights.items()})
        self.x = list(np.random.default_rng(0).standard_normal((STEPS, 1, H), np.float32))
        self.torch_x = [torch.from_numpy(x) for x in self.x]
        self.session = onnx_session(cell, weights, H)
        self.zeros = [np.zeros((1, 1, H), np.float32)] * (2 if cell == "LSTM" else 1)
        self.prepared = self.layer.stepper()
        require_equal("state", _h(self.step())[0], _h(self.theirs()))
        require_equal("stepper", _h(self.stepper())[0], _h(self.theirs()))
        if self.session:
            require_equal("onnxruntime", self.onnx()[0][0], _h(self.theirs()))

    def stepper(self):
        self.prepared.reset()
        for x in self.x:
            self.prepared(x)
        return self.prepared.state

    def step(self):
        state = None
        for x in self.x:
            _, state = self.layer.step(x, state)
        return state

    @torch.inference_mode()
    def theirs(self):
        state = None
        for x in self.torch_x:
            state = self.torch_cell(x, state)
        return state

    def onnx(self):
        state = self.zeros
        for x in self.x:
            feeds = {"h_0": state[0], "x": x[None]}
            if len(state) == 2:
                feeds["c_0"] = state[1]
            state = self.session.run(None, feeds)
        return state

    def compare(self, ours, budget):
        """Return the comparisons of one step with torch, and with onnxruntime or None."""
        with_onnx = compare(ours, self.onnx, budget).per(STEPS) if self.session else None
        return compare(ours, self.theirs, budget).per(STEPS), with_onnx


def onnx_session(cell, weights, H):
    """Return a one-step model of the cell in onnxruntime, or None where that is not installed."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return None
    # ONNX orders the LSTM's gates i, o, f, g and the GRU's z, r, n.
    order = {"RNN": [0], "LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2]}[cell]

    def reordered(w):
        return np.concatenate([w[k * H : (k + 1) * H] for k in order])[None]

    biases = [reordered(weights[name]) for name in ("bias_ih", "bias_hh")]
    constants = {
        "W": reordered(weights["weight_ih"]),
        "R": reordered(weights["weight_hh"]),
        "B": np.concatenate(biases, axis=1),
    }
    states = ["h", "c"] if cell == "LSTM" else ["h"]
    options = {"linear_before_reset": 1} if cell == "GRU" else {}
    node = helper.make_node(
        cell,
        ["x", *constants, "", *(f"{s}_0" for s in states)],
        ["", *(f"{s}_n" for s in states)],
        hidden_size=H,
        **options,
    )

    def values(names):
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, H]) for n in names]

    graph = helper.make_graph(
        [node],
        cell,
        values(["x", *(f"{s}_0" for s in states)]),
        values([f"{s}_n" for s in states]),
        [numpy_helper.from_array(np.ascontiguousarray(w), name) for name, w in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _h(state):
    return state[0] if isinstance(state, tuple) else state
