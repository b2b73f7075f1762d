import math

import pytest
import torch

from pipeline.errors import UserError
from pipeline.vae.likelihoods import Bernoulli, Gaussian, bits_per_dim, make_likelihood


def test_bernoulli_samples_have_its_mean():
    logits = torch.tensor([-2.0, 0.0, 1.0]).expand(20_000, 3)
    draws = Bernoulli().sample(logits, torch.Generator().manual_seed(0))
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(draws.mean(0), Bernoulli().mean(logits[0]), atol=0.015, rtol=0)


def test_gaussian_samples_have_its_mean_and_sigma():
    draws = Gaussian(0.2).sample(torch.full((20_000, 1), 0.4), torch.Generator().manual_seed(0))
    assert draws.mean().item() == pytest.approx(0.4, abs=0.006)
    assert draws.std().item() == pytest.approx(0.2, abs=0.006)


def test_fixed_sigma_is_the_squared_error_up_to_a_constant():
    x, mu, sigma = torch.rand(5, 1, 4, 4), torch.rand(5, 1, 4, 4), 0.3
    squared_error = (x - mu).square().flatten(1).sum(1)
    constant = Gaussian(sigma).log_prob(x, mu) + squared_error / (2 * sigma**2)
    torch.testing.assert_close(constant, torch.full((5,), -16 * math.log(sigma * math.sqrt(2 * math.pi))))


def test_learned_sigma_converges_to_the_residual_spread():
    residuals = 0.07 * torch.randn(2000, 1, generator=torch.Generator().manual_seed(0))
    likelihood = Gaussian("learned")
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (-likelihood.log_prob(residuals, torch.zeros_like(residuals)).mean()).backward()
        optimizer.step()
    assert torch.exp(likelihood.logvar / 2).item() == pytest.approx(residuals.square().mean().sqrt().item(), rel=1e-3)


def test_fixed_sigma_is_saved_but_not_trained():
    assert list(Gaussian(0.1).parameters()) == []
    assert "logvar" in Gaussian(0.1).state_dict()


def test_a_learned_sigma_out_of_hand_is_bounded_and_a_fixed_one_is_what_was_asked_for():
    likelihood = Gaussian("learned")
    torch.nn.init.constant_(likelihood.logvar, -400.0)
    assert likelihood.log_prob(torch.ones(1, 1), torch.zeros(1, 1)).isfinite().all()
    tiny = Gaussian(1e-6).log_prob(torch.zeros(1, 1), torch.zeros(1, 1))
    assert tiny.item() == pytest.approx(-math.log(1e-6) - 0.5 * math.log(2 * math.pi), rel=1e-6)


def test_fair_coins_cost_one_bit_per_dimension():
    assert bits_per_dim(784 * math.log(2), 784, Bernoulli()) == pytest.approx(1)


def test_uniform_pixels_cost_eight_bits_per_dimension_of_eight_bit_data():
    # A density of 1 over [0, 1] gives each of the 255 steps between grey levels a probability of 1/255.
    assert bits_per_dim(0.0, 784, Gaussian(1.0)) == pytest.approx(math.log2(255))


def test_unknown_likelihood_is_refused_by_name():
    with pytest.raises(UserError, match=r"model.likelihood is 'bernouli'; expected bernoulli or gaussian"):
        make_likelihood("bernouli", "learned")
