"""Write the network of the page that adds in the browser.

    python examples/sum_mod/train.py --cell gru --hidden_dim 32 --batch_size 128 --total_steps 12000
    python docs/demo/export.py runs/sum_mod-gru-seed0

With its answer after every digit, the states and the gates: what the page draws.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import minirnn

DOCS = Path(__file__).parent.parent
sys.path.insert(0, str(DOCS.parent / "examples" / "sum_mod"))
from model import SumMod
from predict import load_newest


class Adder(minirnn.Module):
    """A trained GRU, and what is to be seen of it."""

    def __init__(self, trained: SumMod):
        self.embedding, self.rnn, self.head = trained.embedding, trained.rnn, trained.head

    def onnx(self, graph, tokens):
        """Connect the layers, and compute the gates again from the states before and the digits."""
        x = graph.layer(self.embedding, tokens)
        states, _ = graph.layer(self.rnn, x)
        first, last = (graph.constant(np.array([k])) for k in (0, -1))
        nothing = graph.add("Mul", part(graph, states, 0, 1, 0), graph.constant(np.float32(0)))
        all_but_last = graph.add("Slice", states, first, last, first)
        before = graph.add("Concat", nothing, all_but_last, axis=0)
        H = self.rnn.hidden_size

        def rows(kind, value):
            w = graph.constant(self.rnn.state_dict()[f"weight_{kind}_l0"].T)
            b = graph.constant(self.rnn.state_dict()[f"bias_{kind}_l0"])
            return graph.add("Add", graph.add("MatMul", value, w), b)

        both = graph.add("Add", rows("ih", x), rows("hh", before))  # of the gates r and z
        gates = [graph.add("Sigmoid", part(graph, both, k * H, (k + 1) * H, 2)) for k in (0, 1)]
        answers = graph.add("Softmax", graph.layer(self.head, states), axis=-1)
        return {"answers": answers, "states": states, "reset": gates[0], "update": gates[1]}


def part(graph, x, start, stop, axis):
    """Return ``x[start:stop]`` along an axis."""
    return graph.add("Slice", x, *(graph.constant(np.array([k])) for k in (start, stop, axis)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Export a run of examples/sum_mod/train.py --cell gru."
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--to", type=Path, default=DOCS / "_static" / "demo" / "adder.onnx")
    args = parser.parse_args()
    _, model, _ = load_newest(args.run)
    minirnn.to_onnx(Adder(model), args.to)
    print(f"{args.to}: {args.to.stat().st_size} bytes")
