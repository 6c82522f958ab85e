"""LSTM and GRU with layer normalisation."""

from __future__ import annotations

from typing import Any, ClassVar

from . import init
from .functional import normalized_gru, normalized_lstm
from .functional.recurrence import Recurrence
from .recurrent import Recurrent


class _Normalized(Recurrent):
    """What the two share: gains begin at one."""

    def _add_pass(self, features: int, suffix: str, *args: Any) -> None:
        super()._add_pass(features, suffix, *args)
        for name, parameter in self.named_parameters():
            if name.startswith("gain_") and name.endswith(suffix):
                init.ones_(parameter)


class LayerNormLSTM(_Normalized):
    r"""An LSTM whose two products and cell are normalised over their features.

    See :mod:`minirnn.functional.normalized_lstm` for its equations and their derivatives. Arguments, calls
    and the state ``(h, c)`` are those of :class:`LSTM`, without `proj_size` and `forget_bias`.

    Attributes
    ----------
    weight_ih_l{k}, weight_hh_l{k}, bias_ih_l{k}, bias_hh_l{k} : Parameter
        As in :class:`LSTM`; the biases come after the normalisation.
    gain_ih_l{k}, gain_hh_l{k}, gain_c_l{k} : Parameter of shape (4 * hidden_size,), (hidden_size,) the last
    bias_c_l{k} : Parameter of shape (hidden_size,)

    Raises
    ------
    ValueError, TypeError
        As :class:`LSTM`.

    See Also
    --------
    LSTM : The plain one.

    References
    ----------
    J. Ba, J. Kiros, G. Hinton, "Layer normalization", arXiv:1607.06450 (2016)

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> lstm = minirnn.LayerNormLSTM(4, 8)
    >>> (output, (h_n, c_n)), ctx = lstm.forward(np.ones((5, 3, 4), np.float32))
    >>> dx, (dh_0, dc_0) = lstm.backward(ctx, np.ones_like(output))
    """

    recurrence: ClassVar[Recurrence] = normalized_lstm


class LayerNormGRU(_Normalized):
    r"""A GRU whose two products are normalised over their features.

    See :mod:`minirnn.functional.normalized_gru` for its equations and their derivatives. Arguments and calls
    are those of :class:`GRU`, without `reset_after`.

    Attributes
    ----------
    weight_ih_l{k}, weight_hh_l{k}, bias_ih_l{k}, bias_hh_l{k} : Parameter
        As in :class:`GRU`; the biases come after the normalisation.
    gain_ih_l{k}, gain_hh_l{k} : Parameter of shape (3 * hidden_size,)

    Raises
    ------
    ValueError, TypeError
        As :class:`GRU`.

    See Also
    --------
    GRU : The plain one.

    References
    ----------
    J. Ba, J. Kiros, G. Hinton, "Layer normalization", arXiv:1607.06450 (2016)

    Examples
    --------
    >>> import numpy as np, minirnn
    >>> output, h_n = minirnn.LayerNormGRU(4, 8)(np.ones((5, 3, 4), np.float32))
    >>> output.shape
    (5, 3, 8)
    """

    recurrence: ClassVar[Recurrence] = normalized_gru
