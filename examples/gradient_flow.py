"""Gradients through time
======================

See how far a gradient travels back through time: what an explicit BPTT can show.

::

    python examples/gradient_flow.py

The loss looks at the last of 200 steps only. ``backward(..., trace=True)`` returns dL/dh_t at every step,
and its norm tells how much of the loss arrives there: it vanishes or explodes by a constant factor a step.
"""

import argparse
from pathlib import Path

import numpy as np

import minirnn
from minirnn.atomic import atomic_write


def gradient_norms(layer, steps, batch_size=32, seed=0):
    """Return ``||dL/dh_t||`` for every step t, L being a random function of the last state."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((steps, batch_size, layer.input_size)).astype(np.float32)
    (_, state), ctx = layer.forward(x)
    h_n = state[0] if isinstance(state, tuple) else state
    dh_n = rng.standard_normal(h_n.shape).astype(np.float32)
    dstate = (dh_n, None) if isinstance(state, tuple) else dh_n
    _, _, trace = layer.backward(ctx, None, dstate, trace=True)
    # In float64: what has vanished is too small to be squared in float32.
    return np.linalg.norm(trace.h[0].astype(np.float64), axis=(1, 2))


def layers(hidden_size=64, seed=0):
    """Return the layers that are compared, by name."""
    exploding = minirnn.RNN(8, hidden_size, nonlinearity="relu", init="orthogonal", rng=seed)
    exploding.weight_hh_l0.data *= 1.5
    return {
        "tanh RNN": minirnn.RNN(8, hidden_size, rng=seed),
        "tanh RNN, orthogonal $W_{hh}$": minirnn.RNN(8, hidden_size, init="orthogonal", rng=seed),
        "ReLU RNN, $W_{hh}$ 1.5 times orthogonal": exploding,
        "GRU, orthogonal $W_{hh}$": minirnn.GRU(8, hidden_size, init="orthogonal", rng=seed),
        "LSTM": minirnn.LSTM(8, hidden_size, rng=seed),
        "LSTM, forget_bias=3": minirnn.LSTM(8, hidden_size, forget_bias=3.0, rng=seed),
    }


def main(argv=None):
    """Print a table of the norms and draw them."""
    p = argparse.ArgumentParser(description="Show gradients on their way back through time.")
    p.add_argument("--steps", type=int, default=200)
    p.add_argument("--picture", type=Path, default=Path("gradient_flow.png"))
    args = p.parse_args(argv)
    if args.steps < 2:
        p.error(f"--steps: expected at least 2, got {args.steps}")
    norms = {name: gradient_norms(layer, args.steps) for name, layer in layers().items()}
    back = [d for d in (0, 10, 50, 100, 199) if d < args.steps]
    print("steps back from the loss:" + "".join(f"{d:>10}" for d in back))
    for name, norm in norms.items():
        print(f"{name:42}" + "".join(f"{norm[-1 - d] / norm[-1]:10.1e}" for d in back))

    try:
        import matplotlib
    except ImportError:
        print("no picture: pip install 'minirnn[plot]'")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for name, norm in norms.items():
        axis.plot(np.arange(args.steps), norm[::-1] / norm[-1], label=name)
    axis.set_yscale("log")
    axis.set_ylim(1e-12, 1e6)
    axis.set_xlabel("steps back from the loss")
    axis.set_ylabel(r"$\|dL/dh_t\|$, relative to the last step")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right", fontsize="small")
    with atomic_write(args.picture) as file:
        figure.savefig(file, dpi=120, format=args.picture.suffix[1:] or "png")
    print(f"picture in {args.picture}")


if __name__ == "__main__":
    main()

# %%
# .. image:: /gradient_flow.png
#    :alt: Norm of dL/dh_t against the distance to the loss, for six layers

# sphinx_gallery_thumbnail_path = "gradient_flow.png"
