"""minirnn.parallel on arrays of CuPy's: two ranks on the device against one process on the host."""

import numpy as np
import pytest
from test_parallel import Fake, Model, batches, on_ranks

import minirnn
from minirnn import parallel


class Device(Fake):
    """Ranks whose buffers lie on the device, which no host copy may stand for."""

    def Allreduce(self, sent, received):
        parts = self.allgather(sent)
        assert all(not isinstance(part, np.ndarray) for part in (*parts, received))
        received[...] = parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def Bcast(self, buffer, root=0):
        assert not isinstance(buffer, np.ndarray)
        buffer[...] = self.allgather(buffer)[root]


def on_two(run):
    """Return what ``run(comm)`` returns on each of two ranks."""
    found = on_ranks(2, lambda comm: run(Device(comm.rank, comm.size, comm.shared)))
    for result in found:
        if isinstance(result, Exception):
            raise result
    return found


def add_gradients(model, batch):
    criterion = minirnn.CrossEntropyLoss()
    logits, ctx = model.forward(batch[0])
    _, ctx_l = criterion.forward(logits, batch[1])
    model.backward(ctx, criterion.backward(ctx_l))


class DeviceModel(Model):
    def forward(self, tokens):
        x, ctx_x = self.embedding.forward(tokens)
        (_, (h_n, _)), ctx_h = self.lstm.forward(x)
        last = minirnn.get_array_module(h_n).concatenate(list(h_n), axis=1)
        logits, ctx_y = self.head.forward(last)
        return logits, (ctx_x, ctx_h, ctx_y)

    def backward(self, ctx, dlogits):
        ctx_x, ctx_h, ctx_y = ctx
        dlast = self.head.backward(ctx_y, dlogits)
        xp = minirnn.get_array_module(dlast)
        dh_n = xp.stack((dlast[:, :5], dlast[:, 5:]))
        dx, _ = self.lstm.backward(ctx_h, None, (dh_n, None))
        self.embedding.backward(ctx_x, dx)


@pytest.mark.parametrize("flat", [True, False])
def test_two_ranks_on_the_device_have_the_gradient_of_one_process(xp, flat):
    tokens, targets = next(batches(counts=(7,)))
    whole = Model()
    add_gradients(whole, (tokens, targets))
    models = [DeviceModel(seed=rank).to("cupy") for rank in range(2)]
    if flat:
        for model in models:
            model.flatten_parameters()
    on_two(lambda comm: parallel.broadcast(models[comm.rank], comm))
    on_two(lambda comm: parallel.check_in_step(models[comm.rank], comm))
    device = (tokens.map(xp.asarray), xp.asarray(targets))
    counts = []
    for rank, model in enumerate(models):  # in turn: the stand-in has one device
        part = parallel.shard(device, rank, 2)
        assert isinstance(part[0].data, xp.ndarray)
        add_gradients(model, part)
        counts.append(len(part[1]))
    on_two(lambda comm: parallel.average_gradients(models[comm.rank], comm, counts[comm.rank]))
    for model in models:
        for p, q in zip(model.parameters(), whole.parameters(), strict=True):
            assert isinstance(p.grad, xp.ndarray)
            np.testing.assert_allclose(minirnn.asnumpy(p.grad), q.grad, rtol=0, atol=1e-12)


def test_a_rank_on_the_device_that_differs_is_named(xp):
    models = [minirnn.Linear(2, 1, rng=0).to("cupy") for _ in range(2)]
    models[1].bias.data = models[1].bias.data + 1
    with pytest.raises(RuntimeError, match=r"ranks \[1\] of 2"):
        on_two(lambda comm: parallel.check_in_step(models[comm.rank], comm))
