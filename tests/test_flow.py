"""gradient_flow: the norms of a trace, padding left out."""

import numpy as np
import pytest
from diagnosed import packed
from helpers import close

import minirnn
from minirnn import diagnostics as see


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
