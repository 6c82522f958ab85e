"""What only a GPU can show: every size, long sequences, large batches, and several streams of work."""

import numpy as np
import pytest
from test_kernels import PAIRS, Problem, worst

import minirnn
from minirnn.cuda import launch


@pytest.mark.parametrize("cell", PAIRS)
@pytest.mark.parametrize("batch", [1, 37, 600])
def test_sizes(gpu, cell, batch):
    """Sizes around the steps of the kernels' tiles, up to the largest, with all that R can be."""
    rng = np.random.default_rng(batch)
    for hidden in (1, 15, 16, 17, 48, 64, 65, 96, launch.LARGEST[cell]):
        lengths = np.sort(rng.integers(0, 30, batch))[::-1].tolist()
        both = [Problem(cell, hidden, lengths, seed=seed) for seed in (0, 1)]
        assert worst(both[0], gpu, np.float32) < 1e-4, hidden
        assert worst(both[0], gpu, np.float32, both[1]) < 1e-4, hidden


@pytest.mark.parametrize("cell", PAIRS)
def test_long_sequences(gpu, cell):
    lengths = [700, 700, 699, 350, 1]
    assert worst(Problem(cell, 64, lengths), gpu, np.float32) < 1e-3
    assert worst(Problem(cell, 64, lengths), gpu, np.float64) < 1e-10


@pytest.mark.parametrize("cell", PAIRS)
@pytest.mark.parametrize("hidden", [256, 512])
def test_large_sizes(gpu, cell, hidden):
    assert worst(Problem(cell, hidden, [40] * 20 + [3] * 44), gpu, np.float32) < 1e-3


@pytest.mark.parametrize("cell", PAIRS)
def test_runs_agree_bit_for_bit(gpu, cell):
    """A race would differ from run to run."""
    problem = Problem(cell, 96, list(range(90, 0, -1)))
    runs = [
        problem.answers(lambda a: gpu.asarray(a.astype(np.float32)), gpu.asnumpy) for _ in range(20)
    ]
    for run in runs[1:]:
        for name, first in runs[0].items():
            np.testing.assert_array_equal(run[name], first)


def test_other_streams(gpu):
    """Kernels go to the current stream, like everything of CuPy's."""
    layer = minirnn.LSTM(16, 64, 2, bidirectional=True, rng=0).to("cupy")
    x = gpu.asarray(np.random.default_rng(0).standard_normal((50, 32, 16), np.float32))
    expected = gpu.asnumpy(layer(x)[0])
    lengths = np.arange(50, 18, -1)
    expected_packed = gpu.asnumpy(layer(minirnn.pack_padded_sequence(x, lengths))[0].data)
    packed = minirnn.pack_padded_sequence(x, lengths)  # each stream uploads its indices
    streams = [gpu.cuda.Stream(non_blocking=True) for _ in range(4)]
    gpu.cuda.Device().synchronize()
    outputs = []
    for stream in streams:
        with stream:
            outputs.append((layer(x)[0], layer(packed)[0].data))
    for stream, (y, y_packed) in zip(streams, outputs, strict=True):
        stream.synchronize()
        np.testing.assert_array_equal(gpu.asnumpy(y), expected)
        np.testing.assert_array_equal(gpu.asnumpy(y_packed), expected_packed)
