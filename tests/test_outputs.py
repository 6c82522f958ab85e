"""What is read off the outputs and the states."""

import numpy as np
import pytest
from helpers import close
from makers import F8

import minirnn


def test_last_step_and_by_layer_direction():
    rng = np.random.default_rng(0)
    lengths = [2, 5, 3]
    layer = minirnn.RNN(3, 4, num_layers=2, dtype=F8)
    x = rng.standard_normal((3, 5, 3))
    packed = minirnn.pack_padded_sequence(x, lengths, True, False)
    output, h_n = layer(packed)
    close(minirnn.last_step(output), h_n[-1])
    padded, n = minirnn.pad_packed_sequence(output)
    close(minirnn.last_step(padded, n), h_n[-1])
    close(minirnn.last_step(padded.swapaxes(0, 1), lengths, batch_first=True), h_n[-1])
    close(minirnn.last_step(padded), padded[-1])
    both = minirnn.GRU(3, 4, num_layers=3, bidirectional=True, dtype=F8)
    output, h_n = both(x.swapaxes(0, 1))
    grid = minirnn.by_layer_direction(h_n, 2)
    close(grid[-1, 0], output[-1, :, :4])
    close(grid[-1, 1], output[0, :, 4:])
    for call in (
        lambda: minirnn.last_step(padded, [6, 1, 1]),
        lambda: minirnn.last_step(padded, [0, 1, 1]),
        lambda: minirnn.last_step(padded[0]),
        lambda: minirnn.last_step(padded, [1.0, 2.0, 3.0]),
        lambda: minirnn.by_layer_direction(h_n[:3], 2),
    ):
        with pytest.raises(ValueError, match=r"expected|length"):
            call()
