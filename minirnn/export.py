"""Export to ONNX: a chain of layers, as other runtimes and browsers run it.

``onnx.helper`` alone, opset 17. The blocks of rows are ONNX's: of the LSTM i, o, f, c and of the GRU z, r, h.

References
----------
https://onnx.ai/onnx/operators/, ``RNN``, ``LSTM``, ``GRU``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .atomic import PathLike, atomic_write
from .backend import Array, asnumpy
from .layers import Dropout, Embedding, Linear
from .module import Module
from .recurrent import GRU, LSTM, RNN, Recurrent
from .sequential import Sequential

_OPSET = 17
# The places of minirnn's blocks of rows in ONNX's order.
_ORDER: dict[type, list[int]] = {RNN: [0], LSTM: [0, 3, 1, 2], GRU: [1, 0, 2]}
# Which attributes say how many features enter and leave, and how often.
_SIZES: dict[type, tuple[str, ...]] = {
    Embedding: ("num_embeddings", "embedding_dim"),
    Linear: ("in_features", "out_features"),
    **dict.fromkeys(_ORDER, ("input_size", "hidden_size", "num_directions")),
}
_ACTIVATIONS = {"ReLU": "Relu", "Tanh": "Tanh", "Sigmoid": "Sigmoid"}


def to_onnx(model: Module, path: PathLike) -> None:
    """Write a layer, or a Sequential of layers, as an ONNX model, for inference.

    Its inputs are ``tokens`` (T, B) of int64 if it begins with an Embedding, else ``input`` (T, B, I), and
    with a recurrent layer ``lengths`` (B,) of int32, in any order; its outputs ``output`` (T, B, F), and
    ``h_n`` (and ``c_n``) of the last recurrent layer. T and B may be any. After a sequence's end a recurrent
    layer's output is zero, as in a padded batch, and what a Linear makes of that is its bias.

    Parameters
    ----------
    model : Module
        Of Embedding, RNN, LSTM, GRU, Linear, Dropout, and activations, in float32.
    path : path

    Raises
    ------
    TypeError
        If the model is another module, or of another dtype.
    ValueError
        If a layer has what ONNX's has not: a projection, ``batch_first``.
    ImportError
        If the onnx package is not installed.

    See Also
    --------
    save_weights
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError("export needs onnx: pip install 'minirnn[onnx]'") from error
    layers = _chain(model)
    graph, x, ends = _Graph(onnx), "input", list[str]()
    if isinstance(layers[0], Embedding):
        x = "tokens"
    for k, layer in enumerate(layers):
        x, own = graph.layer(layer, x, str(k))
        ends = own or ends
    for source, name in zip([x, *ends], ("output", "h_n", "c_n"), strict=False):
        graph.add("Identity", [source], [name])
    inputs, outputs = _interface(onnx, layers)
    made = onnx.helper.make_graph(graph.nodes, "minirnn", inputs, outputs, graph.weights)
    opsets = [onnx.helper.make_opsetid("", _OPSET)]
    ir = onnx.helper.find_min_ir_version_for(opsets)
    options = {"opset_imports": opsets, "producer_name": "minirnn", "ir_version": ir}
    proto = onnx.helper.make_model(made, **options)
    onnx.checker.check_model(proto, full_check=True)
    with atomic_write(path) as file:
        file.write(proto.SerializeToString())


def _interface(onnx: Any, layers: list[Module]) -> tuple[list[Any], list[Any]]:
    """Return what the model's inputs and outputs are: names, types and shapes."""
    value, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    sizes = [
        [getattr(layer, n) for n in _SIZES[type(layer)]]
        for layer in layers
        if type(layer) in _SIZES
    ]
    recurrent = [layer for layer in layers if isinstance(layer, Recurrent)]
    if isinstance(layers[0], Embedding):
        inputs = [value("tokens", types.INT64, ["T", "B"])]
    else:
        inputs = [value("input", types.FLOAT, ["T", "B", sizes[0][0]])]
    width = sizes[-1][1] * (sizes[-1][2] if len(sizes[-1]) == 3 else 1)
    outputs = [value("output", types.FLOAT, ["T", "B", width])]
    if recurrent:
        last = recurrent[-1]
        inputs.append(value("lengths", types.INT32, ["B"]))
        shape = [last.num_layers * last.num_directions, "B", last.hidden_size]
        names = ("h_n", "c_n") if isinstance(last, LSTM) else ("h_n",)
        outputs += [value(name, types.FLOAT, shape) for name in names]
    return inputs, outputs


def _layers(model: Module) -> Iterator[Module]:
    if isinstance(model, Sequential):
        for part in model:
            yield from _layers(part)
    else:
        yield model


def _chain(model: Module) -> list[Module]:
    """Return the layers of `model` in order, all of which can be exported."""
    layers = list(_layers(model))
    for k, layer in enumerate(layers):
        if type(layer) not in _SIZES and type(layer).__name__ not in (*_ACTIVATIONS, "Dropout"):
            raise TypeError(
                f"model: expected a Sequential of Embedding, RNN, LSTM, GRU, Linear, Dropout and "
                f"activations, or one of them, got {type(layer).__name__}; put the layers of a model "
                f"of your own into a Sequential"
            )
        if isinstance(layer, Embedding) and k:
            raise ValueError(f"model: expected an Embedding only at the beginning, got one at {k}")
        if isinstance(layer, Recurrent) and layer.batch_first:
            raise ValueError("model: expected batch_first=False, as ONNX's runtimes have no other")
        if getattr(layer, "proj_size", 0):
            raise ValueError("model: expected proj_size=0: ONNX's LSTM has no projection")
    if not any(type(layer) in _SIZES for layer in layers):
        raise TypeError("model: expected at least one layer with weights")
    for p in model.parameters():
        if p.dtype != np.float32:
            raise TypeError(f"model: expected float32, got {p.dtype}: use model.to('float32')")
    return layers


def _blocks(a: Array, order: list[int]) -> Array:
    return a.reshape(len(order), -1, *a.shape[1:])[order].reshape(a.shape)


class _Graph:
    """Nodes and weights as they are added."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, name: str, a: Array) -> str:
        self.weights.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(a), name))
        return name

    def add(self, op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(op, inputs, outputs, name=name, **attributes))
        return outputs[0]

    def layer(self, layer: Module, x: str, prefix: str) -> tuple[str, list[str]]:
        """Add a layer; return the names of its output and of its last states, if it has some."""
        if isinstance(layer, Recurrent):
            return self._recurrent(layer, x, prefix)
        if isinstance(layer, Embedding):
            table = self.weight(f"{prefix}.weight", asnumpy(layer.weight.data))
            return self.add("Gather", [table, x], [f"{prefix}.rows"], axis=0), []
        if isinstance(layer, Linear):
            w = self.weight(f"{prefix}.weight_T", asnumpy(layer.weight.data).T)
            y = self.add("MatMul", [x, w], [f"{prefix}.product"])  # Gemm is for two axes only
            if layer.bias is not None:
                b = self.weight(f"{prefix}.bias", asnumpy(layer.bias.data))
                y = self.add("Add", [y, b], [f"{prefix}.sum"])
            return y, []
        if isinstance(layer, Dropout):
            return x, []
        return self.add(_ACTIVATIONS[type(layer).__name__], [x], [f"{prefix}.y"]), []

    def _recurrent(self, layer: Recurrent, x: str, prefix: str) -> tuple[str, list[str]]:
        D, H, cell = layer.num_directions, layer.hidden_size, type(layer).__name__
        shape = self.weight(f"{prefix}.joined", np.array([0, 0, D * H], np.int64))
        attributes: dict[str, Any] = {"hidden_size": H}
        attributes["direction"] = "bidirectional" if D == 2 else "forward"
        if cell == "GRU":
            attributes["linear_before_reset"] = 1  # r multiplies W_hn h + b_hn
        if isinstance(layer, RNN):
            attributes["activations"] = [layer.nonlinearity.capitalize()] * D
        h, c = list[str](), list[str]()
        for k in range(layer.num_layers):
            names = [
                f"{prefix}.{y}_l{k}" for y in ("Y", "Y_h", "Y_c")[: 3 if cell == "LSTM" else 2]
            ]
            self.add(cell, [x, *self._weights(layer, k, prefix), "lengths"], names, **attributes)
            y = self.add("Transpose", [names[0]], [f"{prefix}.YT_l{k}"], perm=[0, 2, 1, 3])
            x = self.add("Reshape", [y, shape], [f"{prefix}.output_l{k}"])
            h.append(names[1])
            c += names[2:]
        ends = [("h_n", h), ("c_n", c)] if c else [("h_n", h)]
        return x, [self.add("Concat", s, [f"{prefix}.{name}"], axis=0) for name, s in ends]

    def _weights(self, layer: Recurrent, k: int, prefix: str) -> list[str]:
        """Add W, R and B of layer `k`, directions stacked: (D, G*H, I), (D, G*H, H), (D, 2*G*H)."""
        order, own = _ORDER[type(layer)], layer.state_dict()
        suffixes = [f"_l{k}", f"_l{k}_reverse"][: layer.num_directions]

        def stacked(kind: str) -> Array:
            return np.stack([_blocks(asnumpy(own[kind + s]), order) for s in suffixes])

        added = [
            self.weight(f"{prefix}.{name}_l{k}", stacked(kind))
            for name, kind in (("W", "weight_ih"), ("R", "weight_hh"))
        ]
        if not layer.bias:
            return [*added, ""]
        both = np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1)
        return [*added, self.weight(f"{prefix}.B_l{k}", both)]
