"""Pixels of 256 levels: logistic distributions, integrated over each level's bin (Salimans et al. 2017).

PixelCNN++, arXiv 1701.05517, section 2.1. Inside, pixels are in [-1, 1] as there; black and white take all that lies
beyond them, so the 256 probabilities sum to one.
"""

import torch
from torch import Generator, Tensor, nn

from pipeline.vae.likelihoods.base import Likelihood

HALF_BIN = 1 / 255  # of [-1, 1]
LOG_SCALES = (-7.0, 5.0)  # from an eighth of a grey level (PixelCNN++'s floor) to nearly half black, half white

softplus = nn.functional.softplus


class DiscretizedLogistic(Likelihood):
    """One logistic a channel, the channels independent given z; the decoder gives C locations, then C log-scales."""

    def __init__(self, channels: int) -> None:
        super().__init__(2 * channels)

    def pixel_log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """log p(x_pixel|z) in nats, a probability, for x in multiples of 1/255; [batch, ...]."""
        return discretized_logistic_log_prob(2 * x - 1, *parameters.chunk(2, dim=1)).sum(1)

    def mean(self, parameters: Tensor) -> Tensor:
        """E[x|z] to within the rounding to levels, see `clipped_logistic_mean`."""
        return (1 + clipped_logistic_mean(*parameters.chunk(2, dim=1))) / 2

    def sample(self, parameters: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw x among the 256 levels of [0, 1]."""
        location, log_scale = parameters.chunk(2, dim=1)
        return (1 + sample_levels(location, log_scale, generator)) / 2


def discretized_logistic_log_prob(x: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
    """log of the logistic's mass in the bin around x, elementwise and broadcasting; x on the 256 levels of [-1, 1].

    sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u)) has no cancellation in any tail, and
    1 - exp(-w) = 2 t / (1 + t) with t = tanh(w / 2) none in narrow bins.
    """
    inverse = torch.exp(-log_scale.clamp(*LOG_SCALES))
    centred = x - location
    upper, lower = inverse * (centred + HALF_BIN), inverse * (centred - HALF_BIN)
    t = torch.tanh(HALF_BIN * inverse)
    not_black, not_white = x > HALF_BIN - 1, x < 1 - HALF_BIN
    width = torch.log(2 * t / (1 + t)) * (not_black & not_white)
    return width - softplus(-upper) * not_white - softplus(lower) * not_black


def clipped_logistic_mean(location: Tensor, log_scale: Tensor) -> Tensor:
    """E[clip(X, -1, 1)] of a logistic X, elementwise: -1 plus the integral of P(X > t) over [-1, 1].

    The levels' own mean differs by their rounding: less than half a level, and below 1e-4 of the range where the scale
    is a level or more.
    """
    scale = torch.exp(log_scale.clamp(*LOG_SCALES))
    return scale * (softplus((location + 1) / scale) - softplus((location - 1) / scale)) - 1


def sample_levels(location: Tensor, log_scale: Tensor, generator: Generator | None) -> Tensor:
    """Draw from the discretised logistic: values among the 256 levels of [-1, 1], shaped as `location`."""
    u = torch.rand(location.shape, generator=generator, dtype=location.dtype, device=location.device)
    draws = location + torch.exp(log_scale.clamp(*LOG_SCALES)) * torch.logit(u, eps=torch.finfo(u.dtype).tiny)
    level = ((draws + 1) * 127.5).round().clamp(0, 255)
    return level / 127.5 - 1
