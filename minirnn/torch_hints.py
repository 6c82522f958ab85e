"""What torch has and minirnn has not: said where somebody writes it, and what to write in its place."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self

import numpy as np

_REDUCTION = 'write reduction="mean", "sum" or "none"'
_STEP = "a step is a few operations over all parameters as it is"
_NORM = "looking up would change the weights behind the optimiser; scale the rows of weight.data yourself"

# Options of torch's constructors.
_OPTIONS = {
    "device": 'arrays are made where minirnn.set_backend says, and moved by .to("cupy") or .to("numpy")',
    "inplace": "results are new arrays, since contexts refer to them",
    "max_norm": _NORM,
    "norm_type": _NORM,
    "scale_grad_by_freq": "a row's gradient is the sum over its uses",
    "sparse": "gradients are dense arrays",
    "size_average": _REDUCTION,
    "reduce": _REDUCTION,
    "foreach": _STEP,
    "fused": _STEP,
    "capturable": _STEP,
    "differentiable": "there is no autograd that could go through a step",
    "decoupled_weight_decay": "that is AdamW",
    "verbose": "print scheduler.get_last_lr()",
}

_OWN = "assign it as an attribute: self.name = Parameter(...), a module, or an array"
_FROZEN = "write p.requires_grad = False for p in .parameters()"

MODULE = {
    "cuda": 'write .to("cupy")',
    "cpu": 'write .to("numpy")',
    "double": 'write .to("float64")',
    "float": 'write .to("float32")',
    "half": "float32 and float64 are what is computed in",
    "bfloat16": "float32 and float64 are what is computed in",
    "requires_grad_": _FROZEN,
    "register_buffer": _OWN,
    "register_parameter": _OWN,
    "register_module": _OWN,
    "add_module": _OWN,
    "buffers": "what is not trained is in .state_dict(); there are no buffers beside a loss's weights",
    "named_buffers": "what is not trained is in .state_dict(); there are no buffers beside a loss's weights",
    "register_forward_hook": "call the parts' forward yourself: they return all there is",
    "register_full_backward_hook": "call the parts' backward yourself: it returns the gradients",
    "all_weights": "write dict(layer.named_parameters()): the names are torch's",
    "reset_parameters": "make the layer anew, or fill its weights by minirnn.init",
    "get_parameter": "write dict(model.named_parameters())[name]",
    "get_submodule": "write dict(model.named_modules())[name]",
    "type": 'write .to("float64") or .to("float32")',
    "share_memory": "threads may share a model; processes average gradients by minirnn.parallel",
    "compile": "the loops over time are in C already where they were built: minirnn.native_available()",
}

_CHAIN = "write Sequential(*model, another): the layers are given when it is made"
SEQUENTIAL = dict.fromkeys(("append", "extend", "insert"), _CHAIN)

OPTIMIZER = {
    "state": "write .state_dict(), or .torch_state_dict() for torch's form",
    "defaults": "each group in .param_groups has all its settings",
    "register_step_pre_hook": "do it before .step()",
    "register_step_post_hook": "do it after .step()",
}

_ARRAYS = "NumPy's arrays, or CuPy's, are what is computed with"
_NO_GRAD = "model(x) saves nothing for backward, model.forward(x) does"
_SET_BACKEND = "minirnn.set_backend says where arrays are made"
_BATCHES = "write minirnn.data.batches(sequences, targets, batch_size=32)"
_SEED = "write minirnn.manual_seed(seed), or give a layer its own rng="

# What torch has as functions, in torch.nn.functional and some in torch itself, and minirnn as modules.
_FUNCTIONS = {
    "relu": "write the layer minirnn.ReLU()",
    "tanh": "write the layer minirnn.Tanh()",
    "sigmoid": "write the layer minirnn.Sigmoid()",
    "layer_norm": "write the layer minirnn.LayerNorm(normalized_shape)",
    "cross_entropy": "write minirnn.CrossEntropyLoss().forward(input, target)",
    "nll_loss": "write minirnn.NLLLoss().forward(input, target)",
    "mse_loss": "write minirnn.MSELoss().forward(input, target)",
    "binary_cross_entropy": "write minirnn.BCELoss().forward(input, target)",
    "binary_cross_entropy_with_logits": "write minirnn.BCEWithLogitsLoss().forward(input, target)",
}

FUNCTIONAL = {
    **_FUNCTIONS,
    "softmax": "write minirnn.softmax(x, axis), or the layer minirnn.Softmax(dim)",
    "log_softmax": "write minirnn.log_softmax(x, axis), or the layer minirnn.LogSoftmax(dim)",
}

LIBRARY = {
    **_FUNCTIONS,
    **dict.fromkeys(("tensor", "Tensor", "as_tensor", "from_numpy"), _ARRAYS),
    **dict.fromkeys(
        ("zeros", "ones", "empty", "full", "arange", "stack"),
        f"{_ARRAYS}: write numpy's, with dtype=numpy.float32",
    ),
    **dict.fromkeys(
        ("randn", "rand", "randint", "randperm"),
        f"{_ARRAYS}: write a method of numpy.random.default_rng(seed)",
    ),
    "cat": f"{_ARRAYS}: write numpy.concatenate",
    **dict.fromkeys(("float32", "float64", "int64"), "write numpy's"),
    "float": "write numpy.float32",
    "long": "write numpy.int64",
    **dict.fromkeys(("no_grad", "inference_mode", "enable_grad", "set_grad_enabled"), _NO_GRAD),
    "autograd": "there is no autograd: y, ctx = layer.forward(x), then dx = layer.backward(ctx, dy)",
    **dict.fromkeys(("device", "cuda", "set_default_device"), _SET_BACKEND),
    "set_default_dtype": "each layer takes dtype=numpy.float64",
    **dict.fromkeys(("seed", "set_seed", "random_seed", "initial_seed", "Generator"), _SEED),
    **dict.fromkeys(("DataLoader", "Dataset", "TensorDataset"), _BATCHES),
    **dict.fromkeys(
        ("distributed", "DataParallel", "DistributedDataParallel"),
        "minirnn.parallel averages gradients over processes",
    ),
    "clip_grad_norm": "write minirnn.clip_grad_norm_(parameters, max_norm)",
    "clip_grad_value": "write minirnn.clip_grad_value_(parameters, clip_value)",
    "onnx": "write minirnn.to_onnx(model, path)",
    "RNNBase": "write minirnn.Recurrent",
    "CyclicLR": "write LambdaLR with the cycle",
    "compile": MODULE["compile"],
    "nn": "names are in minirnn itself: minirnn.LSTM",
    "utils": "names are in minirnn itself: minirnn.clip_grad_norm_, minirnn.pack_padded_sequence",
    "save": "write minirnn.save_weights(model, path), or save_checkpoint for a whole run",
    "load": "write minirnn.load_weights(model, path), or load_checkpoint for a whole run",
    "ModuleList": "a list of modules that is an attribute is found as it is",
    "ModuleDict": "a dict of modules that is an attribute is found as it is",
    "ParameterList": "a list of Parameters that is an attribute is found as it is",
    "Identity": "leave it out",
    "MultiplicativeLR": "write LambdaLR with the product",
}

SCHEDULE: dict[str, str] = {"get_lr": "write .get_last_lr(), or .rate(base_lr, step, group)"}

_TENSOR = {
    "backward": "there is no autograd: dx = layer.backward(ctx, dy)",
    "cuda": 'move the module: model.to("cupy")',
    "cpu": 'move the module: model.to("numpy")',
    "detach": "write .data: there is no autograd",
    "numpy": "write .data, or minirnn.asnumpy(p.data)",
    "requires_grad_": "write .requires_grad = False",
    "numel": "write .size",
    "dim": "write .data.ndim",
    "grad_fn": "there is no autograd",
    "is_leaf": "there is no autograd",
    "norm": "write numpy.linalg.norm(p.data), or of p.grad",
    "clone": "write .data.copy()",
    "copy_": "write .data = values, which are copied",
    "zero_": "write .data[...] = 0, or .zero_grad() for the gradient",
    **dict.fromkeys(("add_", "sub_", "mul_", "div_"), "write .data += values, or with -, *, /"),
    **{name: f"write minirnn.init.{name}(p)" for name in ("uniform_", "normal_")},
}


_TO = {
    "device": 'write .to("cupy") or .to("numpy")',
    "dtype": 'write .to("float32") or .to("float64")',
    "non_blocking": "CuPy's streams order the copies",
    "copy": "write copy.deepcopy(model).to(...)",
}


def of_parameter(name: str) -> str:
    """Return what to write instead of an attribute that torch's parameters have, or arrays, or ``""``."""
    if name.startswith("_"):
        return ""
    if name in _TENSOR:
        return f"; {_TENSOR[name]}"
    array = name if hasattr(np.ndarray, name) else name.removesuffix("_")
    if not hasattr(np.ndarray, array):
        return "; a Parameter has two arrays, .data and .grad, with what NumPy's have"
    return f"; a Parameter has two arrays, write .data.{array} or .grad.{array}"


def of_to(name: str) -> str:
    """Return what to write instead of an option of torch's ``.to``, or ``""``."""
    return f": {_TO[name]}" if name in _TO else ""


def missing(what: str, name: str, hints: Mapping[str, str]) -> AttributeError:
    """Return the error for an attribute that there is not; of torch's it says what to write instead."""
    hint = f": {hints[name]}" if name in hints else ""
    return AttributeError(f"{what} has no attribute {name!r}{hint}")


class _Missing:
    """An attribute that a class has not: to look it up is the error that says what to write.

    One for each name, since a ``__getattr__`` would make every look at what there is slower. What comes
    after the class in an heir's bases may have it.
    """

    def __init__(self, owner: type, name: str, hint: str) -> None:
        self.owner, self.name, self.hint = owner, name, hint

    def __get__(self, instance: Any, owner: type) -> Any:
        if any(
            self.name in vars(base) for base in owner.__mro__[owner.__mro__.index(self.owner) + 1 :]
        ):
            return getattr(super(self.owner, owner if instance is None else instance), self.name)
        what = (
            f"type object {owner.__name__!r}" if instance is None else f"{owner.__name__!r} object"
        )
        raise missing(what, self.name, {self.name: self.hint})


class Hints:
    """Constructors and attributes that explain themselves; for classes that torch has too.

    A class says by ``hints=`` which attributes it and its heirs do not have, and what to write instead.
    """

    def __init_subclass__(
        cls, hints: Mapping[str, str] = MappingProxyType({}), **options: Any
    ) -> None:
        super().__init_subclass__(**options)
        for name, hint in hints.items():
            setattr(cls, name, _Missing(cls, name, hint))

    def __dir__(self) -> list[str]:
        found = {name: inspect.getattr_static(self, name, None) for name in super().__dir__()}
        return [
            name
            for name, value in found.items()
            if not isinstance(value, _Missing) or hasattr(self, name)
        ]

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Refuse options of torch's that a constructor of minirnn's does not have, and say why."""
        for name in _OPTIONS.keys() & options.keys():
            init = inspect.unwrap(cls.__init__)
            made_in = getattr(
                init, "__module__", cls.__module__
            )  # object's own constructor has none
            own = made_in.partition(".")[0] == __name__.partition(".")[0]
            if own and name not in inspect.signature(init).parameters:
                raise TypeError(f"{name}: {cls.__name__} has no such option: {_OPTIONS[name]}")
        return super().__new__(cls)
