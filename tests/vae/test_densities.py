import itertools
import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from pipeline.vae.densities import (
    PLAIN_LOGVAR,
    bernoulli_log_prob,
    bounded_logvar,
    gaussian_kl_per_dimension,
    gaussian_log_prob,
)

LOGITS = torch.tensor([-80.0, -3.0, 0.0, 1e-4, 2.0, 80.0], dtype=torch.float64)


def test_bernoulli_sums_to_one_over_all_outcomes():
    logits = torch.tensor([[0.3, -2.0, 5.0, 0.0]], dtype=torch.float64)
    outcomes = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)), dtype=torch.float64)
    assert bernoulli_log_prob(outcomes, logits).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_bernoulli_agrees_with_torch_distributions():
    x = torch.randint(0, 2, (7, 6), generator=torch.Generator().manual_seed(0)).double()
    expected = Bernoulli(logits=LOGITS).log_prob(x).sum(1)
    torch.testing.assert_close(bernoulli_log_prob(x, LOGITS), expected)


def test_bernoulli_stays_finite_at_extreme_logits():
    logits = torch.tensor([[1e4, -1e4]])
    assert bernoulli_log_prob(torch.tensor([[0.0, 0.0]]), logits).item() == -1e4


def test_gaussian_integrates_to_one():
    x = torch.linspace(-30, 30, 20001, dtype=torch.float64)[:, None]
    density = gaussian_log_prob(x, torch.tensor(0.7, dtype=torch.float64), torch.tensor(1.3, dtype=torch.float64)).exp()
    assert torch.trapezoid(density, x[:, 0]).item() == pytest.approx(1, abs=1e-9)


def test_gaussian_agrees_with_torch_distributions_for_a_variance_given_as_its_log():
    generator = torch.Generator().manual_seed(0)
    x, mu, logvar = torch.randn(3, 5, 2, 4, generator=generator, dtype=torch.float64)
    expected = Normal(mu, torch.exp(logvar / 2)).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(gaussian_log_prob(x, mu, logvar), expected)


def test_kl_agrees_with_torch_distributions():
    mu, logvar = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = kl_divergence(Normal(mu, torch.exp(logvar / 2)), Normal(0.0, 1.0))
    torch.testing.assert_close(gaussian_kl_per_dimension(mu, logvar), expected)


def test_kl_of_the_prior_to_itself_is_zero():
    assert gaussian_kl_per_dimension(torch.zeros(1, 3), torch.zeros(1, 3)).abs().max() == 0


@pytest.mark.parametrize("density", [bernoulli_log_prob, lambda x, p: gaussian_log_prob(x, p, torch.tensor(0.3))])
def test_gradients_agree_with_finite_differences(density):
    x = torch.tensor([[0.0, 1.0, 1.0]], dtype=torch.float64)
    parameters = torch.tensor([[0.4, -1.2, 3.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: density(x, p), parameters)


def test_every_density_gives_one_value_per_example():
    x = torch.rand(4, 3, 5, 6)
    assert bernoulli_log_prob(x, x).shape == (4,)
    assert gaussian_log_prob(x, x, torch.zeros(())).shape == (4,)


def test_constants_are_kept():
    at_the_mean = gaussian_log_prob(torch.zeros(1, 10), torch.zeros(1, 10), torch.zeros(()))
    assert at_the_mean.item() == pytest.approx(-5 * math.log(2 * math.pi))
    assert bernoulli_log_prob(torch.ones(1, 10), torch.zeros(1, 10)).item() == pytest.approx(10 * np.log(0.5))


@pytest.mark.parametrize("neighbours", [[], [1e3]])
def test_a_sane_log_variance_is_left_as_it_is_and_so_is_its_gradient(neighbours):
    sane = torch.linspace(-PLAIN_LOGVAR, PLAIN_LOGVAR, 10_001, requires_grad=True)
    bounded = bounded_logvar(torch.cat([sane, torch.tensor(neighbours)]))[:10_001]
    assert torch.equal(bounded, sane)
    bounded.sum().backward()
    assert torch.equal(sane.grad, torch.ones_like(sane))


def test_beyond_that_a_log_variance_goes_on_as_the_logarithm_without_a_step_or_a_bend():
    value = torch.tensor([20.0, 20.001, 25.0, 1e3, 1e12], dtype=torch.float64)
    value = torch.cat([-value.flip(0), value]).requires_grad_()
    bounded = bounded_logvar(value)
    assert (bounded.diff() > 0).all()
    expected = value.sign() * (20 + torch.log(1 + value.abs() - 20))
    torch.testing.assert_close(bounded, expected)
    bounded.sum().backward()
    torch.testing.assert_close(value.grad, 1 / (1 + value.detach().abs() - 20))
    assert (value.grad > 0).all()


def test_a_log_variance_that_is_not_finite_stays_so():
    assert bounded_logvar(torch.tensor([math.nan])).isnan().all()
    assert bounded_logvar(torch.tensor([-math.inf, math.inf])).isinf().all()
