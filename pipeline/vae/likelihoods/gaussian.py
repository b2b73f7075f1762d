"""Real pixels around a mean, with one standard deviation for all of them or one for each."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from pipeline.vae.densities import LOG_2PI, bounded_logvar, gaussian_elements, sum_over_event
from pipeline.vae.likelihoods.base import GREY_LEVEL, Likelihood

INITIAL_SIGMA = 0.25  # about the spread of pixels in [0, 1]: neither the data nor the KL drowns the other at the start
SMALLEST_SIGMA = 1e-3  # a quarter of a grey level
ROUNDING_LOGVAR = math.log(GREY_LEVEL**2 / 12)  # of what is lost to the nearest level, a uniform error
_NARROW = 0.7  # of width * max(|centre|, 1): up to there Taylor's series gives the mass of an interval


class GaussianPixels(Likelihood):
    """Pixels around means; `moments`, which a kind of Gaussian gives, says how far around."""

    is_density = True

    def moments(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of each pixel and channel; the latter may broadcast."""
        raise NotImplementedError

    def pixel_log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """log p(x_pixel|z) in nats, a density per unit of the pixel range; [batch, ...]."""
        return gaussian_elements(x, *self.moments(parameters)).sum(1)

    def discrete_log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """The log-probability of the 256 values, in nats, [batch]; all beyond black and white belongs to these."""
        mean, logvar = self.moments(parameters)
        sigma = torch.exp(0.5 * logvar)
        centre, width = (x - mean) / sigma, GREY_LEVEL / sigma
        result = _log_of_narrow_interval(centre, width)
        exact = (width * centre.abs().clamp_min(1) > _NARROW) | (x < GREY_LEVEL / 2) | (x > 1 - GREY_LEVEL / 2)
        outside = torch.full_like(x, math.inf)
        lower = torch.where(x < GREY_LEVEL / 2, -outside, centre - width / 2)[exact]
        upper = torch.where(x > 1 - GREY_LEVEL / 2, outside, centre + width / 2)[exact]
        result[exact] = _log_of_interval(lower, upper)
        return sum_over_event(result)

    def mean(self, parameters: Tensor) -> Tensor:
        """E[x|z], not clipped."""
        return self.moments(parameters)[0]

    def sample(self, parameters: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw x, not clipped."""
        shape = self.mean(parameters).shape
        eps = torch.randn(shape, generator=generator, dtype=parameters.dtype, device=parameters.device)
        return self.sample_from(parameters, eps)

    def sample_from(self, parameters: Tensor, eps: Tensor) -> Tensor:
        """The draw that standard-normal `eps`, [batch, C, ...], makes; not clipped."""
        mean, logvar = self.moments(parameters)
        return mean + torch.exp(0.5 * logvar) * eps


class Gaussian(GaussianPixels):
    """One standard deviation for all pixels. With a fixed sigma this is the squared error up to a constant.

    `sigma` is a number, in units of the pixel range; or `learned`, one weight of the model; or `optimal` (Rybkin,
    Daniilidis and Levine 2021, arXiv 2006.13202): in training mode the maximum-likelihood sigma of the batch, its root
    mean squared error, taken as a constant: at the optimum the ELBO has no gradient by sigma, so that its gradient by
    the means is that of -n/2 log(mean squared error). A density may not look at the x that it is asked about, so in
    evaluation mode, as a batch normalisation does, it takes what `calibrate` left: the sigma of the training images. A
    log-variance that training sets is used through `bounded_logvar`; a fixed one is what the user says.
    """

    logvar: Tensor

    def __init__(self, channels: int, sigma: float | str) -> None:
        super().__init__(channels)
        self.is_optimal = sigma == "optimal"
        self._add_up: Callable[[Tensor], Tensor] | None = None
        if isinstance(sigma, str):
            self.logvar = nn.Parameter(torch.tensor(2 * math.log(INITIAL_SIGMA)))
        else:
            self.register_buffer("logvar", torch.tensor(2 * math.log(sigma)))

    def moments(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's means [batch, C, ...], and the one log-variance []."""
        return parameters, bounded_logvar(self.logvar) if isinstance(self.logvar, nn.Parameter) else self.logvar

    def pixel_log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """log p(x_pixel|z) in nats, a density per unit of the pixel range; [batch, ...]."""
        if not (self.is_optimal and self.training):
            return super().pixel_log_prob(x, parameters)
        return gaussian_elements(x, parameters, self._logvar_of_batch((x - parameters).detach())).sum(1)

    def share_batches(self, add_up: Callable[[Tensor], Tensor]) -> None:
        """The batch is that of several processes, each of which sees a part; `add_up` sums a tensor over all.

        Each then asks for a density as often as the others, or calls `see_none` in its place.
        """
        self._add_up = add_up

    def see_none(self) -> None:
        """Take part where this process has no example of a batch."""
        if self.is_optimal and self._add_up is not None:
            self._add_up(self.logvar.new_zeros(2))

    def _logvar_of_batch(self, errors: Tensor) -> Tensor:
        """The log of their mean square, over all processes; []."""
        squares = errors.square()
        if self._add_up is None:
            mean = squares.mean()
        else:
            total = squares.sum()
            count = torch.full_like(total, squares.numel())  # filled on the device: a copy would wait for a GPU
            total, count = self._add_up(torch.stack([total, count]))
            mean = total / count
        return mean.clamp_min(SMALLEST_SIGMA**2).log()

    @torch.no_grad()
    def calibrate(self, mean_squared_error: float) -> None:
        """Set the sigma that evaluation mode uses; for `optimal`, from the training images' error."""
        self.logvar.fill_(math.log(max(mean_squared_error, SMALLEST_SIGMA**2)))


class PixelwiseGaussian(GaussianPixels):
    """A standard deviation for each pixel, which the decoder gives beside the mean; the mean passes a sigmoid.

    The decoder of the paper's Frey faces (arXiv 1312.6114, section 5 and appendix C.2). The paper's density has no
    bound on a pixel that the decoder knows exactly; to this one's variance that of rounding to 256 levels is added.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(2 * channels)

    def moments(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, 2 C, ...] -> mean in (0, 1) and log-variance, each [batch, C, ...]."""
        logits, free = parameters.chunk(2, dim=1)
        above = bounded_logvar(free + 2 * math.log(INITIAL_SIGMA)) - ROUNDING_LOGVAR
        return torch.sigmoid(logits), ROUNDING_LOGVAR + nn.functional.softplus(above)


def _log_of_narrow_interval(centre: Tensor, width: Tensor) -> Tensor:
    """log of the standard normal's mass in [centre - width/2, centre + width/2], by Taylor's series in the width.

    The even derivatives of the density at the centre are the density times Hermite polynomials; with
    width * max(|centre|, 1) <= 0.7 what is left out is below 1e-7 nats.
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
