"""RNN, LSTM and GRU: stacking, directions and windows of time around the recurrences.

A recurrence (:mod:`minirnn.functional.rnn` and its siblings) knows one layer in one direction, over
packed rows. What is common to all of them is here, once:

- the forms of input: packed, padded, batch first, unbatched. All become packed rows;
- the reverse direction: the same recurrence over rows in which every sequence is reversed;
- checkpoints: the recurrence runs over windows of the steps, and again in backward;
- threads: each direction, or part of a batch, may have one of its own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from . import checks, init
from .backend import RNG, Array, generator, get_array_module, uniform
from .cuda import pair_for
from .functional import dropout as dropout_pair
from .functional import gru, lstm, rnn
from .module import Context, Module, Parameter, describe, saving
from .packing import Layout, PackedSequence, Part, equal_lengths
from .state import pack_state, unpack_state
from .threads import num_threads, together

# From this hidden size on threads gain, if they are on; below it they lose. To share a batch pays if each of
# them gets so many multiplications in a step's recurrent product: a GRU of 128 with 32 sequences is 1.2 times
# as fast then, an RNN of 256 with 16 1.1-1.35; an RNN of 128 with 32, half of it, gains nothing (0.97).
_THREADED_SIZE = 128
_THREADED_STEP = 1 << 20


class Trace(NamedTuple):
    """Every step of every layer, forward or backward.

    Each field holds one entry a layer; an array has the form of the layer's output, directions
    side by side.

    Attributes
    ----------
    h : tuple of arrays
        Forward the states h_t; backward dL/dh_t, the total gradient that reaches each state.
    c : tuple of arrays
        LSTM only, else empty: the cells c_t, or dL/dc_t.
    gates : dict from gate name to tuple of arrays
        Forward only, else empty: the gates' values, under ``i f g o`` or ``r z n``.
    """

    h: tuple[Any, ...]
    c: tuple[Any, ...] = ()
    gates: dict[str, tuple[Any, ...]] = {}  # noqa: RUF012 (never written to)


class _Form(NamedTuple):
    """The form in which the input came, in which everything that has its form goes back."""

    kind: str  # "packed", "padded", "batch_first" or "unbatched"
    packed: PackedSequence | None
    layout: Layout

    def rows(self, name: str, x: Any, features: int, like: Array) -> Array:
        """Return the rows of `x`, something of this form with the given number of features."""
        layout = self.layout
        if self.packed is not None:
            if x is not self.packed:
                self.packed.packing.check(name, x)
            checks.floating(name, x.data, like)
            checks.shape(name, x.data, (layout.rows, features), "(rows, features)")
            return x.data
        checks.floating(name, x, like)
        T, B = layout.steps, layout.batch_size
        if self.kind == "unbatched":
            checks.shape(name, x, (T, features), "(T, features)")
            return x
        if self.kind == "padded":
            checks.shape(name, x, (T, B, features), "(T, B, features)")
        else:
            checks.shape(name, x, (B, T, features), "(B, T, features)")
            x = x.swapaxes(0, 1)
        return x.reshape(layout.rows, features)

    def restore(self, rows: Array) -> Any:
        """Return `rows` in this form."""
        if self.packed is not None:
            return self.packed._with(rows)
        if self.kind == "unbatched":
            return rows
        x = rows.reshape(self.layout.steps, self.layout.batch_size, rows.shape[1])
        return x if self.kind == "padded" else x.swapaxes(0, 1)


class _Checkpoint(NamedTuple):
    """Enough to run one window again: what :meth:`Recurrent._run` takes."""

    x: Array
    start: list[Array]  # the states that enter the window
    layout: Layout
    mask: Array | None


class _InParts(NamedTuple):
    """What one pass leaves for backward if threads shared the batch: a context for each part."""

    parts: list[Part]
    contexts: list[Any]


# What a pass, one layer in one direction, returns: its states at all steps, the last ones, and the context.
_Passed: TypeAlias = tuple[Array, list[Array], Any]


class _Saved(NamedTuple):
    """What one forward pass of a recurrent layer leaves for backward."""

    form: _Form
    dropouts: list[Any]  # a context for each layer, None where nothing was dropped
    passes: list[Any]  # for each layer and direction a context, or a list of checkpoints
    like: Array


class Recurrent(Module):
    """What RNN, LSTM and GRU share; a new cell is a subclass with a recurrence of its own.

    Attributes
    ----------
    recurrence : module or object
        The pure pair, ``forward`` and ``backward``; ``step``, which :meth:`step` calls; ``GATES``, the
        names of the blocks of W_ih and W_hh; and ``gates(ctx)``, their values by name. See
        :mod:`minirnn.functional.gru`. forward takes ``mask=`` and ``save=``, backward ``trace``; for a
        trace the context has the states as ``h`` (and ``c``). If the recurrence has ``forward_together``
        and ``backward_together`` as :mod:`minirnn.cuda.gru` has, they run both directions.

    Raises
    ------
    ValueError
        By the constructor, if a size is no positive integer, a probability outside [0, 1], or `init` none
        of the two.
    TypeError
        By the constructor, if `dtype` is no floating-point one.
    """

    recurrence: ClassVar[Any]
    weight_ih_l0: Parameter  # the first of the weights, which the constructor makes
    proj_size: int = 0  # the LSTM's: features of its projected state, 0 for none
    _states: ClassVar[int] = 1  # how many arrays the state is made of

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        recurrent_dropout: float = 0.0,
        checkpoint: bool = False,
        init: str = "torch",
        dtype: DTypeLike = np.float32,
        rng: RNG = None,
    ) -> None:
        checks.positive(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        checks.probability("dropout", dropout)
        checks.probability("recurrent_dropout", recurrent_dropout)
        checks.choice("init", init, ("torch", "orthogonal"))
        if dropout and num_layers == 1:
            warnings.warn(
                f"dropout={dropout} acts between layers, and there is only one: it does nothing",
                # One frame further out for a subclass that has a constructor of its own.
                stacklevel=2 + (type(self).__init__ is not Recurrent.__init__),
            )
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.dropout, self.recurrent_dropout = dropout, recurrent_dropout
        self.checkpoint = checkpoint
        self.num_directions = 2 if bidirectional else 1
        # Features of one direction's output, and of each array of the state.
        self.output_size = self.proj_size or hidden_size
        self._state_sizes = (self.output_size, hidden_size)[: self._states]
        self._rng = None if rng is None else generator(rng)
        self._names: list[tuple[str | None, ...]] = []
        for layer in range(num_layers):
            features = input_size if layer == 0 else self.num_directions * self.output_size
            for direction in range(self.num_directions):
                self._names.append(self._add_weights(layer, direction, features, dtype))
        if init == "orthogonal":
            self._initialize_orthogonal()

    def _add_weights(
        self, layer: int, direction: int, features: int, dtype: DTypeLike
    ) -> tuple[str | None, ...]:
        bound = 1 / math.sqrt(self.hidden_size)
        names: list[str | None] = []
        for kind, shape in self._weight_shapes(features).items():
            if shape is None:
                names.append(None)
                continue
            name = f"{kind}_l{layer}" + ("_reverse" if direction else "")
            setattr(self, name, Parameter(uniform(self._rng, -bound, bound, shape, dtype)))
            names.append(name)
        return tuple(names)

    def _weight_shapes(self, features: int) -> dict[str, tuple[int, ...] | None]:
        """Return the shapes of one pass's weights, in the order that the recurrence takes them."""
        H, P, G = self.hidden_size, self.output_size, len(self.recurrence.GATES)
        bias = (G * H,) if self.bias else None
        return {
            "weight_ih": (G * H, features),
            "weight_hh": (G * H, P),
            "bias_ih": bias,
            "bias_hh": bias,
        }

    def _initialize_orthogonal(self) -> None:
        gates = len(self.recurrence.GATES)
        rng = generator(self._rng)
        for k in range(len(self._names)):
            w_ih, w_hh, *others = self._weights(k)
            init.xavier_uniform_(w_ih, rng=rng)
            init.orthogonal_(w_hh, blocks=gates, rng=rng)
            for p in others:
                if p is None:
                    continue
                if len(p.shape) == 2:  # the LSTM's projection
                    init.orthogonal_(p, rng=rng)
                else:
                    init.zeros_(p)

    @property
    def _options(self) -> dict[str, Any]:
        """Further arguments of the recurrence's forward."""
        return {}

    def _weights(self, k: int) -> list[Any]:
        """Return pass `k`'s weights in the order that the recurrence takes them, None for what it lacks."""
        return [None if name is None else getattr(self, name) for name in self._names[k]]

    def _values(self, k: int) -> list[Array | None]:
        return [None if name is None else getattr(self, name).data for name in self._names[k]]

    def _gradients(self, k: int) -> list[Array | None]:
        return [None if p is None else p.grad for p in self._weights(k)]

    @property
    def _like(self) -> Array:
        """An array of the dtype and device of the weights."""
        return self.weight_ih_l0.data

    def _check_state(self, name: str, state: Any, form: _Form, like: Array) -> list[Array]:
        """Return the state's arrays as (layers * directions, B, features), sorted as the rows are.

        Of what is not given they are zero.
        """
        L, B = self.num_layers * self.num_directions, form.layout.batch_size
        xp = get_array_module(like)
        if state is None:
            # The common case by itself: forward + backward of a small layer take 0.98 of the time.
            return [xp.zeros((L, B, size), like.dtype) for size in self._state_sizes]
        arrays = []
        given = unpack_state(name, state, self._states)
        for (label, x), size in zip(given, self._state_sizes, strict=True):
            if x is None:
                arrays.append(xp.zeros((L, B, size), like.dtype))
                continue
            checks.floating(label, x, like)
            if form.kind == "unbatched":
                checks.shape(label, x, (L, size), "(num_layers * num_directions, features)")
                x = x[:, None]
            else:
                checks.shape(label, x, (L, B, size), "(num_layers * num_directions, B, features)")
            if form.packed is not None and form.packed.sorted_indices is not None:
                x = xp.take(x, xp.asarray(form.packed.sorted_indices), axis=1)
            arrays.append(x)
        return arrays

    def _restore_state(self, arrays: list[Array], form: _Form) -> Any:
        if form.kind == "unbatched":
            arrays = [x[:, 0] for x in arrays]
        elif form.packed is not None and form.packed.unsorted_indices is not None:
            xp = get_array_module(arrays[0])
            order = xp.asarray(form.packed.unsorted_indices)
            arrays = [xp.take(x, order, axis=1) for x in arrays]
        return pack_state(arrays)

    def _form(self, input: Any) -> tuple[_Form, Array, Array]:
        """Return the input's form, its rows, and an array of the dtype and device of the weights."""
        like = self._like
        if isinstance(input, PackedSequence):
            form = _Form("packed", input, input.layout)
        else:
            checks.array_module(input=input)
            shape = input.shape
            if len(shape) == 3 and not self.batch_first:
                form = _Form("padded", None, equal_lengths(shape[0], shape[1]))
            elif len(shape) == 3:
                form = _Form("batch_first", None, equal_lengths(shape[1], shape[0]))
            elif len(shape) == 2:
                form = _Form("unbatched", None, equal_lengths(shape[0], 1))
            else:
                axes = "(B, T, I)" if self.batch_first else "(T, B, I)"
                raise ValueError(
                    f"input: expected {axes}, (T, I) or a PackedSequence, got shape {shape}"
                )
            if form.layout.batch_size == 0:
                raise ValueError(f"input: expected at least one sequence, got shape {shape}")
        return form, form.rows("input", input, self.input_size, like), like

    # -- forward -------------------------------------------------------------------------------

    def forward(self, input: Any, h_0: Any = None, *, trace: bool = False) -> tuple[Any, Context]:
        """Run over whole sequences.

        Parameters
        ----------
        input : array or PackedSequence
            (T, B, I); (B, T, I) with `batch_first`; (T, I) unbatched; or packed.
        h_0 : array of shape (num_layers * num_directions, B, H), optional
            Initial states, zero if not given; without the axis B for unbatched input. For the LSTM a
            pair ``(h_0, c_0)``, where with a projection h_0 has `proj_size` features.
        trace : bool, keyword-only
            Return every step's states and gates too, as a :class:`Trace`.

        Returns
        -------
        (output, h_n), ctx
            The last layer's states at every step, in the form of the input and with directions
            side by side; the last states of every layer and direction in the shape of `h_0`; the
            context for :meth:`backward`. With `trace`, ``(output, h_n, trace), ctx``.

        Raises
        ------
        TypeError
            If `input` or `h_0` is not floating point, not of the weights' dtype, or on another device.
        ValueError
            If a shape does not fit.
        """
        form, x, like = self._form(input)
        initial = self._check_state("h_0", h_0, form, like)
        layout = form.layout
        save = saving() or trace
        windows = self.checkpoint and save and not trace
        run = self._run_windows if windows else partial(self._run, save=save)
        parts = [] if trace else self._parts(layout, x)
        # What runs a layer's directions, or a batch in parts, side by side, if there are any.
        beside: Callable[[list[Any]], Iterable[_Passed]] | None = None
        if parts:
            beside = partial(self._run_parts, run, parts)
        elif self._one_launch(x) and not windows:
            beside = partial(self._run_both, save)
        elif self.bidirectional:
            beside = partial(together, run, worthwhile=self._worth_threads(x))
        dropouts: list[Any] = []
        passes: list[Any] = []
        lasts: list[list[Array]] = []
        for layer in range(self.num_layers):
            dropped = None
            if layer and self.dropout and self.training:
                x, dropped = dropout_pair.forward(x, self.dropout, self._rng, save)
            dropouts.append(dropped)
            if beside is None:
                start, mask = [s[layer] for s in initial], self._draw_mask(layout.batch_size, x)
                x, last, ctx = run(layer, x, start, layout, mask)
                lasts.append(last)
                passes.append(ctx)
            else:
                x, several_lasts, contexts = self._run_sides(beside, layer, x, initial, layout)
                lasts += several_lasts
                passes += contexts
        xp = get_array_module(x)
        h_n = [xp.concatenate(s).reshape(len(s), *s[0].shape) for s in zip(*lasts, strict=True)]
        result = (form.restore(x), self._restore_state(h_n, form))
        saved = _Saved(form, dropouts, passes, like) if saving() else None
        if trace:
            return (*result, self._trace(form, passes)), Context(self, saved)
        return result, Context(self, saved)

    def _worth_threads(self, like: Array) -> bool:
        return self.hidden_size >= _THREADED_SIZE and isinstance(like, np.ndarray)

    def _parts(self, layout: Layout, like: Array) -> list[Part]:
        """Return the batch in as many parts as each direction has threads; none for one thread."""
        threads = num_threads() // self.num_directions
        if threads <= 1 or not self._worth_threads(like):
            return []
        rows = len(self.recurrence.GATES) * self.hidden_size
        count = min(threads, layout.batch_size * rows * self.output_size // _THREADED_STEP)
        return layout.parts(count) if count > 1 else []

    def _one_launch(self, like: Array) -> bool:
        """Tell whether the pair can run both directions at once: on the GPU that is one launch."""
        return self.bidirectional and hasattr(pair_for(self.recurrence, like), "forward_together")

    def _draw_mask(self, batch_size: int, like: Array) -> Array | None:
        if not (self.recurrent_dropout and self.training):
            return None
        shape = (batch_size, self.output_size)
        return dropout_pair.draw_mask(shape, self.recurrent_dropout, self._rng, like)

    def _run(
        self,
        k: int,
        x: Array,
        start: list[Array],
        layout: Layout,
        mask: Array | None,
        save: bool,
    ) -> _Passed:
        """Run pass `k`, one layer in one direction; return its states, the last ones, the context."""
        states = self._begin(x, start, layout)
        pair = pair_for(self.recurrence, x)
        ctx = pair.forward(
            x, states, self._values(k), layout, mask=mask, save=save, **self._options
        )
        return states[0][layout.batch_size :], [layout.last_states(s) for s in states], ctx

    def _begin(self, x: Array, start: list[Array], layout: Layout) -> list[Array]:
        """Return room for the states at all steps, with the initial ones in place."""
        xp, B = get_array_module(x), layout.batch_size
        states = []
        for s_0 in start:
            s = xp.empty((B + layout.rows, s_0.shape[1]), x.dtype)
            s[:B] = s_0
            states.append(s)
        return states

    def _run_sides(
        self,
        beside: Callable[[list[Any]], Iterable[_Passed]],
        layer: int,
        x: Array,
        initial: list[Array],
        layout: Layout,
    ) -> tuple[Array, list[list[Array]], list[Any]]:
        """Run a layer's directions, by `beside`; return its output, and of each direction the rest."""
        D = self.num_directions
        sides = [
            (
                k,
                layout.reversed_rows(x) if k % D else x,
                [s[k] for s in initial],
                layout,
                self._draw_mask(layout.batch_size, x),
            )
            for k in range(layer * D, (layer + 1) * D)
        ]
        ys, lasts, contexts = zip(*beside(sides), strict=True)
        y = ys[0]
        if self.bidirectional:
            y = get_array_module(y).concatenate([y, layout.reversed_rows(ys[1])], axis=1)
        return y, list(lasts), list(contexts)

    def _run_both(self, save: bool, sides: list[Any]) -> Iterator[_Passed]:
        """Do the same for both directions at once, given :meth:`_run`'s arguments for each."""
        passes = [
            (x, self._begin(x, start, layout), self._values(k), mask)
            for k, x, start, layout, mask in sides
        ]
        _, x, _, layout, _ = sides[0]
        contexts = pair_for(self.recurrence, x).forward_together(passes, layout, **self._options)
        for (_, states, _, _), ctx in zip(passes, contexts, strict=True):
            last = [layout.last_states(s) for s in states]
            yield states[0][layout.batch_size :], last, ctx if save else None

    def _run_parts(
        self, run: Callable[..., Any], parts: list[Part], sides: list[Any]
    ) -> Iterator[_Passed]:
        """Do what `run` does for each of `sides`, its arguments, a thread for each part of the batch."""
        _, x, _, layout, _ = sides[0]
        dtype, B = x.dtype, layout.batch_size
        wholes = [
            (
                np.empty((layout.rows, self.output_size), dtype),
                [np.empty((B, size), dtype) for size in self._state_sizes],
            )
            for _ in sides
        ]

        def run_part(part: Part, side: int) -> Any:
            k, x, start, _, mask = sides[side]
            y, last = wholes[side]
            start = [s[part.sequences] for s in start]
            mask = None if mask is None else mask[part.sequences]
            y[part.rows], last_part, ctx = run(
                k, x.take(part.rows, axis=0), start, part.layout, mask
            )
            for s, s_part in zip(last, last_part, strict=True):
                s[part.sequences] = s_part
            return ctx

        calls = [(part, side) for side in range(len(sides)) for part in parts]
        contexts = together(run_part, calls, True)
        for side, (y, last) in enumerate(wholes):
            first = side * len(parts)
            yield y, last, _InParts(parts, contexts[first : first + len(parts)])

    def _run_windows(
        self, k: int, x: Array, start: list[Array], layout: Layout, mask: Array | None
    ) -> tuple[Array, list[Array], list[_Checkpoint]]:
        """Run pass `k` window by window, and keep no more than the states between."""
        y = get_array_module(x).empty((layout.rows, self.output_size), x.dtype)
        last = [s.copy() for s in start]
        checkpoints = []
        for w in layout.windows:
            entering = w.layout.batch_size
            checkpoint = _Checkpoint(
                x[w.rows],
                [s[:entering].copy() for s in last],
                w.layout,
                None if mask is None else mask[:entering],
            )
            checkpoints.append(checkpoint)
            y[w.rows], last_w, _ = self._run(k, *checkpoint, save=False)
            for s, s_w in zip(last, last_w, strict=True):
                s[:entering] = s_w
        return y, last, checkpoints

    def step(self, x_t: Array, state: Any = None) -> tuple[Array, Any]:
        """Take one time step at inference: streaming, equal to the forward pass over all steps.

        No dropout acts, whatever `training` says.

        Parameters
        ----------
        x_t : array of shape (B, input_size) or (input_size,)
        state : array of shape (num_layers, B, H), or for the LSTM a pair, optional
            The state that the step before returned; without the axis B if `x_t` has none.

        Returns
        -------
        output, state
            The last layer's h, (B, H) or (H,), and the state for the next step.

        Raises
        ------
        ValueError
            If the layer is bidirectional: its reverse direction would have to begin at the end. If a
            shape does not fit.
        TypeError
            If an array is not floating point, not of the weights' dtype, or on another device.
        """
        if self.bidirectional:
            raise ValueError("step: a bidirectional layer cannot run step by step")
        like = self._like
        checks.floating("x_t", x_t, like)
        if x_t.ndim not in (1, 2) or x_t.shape[-1] != self.input_size or not len(x_t):
            raise ValueError(
                f"x_t: expected shape (B, {self.input_size}) or ({self.input_size},), got {x_t.shape}"
            )
        batched = x_t.ndim == 2
        x = x_t if batched else x_t[None]
        form = _Form("padded" if batched else "unbatched", None, equal_lengths(1, len(x)))
        xp, shape = get_array_module(x), (self.num_layers, len(x))
        after = [xp.empty((*shape, size), x.dtype) for size in self._state_sizes]
        before = self._check_state("state", state, form, like)
        for k in range(self.num_layers):
            new = [s[k] for s in after]
            pair_for(self.recurrence, x).step(
                x, [s[k] for s in before], self._values(k), new, **self._options
            )
            x = new[0]
        return (x if batched else x[0]).copy(), self._restore_state(after, form)

    # -- backward ------------------------------------------------------------------------------

    def backward(
        self, ctx: Context, doutput: Any = None, dh_n: Any = None, *, trace: bool = False
    ) -> Any:
        """Run backward through time: add the weights' gradients into their ``grad``.

        Parameters
        ----------
        ctx : Context
            From this layer's :meth:`forward`.
        doutput : array or PackedSequence, optional
            Gradient of `output`, in its form; ``None`` if the loss does not depend on it.
        dh_n : array of the shape of `h_n`, optional
            Gradient of the last states; for the LSTM a pair ``(dh_n, dc_n)``, each of which may be
            ``None``.
        trace : bool, keyword-only
            Return dL/dh_t (and dL/dc_t) of every step and layer too, as a :class:`Trace`: where they
            shrink or grow with the distance to the loss, gradients vanish or explode.

        Returns
        -------
        dinput, dh_0
            Gradients of the input, in its form, and of the initial states. With `trace`,
            ``dinput, dh_0, trace``.

        Raises
        ------
        TypeError
            If a gradient is not floating point, not of the weights' dtype, or on another device.
        ValueError
            If `ctx` is another layer's, or a gradient's shape does not fit.
        """
        form, dropouts, passes, like = self._saved(ctx)
        xp = get_array_module(like)
        layout, features = form.layout, self.num_directions * self.output_size
        dy = None if doutput is None else form.rows("doutput", doutput, features, like)
        # The recurrence turns the gradients of the last states into those of the initial ones.
        dstate = [s.copy() for s in self._check_state("dh_n", dh_n, form, like)]
        traces: list[Any] = [None] * len(passes)
        if trace:
            rows = [(layout.rows, size) for size in self._state_sizes]
            traces = [tuple(xp.empty(shape, like.dtype) for shape in rows) for _ in passes]
        for layer in reversed(range(self.num_layers)):
            if self.bidirectional or isinstance(passes[layer], _InParts):
                dy = self._back_sides(layer, passes, dy, dstate, traces, layout)
            else:
                start, dweights = [s[layer] for s in dstate], self._gradients(layer)
                dy = self._back(layer, passes[layer], dy, start, dweights, traces[layer], layout)
            if dropouts[layer] is not None:
                dy = dropout_pair.backward(dropouts[layer], dy)
        result = (form.restore(dy), self._restore_state(dstate, form))
        if not trace:
            return result
        by_state = [self._by_layer(form, s) for s in zip(*traces, strict=True)]
        return (*result, Trace(by_state[0], by_state[1] if len(by_state) == 2 else ()))

    def _back(
        self,
        k: int,
        ctx: Any,
        dy: Array | None,
        dstate: list[Array],
        dweights: list[Array | None],
        trace: tuple[Array, ...] | None,
        layout: Layout,
    ) -> Array:
        """Run pass `k` backward; `dstate` becomes the gradient of the initial state."""
        pair = pair_for(self.recurrence, dstate[0])
        if not isinstance(ctx, list):
            return pair.backward(ctx, dy, dstate, dweights, trace)
        # Window by window, after running each again.
        checkpoints: list[_Checkpoint] = ctx
        xp = get_array_module(dstate[0])
        features = self._weights(k)[0].shape[1]
        dx = xp.empty((layout.rows, features), dstate[0].dtype)
        for w, checkpoint in zip(reversed(layout.windows), reversed(checkpoints), strict=True):
            _, _, ctx_w = self._run(k, *checkpoint, save=True)
            dx[w.rows] = pair.backward(
                ctx_w,
                None if dy is None else dy[w.rows],
                [s[: w.layout.batch_size] for s in dstate],
                dweights,
                None if trace is None else tuple(t[w.rows] for t in trace),
            )
        return dx

    def _back_sides(
        self,
        layer: int,
        passes: list[Any],
        dy: Array | None,
        dstate: list[Array],
        traces: list[Any],
        layout: Layout,
    ) -> Array:
        """Run a layer's directions, or its parts, backward; return the gradient of its input."""
        D, P = self.num_directions, self.output_size
        sides = []
        for k in range(layer * D, (layer + 1) * D):
            dy_k = dy
            if dy is not None and D == 2:
                side = k % D * P
                dy_k = get_array_module(dy).ascontiguousarray(dy[:, side : side + P])
                dy_k = layout.reversed_rows(dy_k) if side else dy_k
            dstate_k = [s[k] for s in dstate]
            sides.append((k, passes[k], dy_k, dstate_k, self._gradients(k), traces[k], layout))
        one_pass, like = sides[0][1], dstate[0]
        if isinstance(one_pass, _InParts):
            dx, *others = self._back_parts(sides)
        elif self._one_launch(like) and not isinstance(one_pass, list):
            dx, *others = self._back_both(sides)
        else:
            dx, *others = together(self._back, sides, self._worth_threads(like))
        for dx_reversed in others:
            dx += layout.reversed_rows(dx_reversed)
        return dx

    def _back_both(self, sides: list[Any]) -> list[Array]:
        """Do the same for both directions at once, given :meth:`_back`'s arguments for each."""
        pair = pair_for(self.recurrence, sides[0][3][0])
        dxs: list[Array] = pair.backward_together([args for _, *args, _ in sides])
        return dxs

    def _back_parts(self, sides: list[Any]) -> list[Array]:
        """Do the same, a thread for each part of the batch and each of `sides`."""
        dtype = sides[0][3][0].dtype
        dxs = [
            np.empty((layout.rows, self._weights(k)[0].shape[1]), dtype) for k, *_, layout in sides
        ]

        def back_part(side: int, part: Part, ctx: Any) -> list[Array | None]:
            k, _, dy, dstate, dweights, trace, _ = sides[side]
            dy = None if dy is None else dy.take(part.rows, axis=0)
            dstate_part = [s[part.sequences].copy() for s in dstate]
            # Threads must not add into one array.
            dweights = [None if d is None else np.zeros_like(d) for d in dweights]
            sizes = self._state_sizes
            trace_part = trace and tuple(np.empty((part.layout.rows, n), dtype) for n in sizes)
            args = k, ctx, dy, dstate_part, dweights, trace_part
            dxs[side][part.rows] = self._back(*args, part.layout)
            for s, s_part in zip(dstate, dstate_part, strict=True):
                s[part.sequences] = s_part
            for t, t_part in zip(trace or (), trace_part or (), strict=True):
                t[part.rows] = t_part
            return dweights

        calls = [
            (side, part, ctx)
            for side, (_, passed, *_) in enumerate(sides)
            for part, ctx in zip(passed.parts, passed.contexts, strict=True)
        ]
        results = iter(together(back_part, calls, True))
        for _, passed, _, _, dweights, *_ in sides:
            for _ in passed.parts:
                for total, d in zip(dweights, next(results), strict=True):
                    if d is not None:
                        total += d
        return dxs

    # -- looking inside ------------------------------------------------------------------------

    def _trace(self, form: _Form, passes: list[Any]) -> Trace:
        B = form.layout.batch_size
        pair = pair_for(self.recurrence, passes[0].h)
        gates = [pair.gates(ctx) for ctx in passes]
        return Trace(
            self._by_layer(form, [ctx.h[B:] for ctx in passes]),
            self._by_layer(form, [ctx.c[B:] for ctx in passes])
            if len(self._state_sizes) == 2
            else (),
            {name: self._by_layer(form, [values[name] for values in gates]) for name in gates[0]},
        )

    def _by_layer(self, form: _Form, per_pass: Any) -> tuple[Any, ...]:
        """Put the directions of each layer side by side, in the form of the output."""
        D = self.num_directions
        xp = get_array_module(per_pass[0])
        layers = []
        for k in range(0, len(per_pass), D):
            sides = [per_pass[k]]
            if D == 2:
                sides.append(form.layout.reversed_rows(per_pass[k + 1]))
            layers.append(form.restore(xp.concatenate(sides, axis=1)))
        return tuple(layers)

    def _describe(self) -> str:
        defaults = {"num_layers": 1, "nonlinearity": "tanh", "bias": True, "batch_first": False}
        defaults |= {"dropout": 0.0, "bidirectional": False, "proj_size": 0}
        defaults |= {"recurrent_dropout": 0.0, "checkpoint": False}
        return describe(self, ("input_size", "hidden_size"), defaults)


class RNN(Recurrent):
    r"""Elman network, stacked and in both directions if asked for: torch's ``nn.RNN``.

    :math:`h_t = \phi(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})`; see
    :mod:`minirnn.functional.rnn` for it and its derivatives.

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
    nonlinearity : {"tanh", "relu"}
    bias : bool
    batch_first : bool
        Padded input and output are (B, T, ...). States are not affected.
    dropout : float
        Probability to drop an entry of each layer's output but the last one's, in training.
    bidirectional : bool
    recurrent_dropout : float, keyword-only
        Probability to drop an entry of the state that enters the recurrent product, in training;
        one mask a sequence (Gal and Ghahramani, "A theoretically grounded application of dropout
        in recurrent neural networks", NeurIPS 2016).
    checkpoint : bool, keyword-only
        Keep one state in every sqrt(T) steps for backward, or in every 64 if that is more and the batch
        is small, and compute the others again. Gradients are the same bit for bit. It saves the
        gates and cells of LSTM and GRU; the states of an RNN are its output and are kept anyway.
    init : {"torch", "orthogonal"}, keyword-only
        Uniform on ``+-1/sqrt(hidden_size)``; or orthogonal W_hh, Xavier W_ih and zero biases.
    dtype : dtype, keyword-only
    rng : seed or Generator, keyword-only
        For the weights and for dropout.

    Attributes
    ----------
    weight_ih_l{k}, weight_hh_l{k}, bias_ih_l{k}, bias_hh_l{k} : Parameter
        Of layer k; with ``_reverse`` for the reverse direction.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.RNN.html

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> rnn = minirnn.RNN(4, 8, num_layers=2, rng=0)
    >>> x = np.ones((5, 3, 4), np.float32)
    >>> (output, h_n), ctx = rnn.forward(x)
    >>> output.shape, h_n.shape
    ((5, 3, 8), (2, 3, 8))
    >>> dx, dh_0 = rnn.backward(ctx, None, np.ones_like(h_n))
    >>> dx.shape, rnn.weight_hh_l0.grad.shape
    ((5, 3, 4), (8, 8))
    """

    recurrence: ClassVar[Any] = rnn

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        recurrent_dropout: float = 0.0,
        checkpoint: bool = False,
        init: str = "torch",
        dtype: DTypeLike = np.float32,
        rng: RNG = None,
    ) -> None:
        checks.choice("nonlinearity", nonlinearity, ("tanh", "relu"))
        self.nonlinearity = nonlinearity
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            recurrent_dropout=recurrent_dropout,
            checkpoint=checkpoint,
            init=init,
            dtype=dtype,
            rng=rng,
        )

    @property
    def _options(self) -> dict[str, Any]:
        return {"nonlinearity": self.nonlinearity}


class GRU(Recurrent):
    r"""Gated recurrent unit: torch's ``nn.GRU``, gates in the order r, z, n.

    :math:`h_t = (1 - z) \odot n + z \odot h_{t-1}`; see :mod:`minirnn.functional.gru` for it and its
    derivatives. Arguments, attributes and calls are those of :class:`RNN`, without `nonlinearity`.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> output, h_n = minirnn.GRU(4, 8)(np.ones((5, 3, 4), np.float32))
    >>> output.shape
    (5, 3, 8)
    """

    recurrence: ClassVar[Any] = gru


class LSTM(Recurrent):
    r"""Long short-term memory: torch's ``nn.LSTM``, gates in the order i, f, g, o.

    :math:`c_t = f \odot c_{t-1} + i \odot g, \; h_t = o \odot \tanh c_t`; see
    :mod:`minirnn.functional.lstm` for it and its derivatives. Arguments, attributes and calls are those
    of :class:`RNN`, without `nonlinearity`; the state is the pair ``(h, c)`` everywhere.

    Parameters
    ----------
    proj_size : int
        If positive, :math:`h_t` is projected to this size by ``weight_hr_l{k}``; smaller than
        `hidden_size`.
    forget_bias : float, optional, keyword-only
        Initial sum of the forget gate's two biases (Jozefowicz et al., "An empirical exploration
        of recurrent network architectures", ICML 2015, recommend 1). As drawn if not given.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> lstm = minirnn.LSTM(4, 8)
    >>> (output, (h_n, c_n)), ctx = lstm.forward(np.ones((5, 3, 4), np.float32))
    >>> dx, (dh_0, dc_0) = lstm.backward(ctx, np.ones_like(output))
    """

    recurrence: ClassVar[Any] = lstm
    _states: ClassVar[int] = 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        forget_bias: float | None = None,
        recurrent_dropout: float = 0.0,
        checkpoint: bool = False,
        init: str = "torch",
        dtype: DTypeLike = np.float32,
        rng: RNG = None,
    ) -> None:
        checks.positive(hidden_size=hidden_size)
        if proj_size != 0:
            checks.positive(proj_size=proj_size)
        if proj_size >= hidden_size:
            raise ValueError(
                f"proj_size: expected 0 <= proj_size < hidden_size = {hidden_size}, got {proj_size}"
            )
        if forget_bias is not None and not bias:
            raise ValueError("forget_bias: expected None for a layer without biases")
        self.proj_size = proj_size
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            recurrent_dropout=recurrent_dropout,
            checkpoint=checkpoint,
            init=init,
            dtype=dtype,
            rng=rng,
        )
        if forget_bias is not None:
            forget = slice(hidden_size, 2 * hidden_size)
            for k in range(len(self._names)):
                _, _, b_ih, b_hh, _ = self._weights(k)
                b_ih.data[forget] = forget_bias
                b_hh.data[forget] = 0

    def _weight_shapes(self, features: int) -> dict[str, tuple[int, ...] | None]:
        projection = (self.proj_size, self.hidden_size) if self.proj_size else None
        return {**super()._weight_shapes(features), "weight_hr": projection}
