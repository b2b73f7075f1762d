"""log p(x) from samples of p(z|x), without an encoder: appendix D of the paper, for z of less than five dimensions.

A density q is fitted to draws of p(z|x); of further draws z, the mean of q(z) / p(x, z) has the expectation 1 / p(x).
The estimate is minus the logarithm of that mean, so its own expectation is at or above log p(x): it errs to the other
side than an importance bound. What no chain finds of p(z|x), a second mode, say, is missing from it.
"""

import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor
from torch.distributions import MultivariateNormal

from pipeline.dataset.noise import generator_of
from pipeline.metrics.hmc import Chains, Point, Tuning
from pipeline.metrics.streams import Stream
from pipeline.vae.model import VAE

_LEAPFROGS = 4  # as in the paper
_FIRST_STEP, _TUNING, _BURN_IN = 0.1, Tuning.towards(acceptance=0.9, pace=0.3), 40
_PRIOR_DRAWS = 200
_FLOOR = 1e-8  # of the variance along each axis: a chain that never moved has a density, too
_IMAGES = 100  # at once: what they need fits a processor's cache


@torch.no_grad()
def log_marginal(model: VAE, x: Tensor, samples: int, seed: int) -> Tensor:
    """log p(x) of images [n, C, H, W] as the model sees them, in nats, [n].

    One chain for each image starts at one of 200 draws of the prior, chosen by its p(x|z), and tunes its step size to
    an acceptance rate of 90 % in 40 moves that are thrown away. `samples` (L of the paper) moves then give the draws
    to which a Gaussian with a full covariance is fitted, and as many more those that are weighed.
    """
    generator = generator_of(seed, Stream.MARGINAL)
    return torch.cat([_log_marginal(model, some, samples, generator) for some in torch.split(x, _IMAGES)])


def _log_marginal(model: VAE, x: Tensor, samples: int, generator: Generator) -> Tensor:
    chains = Chains(
        model.prior.log_prob,
        lambda z: model.likelihood.log_prob(x, model.decode(z)),
        _start(model, x, generator),
        _FIRST_STEP,
        _LEAPFROGS,
    )
    for _ in _moved(chains, _BURN_IN, generator, _TUNING):
        pass
    fitted = _fit(torch.stack([point.z for point in _moved(chains, samples, generator)]))
    log_ratios = [
        fitted.log_prob(point.z.double()) - point.log_density()  # type: ignore[no-untyped-call]
        for point in _moved(chains, samples, generator)
    ]
    return (math.log(samples) - torch.stack(log_ratios).logsumexp(0)).to(x.dtype)


def _start(model: VAE, x: Tensor, generator: Generator) -> Tensor:
    """A z for each image, [n, latent_dim]: sampling importance resampling of draws of the prior."""
    z = model.prior.sample(_PRIOR_DRAWS, generator).to(x)
    parameters = model.decode(z)
    log_p = torch.stack(
        [model.likelihood.log_prob(image.expand(_PRIOR_DRAWS, *image.shape), parameters) for image in x]
    )
    return z[torch.multinomial(log_p.softmax(1).cpu(), 1, generator=generator)[:, 0].to(z.device)]


def _moved(chains: Chains, moves: int, generator: Generator, tuning: Tuning | None = None) -> Iterator[Point]:
    """Where the chains are after each of so many moves."""
    for _ in range(moves):
        like = chains.point.z
        momentum = torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like)
        uniform = torch.rand(len(like), generator=generator, dtype=like.dtype).to(like)
        chains.move(momentum, uniform, tuning=tuning)
        yield chains.point


def _fit(z: Tensor) -> MultivariateNormal:
    """A Gaussian for each image, of its draws [L, n, latent_dim]; float64."""
    centred = z.double() - z.double().mean(0)
    covariance = torch.einsum("lni,lnj->nij", centred, centred) / len(z)
    floor = _FLOOR * torch.eye(z.shape[2], dtype=torch.float64, device=z.device)
    return MultivariateNormal(z.double().mean(0), covariance + floor)
