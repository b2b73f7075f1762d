"""Real pixels with one standard deviation for all of them."""

import math

import torch
from torch import Generator, Tensor, nn

from pipeline.vae.densities import LOG_2PI, bounded_logvar, gaussian_elements, sum_over_event
from pipeline.vae.likelihoods.base import GREY_LEVEL, Likelihood

INITIAL_SIGMA = 0.25  # about the spread of pixels in [0, 1]: neither the data nor the KL drowns the other at the start
SMALLEST_SIGMA = 1e-3  # a quarter of a grey level


class Gaussian(Likelihood):
    """Pixels around the decoder's means. With a fixed sigma this is the squared error up to a constant.

    `sigma` is a number, in units of the pixel range; or `learned`, one weight of the model; or `optimal` (Rybkin,
    Daniilidis and Levine 2021, arXiv 2006.13202): in training mode the maximum-likelihood sigma of the batch, its root
    mean squared error. A density may not look at the x that it is asked about, so in evaluation mode, as a batch
    normalisation does, it takes what `calibrate` left: the sigma of the training images. A log-variance that training
    sets is used through `bounded_logvar`; a fixed one is what the user says.
    """

    is_density = True

    logvar: Tensor

    def __init__(self, channels: int, sigma: float | str) -> None:
        super().__init__(channels)
        self.is_optimal = sigma == "optimal"
        if isinstance(sigma, str):
            self.logvar = nn.Parameter(torch.tensor(2 * math.log(INITIAL_SIGMA)))
        else:
            self.register_buffer("logvar", torch.tensor(2 * math.log(sigma)))

    def pixel_log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """log p(x_pixel|z) in nats, a density per unit of the pixel range; [batch, ...]."""
        logvar = self._logvar()
        if self.is_optimal and self.training:
            logvar = (x - parameters).square().mean().clamp_min(SMALLEST_SIGMA**2).log()
        return gaussian_elements(x, parameters, logvar).sum(1)

    def discrete_log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """The log-probability of the 256 values, in nats, [batch]; all beyond black and white belongs to these."""
        sigma = torch.exp(0.5 * self._logvar())
        centre, width = (x - parameters) / sigma, GREY_LEVEL / sigma
        result = _log_of_narrow_interval(centre, width)
        exact = (width * centre.abs().clamp_min(1) > 1) | (x < GREY_LEVEL / 2) | (x > 1 - GREY_LEVEL / 2)
        outside = torch.full_like(x, math.inf)
        lower = torch.where(x < GREY_LEVEL / 2, -outside, centre - width / 2)[exact]
        upper = torch.where(x > 1 - GREY_LEVEL / 2, outside, centre + width / 2)[exact]
        result[exact] = _log_of_interval(lower, upper)
        return sum_over_event(result)

    def mean(self, parameters: Tensor) -> Tensor:
        """E[x|z], not clipped."""
        return parameters

    def sample(self, parameters: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw x, not clipped."""
        eps = torch.randn(parameters.shape, generator=generator, dtype=parameters.dtype, device=parameters.device)
        return parameters + torch.exp(0.5 * self._logvar()) * eps

    @torch.no_grad()
    def calibrate(self, mean_squared_error: float) -> None:
        """Set the sigma that evaluation mode uses; for `optimal`, from the training images' error."""
        self.logvar.fill_(math.log(max(mean_squared_error, SMALLEST_SIGMA**2)))

    def _logvar(self) -> Tensor:
        return bounded_logvar(self.logvar) if isinstance(self.logvar, nn.Parameter) else self.logvar


def _log_of_narrow_interval(centre: Tensor, width: Tensor) -> Tensor:
    """log of the standard normal's mass in [centre - width/2, centre + width/2], by Taylor's series in the width.

    The even derivatives of the density at the centre are the density times Hermite polynomials; with
    width * max(|centre|, 1) <= 1 what is left out is below 1e-7 nats.
    """
    c2, w2 = centre.square(), width.square()
    second = (c2 - 1) * w2 / 24
    fourth = (c2.square() - 6 * c2 + 3) * w2.square() / 1920
    sixth = (c2 * c2.square() - 15 * c2.square() + 45 * c2 - 15) * w2 * w2.square() / 322560
    return -0.5 * (LOG_2PI + c2) + width.log() + torch.log1p(second + fourth + sixth)


def _log_of_interval(lower: Tensor, upper: Tensor) -> Tensor:
    """log of the standard normal's mass in [lower, upper], either of which may be infinite."""
    # In the left tail the two terms differ by more than rounding; the right one is its mirror image.
    mirror = lower + upper > 0
    lower, upper = torch.where(mirror, -upper, lower), torch.where(mirror, -lower, upper)
    below: Tensor = torch.special.log_ndtr(lower)
    upto: Tensor = torch.special.log_ndtr(upper)
    return upto + torch.log1p(-torch.exp(below - upto))
