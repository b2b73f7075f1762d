"""Likelihoods by their names in params.yaml."""

import math

from pipeline.errors import UserError
from pipeline.vae.likelihoods.base import Likelihood
from pipeline.vae.likelihoods.bernoulli import Bernoulli
from pipeline.vae.likelihoods.continuous_bernoulli import ContinuousBernoulli
from pipeline.vae.likelihoods.gaussian import Gaussian, PixelwiseGaussian
from pipeline.vae.likelihoods.logistic import DiscretizedLogistic
from pipeline.vae.likelihoods.logistic_mixture import LogisticMixture

LIKELIHOODS = ("bernoulli", "continuous_bernoulli", "gaussian", "discretized_logistic", "logistic_mixture")


def make_likelihood(name: str, channels: int, sigma: float | str, components: int) -> Likelihood:
    """Build a likelihood of images with so many channels.

    Args:
        name: one of LIKELIHOODS.
        channels: C of the images.
        sigma: of the Gaussian alone: a number, `learned`, `optimal` or `per_pixel`.
        components: of the logistic mixture alone.

    Raises:
        UserError: there is no such likelihood.
    """
    match name:
        case "bernoulli":
            return Bernoulli(channels)
        case "continuous_bernoulli":
            return ContinuousBernoulli(channels)
        case "gaussian":
            return PixelwiseGaussian(channels) if sigma == "per_pixel" else Gaussian(channels, sigma)
        case "discretized_logistic":
            return DiscretizedLogistic(channels)
        case "logistic_mixture":
            return LogisticMixture(channels, components)
    raise UserError(f"model.likelihood is {name!r}; expected one of {', '.join(LIKELIHOODS)}")


def bits_per_dim(discrete_nll: float, dimensions: int) -> float:
    """Bits per dimension of the stored data, from minus the log-probability of its values, in nats per example."""
    return discrete_nll / (dimensions * math.log(2))
