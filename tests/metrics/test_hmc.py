import pytest
import torch
from linear import LATENTS, images, linear_vae, noise
from torch.distributions import MultivariateNormal

from pipeline.metrics.hmc import Chains, Tuning


def uniform(count, seed):
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def posterior(vae, x):
    """The exact p(z|x): N(M^-1 W^T (x - b) / sigma^2, M^-1), M = I + W^T W / sigma^2."""
    weight, variance = vae.decoder[0].weight.detach(), vae.likelihood.logvar.exp()
    covariance = torch.linalg.inv(torch.eye(LATENTS, dtype=torch.float64) + weight.T @ weight / variance)
    mean = (x.flatten(1) - vae.decoder[0].bias) @ weight @ covariance / variance
    return MultivariateNormal(mean.detach(), covariance)


def chains_of(vae, x, z, leapfrogs=10):
    return Chains(vae.prior.log_prob, lambda z: vae.likelihood.log_prob(x, vae.decode(z)), z, 0.1, leapfrogs)


def test_draws_have_the_mean_and_covariance_of_the_exact_posterior():
    vae, count = linear_vae(), 20_000
    x = images(1).expand(count, -1, -1, -1)
    exact = posterior(vae, images(1))
    chains = chains_of(vae, x, noise(count, LATENTS))
    for move in range(30):
        tuning = Tuning.towards(0.9, 0.2) if move < 20 else None
        chains.move(noise(count, LATENTS, seed=10 + move), uniform(count, move), tuning=tuning)
    torch.testing.assert_close(chains.point.z.mean(0), exact.mean[0], rtol=0, atol=0.02)
    torch.testing.assert_close(chains.point.z.T.cov(), exact.covariance_matrix[0], rtol=0, atol=0.01)
    assert exact.covariance_matrix[0].diagonal().min() > 0.1  # so that the bounds above say something


@pytest.mark.parametrize("target", [0.6, 0.9])
def test_step_sizes_settle_where_the_acceptance_rate_is_the_target(target):
    vae, x, taken = linear_vae(), images(500), []
    chains = chains_of(vae, x, posterior(vae, x).mean, leapfrogs=3)
    for move in range(250):
        momentum = noise(500, LATENTS, seed=1000 + move)
        chains.move(momentum, uniform(500, move), tuning=Tuning.towards(target, pace=0.2))
        taken.append(chains.accepted.double().mean().item())
    assert sum(taken[-50:]) / 50 == pytest.approx(target, abs=0.02)
    assert taken[0] > 0.95  # the first step size was small


def test_without_tuning_step_sizes_stay():
    vae, x = linear_vae(), images(6)
    chains = chains_of(vae, x, noise(6, LATENTS))
    chains.move(noise(6, LATENTS, seed=2), uniform(6, 0))
    assert torch.equal(chains.step, torch.full((6, 1), 0.1, dtype=torch.float64))


def test_transitions_leave_the_tempered_density_as_it_is():
    """N(0, 1) times N(3 | z, 0.5)^0.5 is N(2, 1/2 ) up to a constant: 20,000 chains that start there stay there."""

    def likelihood(z):
        return -(z - 4).square().sum(1)

    z = 2 + 0.5**0.5 * noise(20_000, 1)
    chains = Chains(lambda z: -0.5 * z.square().sum(1), likelihood, z, 0.1, 10)
    for move in range(30):
        generator = torch.Generator().manual_seed(move)
        numbers = torch.rand(len(z), generator=generator, dtype=z.dtype)
        chains.move(noise(len(z), 1, seed=100 + move), numbers, 0.5, Tuning(1.02, 0.98))
    ended = chains.point.z
    assert (ended - z).abs().mean() > 0.5
    assert ended.mean().item() == pytest.approx(2, abs=0.02)
    assert ended.var().item() == pytest.approx(0.5, abs=0.02)
