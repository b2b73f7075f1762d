"""The continuous Bernoulli (Loaiza-Ganem and Cunningham 2019, arXiv 1907.06845): a density on [0, 1].

In the logit eta of the paper's lambda the density is exp(eta x) / Z with Z = (exp(eta) - 1) / eta, an exponential cut
to [0, 1]. Written so, the one removable singularity (lambda = 1/2) lies at eta = 0, where a series takes over.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from pipeline.vae.densities import sum_over_event
from pipeline.vae.likelihoods.base import GREY_LEVEL, Likelihood

_SERIES_BELOW = 1.0  # of |eta|: there the first term left out of either series is below 1e-9
# log(sinh(t/2) / (t/2)) is the sum of these times t^2, t^4, ...
_SERIES = (1 / 24, -1 / 2880, 1 / 181440, -1 / 9676800, 1 / 479001600)


class ContinuousBernoulli(Likelihood):
    """Grey pixels in [0, 1]; the decoder gives logits, as for a Bernoulli."""

    is_density = True

    def pixel_log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """log p(x_pixel|z) in nats, a density per unit of the pixel range; [batch, ...]."""
        x, eta = _mirrored(x, parameters)
        return (eta * x - _log_normalizer(eta)).sum(1)

    def discrete_log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """The log-probability of the 256 values, in nats, [batch]; a bin reaches half a step to either side in [0, 1].

        The integral over [a, b] is exp(eta a) (exp(eta (b - a)) - 1) / (exp(eta) - 1).
        """
        x, eta = _mirrored(x, parameters)
        lower = (x - GREY_LEVEL / 2).clamp_min(0)
        is_end = (x < GREY_LEVEL / 2) | (x > 1 - GREY_LEVEL / 2)
        width = torch.where(is_end, GREY_LEVEL / 2, torch.full_like(x, GREY_LEVEL))  # a difference would lose digits
        integral = eta * lower + _log_normalizer(eta * width) + width.log()
        return sum_over_event(integral - _log_normalizer(eta))

    def mean(self, parameters: Tensor) -> Tensor:
        """E[x|z] = 1/2 + coth(eta/2)/2 - 1/eta, which is not sigmoid(eta)."""
        small, near, far = _near_and_far(parameters)
        series = near * _horner(near.square(), [2 * n * coefficient for n, coefficient in enumerate(_SERIES, 1)])
        return 0.5 + torch.where(small, series, 0.5 / torch.tanh(far / 2) - 1 / far)

    def sample(self, parameters: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw x in [0, 1], by the inverse of the distribution function."""
        u = torch.rand(parameters.shape, generator=generator, dtype=parameters.dtype, device=parameters.device)
        # For eta < 0 no exponential overflows; for eta > 0, 1 - x has the density of -eta.
        eta = -torch.where(parameters == 0, math.ulp(1.0), parameters.abs())
        x = torch.log1p(u * torch.expm1(eta)) / eta
        return torch.where(parameters > 0, 1 - x, x)


def _mirrored(x: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
    """x and eta where eta <= 0, else 1 - x and -eta: the same density, with no small difference of large terms."""
    return torch.where(eta > 0, 1 - x, x), torch.where(eta > 0, -eta, eta)


def _log_normalizer(eta: Tensor) -> Tensor:
    """log((exp(eta) - 1) / eta), elementwise: max(eta, 0) + log((1 - exp(-|eta|)) / |eta|)."""
    small, near, far = _near_and_far(eta)
    square, size = near.square(), far.abs()
    series = 0.5 * near + square * _horner(square, _SERIES)
    return torch.where(small, series, far.clamp_min(0) + torch.log1p(-torch.exp(-size)) - size.log())


def _near_and_far(eta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where the series is to be used, and eta for either branch: elsewhere 0 and 1, so that no gradient is NaN."""
    small = eta.abs() < _SERIES_BELOW
    return small, torch.where(small, eta, 0), torch.where(small, 1, eta)


def _horner(square: Tensor, coefficients: Sequence[float]) -> Tensor:
    """The polynomial with these coefficients, the constant first."""
    result = torch.full_like(square, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * square + coefficient
    return result
