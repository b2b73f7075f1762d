import pytest
import torch
from linear import LATENTS, images, linear_vae, marginal
from torch.distributions import MultivariateNormal

from pipeline.paper import marginal as module
from pipeline.paper.marginal import log_marginal


def test_it_is_the_exact_likelihood_of_a_linear_gaussian_model():
    vae, x = linear_vae(), images(100)
    exact = marginal(vae).log_prob(x.flatten(1))
    found = log_marginal(vae, x, 100, 0)
    assert (found - exact).abs().mean() < 0.1
    assert (found - exact).mean().item() == pytest.approx(0, abs=0.05)


def test_a_density_that_does_not_fit_errs_upwards(monkeypatch):
    """By Jensen: the logarithm of an unbiased estimate of 1 / p(x) lies below its own, and is taken with a minus."""
    vae, x = linear_vae(), images(100)

    def shifted(z):
        fitted = fit(z)
        return MultivariateNormal(fitted.mean + 0.8, fitted.covariance_matrix)

    fit = module._fit
    monkeypatch.setattr(module, "_fit", shifted)
    exact = marginal(vae).log_prob(x.flatten(1))
    few, many = (log_marginal(vae, x, samples, 0).sub(exact).mean().item() for samples in (5, 100))
    assert few > many > 0.02


def test_the_noise_follows_from_the_seed():
    vae, x = linear_vae(), images(5)
    first = log_marginal(vae, x, 5, 0)
    assert torch.equal(first, log_marginal(vae, x, 5, 0))
    assert not torch.equal(first, log_marginal(vae, x, 5, 1))


def test_chains_that_stay_where_they_are_have_a_density():
    stuck = module._fit(torch.ones(5, 3, LATENTS))
    assert stuck.log_prob(torch.ones(3, LATENTS, dtype=torch.float64)).isfinite().all()
