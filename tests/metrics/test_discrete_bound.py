"""The bound on the probability of stored values, end to end, against an integral over z of exact bins."""

import math

import pytest
import torch
from linear import PIXELS, give_exact_posterior, linear_vae, marginal, split
from torch.distributions import Normal

from pipeline.metrics.likelihood import estimate
from pipeline.metrics.report import likelihood_metrics

D = math.prod(PIXELS)
SAMPLES = 20_000


def made(sigma):
    """The model with its exact posterior, and two of its own images on levels between black and white."""
    vae = linear_vae(sigma)
    give_exact_posterior(vae)
    with torch.no_grad():
        vae.decoder[0].bias.fill_(0.5)
    give_exact_posterior(vae)
    torch.manual_seed(0)
    x = (marginal(vae).sample((200,)) * 255).round() / 255
    inside = ((x > 0) & (x < 1)).all(1)
    return vae, split(vae, x[inside][:2].view(-1, *PIXELS))


@torch.no_grad()
def log_probability(vae, given, sigma):
    """log of the integral over z of p(z) and the mass of each pixel's bin, on a grid around the posterior's mean."""
    steps = torch.linspace(-9, 9, 721, dtype=torch.float64)
    found = []
    for x, mu, logvar in zip(given.pixels.flatten(1), given.mu, given.logvar, strict=True):
        spread = torch.exp(0.5 * logvar)
        z = mu + spread * torch.cartesian_prod(steps, steps)
        bins = Normal(vae.decode(z).flatten(1), sigma)
        mass = (bins.cdf(x + 1 / 510) - bins.cdf(x - 1 / 510)).clamp_min(1e-300).log().sum(1)
        area = spread.prod() * (steps[1] - steps[0]) ** 2
        found.append((mass + Normal(0.0, 1.0).log_prob(z).sum(1)).logsumexp(0) + area.log())
    return torch.stack(found)


@pytest.mark.parametrize("sigma", [0.001, 0.003, 0.02, 0.4])
def test_it_is_the_probability_of_the_stored_values(sigma):
    vae, given = made(sigma)
    found = estimate(vae, given, SAMPLES, 0, SAMPLES)
    exact = log_probability(vae, given, sigma)
    torch.testing.assert_close(found.discrete_bound, exact, atol=0.05, rtol=0)
    assert (found.discrete_bound < 0).all()
    bits = likelihood_metrics(found, SAMPLES, D)["test/bits_per_dim"]
    assert bits == pytest.approx(-exact.mean().item() / (D * math.log(2)), abs=0.05 / (D * math.log(2)))


def test_where_sigma_is_large_against_a_bin_it_is_the_density_times_the_bins():
    vae, given = made(0.4)
    found = estimate(vae, given, 50, 0, 1000)
    torch.testing.assert_close(found.discrete_bound, found.iw_bound - D * math.log(255), atol=1e-4, rtol=0)


def test_where_sigma_is_small_against_a_bin_it_is_not():
    vae, given = made(0.0005)
    found = estimate(vae, given, SAMPLES, 0, SAMPLES)
    assert (found.iw_bound - D * math.log(255) - found.discrete_bound).abs().min() > 1
