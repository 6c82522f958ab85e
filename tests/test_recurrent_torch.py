"""RNN, LSTM and GRU against torch: every option, every form of input, every gradient, in float64."""

import numpy as np
import pytest
from helpers import close, data, spans
from hypothesis import given, settings
from hypothesis import strategies as st

import minirnn

torch = pytest.importorskip("torch")

CELLS = ["tanh", "relu", "lstm", "lstm_proj", "gru"]


def build(cell, E, H, **options):
    """Return our layer and torch's with the same weights, both float64."""
    if cell in ("tanh", "relu"):
        ours = minirnn.RNN(E, H, nonlinearity=cell, dtype=np.float64, **options)
        theirs = torch.nn.RNN(E, H, nonlinearity=cell, dtype=torch.float64, **options)
    else:
        name = "GRU" if cell == "gru" else "LSTM"
        proj = {"proj_size": max(1, H // 2)} if cell == "lstm_proj" else {}
        ours = getattr(minirnn, name)(E, H, dtype=np.float64, **options, **proj)
        theirs = getattr(torch.nn, name)(E, H, dtype=torch.float64, **options, **proj)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def leaf(x):
    return torch.from_numpy(np.ascontiguousarray(x)).requires_grad_(True)


def state(arrays):
    """Return a state as layers take it, ours and torch's: an array, or the LSTM's pair."""
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


@st.composite
def cases(draw):
    form = draw(st.sampled_from(["packed", "unsorted", "padded", "batch_first", "unbatched"]))
    T, B = draw(st.integers(1, 7)), draw(st.integers(1, 5))
    given_gradients = draw(st.sampled_from(["both", "doutput", "dh_n"]))
    return {
        "cell": draw(st.sampled_from(CELLS)),
        "form": form,
        "T": T,
        "B": B,
        "span_rows": draw(st.sampled_from([1, 6, 1024])),
        "I": draw(st.integers(1, 4)),
        "H": draw(st.integers(2, 5)),
        "num_layers": draw(st.integers(1, 3)),
        "bidirectional": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "lengths": draw(st.lists(st.integers(1, T), min_size=B, max_size=B)),
        "with_h_0": draw(st.booleans()),
        # A backward without either gradient is refused.
        "with_doutput": given_gradients != "dh_n",
        "with_dh_n": given_gradients != "doutput",
        "seed": draw(st.integers(0, 2**16)),
    }


@settings(max_examples=150, deadline=None)
@given(cases())
def test_agrees_with_torch(case):
    with spans(case["span_rows"]):
        check_against_torch(case)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("form", ["packed", "unsorted", "padded", "batch_first", "unbatched"])
def test_each_cell_in_each_form(cell, form):
    case = {
        "cell": cell,
        "form": form,
        "T": 40,
        "B": 4,
        "span_rows": 50,
        "I": 3,
        "H": 4,
        "num_layers": 2,
        "bidirectional": True,
        "bias": True,
        "lengths": [7, 40, 1, 33],
        "with_h_0": True,
        "with_doutput": True,
        "with_dh_n": True,
        "seed": 0,
    }
    with spans(case["span_rows"]):
        check_against_torch(case)


def check_against_torch(case):
    rng = np.random.default_rng(case["seed"])
    torch.manual_seed(case["seed"])
    form, T, B, E = case["form"], case["T"], case["B"], case["I"]
    options = {k: case[k] for k in ("num_layers", "bidirectional", "bias")}
    ours, theirs = build(case["cell"], E, case["H"], batch_first=form == "batch_first", **options)
    B = 1 if form == "unbatched" else B

    # The same input in both libraries.
    x = rng.standard_normal((B, T, E))
    if form in ("packed", "unsorted"):
        lengths = case["lengths"][:B]
        if form == "packed":
            lengths = sorted(lengths, reverse=True)
        enforce = form == "packed"
        our_input = minirnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=enforce
        )
        rows = torch.nn.utils.rnn.pack_padded_sequence(
            torch.from_numpy(x), torch.tensor(lengths), batch_first=True, enforce_sorted=enforce
        )
        their_x = rows.data.clone().requires_grad_(True)
        their_input = torch.nn.utils.rnn.PackedSequence(
            their_x, rows.batch_sizes, rows.sorted_indices, rows.unsorted_indices
        )
    else:
        x = {"padded": x.swapaxes(0, 1), "batch_first": x, "unbatched": x[0]}[form]
        our_input = np.ascontiguousarray(x)
        their_input = their_x = leaf(our_input)

    L = case["num_layers"] * ours.num_directions
    shapes = [(L, B, size) for size in ours._state_sizes]
    if form == "unbatched":
        shapes = [(L, size) for _, _, size in shapes]
    our_h, their_h, their_leaves = None, None, []
    if case["with_h_0"]:
        arrays = [rng.standard_normal(shape) for shape in shapes]
        their_leaves = [leaf(a) for a in arrays]
        our_h, their_h = state(arrays), state(their_leaves)

    (output, h_n), ctx = ours.forward(our_input, our_h)
    their_output, their_h_n = theirs(their_input, their_h)
    their_rows = their_output.data if form in ("packed", "unsorted") else their_output
    close(data(output), their_rows.detach())
    our_finals = h_n if isinstance(h_n, tuple) else (h_n,)
    their_finals = their_h_n if isinstance(their_h_n, tuple) else (their_h_n,)
    for a, b in zip(our_finals, their_finals, strict=True):
        close(a, b.detach())

    # Inference gives the same and saves nothing.
    again, h_again = ours(our_input, our_h)
    close(data(again), data(output))
    for a, b in zip(h_again if isinstance(h_again, tuple) else (h_again,), our_finals, strict=True):
        close(a, b)

    # Random cotangents on whichever results the loss depends on.
    loss = 0.0 * their_rows.sum()
    doutput = dh_n = None
    if case["with_doutput"]:
        d = rng.standard_normal(their_rows.shape)
        loss = loss + (their_rows * torch.from_numpy(d)).sum()
        doutput = output.map(lambda _: d) if form in ("packed", "unsorted") else d
    if case["with_dh_n"]:
        ds = [rng.standard_normal(h.shape) for h in our_finals]
        for d, h in zip(ds, their_finals, strict=True):
            loss = loss + (h * torch.from_numpy(d)).sum()
        dh_n = state(ds)
    loss.backward()
    dx, dh_0 = ours.backward(ctx, doutput, dh_n)
    assert type(dx) is type(our_input)
    close(data(dx), their_x.grad)
    dstates = dh_0 if isinstance(dh_0, tuple) else (dh_0,)
    for d, h in zip(dstates, their_leaves, strict=False):
        close(d, h.grad)
    for name, p in theirs.named_parameters():
        close(getattr(ours, name).grad, p.grad)
