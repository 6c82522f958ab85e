"""What the tests of minirnn.diagnostics look at."""

import numpy as np

import minirnn

LAYERS = {"RNN": minirnn.RNN, "GRU": minirnn.GRU, "LSTM": minirnn.LSTM}


LENGTHS = (2, 5, 0, 3, 5)


def packed(rng, features, lengths=LENGTHS):
    sequences = [rng.standard_normal((n, features)) for n in lengths]
    return minirnn.pack_sequence(sequences, enforce_sorted=False)


def stretched(layer, factor=3.0):
    """Return the layer with larger recurrent weights, so that no gradient is all but zero."""
    for name, p in layer.named_parameters():
        if "weight_hh" in name:
            p.data *= factor
    return layer


def with_gradients(**gradients):
    found = []
    for name, values in gradients.items():
        p = minirnn.Parameter(np.zeros(np.shape(values), np.float32))
        p.name, p.grad = name, np.array(values, np.float32)
        found.append(p)
    return found
