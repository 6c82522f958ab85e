"""What per-sample gradient norms cost: a backward with them over a plain one.

python benchmarks/diagnostics.py
"""

import argparse

from timing import compare, conditions, np, seconds, table  # NumPy after the threads are set

import minirnn
from minirnn.diagnostics import per_sample_gradient_norms

T, B, SIZE = 50, 64, 128  # steps, sequences, input and hidden size


def norms_over_plain(kind, packed, budget):
    """Return the comparison of one layer's plain backward with that which returns norms."""
    rng = np.random.default_rng(0)
    layer = getattr(minirnn, kind)(SIZE, SIZE, rng=0)
    x = rng.standard_normal((T, B, SIZE), np.float32)
    if packed:
        x = minirnn.pack_padded_sequence(x, np.sort(rng.integers(1, T + 1, B))[::-1])
    (y, _), ctx = layer.forward(x)
    return compare(
        lambda: layer.backward(ctx, y), lambda: per_sample_gradient_norms(layer, ctx, y), budget
    )


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--budget", type=float, default=5.0, help="seconds for each line")
    args = p.parse_args(argv)
    rows = []
    for kind in ("RNN", "GRU", "LSTM"):
        for packed in (False, True):
            result = norms_over_plain(kind, packed, args.budget)
            times = seconds(result.ours), seconds(result.theirs)
            rows.append([kind, "packed" if packed else "equal lengths", *times, result])
    print(conditions(), "", f"T {T}, B {B}, I = H = {SIZE}, float32", "", sep="\n")
    print(table(["layer", "batch", "plain", "with norms", "times as long (quartiles)"], rows))


if __name__ == "__main__":
    main()
