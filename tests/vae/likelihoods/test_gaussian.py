import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from pipeline.vae.likelihoods.gaussian import INITIAL_SIGMA, SMALLEST_SIGMA, Gaussian, PixelwiseGaussian

LEVELS = torch.arange(256, dtype=torch.float64)[:, None] / 255


def test_samples_have_its_mean_and_sigma():
    draws = Gaussian(1, 0.2).sample(torch.full((20_000, 1), 0.4), torch.Generator().manual_seed(0))
    assert draws.mean().item() == pytest.approx(0.4, abs=0.006)
    assert draws.std().item() == pytest.approx(0.2, abs=0.006)


def test_fixed_sigma_is_the_squared_error_up_to_a_constant():
    x, mu, sigma = torch.rand(5, 1, 4, 4), torch.rand(5, 1, 4, 4), 0.3
    squared_error = (x - mu).square().flatten(1).sum(1)
    constant = Gaussian(1, sigma).log_prob(x, mu) + squared_error / (2 * sigma**2)
    torch.testing.assert_close(constant, torch.full((5,), -16 * math.log(sigma * math.sqrt(2 * math.pi))))


def test_learned_sigma_converges_to_the_residual_spread():
    residuals = 0.07 * torch.randn(2000, 1, generator=torch.Generator().manual_seed(0))
    likelihood = Gaussian(1, "learned")
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (-likelihood.log_prob(residuals, torch.zeros_like(residuals)).mean()).backward()
        optimizer.step()
    assert torch.exp(likelihood.logvar / 2).item() == pytest.approx(residuals.square().mean().sqrt().item(), rel=1e-3)


def test_fixed_sigma_is_saved_but_not_trained():
    assert list(Gaussian(1, 0.1).parameters()) == []
    assert "logvar" in Gaussian(1, 0.1).state_dict()


def test_a_learned_sigma_out_of_hand_is_bounded_and_a_fixed_one_is_what_was_asked_for():
    likelihood = Gaussian(1, "learned")
    torch.nn.init.constant_(likelihood.logvar, -400.0)
    assert likelihood.log_prob(torch.ones(1, 1), torch.zeros(1, 1)).isfinite().all()
    tiny = Gaussian(1, 1e-6).log_prob(torch.zeros(1, 1), torch.zeros(1, 1))
    assert tiny.item() == pytest.approx(-math.log(1e-6) - 0.5 * math.log(2 * math.pi), rel=1e-6)


def test_in_training_the_optimal_sigma_is_that_of_the_batch():
    """No other sigma gives the batch a higher density, and no gradient is left for one."""
    generator = torch.Generator().manual_seed(0)
    x, mu = torch.rand(2, 6, 1, 4, 4, generator=generator)
    best = Gaussian(1, "optimal").log_prob(x, mu).sum()
    rmse = (x - mu).square().mean().sqrt().item()
    assert Gaussian(1, rmse).log_prob(x, mu).sum().item() == pytest.approx(best.item(), abs=1e-3)
    for sigma in (0.9 * rmse, 1.1 * rmse):
        assert Gaussian(1, sigma).log_prob(x, mu).sum() < best
    mu = mu.requires_grad_()
    (optimal,) = torch.autograd.grad(Gaussian(1, "optimal").log_prob(x, mu).sum(), mu)
    (fixed,) = torch.autograd.grad(Gaussian(1, rmse).log_prob(x, mu).sum(), mu)
    torch.testing.assert_close(optimal, fixed, rtol=1e-4, atol=1e-4)


def test_in_evaluation_the_optimal_sigma_does_not_look_at_the_images_it_is_asked_about():
    likelihood = Gaussian(1, "optimal").eval()
    x, mu = torch.rand(2, 6, 1, 4, 4)
    torch.testing.assert_close(likelihood.log_prob(x, mu), Gaussian(1, INITIAL_SIGMA).log_prob(x, mu))
    for error, sigma in ((0.05, 0.05), (0.01, 0.01), (0.0, SMALLEST_SIGMA)):
        likelihood.calibrate(error**2)
        torch.testing.assert_close(likelihood.log_prob(x, mu), Gaussian(1, sigma).log_prob(x, mu))
    together, alone = likelihood.log_prob(x, mu)[2], likelihood.log_prob(x[2:3], mu[2:3])[0]
    assert together.item() == alone.item()


def test_a_perfect_batch_does_not_make_sigma_zero():
    x = torch.rand(3, 1, 2, 2)
    assert Gaussian(1, "optimal").log_prob(x, x).isfinite().all()


@pytest.mark.parametrize("sigma", [0.0005, 0.004, 0.0057, 0.03, 0.5, 40.0])
@pytest.mark.parametrize("mu", [-0.4, 0.0, 0.31, 1.0, 1.7])
def test_the_probability_of_a_level_is_the_integral_over_its_bin(sigma, mu):
    """scipy's distribution function, in whichever tail has more digits; the ends reach to infinity."""
    x = LEVELS.numpy()[:, 0]
    lower, upper = (x - 1 / 510 - mu) / sigma, (x + 1 / 510 - mu) / sigma
    lower[0], upper[-1] = -np.inf, np.inf
    flip = lower + upper > 0
    a, b = np.where(flip, -upper, lower), np.where(flip, -lower, upper)
    expected = norm.logcdf(b) + np.log1p(-np.exp(norm.logcdf(a) - norm.logcdf(b)))
    likelihood = Gaussian(1, sigma).double()
    likelihood.logvar.fill_(2 * math.log(sigma))  # to all digits
    found = likelihood.discrete_log_prob(LEVELS, torch.full_like(LEVELS, mu)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-7)


def test_no_level_has_a_probability_above_one_however_small_sigma_is():
    """The density at the middle times the width of the bin would say 4 here."""
    likelihood = Gaussian(1, 0.0004)
    x = torch.full((1, 1), 100 / 255)
    assert likelihood.log_prob(x, x).exp().item() / 255 > 3
    assert likelihood.discrete_log_prob(x, x).exp().item() == pytest.approx(1, abs=1e-5)


def test_each_pixel_has_the_mean_and_sigma_that_the_decoder_gives_it():
    """Against scipy, at spreads so wide that the floor of rounding does not count."""
    p = torch.tensor(
        [[[0.3, -1.0], [1.5, 0.0]]], dtype=torch.float64
    )  # (batch, mean's logits and log-variance, pixels)
    x = torch.tensor([[[0.5, 0.2]]], dtype=torch.float64)
    sigma = INITIAL_SIGMA * (p[:, 1] / 2).exp().numpy()
    expected = norm.logpdf(x[:, 0].numpy(), p[:, 0].sigmoid().numpy(), sigma)
    np.testing.assert_allclose(PixelwiseGaussian(1).pixel_log_prob(x, p).numpy(), expected, rtol=1e-4)


def test_a_pixel_known_exactly_has_the_spread_of_rounding():
    x = torch.full((1, 1, 1), 0.5)
    p = torch.tensor([[[0.0], [-300.0]]])
    rounding = math.sqrt(1 / 12) / 255
    assert PixelwiseGaussian(1).log_prob(x, p).item() == pytest.approx(norm.logpdf(0, 0, rounding), rel=1e-4)
