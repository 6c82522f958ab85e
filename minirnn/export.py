"""Export to ONNX: layers, chains of them and models of one's own, as other runtimes and browsers run them.

``onnx.helper`` alone, opset 17. The blocks of rows are ONNX's: of the LSTM i, o, f, c and of the GRU z, r, h.

References
----------
https://onnx.ai/onnx/operators/, ``RNN``, ``LSTM``, ``GRU``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest
from typing import Any, cast

import numpy as np

from . import checks
from .activations import LayerNorm, LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from .atomic import PathLike, atomic_write
from .backend import Array, asnumpy
from .layers import Dropout, Embedding, Linear
from .module import Module
from .recurrent import GRU, LSTM, RNN, Recurrent
from .sequential import Sequential

_OPSET = 17
# The places of minirnn's blocks of rows in ONNX's order.
_ORDER: dict[type, list[int]] = {RNN: [0], LSTM: [0, 3, 1, 2], GRU: [1, 0, 2]}
_ACTIVATIONS: dict[type, str] = {ReLU: "Relu", Tanh: "Tanh", Sigmoid: "Sigmoid"}


def to_onnx(model: Module, path: PathLike, *, initial_states: bool = False) -> None:
    """Write a layer, a Sequential of layers, or a model of your own as an ONNX model, for inference.

    Its inputs are ``tokens`` (T, B) of int64 if it begins with an Embedding, else ``input`` (T, B, I), and
    with a recurrent layer ``lengths`` (B,) of int32, in any order; its outputs ``output`` (T, B, F), and
    ``h_n`` (and ``c_n``) of the last recurrent layer. T and B may be any. After a sequence's end a recurrent
    layer's output is zero, as in a padded batch, and what a Linear makes of that is its bias.

    A model of your own has a method ``onnx(graph, x)``, which connects its layers as its forward does: see
    ``Graph``. A recurrent layer returns ``output, h_n`` there too, an LSTM ``output, (h_n, c_n)``. The
    model's output is what the method returns, or several under their names if that is a dict.

    Parameters
    ----------
    model : Module
        Of Embedding, RNN, LSTM, GRU, Linear, LayerNorm, Dropout, Softmax, and activations, in float32.
    path : path
        The file.
    initial_states : bool, keyword-only
        Take ``h_0`` (and ``c_0``) as inputs too, to go on from an earlier ``h_n``; for models with one
        recurrent layer.

    Raises
    ------
    TypeError
        If the model has another module in it, or is of another dtype.
    ValueError
        If a layer has what ONNX's has not: a projection, ``batch_first``. If a method ``onnx`` names an
        operator that ONNX has not, or a value that the graph has not, or connects what does not fit.
    ImportError
        If the onnx package is not installed.

    See Also
    --------
    save_weights : For minirnn itself.

    Examples
    --------
    >>> import minirnn, tempfile, pathlib
    >>> class Classifier(minirnn.Module):
    ...     def __init__(self):
    ...         self.embedding, self.rnn = minirnn.Embedding(10, 4), minirnn.GRU(4, 8)
    ...         self.head = minirnn.Linear(8, 10)
    ...
    ...     def onnx(self, graph, tokens):
    ...         x = graph.layer(self.embedding, tokens)
    ...         _, h_n = graph.layer(self.rnn, x)
    ...         return graph.layer(self.head, graph.index(h_n, -1))
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.onnx"
    >>> minirnn.to_onnx(Classifier(), path)
    """
    checks.flags(initial_states=initial_states)
    try:
        import onnx
    except ImportError as error:
        raise ImportError("export needs onnx: pip install 'minirnn[onnx]'") from error
    graph = Graph(onnx, initial_states)
    result = graph.layer(model, graph.entry)
    if isinstance(result, Mapping):
        outputs = dict(result)
    else:
        result = result[0] if isinstance(result, tuple) else result
        states = () if hasattr(model, "onnx") else graph.states
        outputs = dict(zip(("output", "h_n", "c_n"), (result, *states), strict=False))
    proto = graph.finish(outputs)
    with atomic_write(path) as file:
        file.write(proto.SerializeToString())


class Graph:
    """What a model is written into: values are names, and each method adds nodes and returns theirs.

    Attributes
    ----------
    entry : str
        The model's input.
    """

    def __init__(self, onnx: Any, initial_states: bool = False) -> None:
        self.entry = "input"
        self._onnx = onnx
        self.states: tuple[str, ...] = ()  # the last recurrent layer's
        self._initial = initial_states
        self._inputs: dict[str, tuple[str, list[str | int]]] = {}  # type and shape
        self._tokens: bool | None = (
            None  # whether the entry is looked up; None while nothing has used it
        )
        self._nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = []
        self._weights: dict[str, Array] = {}
        self._prefixes: dict[Module, str] = {}

    # -- what a model's own method uses --------------------------------------------------------

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator of ONNX, ``graph.add("Softmax", x, axis=-1)``, and return its first output.

        An input that the operator does not need may be left out as ``""``.
        """
        _check_operator(self._onnx, op, len(inputs))
        known = {"", *self._values()}
        for k, x in enumerate(inputs):
            _check_value(known, f"inputs[{k}] of {op}", x)
        return self._node(op, inputs, 1, attributes)[0]

    def constant(self, value: Any) -> str:
        """Add an array or a number, of float64 as float32."""
        checks.storable("value", a := np.asarray(value))
        a = a.astype(np.float32) if a.dtype.kind == "f" else a
        return self._weight(f"constant_{len(self._weights)}", a)

    def index(self, x: str, k: int, axis: int = 0) -> str:
        """Return ``x[k]``: of ``h_n`` with k = -1 the last layer's state, in its last direction."""
        k, axis = checks.whole("k", k), checks.whole("axis", axis)
        _check_value(self._values(), "x", x)
        return self.add("Gather", x, self.constant(np.int64(k)), axis=axis)

    def layer(self, layer: Module, x: str) -> Any:
        """Add a layer, or a module with a method ``onnx``, and return what its forward returns.

        Parameters
        ----------
        layer : Module
        x : str
            Its input.

        Returns
        -------
        str, or pair
            The output; of a recurrent layer ``(output, h_n)``, of the LSTM ``(output, (h_n, c_n))``.

        Raises
        ------
        TypeError, ValueError
            As :func:`to_onnx`.
        """
        _check_value(self._values(), "x", x)
        if hasattr(layer, "onnx"):
            return layer.onnx(self, x)
        if isinstance(layer, Sequential):
            for part in layer:
                x = self.layer(part, x)
                x = x[0] if isinstance(x, tuple) else x
            return x
        writers = cast(Mapping[type, Callable[[Any, str], Any]], self._writers())
        if type(layer) not in writers:
            raise TypeError(
                f"model: expected a Sequential of Embedding, RNN, LSTM, GRU, Linear, LayerNorm, Dropout and "
                f"activations, or one of them, got {type(layer).__name__}; give a model of your own a method "
                "`onnx(graph, x)` that connects its layers: minirnn.to_onnx shows one"
            )
        for p in layer.parameters():
            if p.dtype != np.float32:
                raise TypeError(f"model: expected float32, got {p.dtype}: use model.to('float32')")
        if x == self.entry:
            self._enter(layer)
        return writers[type(layer)](layer, x)

    # -- layer by layer ------------------------------------------------------------------------

    def _writers(self) -> dict[type, Any]:
        return {
            Embedding: self._embedding,
            Linear: self._linear,
            LayerNorm: self._layer_norm,
            Dropout: lambda layer, x: x,
            Softmax: lambda layer, x: self.add("Softmax", x, axis=layer.dim),
            LogSoftmax: lambda layer, x: self.add("LogSoftmax", x, axis=layer.dim),
            **dict.fromkeys(_ACTIVATIONS, lambda layer, x: self.add(_ACTIVATIONS[type(layer)], x)),
            **dict.fromkeys(_ORDER, self._recurrent),
        }

    def _enter(self, layer: Module) -> None:
        """Learn from a layer that the entry reaches what it is."""
        tokens = isinstance(layer, Embedding)
        if self._tokens not in (None, tokens):
            raise ValueError(
                "model: expected its input to be looked up, or computed with, not both"
            )
        self._tokens = tokens
        if tokens:
            self._inputs[self.entry] = "INT64", ["T", "B"]
            return
        names = ("input_size", "in_features", "normalized_shape")
        width = next((getattr(layer, n) for n in names if hasattr(layer, n)), None)
        width = width[-1] if isinstance(width, tuple) else width
        shape = self._inputs.get(self.entry, ("", ["T", "B", "features"]))[1]
        self._inputs[self.entry] = "FLOAT", ["T", "B", width or shape[2]]

    def _embedding(self, layer: Embedding, x: str) -> str:
        if x != self.entry:
            raise ValueError("model: expected an Embedding only at the beginning, got one after it")
        return self.add("Gather", self._of(layer, "weight", asnumpy(layer.weight.data)), x, axis=0)

    def _linear(self, layer: Linear, x: str) -> str:
        # Gemm is for two axes only.
        y = self.add("MatMul", x, self._of(layer, "weight_T", asnumpy(layer.weight.data).T))
        if layer.bias is None:
            return y
        return self.add("Add", y, self._of(layer, "bias", asnumpy(layer.bias.data)))

    def _layer_norm(self, layer: LayerNorm, x: str) -> str:
        ones = np.ones(layer.normalized_shape, np.float32)
        gain = ones if layer.weight is None else asnumpy(layer.weight.data)
        inputs = [x, self._of(layer, "weight", gain)]
        if layer.bias is not None:
            inputs.append(self._of(layer, "bias", asnumpy(layer.bias.data)))
        axis = -len(layer.normalized_shape)
        return self.add("LayerNormalization", *inputs, axis=axis, epsilon=layer.eps)

    def _recurrent(self, layer: Recurrent, x: str) -> tuple[str, Any]:
        if layer.batch_first:
            raise ValueError("model: expected batch_first=False, as ONNX's runtimes have no other")
        if layer.proj_size:
            raise ValueError("model: expected proj_size=0: ONNX's LSTM has no projection")
        D, H, op = layer.num_directions, layer.hidden_size, type(layer).__name__
        self._inputs["lengths"] = "INT32", ["B"]
        attributes: dict[str, Any] = {"hidden_size": H}
        attributes["direction"] = "bidirectional" if D == 2 else "forward"
        if isinstance(layer, GRU):
            attributes["linear_before_reset"] = int(layer.reset_after)
        if isinstance(layer, RNN):
            attributes["activations"] = [layer.nonlinearity.capitalize()] * D
        starts = self._starts(layer)
        joined, ends = self.constant(np.array([0, 0, D * H])), []
        for k in range(layer.num_layers):
            own = [self._layer_state(s, k, D) for s in starts]
            inputs = [x, *self._recurrent_weights(layer, k), "lengths", *own]
            Y, *last = self._node(op, inputs, 3 if op == "LSTM" else 2, attributes)
            x = self.add("Reshape", self.add("Transpose", Y, perm=[0, 2, 1, 3]), joined)
            ends.append([self._or_start(*of) for of in zip_longest(last, own)])
        self.states = tuple(self.add("Concat", *of, axis=0) for of in zip(*ends, strict=True))
        return x, self.states[0] if len(self.states) == 1 else self.states

    def _recurrent_weights(self, layer: Recurrent, k: int) -> list[str]:
        """Add W, R and B of layer `k`, directions stacked: (D, G*H, I), (D, G*H, H), (D, 2*G*H)."""
        order, own = _ORDER[type(layer)], layer.state_dict()
        suffixes = [f"_l{k}", f"_l{k}_reverse"][: layer.num_directions]

        def stacked(kind: str) -> Array:
            return np.stack([_blocks(asnumpy(own[kind + s]), order) for s in suffixes])

        kinds = (("W", "weight_ih"), ("R", "weight_hh"))
        added = [self._of(layer, f"{name}_l{k}", stacked(kind)) for name, kind in kinds]
        if not layer.bias:
            return [*added, ""]
        both = np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1)
        return [*added, self._of(layer, f"B_l{k}", both)]

    def _starts(self, layer: Recurrent) -> list[str]:
        """Return the names of the initial states, if they are inputs."""
        if not self._initial:
            return []
        if "h_0" in self._inputs:
            raise ValueError("initial_states: expected a model with one recurrent layer, got more")
        names = ["h_0", "c_0"][: 2 if isinstance(layer, LSTM) else 1]
        for name in names:
            rows = layer.num_layers * layer.num_directions
            self._inputs[name] = "FLOAT", [rows, "B", layer.hidden_size]
        return names

    def _layer_state(self, state: str, k: int, D: int) -> str:
        bounds = [self.constant(np.array([n])) for n in (k * D, k * D + D)]
        return self.add("Slice", state, *bounds)

    def _or_start(self, end: str, start: str | None) -> str:
        """Return the state `start` for sequences without a step, of which runtimes make zeros."""
        if start is None:
            return end
        empty = self.add("Equal", "lengths", self.constant(np.int32(0)))
        empty = self.add("Unsqueeze", empty, self.constant(np.array([1])))
        return self.add("Where", empty, start, end)

    # -- nodes and weights ---------------------------------------------------------------------

    def _node(self, op: str, inputs: Any, outputs: int, attributes: dict[str, Any]) -> list[str]:
        n = len(self._nodes)
        names = [f"{op}_{n}", *(f"{op}_{n}.{k}" for k in range(1, outputs))]
        self._nodes.append((op, list(inputs), names, attributes))
        return names

    def _of(self, layer: Module, name: str, a: Array) -> str:
        """Add a weight of `layer`, once however often it is used."""
        prefix = self._prefixes.setdefault(layer, f"{type(layer).__name__}_{len(self._prefixes)}")
        return self._weight(f"{prefix}.{name}", a)

    def _weight(self, name: str, a: Array) -> str:
        self._weights[name] = np.ascontiguousarray(a).reshape(a.shape)
        return name

    def _values(self) -> set[str]:
        made = (name for _, _, names, _ in self._nodes for name in names)
        return {self.entry, *self._inputs, *self._weights, *made}

    def finish(self, outputs: Mapping[str, str]) -> Any:
        """Return the model, checked; what its outputs are like is inferred."""
        onnx, helper = self._onnx, self._onnx.helper
        if not self._prefixes:
            raise TypeError("model: expected at least one layer with weights")
        self._inputs.setdefault(self.entry, ("FLOAT", ["T", "B", "features"]))
        names = {self.entry: "tokens"} if self._tokens else {}
        known = self._values()
        _check_outputs(outputs, {*known, *names.values()})
        for name, value in outputs.items():
            _check_value(known, name, value)
            self._nodes.append(("Identity", [value], [name], {}))
        nodes = [
            helper.make_node(op, [names.get(i, i) for i in ins], outs, name=outs[0], **attributes)
            for op, ins, outs, attributes in self._nodes
        ]
        inputs = [
            helper.make_tensor_value_info(names.get(n, n), getattr(onnx.TensorProto, kind), shape)
            for n, (kind, shape) in self._inputs.items()
        ]
        weights = [onnx.numpy_helper.from_array(a, name) for name, a in self._weights.items()]
        opsets = [helper.make_opsetid("", _OPSET)]
        options = {"opset_imports": opsets, "ir_version": helper.find_min_ir_version_for(opsets)}

        def model(outputs: list[Any]) -> Any:
            made = helper.make_graph(nodes, "minirnn", inputs, outputs, weights)
            return helper.make_model(made, producer_name="minirnn", **options)

        return _checked(onnx, model, outputs)


def _checked(onnx: Any, model: Callable[[list[Any]], Any], outputs: Iterable[str]) -> Any:
    """Return what `model` makes of the outputs, whose types and shapes are inferred."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model([]), strict_mode=True)
        known = {value.name: value for value in inferred.graph.value_info}
        proto = model([known[name] for name in outputs])
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise ValueError(
            f"model: expected layers and operators that fit together, got what onnx refuses: {error}"
        ) from error
    return proto


def _check_operator(onnx: Any, op: Any, inputs: int) -> None:
    try:
        schema = onnx.defs.get_schema(op, max_inclusive_version=_OPSET)
    except (TypeError, onnx.defs.SchemaError):
        raise ValueError(
            f"op: expected an operator of ONNX, in opset {_OPSET}, got {checks.got(op)}"
        ) from None
    low, high = schema.min_input, schema.max_input
    if not low <= inputs <= high:
        wanted = low if low == high else f"{low} to {high}"
        raise ValueError(f"inputs: expected {wanted} for {op}, got {inputs}")


def _check_value(known: set[str], name: str, value: Any) -> None:
    expected = f"{name}: expected the name of a value, from the graph's methods, got"
    if isinstance(value, tuple):
        raise TypeError(
            f"{expected} several, {checks.got(value)}; take them apart: a recurrent layer returns "
            "`output, h_n`, an LSTM `output, (h_n, c_n)`"
        )
    if not isinstance(value, str):
        raise TypeError(f"{expected} {checks.got(value)}")
    if value not in known:
        raise ValueError(f"{expected} {value!r}, which the graph does not have")


def _check_outputs(outputs: Mapping[Any, Any], taken: set[str]) -> None:
    if not outputs:
        raise ValueError("model: expected at least one output, got none")
    for name in outputs:
        if not isinstance(name, str) or not name or name in taken:
            raise ValueError(
                f"model: expected outputs with names of their own, got {checks.got(name)}"
            )


def _blocks(a: Array, order: list[int]) -> Array:
    return a.reshape(len(order), -1, *a.shape[1:])[order].reshape(a.shape)
