"""How noisy the gradient of a batch is, and what that says about the batch's size."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import checks
from ..backend import Array, quiet


class NoiseScale(NamedTuple):
    """An estimate of the gradient noise scale.

    Attributes
    ----------
    noise : float
        tr(Sigma), the sum over all parameters of the variance of one sample's gradient.
    signal : float
        ``|G|^2``, the squared norm of the true gradient; by chance it may come out negative.
    scale : float
        Their ratio.

    See Also
    --------
    noise_scale : Estimates it.
    """

    noise: float
    signal: float
    scale: float


@quiet
def noise_scale(sample_norms: Array, batch_norms: Any) -> NoiseScale:
    r"""Estimate the gradient noise scale :math:`\mathrm{tr}(\Sigma) / |G|^2` without bias in either term.

    A sample's gradient is :math:`g_i = G + \text{noise}` with covariance :math:`\Sigma`, and so for a batch's
    mean :math:`\bar g`

    .. math::
        E\,|g_i|^2 = |G|^2 + \mathrm{tr}\,\Sigma, \qquad E\,|\bar g|^2 = |G|^2 + \mathrm{tr}\,\Sigma / B.

    These are two equations for the two unknowns:

    .. math::
        |G|^2 \approx \frac{B\,|\bar g|^2 - \overline{|g_i|^2}}{B - 1}, \qquad
        \mathrm{tr}\,\Sigma \approx \frac{\overline{|g_i|^2} - |\bar g|^2}{1 - 1/B}.

    Up to a batch of about this size, twice the batch saves almost half of the steps; far beyond it, almost
    none. Of a single batch the estimate of :math:`|G|^2` is rough: give the norms of several, whose
    terms are averaged before the ratio is taken.

    Parameters
    ----------
    sample_norms : array of shape (B,), or (batches, B)
        Norms of the samples' own gradients. With a loss that is the mean over the batch, those are B times
        what :func:`per_sample_gradient_norms` returns.
    batch_norms : float, or array of shape (batches,)
        Norms of the mean of the samples' gradients: what :func:`minirnn.clip_grad_norm_` returns.

    Returns
    -------
    NoiseScale
        Both terms and their ratio.

    Raises
    ------
    TypeError, ValueError
        If they are no norms, there are fewer than two samples, or the shapes do not fit.

    See Also
    --------
    per_sample_gradient_norms : What it is estimated from.

    References
    ----------
    S. McCandlish, J. Kaplan, D. Amodei et al., "An empirical model of large-batch training", arXiv 1812.06162
    (2018), appendix A.1 with a small batch of 1.

    Examples
    --------
    Gradients 1 and 3 have mean 2 and variance 2:

    >>> from minirnn.diagnostics import noise_scale
    >>> noise_scale([1.0, 3.0], 2.0)
    NoiseScale(noise=2.0, signal=3.0, scale=0.6666666666666666)
    """
    norms = checks.norms("sample_norms", sample_norms)
    mean_norms = checks.norms("batch_norms", batch_norms)
    if norms.ndim not in (1, 2) or norms.shape[-1] < 2 or not norms.size:
        raise ValueError(
            f"sample_norms: expected shape (B,) or (batches, B), B >= 2, got {norms.shape}"
        )
    checks.shape("batch_norms", mean_norms, norms.shape[:-1], "one for each batch")
    B = norms.shape[-1]
    one, many = (norms**2).mean(), (mean_norms**2).mean()
    noise, signal = float((one - many) / (1 - 1 / B)), float((B * many - one) / (B - 1))
    return NoiseScale(noise, signal, noise / signal if signal else float("inf"))
