r"""The gradient of each sample of a batch, and its norm without forming it.

A weight's gradient adds up outer products over rows, :math:`dW = \sum_r d_r a_r^\top`: what comes back to the
product's output, times what went into it. Each row belongs to one sample, so the sum over the rows of sample
b alone is that sample's gradient :math:`g_b = D_b^\top A_b`, with the rows of d and a as those of
:math:`D_b` and :math:`A_b`. Its norm needs no :math:`g_b`:

.. math::
    \lVert g_b \rVert^2 = \Big\langle \sum_r d_r a_r^\top, \sum_s d_s a_s^\top \Big\rangle
    = \sum_{r, s} (d_r \cdot d_s)(a_r \cdot a_s)
    = \big\langle D_b D_b^\top,\; A_b A_b^\top \big\rangle

the sum of the entrywise product of two Gram matrices, whose size is the number of the sample's steps squared
and not that of the weight. For a bias a is 1, and for a table a is one-hot: the second Gram matrix says which
tokens are equal. A weight that is used twice has the rows of both uses. The Gram matrices are of the
parameter's dtype, like everything that a backward computes; what is made of them is summed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from .. import checks
from ..activations import LayerNorm
from ..backend import Array, get_array_module, quiet
from ..bptt import directions
from ..cells import GRUCell, LSTMCell, RNNCell
from ..forms import Packed, PerRow
from ..layers import Embedding, Linear
from ..layout import Layout
from ..module import Module
from ..packed_sequence import Packing
from ..parameter import Parameter
from ..recurrent import Recurrent
from . import steps

# Gram matrices of more entries than this are not made if the samples' gradients have fewer.
_ENTRIES = 1 << 22
_RECENT = 12  # Gram matrices of one pass
_CACHED = 1 << 16  # entries


_LAYERS = (Linear, Embedding, LayerNorm, Recurrent, RNNCell, GRUCell, LSTMCell)
_WHOLE = slice(None)


class _Rows(NamedTuple):
    """One use of a parameter: its gradient is the sum over rows of ``d`` times ``a``."""

    sample: Array  # (N,), on the host: the sample that each row belongs to
    samples: int
    d: Array  # (N, out)
    a: Array | None  # (N, in), or tokens (N,), or None for 1
    part: slice = _WHOLE  # the rows of the parameter that it is the gradient of


@quiet
def per_sample_gradient_norms(
    module: Module, ctx: Any, *gradients: Any, batch_first: bool | None = None
) -> Array:
    """Run ``module.backward(ctx, *gradients)``, and return the norm of each sample's own gradient.

    One backward, which adds to the parameters' gradients as ever; no loop over the batch, and no sample's
    gradient is formed: see the module's text for how. It takes the gradients of the loss as they are: from a
    mean over B samples those of the samples come with the factor 1/B.

    Parameters
    ----------
    module : Module
        A layer, or a model of any depth whose parameters belong to Linear, Embedding, LayerNorm, RNN, GRU,
        LSTM and their cells.
        It must not be used by another thread meanwhile.
    ctx : Context
        What ``module.forward`` returned.
    *gradients : array, PackedSequence or None
        As ``module.backward`` takes them.
    batch_first : bool, keyword-only
        Whether padded arrays of three dimensions are (B, T, features) for Linear and Embedding. As the
        model's recurrent layers say, and (T, B, features) without any, if not given. Of two dimensions they
        are (B, features).

    Returns
    -------
    array of float64, shape (B,)
        Over all parameters together, in the order in which the batch was given.

    Raises
    ------
    TypeError
        If another kind of layer has parameters.
    ValueError
        If the layers do not agree on the number of samples.

    See Also
    --------
    per_sample_gradients : The gradients themselves.

    References
    ----------
    I. Goodfellow, "Efficient per-example gradient computations", arXiv 1510.01799 (2015), for one row
    a sample;
    G. Rochette, A. Manoel, E. Tramel, "Efficient per-example gradient computations in convolutional neural
    networks", arXiv 1912.06015 (2019).

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> from minirnn.diagnostics import per_sample_gradient_norms
    >>> layer = minirnn.Linear(2, 1, dtype=np.float64)
    >>> y, ctx = layer.forward(np.array([[3.0, 4.0], [0.0, 0.0]]))
    >>> per_sample_gradient_norms(layer, ctx, np.array([[1.0], [2.0]])).round(3)
    array([5.099, 2.   ])
    """
    uses = _uses(module, ctx, gradients, batch_first)
    B, recent = _batch_size(uses), _Recent()
    squares: Any = 0.0
    for p, rows in uses.items():
        squares = squares + _squared_norms(p, rows, B, recent)
    xp = get_array_module(squares)
    return xp.sqrt(xp.maximum(squares, 0))


@quiet
def per_sample_gradients(
    module: Module, ctx: Any, *gradients: Any, batch_first: bool | None = None
) -> dict[str, Array]:
    """Run ``module.backward(ctx, *gradients)``, and return each sample's own gradients.

    That takes B times the memory of the parameters; where norms are enough, take
    :func:`per_sample_gradient_norms`, whose parameters and errors these are.

    Parameters
    ----------
    module, ctx, *gradients, batch_first : Module, context, arrays, bool
        As for :func:`per_sample_gradient_norms`.

    Returns
    -------
    dict from str to array of float64, shape (B, and the parameter's)
        By the parameter's name.

    See Also
    --------
    per_sample_gradient_norms : Their norms alone, for far less memory.

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> from minirnn.diagnostics import per_sample_gradients
    >>> layer = minirnn.Linear(2, 1, dtype=np.float64)
    >>> y, ctx = layer.forward(np.array([[3.0, 4.0], [5.0, 0.0]]))
    >>> per_sample_gradients(layer, ctx, np.array([[1.0], [2.0]]))["weight"]
    array([[[ 3.,  4.]],
           [[10.,  0.]]])
    >>> layer.weight.grad  # their sum
    array([[13.,  4.]])
    """
    uses = _uses(module, ctx, gradients, batch_first)
    B = _batch_size(uses)
    return {p.name: _formed(p, rows, B) for p, rows in uses.items()}


# -- what each layer's backward was given ----------------------------------------------------------


def _uses(
    module: Module, ctx: Any, gradients: tuple[Any, ...], batch_first: bool | None
) -> dict[Parameter, list[_Rows]]:
    """Run backward and return, for each parameter, its rows in every use."""
    checks.having("module", module, "a Module", "modules", "backward")
    if batch_first is None:
        recurrent = [m for m in module.modules() if isinstance(m, Recurrent)]
        batch_first = any(m.batch_first for m in recurrent)
    checks.flags(batch_first=batch_first)
    with _recorded(module, batch_first) as uses:
        module.backward(ctx, *gradients)
    of: dict[Parameter, list[_Rows]] = {}
    for p, rows in uses:
        of.setdefault(p, []).append(rows)
    return of


@contextmanager
def _recorded(module: Module, batch_first: bool) -> Iterator[list[tuple[Parameter, _Rows]]]:
    """Record, while inside, the uses of all parameters in the layers' backward passes."""
    uses: list[tuple[Parameter, _Rows]] = []
    layers = [m for m in module.modules() if any(type(v) is Parameter for v in vars(m).values())]
    for layer in layers:
        if not isinstance(layer, _LAYERS):
            raise TypeError(
                "module: expected parameters in Linear, Embedding, LayerNorm, RNN, GRU, LSTM and their "
                f"cells, got some in {type(layer).__name__}"
            )

    def recording(layer: Module) -> Any:
        backward = layer.backward

        def record(ctx: Any, *gradients: Any, **named: Any) -> Any:
            if not isinstance(layer, Recurrent):
                # Now, since a loop over steps may write its next gradient over this one.
                dy = (*gradients, *named.values())[0]
                uses.extend(_of_layer(layer, ctx, dy, batch_first))
                return backward(ctx, *gradients, **named)
            traced = named.pop("trace", False)
            *result, trace = backward(ctx, *gradients, trace=True, **named)
            uses.extend(_of_recurrent(layer, layer._saved(ctx), trace))
            return (*result, trace) if traced else tuple(result)

        return record

    try:
        for layer in layers:
            vars(layer)["backward"] = recording(layer)
        yield uses
    finally:
        for layer in layers:
            vars(layer).pop("backward", None)


def _of_layer(
    layer: Module, ctx: Any, dy: Any, batch_first: bool
) -> Iterator[tuple[Parameter, _Rows]]:
    saved = layer._saved(ctx)
    if isinstance(layer, RNNCell | GRUCell | LSTMCell):
        yield from _of_cell(layer, saved, dy)
    elif isinstance(layer, LayerNorm):
        yield from _of_norm(layer, saved, dy, batch_first)
    else:
        yield from _of_table(layer, saved, dy, batch_first)


def _of_table(
    layer: Any, saved: Any, dy: Any, batch_first: bool
) -> Iterator[tuple[Parameter, _Rows]]:
    inner, form = saved
    sample, samples = _of_form(form, batch_first)
    out = layer.embedding_dim if isinstance(layer, Embedding) else layer.out_features
    d = form.gradient("dy", dy, (out,), layer.weight.data).copy()
    if isinstance(layer, Embedding):
        if layer.padding_idx is not None:
            d = d * (inner.tokens != layer.padding_idx)[:, None]
        yield layer.weight, _Rows(sample, samples, d, inner.tokens)
        return
    yield layer.weight, _Rows(sample, samples, d, inner.x)
    if layer.bias is not None:
        yield layer.bias, _Rows(sample, samples, d, None)


def _of_norm(
    layer: LayerNorm, saved: Any, dy: Any, batch_first: bool
) -> Iterator[tuple[Parameter, _Rows]]:
    inner, form = saved
    sample, samples = _of_form(form, batch_first)
    d = form.gradient("dy", dy, layer.normalized_shape, inner.x_hat).reshape(inner.x_hat.shape)
    if layer.weight is not None:
        yield layer.weight, _Rows(sample, samples, d * inner.x_hat, None)
    if layer.bias is not None:
        yield layer.bias, _Rows(sample, samples, d.copy(), None)


def _of_cell(layer: Any, saved: Any, dh: Any) -> Iterator[tuple[Parameter, _Rows]]:
    p, ctx, batched, like = saved
    s, cell = steps.of_context(p, ctx), steps.cell_of(layer, p)
    dstates = layer._enter("dh", dh, p, batched, like)
    totals = cell.totals(s, *dstates) if len(dstates) == 2 else (dstates[0], None)
    B = p.layout.batch_size
    yield from _of_step(cell, s, totals, layer._weights(0), np.arange(B), B)


def _of_recurrent(layer: Recurrent, saved: Any, trace: Any) -> Iterator[tuple[Parameter, _Rows]]:
    form, stack, contexts, like, *_ = saved
    layout, D = form.layout, layer.num_directions
    if isinstance(form, Packed):
        sample, samples = _of_packing(form.packing)
    else:
        sample, samples = layout.sequence, layout.batch_size

    def of_passes(arrays: Any, size: int) -> list[Any]:
        rows = [form.rows("trace", a, D * size, like) for a in arrays]
        return [side for r in rows for side in directions.join_backward(r, layout, D)]

    dhs = of_passes(trace.h, layer.output_size)
    dcs = of_passes(trace.c, layer.hidden_size) if trace.c else [None] * len(dhs)
    for k, s in enumerate(steps.of_layer(layer, stack, contexts)):
        cell = steps.cell_of(layer, stack.passes[k])
        yield from _of_step(cell, s, (dhs[k], dcs[k]), layer._weights(k), sample, samples)


def _of_step(
    cell: Any, s: steps.Steps, totals: Any, weights: Any, sample: Array, samples: int
) -> Iterator[tuple[Parameter, _Rows]]:
    """Iterate over the uses of a recurrence's weights at some rows, of the states' total gradients."""
    w_ih, w_hh, b_ih, b_hh, *projection = weights
    for gates, d_x, d_h, h in cell.products(s, *totals):
        for p, d, a in ((w_ih, d_x, s.x), (w_hh, d_h, h), (b_ih, d_x, None), (b_hh, d_h, None)):
            if p is not None:
                yield p, _Rows(sample, samples, d, a, gates)
    if projection and projection[0] is not None:
        yield projection[0], _Rows(sample, samples, totals[0], cell.hidden(s))


def _of_packing(packing: Packing) -> tuple[Array, int]:
    """Return the sample of each row, and how many samples there are."""
    layout: Layout = packing.layout
    order = packing.sorted_indices
    return layout.sequence if order is None else order[layout.sequence], layout.batch_size


def _of_form(form: PerRow, batch_first: bool) -> tuple[Array, int]:
    """Return the same of rows of an array, or packed."""
    if form.packing is not None:
        return _of_packing(form.packing)
    axes = form.axes
    if len(axes) == 2:
        T, B = (axes[1], axes[0]) if batch_first else axes
        every = np.arange(B)
        return every.repeat(T) if batch_first else np.tile(every, T), B
    if len(axes) > 2:
        raise ValueError(f"module: expected rows along at most two axes, got {axes}")
    B = axes[0] if axes else 1
    return np.arange(B), B


def _batch_size(uses: dict[Parameter, list[_Rows]]) -> int:
    sizes = {rows.samples for every in uses.values() for rows in every}
    if len(sizes) != 1:
        raise ValueError(
            f"module: expected layers that see the same number of samples, got {sorted(sizes)}; is "
            "batch_first right?"
        )
    return sizes.pop()


# -- sums over the rows of each sample -------------------------------------------------------------


class _Places(NamedTuple):
    """Where each row lies in an array (B, T, ...) of the samples' rows, T the most that one has."""

    order: Array  # (N,), on the host: the rows, sample by sample
    sample: Array  # (N,), in that order
    step: Array  # (N,): the how many-th of its sample
    starts: Array  # (B + 1,): where each sample's begin
    steps: int

    def padded(self, rows: Array, dtype: Any, first: int = 0, last: int | None = None) -> Array:
        """Return (B, T, ...) of the samples from `first` to `last`, T the most that one of *them* has.

        Zero where a sample has no more.
        """
        xp, last = get_array_module(rows), len(self.starts) - 1 if last is None else last
        T = int(np.diff(self.starts[first : last + 1]).max(initial=0))
        its = slice(int(self.starts[first]), int(self.starts[last]))
        order, shape = xp.asarray(self.order[its]), ((last - first) * T, *rows.shape[1:])
        if len(order) == shape[0]:
            out = rows[order].astype(dtype, copy=False)
        else:
            out = xp.zeros(shape, dtype)
            out[xp.asarray((self.sample[its] - first) * T + self.step[its])] = rows[order]
        return out.reshape(last - first, T, *rows.shape[1:])

    def pieces(self, rows: Array, dtype: Any) -> Iterator[tuple[slice, Array]]:
        """Iterate over the samples in pieces that a cache holds; on a GPU there is one."""
        B = len(self.starts) - 1
        size = max(1, _CACHED // max(1, self.steps * rows.shape[1]))
        size = size if get_array_module(rows) is np else B
        for first in range(0, B, size):
            last = min(B, first + size)
            yield slice(first, last), self.padded(rows, dtype, first, last)


def _places(uses: list[_Rows], B: int) -> _Places:
    sample = np.concatenate([u.sample for u in uses])
    order = np.argsort(sample, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(sample, minlength=B))])
    T, its = int(np.diff(starts).max(initial=0)), sample[order]
    return _Places(order, its, np.arange(len(its)) - starts[its], starts, T)


def _joined(arrays: list[Any]) -> Array:
    return arrays[0] if len(arrays) == 1 else get_array_module(arrays[0]).concatenate(arrays)


class _Recent:
    """The last few results of a function of an array; the weights of a layer share theirs.

    The arrays must outlive it, since they are known by their identity.
    """

    def __init__(self) -> None:
        self._results: dict[tuple[str, int], Any] = {}

    def of(self, name: str, array: Array, make: Callable[[], Any]) -> Any:
        """Return what is known of `array` under this name, or make it."""
        key = name, id(array)
        if key not in self._results:
            if len(self._results) == _RECENT:
                del self._results[next(iter(self._results))]
            self._results[key] = make()
        return self._results[key]

    def places(self, use: _Rows, B: int) -> _Places:
        """Return where the rows of one use lie."""
        found: _Places = self.of("places", use.sample, lambda: _places([use], B))
        return found


def _squared_norms(p: Parameter, uses: list[_Rows], B: int, recent: _Recent) -> Array:
    """Return (B,): the squared norm of each sample's gradient of one parameter.

    Its parts have norms of their own, unless some uses are of a part and others of the whole.
    """
    parts: dict[tuple[Any, Any], list[_Rows]] = {}
    for u in uses:
        parts.setdefault((u.part.start, u.part.stop), []).append(u)
    if len(parts) > 1 and (None, None) in parts:
        return _squares(_formed(p, uses, B))
    return sum(_of_part(p, own, B, recent) for own in parts.values())


def _of_part(p: Parameter, uses: list[_Rows], B: int, recent: _Recent) -> Any:
    xp, kinds, one = get_array_module(p.data), {_kind(u) for u in uses}, len(uses) == 1
    places = _places(uses, B) if not one else recent.places(uses[0], B)
    if places.steps == 0:
        return xp.zeros(B, np.float64)
    if kinds == {"one"} and one:
        return recent.of("sums", uses[0].d, lambda: _squares(_sums(uses[0].d, places)))
    if len(kinds) > 1 or kinds == {"one"} or _too_many(places, p):
        return _squares(_formed(p, uses, B))

    def gram(arrays: list[Any]) -> Array:
        if not one:
            return _gram(_joined(arrays), places)
        return recent.of("gram", arrays[0], lambda: _gram(arrays[0], places))

    if kinds == {"tokens"}:
        a = _joined([u.a for u in uses])
        tokens = places.padded(a, a.dtype)  # of rows that are not there, d is zero
        gram_a = tokens[:, :, None] == tokens[:, None, :]
    else:
        gram_a = gram([u.a for u in uses])
    return xp.einsum("brs,brs->b", gram([u.d for u in uses]), gram_a, dtype=np.float64)


def _gram(rows: Array, places: _Places) -> Array:
    """Return (B, T, T): the products of each sample's rows with one another."""
    xp, B, T = get_array_module(rows), len(places.starts) - 1, places.steps
    out = xp.zeros((B, T, T), rows.dtype)
    for samples, padded in places.pieces(rows, rows.dtype):
        t = padded.shape[1]
        out[samples, :t, :t] = xp.matmul(padded, padded.swapaxes(1, 2))
    return out


def _sums(rows: Array, places: _Places) -> Array:
    """Return (B, out): the sum of each sample's rows."""
    xp = get_array_module(rows)
    out = xp.empty((len(places.starts) - 1, rows.shape[1]), np.float64)
    for samples, padded in places.pieces(rows, np.float64):
        padded.sum(1, out=out[samples])
    return out


def _squares(g: Array) -> Array:
    flat = g.reshape(len(g), -1)
    return get_array_module(g).einsum("bi,bi->b", flat, flat)


def _too_many(places: _Places, p: Parameter) -> bool:
    """Tell whether Gram matrices take more memory than there should be, and than the gradients would."""
    return places.steps**2 * (len(places.starts) - 1) > _ENTRIES and places.steps**2 > p.size


def _kind(use: _Rows) -> str:
    return "one" if use.a is None else "tokens" if use.a.ndim == 1 else "rows"


def _formed(p: Parameter, uses: list[_Rows], B: int) -> Array:
    """Return (B, *shape): each sample's gradient of one parameter."""
    xp = get_array_module(p.data)
    total = xp.zeros((B, *p.shape), np.float64)
    for u in uses:
        if _kind(u) == "tokens":
            xp.add.at(total, (xp.asarray(u.sample), u.a), u.d.astype(np.float64))
            continue
        places, own = _places([u], B), total[:, u.part]
        if places.steps:
            d = places.padded(u.d, np.float64)
            if u.a is None:
                own += d.sum(1).reshape(own.shape)
            else:
                own += xp.matmul(d.swapaxes(1, 2), places.padded(u.a, np.float64))
    return total
