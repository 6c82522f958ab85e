"""What a recurrence is: one cell's mathematics over packed rows, as a module or an object of pure functions.

Everything around it (layers on top of each other, directions, checkpoints, threads, traces, truncated BPTT)
works with any recurrence that keeps this contract. The arrays' sizes are named

- B, N: the number of sequences, and of rows, one for each step of each sequence;
- I, H, P: features of the input, of a gate, and of the state h (H, but for a projection);
- G: the number of gates.

Nothing is checked here: the modules have done it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from ..backend import Array, quiet
from ..layout import Layout

Shapes: TypeAlias = Mapping[str, tuple[int, ...] | None]
States: TypeAlias = Sequence[Array]  # what makes up a state, or its gradient; h first
Weights: TypeAlias = Sequence[Any]  # arrays in the recurrence's order, None for what there is not
Mask: TypeAlias = Array | None  # recurrent dropout
Traces: TypeAlias = Sequence[Array] | None  # to be filled


class Recurrence(Protocol):
    """The contract.

    forward and step may take further arguments by name, the same ones, such as the RNN's `nonlinearity`. A
    recurrence whose loops over time let other threads run says so by a function ``releases_gil(weights)``.
    """

    @property
    def GATES(self) -> tuple[str, ...]:  # noqa: N802
        """Names of the blocks of H rows in ``W_ih`` and ``W_hh``, in their order."""
        ...

    @property
    def STATES(self) -> tuple[str, ...]:  # noqa: N802
        """Names of the arrays that make up the state; a recurrence without this attribute has ``("h",)``.

        The first is h, which is the output too. A context has them all under these names.
        """
        ...

    def weight_shapes(
        self, input_size: int, hidden_size: int, output_size: int, bias: bool
    ) -> Shapes:
        """Return the weights' shapes by name, in the order in which forward takes them.

        None for what there is not. A recurrence without this method has those of :func:`weight_shapes`.

        Parameters
        ----------
        input_size, hidden_size, output_size : int
            I, H and P.
        bias : bool
        """
        ...

    def forward(
        self,
        x: Array,
        states: States,
        weights: Weights,
        layout: Layout,
        *,
        mask: Mask = None,
        save: bool = True,
    ) -> Any:
        """Run over all steps: fill the rows ``[B:]`` of each of the states from ``[:B]``, the initial ones.

        Parameters
        ----------
        x : array of shape (N, I)
        states : sequence of arrays of shape (B + N, P) for h, (B + N, H) for others
        weights : (w_ih, w_hh, b_ih, b_hh, ...), of shapes (G * H, I), (G * H, P), (G * H,), (G * H,), ...
            None for what there is not.
        layout : Layout
            Where the steps lie in the N rows.
        mask : array of shape (B, P), optional
            Recurrent dropout: multiplies the h that enters the recurrent product, the same at every step.
        save : bool

        Returns
        -------
        ctx : NamedTuple, or None without `save`
            What backward has to remember. It may refer to the arguments.

        See Also
        --------
        minirnn.functional.shared.Saved : what :func:`~minirnn.functional.shared.add_gradients` reads of it.
        """
        ...

    def backward(
        self,
        ctx: Any,
        dy: Array | None,
        dstates: States,
        dweights: Weights,
        trace: Traces = None,
    ) -> Array:
        """Return the gradient of the input; add up those of the weights.

        Parameters
        ----------
        ctx
            From forward.
        dy : array of shape (N, P), optional
            Gradient of h at all steps, as far as it is the output.
        dstates : sequence of arrays of shape (B, P) for h, (B, H) for others
            Gradients of each sequence's last states, in whose place those of its initial states are left.
            They wait in their row until the loop, coming from the end, reaches the sequence's last step.
        dweights : like the weights
            Theirs are added into these; None for what there is not.
        trace : sequence of arrays of shape (N, P) for h, (N, H) for others; optional
            Filled with the total gradient of each of the states at every step.

        Returns
        -------
        dx : array of shape (N, I)
        """
        ...

    def step(self, x: Array, states: States, weights: Weights, new: States) -> None:
        """Take one step and forget all but the state.

        Parameters
        ----------
        x : array of shape (B, I)
        states : sequence of arrays of shape (B, P) for h, (B, H) for others
        weights : as for forward
        new : like the states
            Filled with those after the step.
        """
        ...

    def gates(self, ctx: Any) -> dict[str, Array]:
        """Return the gates' values at every step by name, arrays of shape (N, H)."""
        ...


def state_names(recurrence: Any) -> tuple[str, ...]:
    """Return the names of what makes up the state."""
    names: tuple[str, ...] = getattr(recurrence, "STATES", ("h",))
    return names


def stepper_of(
    recurrence: Any, weights: Weights, states: States, options: Mapping[str, Any]
) -> Callable[[Array], Array]:
    """Return a function of x_t, (B, I), that takes a step and returns h_t, (B, P).

    `states` are arrays (2, B, size): it reads the first, the state before, and fills the second. A recurrence
    with a function ``stepper`` of its own prepares more.
    """
    if hasattr(recurrence, "stepper"):
        own: Callable[[Array], Array] = recurrence.stepper(weights, states, **options)
        return own
    before, after = ([s[k] for s in states] for k in (0, 1))

    @quiet
    def step(x: Array) -> Array:
        recurrence.step(x, before, weights, after, **options)
        return after[0]

    return step


def weight_shapes(
    gates: int, input_size: int, hidden_size: int, output_size: int, bias: bool
) -> dict[str, tuple[int, ...] | None]:
    """Return the shapes of W_ih, W_hh and their biases, which every recurrence has."""
    rows = gates * hidden_size
    b = (rows,) if bias else None
    ih, hh = (rows, input_size), (rows, output_size)
    return {"weight_ih": ih, "weight_hh": hh, "bias_ih": b, "bias_hh": b}


def shapes_of(
    recurrence: Any, input_size: int, hidden_size: int, output_size: int, bias: bool
) -> Shapes:
    """Return the shapes of the recurrence's weights, by name and in its order."""
    sizes = input_size, hidden_size, output_size, bias
    if hasattr(recurrence, "weight_shapes"):
        shapes: Shapes = recurrence.weight_shapes(*sizes)
        return shapes
    return weight_shapes(len(recurrence.GATES), *sizes)
