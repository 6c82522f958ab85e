"""minirnn: recurrent networks without autograd, forward and backward written out by hand.

The README shows a model and a training step; :mod:`minirnn.functional` has the mathematics.
"""

import importlib
from typing import Any

from . import functional, init, torch_hints
from .activations import LayerNorm, LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from .backend import (
    asnumpy,
    get_array_module,
    get_rng_state,
    manual_seed,
    set_backend,
    set_checks,
    set_rng_state,
    set_tf32,
)
from .bptt.traces import Trace
from .cells import GRUCell, LSTMCell, RNNCell
from .clip import clip_grad_norm_, clip_grad_value_
from .export import to_onnx
from .fit import fit
from .functional.activation import log_softmax, softmax
from .layers import Dropout, Embedding, Linear, Zoneout
from .losses import BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, MSELoss, NLLLoss
from .lr_combined import ChainedScheduler, SequentialLR
from .lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, LinearLR, StepLR
from .lr_schedules import (
    ConstantLR,
    CosineAnnealingWarmRestarts,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
)
from .module import Module
from .normalized import LayerNormGRU, LayerNormLSTM
from .optim import SGD, Adam, AdamW
from .outputs import by_layer_direction, last_step
from .packed_sequence import PackedSequence
from .packing import (
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
    unpack_sequence,
    unpad_sequence,
)
from .pairs import native_available, set_native
from .parameter import Parameter, ParameterBuffer
from .plateau import ReduceLROnPlateau
from .recurrent import GRU, LSTM, RNN, Recurrent
from .resume import load_checkpoint, save_checkpoint
from .rmsprop import RMSprop
from .sequential import Sequential
from .threads import set_num_threads
from .truncated import TruncatedWindow, Window, truncated_bptt, windows
from .weight_files import load_weights, save_weights

__version__ = "0.1.0"

# On top of all else, and imported when first asked for.
_ROOMS = ("data", "diagnostics", "parallel", "trackers")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    raise torch_hints.missing(f"module {__name__!r}", name, torch_hints.LIBRARY)


def _of_functional(name: str) -> Any:
    raise torch_hints.missing(f"module {functional.__name__!r}", name, torch_hints.FUNCTIONAL)


vars(functional)["__getattr__"] = _of_functional  # from here: that room knows its mathematics alone


__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "Adam",
    "AdamW",
    "BCELoss",
    "BCEWithLogitsLoss",
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "ExponentialLR",
    "GRUCell",
    "LSTMCell",
    "LambdaLR",
    "LayerNorm",
    "LayerNormGRU",
    "LayerNormLSTM",
    "Linear",
    "LinearLR",
    "LogSoftmax",
    "MSELoss",
    "Module",
    "MultiStepLR",
    "NLLLoss",
    "OneCycleLR",
    "PackedSequence",
    "Parameter",
    "ParameterBuffer",
    "PolynomialLR",
    "RMSprop",
    "RNNCell",
    "ReLU",
    "Recurrent",
    "ReduceLROnPlateau",
    "Sequential",
    "SequentialLR",
    "Sigmoid",
    "Softmax",
    "StepLR",
    "Tanh",
    "Trace",
    "TruncatedWindow",
    "Window",
    "Zoneout",
    "asnumpy",
    "by_layer_direction",
    "clip_grad_norm_",
    "clip_grad_value_",
    "fit",
    "functional",
    "get_array_module",
    "get_rng_state",
    "init",
    "last_step",
    "load_checkpoint",
    "load_weights",
    "log_softmax",
    "manual_seed",
    "native_available",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "save_checkpoint",
    "save_weights",
    "set_backend",
    "set_checks",
    "set_native",
    "set_num_threads",
    "set_rng_state",
    "set_tf32",
    "softmax",
    "to_onnx",
    "truncated_bptt",
    "unpack_sequence",
    "unpad_sequence",
    "windows",
]
