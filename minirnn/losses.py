"""The losses: checks, and what is left out of the mean, around :mod:`minirnn.functional.loss`."""

from __future__ import annotations

from typing import Any, ClassVar

from . import checks
from .backend import Array, get_array_module, reads_values
from .functional import indices, loss
from .module import Context, Module, saving
from .pairs import pair_for


class _Loss(Module):
    _result: ClassVar[str] = "loss"

    def __init__(self, reduction: str) -> None:
        checks.choice("reduction", reduction, ("mean", "sum", "none"))
        self.reduction = reduction

    def _incoming(self, dloss: Any, like: Array, shape: tuple[int, ...]) -> Any:
        """Return `dloss`, checked: a number, or an array like `like`; `shape` is the unreduced loss's."""
        if self.reduction == "none":
            checks.floating("dloss", dloss, like)
            checks.shape("dloss", dloss, shape, "that of the loss")
        elif getattr(dloss, "shape", ()) != ():
            raise ValueError(f"dloss: expected a scalar, got shape {dloss.shape}")
        elif checks.is_number(dloss):
            return float(dloss)  # a NumPy scalar of another precision would promote the gradient
        else:
            checks.floating("dloss", dloss, like)
        return dloss

    def _back(self, saved: Any, dloss: Any) -> Array:
        """Return the gradient of the rows or entries."""
        raise NotImplementedError


class _ClassLoss(_Loss):
    """What the losses of classes share: a weight for each class, targets that are ignored, any axes."""

    _buffers = ("weight",)

    def __init__(self, weight: Array | None, ignore_index: int, reduction: str) -> None:
        super().__init__(reduction)
        ignore_index = checks.whole("ignore_index", ignore_index)
        if weight is not None:
            checks.floating("weight", weight)
            if weight.ndim != 1:
                raise ValueError(f"weight: expected shape (C,), got {weight.shape}")
        self.weight, self.ignore_index = weight, ignore_index

    def forward(self, input: Array, target: Array) -> tuple[Array, Context]:
        """Return the loss.

        Parameters
        ----------
        input : array of shape (N, C), (C,) or (N, C, d1, ...)
            Logits, for :class:`NLLLoss` log-probabilities.
        target : array of int, shape (N,), () or (N, d1, ...)
            Classes in [0, C), or `ignore_index`; for :class:`CrossEntropyLoss` also an array of the input's
            shape and dtype, a distribution over the classes for each row.

        Returns
        -------
        loss, ctx : scalar array, or one of the shape of `target` with reduction "none"; Context

        Raises
        ------
        IndexError
            If a class is outside ``[0, C)`` and not `ignore_index`: the first, with its position.
        TypeError
            If `input` is not floating point, or `target` neither integers nor such as `input`.
        ValueError
            If a shape does not fit.

        Warns
        -----
        RuntimeWarning
            If all targets are ignored and the mean of none, NaN, is returned.
        """
        checks.array_module(input=input, target=target)
        checks.floating("input", input)
        shape = input.shape
        if not shape:
            raise ValueError(f"input: expected shape (N, C), got {shape}")
        if 0 in shape:
            raise ValueError(f"input: expected at least one row and class, got {shape}")
        if self.weight is not None:
            checks.floating("weight", self.weight, input, "input")
            checks.shape("weight", self.weight, (_classes_of(shape),), "(C,)")
        value, saved = self._of_rows(input, target)
        if self.reduction == "none":
            value = value.reshape(_without_classes(shape))
        return value, Context(self, None if saved is None else (saved, shape))

    def _of_rows(self, input: Array, target: Array) -> tuple[Array, Any]:
        """Return the loss of the rows, and what backward needs, whose first array is of the input's dtype."""
        raise NotImplementedError

    def _classes(self, input: Array, target: Array) -> tuple[Array, int | None]:
        """Return the rows' classes, checked, and what is ignored of them, None if nothing is."""
        checks.integers("target", target)
        shape, expected = input.shape, _without_classes(input.shape)
        if target.shape == shape[:-1] != expected:
            raise ValueError(
                f"target: expected shape {expected}, that of the input {shape} without the classes, "
                f"which are axis 1, got {target.shape}; if the classes are the last axis, pass "
                "input.reshape(-1, C) and target.reshape(-1), or numpy.moveaxis(input, -1, 1)"
            )
        checks.shape("target", target, expected, "that of the input without the classes, axis 1,")
        C = _classes_of(shape)
        ignore: int | None = self.ignore_index
        if reads_values(target):
            # Where all targets are classes, none is a negative `ignore_index`: nothing has to be left out.
            if self.ignore_index < 0 and pair_for(indices, target).within(target, C):
                ignore = None
            else:
                self._check_classes(target, C)
        return target if target.ndim == 1 else target.reshape(-1), ignore

    def _check_classes(self, target: Array, C: int) -> None:
        ignored = target == self.ignore_index
        counted = get_array_module(target).where(ignored, 0, target)
        if not pair_for(indices, counted).within(counted, C):
            raise checks.outside("class", counted, C)
        if self.reduction == "mean" and bool(ignored.all()):
            checks.warn(
                f"all targets are ignored (ignore_index={self.ignore_index}): the mean loss is NaN",
                RuntimeWarning,
            )

    def backward(self, ctx: Context, dloss: Any = 1.0) -> Array:
        """Return the gradient of `input`.

        Parameters
        ----------
        ctx : Context
        dloss : number or scalar array, or with reduction "none" an array of the shape of the loss

        Returns
        -------
        array of the shape of `input`
        """
        saved, shape = self._saved(ctx)
        dloss = self._incoming(dloss, saved[0], _without_classes(shape))
        if self.reduction == "none":
            dloss = dloss.reshape(-1)
        dinput = self._back(saved, dloss)
        if len(shape) == 2:
            return dinput
        if len(shape) == 1:
            return dinput.reshape(shape)
        xp = get_array_module(dinput)
        return xp.moveaxis(dinput.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


class CrossEntropyLoss(_ClassLoss):
    r"""Cross entropy of a softmax over logits with classes, or with distributions over them.

    :math:`\ell_n = -w_{t_n} \log p_{n, t_n}, \; p = \mathrm{softmax}(z)`, or for a distribution
    :math:`\ell_n = -\sum_c w_c\, q_{n, c} \log p_{n, c}`; see :mod:`minirnn.functional.loss` for both with
    label smoothing, and for their derivatives.

    Parameters
    ----------
    weight : array of shape (C,), optional
        Weight of each class; the mean is taken over the weights of the targets, with distributions over
        the rows.
    ignore_index : int
        Targets of this value count for nothing, whatever their logits are.
    reduction : {"mean", "sum", "none"}
        What becomes of the losses of a batch.
    label_smoothing : float
        In [0, 1]: how much of the target is spread over all classes (Szegedy et al., "Rethinking
        the Inception architecture for computer vision", CVPR 2016).

    Raises
    ------
    ValueError
        If `reduction` is another, or `label_smoothing` outside [0, 1].
    TypeError
        If `weight` is no array, or `ignore_index` no integer.

    See Also
    --------
    NLLLoss : From logarithms of probabilities.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html

    Examples
    --------
    >>> import minirnn, numpy as np
    >>> criterion = minirnn.CrossEntropyLoss()
    >>> loss, ctx = criterion.forward(np.zeros((2, 4)), np.array([0, 3]))
    >>> criterion.backward(ctx)
    array([[-0.375,  0.125,  0.125,  0.125],
           [ 0.125,  0.125,  0.125, -0.375]])
    """

    def __init__(
        self,
        weight: Array | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        checks.probability("label_smoothing", label_smoothing)
        super().__init__(weight, ignore_index, reduction)
        self.label_smoothing = label_smoothing

    def _of_rows(self, input: Array, target: Array) -> tuple[Array, Any]:
        rows, weight, reduction, smoothing = (
            _class_rows(input),
            self.weight,
            self.reduction,
            self.label_smoothing,
        )
        if target.dtype.kind == "f" and target.ndim == input.ndim:
            checks.floating("target", target, input, "input")
            axes = "that of the input, a distribution over its classes,"
            checks.shape("target", target, input.shape, axes)
            shares = _class_rows(checks.unshared(target) if saving() else target)
            return loss.soft_cross_entropy_forward(
                rows, shares, weight, reduction, smoothing, saving()
            )
        classes, ignore = self._classes(input, target)
        args = rows, classes, weight, ignore, reduction, smoothing, saving()
        result: tuple[Array, Any] = pair_for(loss, rows).cross_entropy_forward(*args)
        return result

    def _back(self, saved: Any, dloss: Any) -> Array:
        if isinstance(saved, loss.SoftCrossEntropyContext):
            return loss.soft_cross_entropy_backward(saved, dloss)
        dinput: Array = pair_for(loss, saved.slope).cross_entropy_backward(saved, dloss)
        return dinput


class NLLLoss(_ClassLoss):
    r"""Negative log-likelihood of classes: the cross entropy of what is a log-probability already.

    :math:`\ell_n = -w_{t_n} \log p_{n, t_n}`, and the mean is taken over the weights of the targets. After
    :func:`~minirnn.log_softmax` it is :class:`CrossEntropyLoss`, which has a gradient of better digits.

    Parameters
    ----------
    weight : array of shape (C,), optional
        Weight of each class.
    ignore_index : int
        Targets of this value count for nothing.
    reduction : {"mean", "sum", "none"}
        What becomes of the losses of a batch.

    Raises
    ------
    ValueError, TypeError
        As :class:`CrossEntropyLoss`.

    See Also
    --------
    CrossEntropyLoss : From logits, in one step.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.NLLLoss.html

    Examples
    --------
    >>> import minirnn, numpy as np
    >>> criterion = minirnn.NLLLoss()
    >>> loss, ctx = criterion.forward(np.log([[0.5, 0.5], [0.2, 0.8]]), np.array([0, 1]))
    >>> criterion.backward(ctx)
    array([[-0.5,  0. ],
           [ 0. , -0.5]])
    """

    def __init__(
        self, weight: Array | None = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__(weight, ignore_index, reduction)

    def _of_rows(self, input: Array, target: Array) -> tuple[Array, Any]:
        rows, (classes, ignore) = _class_rows(input), self._classes(input, target)
        return loss.nll_forward(rows, classes, self.weight, ignore, self.reduction, saving())

    def _back(self, saved: Any, dloss: Any) -> Array:
        return loss.nll_backward(saved, dloss)


def _without_classes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of logits without their classes, axis 1, or the only axis."""
    return shape[:1] + shape[2:] if len(shape) > 1 else ()


def _classes_of(shape: tuple[int, ...]) -> int:
    """Return how many classes logits of this shape have."""
    return shape[min(1, len(shape) - 1)]


def _class_rows(x: Array) -> Array:
    """Return `x` with the classes as its last axis, and one axis of rows before it."""
    if x.ndim == 2:
        return x
    if x.ndim > 2:
        x = get_array_module(x).moveaxis(x, 1, -1)
    return x.reshape(-1, x.shape[-1])


def _check_weight(name: str, weight: Array | None, input: Array) -> None:
    if weight is None:
        return
    checks.floating(name, weight, input, "input")
    sizes = zip(weight.shape[::-1], input.shape[::-1], strict=False)
    if weight.ndim > input.ndim or not all(n in (1, m) for n, m in sizes):
        raise ValueError(
            f"{name}: expected a shape that broadcasts to the input's, {input.shape}, "
            f"got {weight.shape}"
        )


class _EntryLoss(_Loss):
    """What the losses of entries share: a target for each of them, and weights that broadcast."""

    _pair: ClassVar[tuple[staticmethod[..., Any], staticmethod[..., Array]]]

    def forward(self, input: Array, target: Array) -> tuple[Array, Context]:
        """Return the loss.

        Parameters
        ----------
        input : array of floating point
            What the model says: for :class:`BCEWithLogitsLoss` logits, for :class:`BCELoss` probabilities.
        target : array of the same shape and dtype
            What is right; for the binary cross entropies in [0, 1].

        Returns
        -------
        loss, ctx : scalar array, or one of the shape of `input` with reduction "none"; Context

        Raises
        ------
        TypeError
            If an array is not floating point, or both differ in dtype.
        ValueError
            If they differ in shape or are empty, or the shape of a weight does not fit.
        """
        checks.array_module(input=input, target=target)
        checks.floating("input", input)
        checks.floating("target", target, input, "input")
        checks.shape("target", target, input.shape, "that of the input")
        if input.size == 0:
            raise ValueError(f"input: expected at least one entry, got shape {input.shape}")
        for name in self._buffers:
            _check_weight(name, getattr(self, name), input)
        value, saved = self._of_entries(input, target)
        return value, Context(self, saved)

    def _of_entries(self, input: Array, target: Array) -> tuple[Array, Any]:
        """Return the loss, and what backward needs, whose first array is of the input's shape."""
        raise NotImplementedError

    def backward(self, ctx: Context, dloss: Any = 1.0) -> Array:
        """Return the gradient of `input`.

        Parameters
        ----------
        ctx : Context
        dloss : number or scalar array, or with reduction "none" an array of the shape of the loss

        Returns
        -------
        array of the shape of `input`
        """
        saved = self._saved(ctx)
        return self._back(saved, self._incoming(dloss, saved[0], saved[0].shape))


class MSELoss(_EntryLoss):
    r"""Mean squared error, :math:`\ell = (x - t)^2`; the target's gradient is the negative of the input's.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        What becomes of the losses of a batch.

    Raises
    ------
    ValueError
        If `reduction` is another.

    See Also
    --------
    CrossEntropyLoss : For classes.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.MSELoss.html

    Examples
    --------
    >>> import minirnn, numpy as np
    >>> criterion = minirnn.MSELoss()
    >>> loss, ctx = criterion.forward(np.array([1.0, 4.0]), np.array([1.0, 2.0]))
    >>> float(loss), criterion.backward(ctx)
    (2.0, array([0., 2.]))
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def _of_entries(self, input: Array, target: Array) -> tuple[Array, Any]:
        return loss.mse_forward(input, target, self.reduction, saving())

    def _back(self, saved: Any, dloss: Any) -> Array:
        return loss.mse_backward(saved, dloss)


class BCEWithLogitsLoss(_EntryLoss):
    r"""Binary cross entropy of a sigmoid over logits.

    :math:`\ell = -w \big(q\, t \log \sigma(z) + (1 - t) \log(1 - \sigma(z))\big)`, q the positive
    weight; see :mod:`minirnn.functional.loss` for the form that does not overflow.

    Parameters
    ----------
    weight : array that broadcasts to the input, optional
        A weight for each class or entry.
    reduction : {"mean", "sum", "none"}
        What becomes of the losses of a batch.
    pos_weight : array that broadcasts to the input, optional
        Weight of the positive class.

    Raises
    ------
    ValueError
        If `reduction` is another.
    TypeError
        If a weight is no array.

    See Also
    --------
    CrossEntropyLoss : For classes that exclude each other.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html

    Examples
    --------
    >>> import minirnn, numpy as np
    >>> criterion = minirnn.BCEWithLogitsLoss()
    >>> loss, ctx = criterion.forward(np.array([0.0, -1000.0]), np.array([1.0, 1.0]))
    >>> round(float(loss), 3)  # (log 2 + 1000) / 2, where a sigmoid has become 0
    500.347
    >>> criterion.backward(ctx)
    array([-0.25, -0.5 ])
    """

    _buffers = ("weight", "pos_weight")

    def __init__(
        self,
        weight: Array | None = None,
        reduction: str = "mean",
        pos_weight: Array | None = None,
    ) -> None:
        super().__init__(reduction)
        for name, w in (("weight", weight), ("pos_weight", pos_weight)):
            if w is not None:
                checks.floating(name, w)
        self.weight, self.pos_weight = weight, pos_weight

    def _of_entries(self, input: Array, target: Array) -> tuple[Array, Any]:
        save = saving()
        pair = (checks.unshared(input), checks.unshared(target)) if save else (input, target)
        return loss.bce_with_logits_forward(
            *pair, self.weight, self.pos_weight, self.reduction, save
        )

    def _back(self, saved: Any, dloss: Any) -> Array:
        return loss.bce_with_logits_backward(saved, dloss)


class BCELoss(_EntryLoss):
    r"""Binary cross entropy of probabilities, such as a sigmoid's.

    :math:`\ell = -w \big(t \log p + (1 - t) \log(1 - p)\big)`, where a logarithm counts for -100 at least. Of
    logits :class:`BCEWithLogitsLoss` keeps the digits that a sigmoid near 1 has lost.

    Parameters
    ----------
    weight : array that broadcasts to the input, optional
        A weight for each class or entry.
    reduction : {"mean", "sum", "none"}
        What becomes of the losses of a batch.

    Raises
    ------
    ValueError
        If `reduction` is another; by ``forward`` too, if an entry that has a weight is no probability.
    TypeError
        If `weight` is no array.

    See Also
    --------
    BCEWithLogitsLoss : From logits, which is more exact.

    References
    ----------
    https://docs.pytorch.org/docs/stable/generated/torch.nn.BCELoss.html

    Examples
    --------
    >>> import minirnn, numpy as np
    >>> criterion = minirnn.BCELoss()
    >>> loss, ctx = criterion.forward(np.array([0.5, 0.0]), np.array([1.0, 1.0]))
    >>> round(float(loss), 3)  # (log 2 + 100) / 2
    50.347
    """

    _buffers = ("weight",)

    def __init__(self, weight: Array | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if weight is not None:
            checks.floating("weight", weight)
        self.weight = weight

    def _of_entries(self, input: Array, target: Array) -> tuple[Array, Any]:
        if reads_values(input):
            xp, w = get_array_module(input), self.weight
            p = input if w is None else xp.where(w == 0, 0, input)
            if not bool((p.min() >= 0) & (p.max() <= 1)):
                raise ValueError(
                    f"input: expected probabilities, in [0, 1], got {p.min()} to {p.max()}; of logits use "
                    "BCEWithLogitsLoss"
                )
        return loss.bce_forward(input, target, self.weight, self.reduction, saving())

    def _back(self, saved: Any, dloss: Any) -> Array:
        return loss.bce_backward(saved, dloss)
