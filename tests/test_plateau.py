"""ReduceLROnPlateau against torch, resumed, and after a warm-up."""

import numpy as np
import pytest
from helpers import close
from makers import two_groups

import minirnn


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_reduce_on_plateau(mode, threshold_mode):
    torch, optimizer, reference = two_groups()
    options = {"mode": mode, "factor": 0.5, "patience": 2, "threshold": 0.05}
    options |= {"threshold_mode": threshold_mode, "cooldown": 1, "min_lr": 0.01}
    ours = minirnn.ReduceLROnPlateau(optimizer, **options)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(reference, **options)
    rng = np.random.default_rng(0)
    reduced = 0
    for metric in rng.uniform(0.5, 1, 60):
        before = ours.get_last_lr()
        ours.step(metric)
        theirs.step(metric)
        close(ours.get_last_lr(), theirs.get_last_lr(), 1e-12)
        reduced += ours.get_last_lr() != before
    assert reduced >= 3


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_plateau_resumes_wherever_it_was_interrupted(mode):
    def begin(lr):
        groups = [{"params": [minirnn.Parameter(np.ones(1))], "lr": k * lr} for k in (1, 2)]
        optimizer = minirnn.SGD(groups)
        options = {"factor": 0.5, "patience": 2, "cooldown": 2, "min_lr": [0.01, 0.0]}
        return optimizer, minirnn.ReduceLROnPlateau(optimizer, mode, **options)

    metrics = np.random.default_rng(0).uniform(0.5, 1, 40)
    optimizer, whole = begin(1.0)
    rates, saved = [], []
    for metric in metrics:
        saved.append((optimizer.state_dict(), whole.state_dict()))
        whole.step(metric)
        rates.append(whole.get_last_lr())
    assert len(set(map(tuple, rates))) >= 4
    for stop, states in enumerate(saved):
        optimizer, resumed = begin(9.0)
        for part, state in zip((optimizer, resumed), states, strict=True):
            part.load_state_dict(state)
        assert resumed.state_dict() == states[1]
        again = []
        for metric in metrics[stop:]:
            resumed.step(metric)
            again.append(resumed.get_last_lr())
        assert again == rates[stop:]
        assert resumed.state_dict() == whole.state_dict()
        assert resumed.last_epoch == len(metrics)
    before = resumed.state_dict()
    with pytest.raises(ValueError, match=r"state_dict: expected \['best', .*\['best'\] missing"):
        resumed.load_state_dict({name: 7 for name in before if name != "best"})
    assert resumed.state_dict() == before


def test_a_warm_up_that_is_over_leaves_the_rate_to_the_plateau():
    torch = pytest.importorskip("torch")
    rates = []
    for library, parameter in (
        (minirnn, minirnn.Parameter(np.zeros(1))),
        (torch.optim, torch.zeros(1, requires_grad=True)),
    ):
        schedules = library if library is minirnn else torch.optim.lr_scheduler
        optimizer = library.SGD([parameter], lr=0.1)
        warmup = schedules.LinearLR(optimizer, 0.1, total_iters=2)
        plateau = schedules.ReduceLROnPlateau(optimizer, patience=0)
        seen = []
        for step in range(8):
            optimizer.step()
            warmup.step()
            if step >= 2:
                plateau.step(1.0)
            seen.append(optimizer.param_groups[0]["lr"])
        rates.append(seen)
    np.testing.assert_allclose(*rates, rtol=1e-12)
    assert rates[0][-1] < 1e-5
