import pytest
import torch
from torch.distributions import ContinuousBernoulli as Reference

from pipeline.vae.likelihoods.continuous_bernoulli import ContinuousBernoulli

LOGITS = torch.tensor([-60.0, -5.0, -1.0, -0.99, -1e-3, -1e-9, 0.0, 1e-6, 0.5, 1.0, 1.01, 3.0, 20.0]).double()
GRID = torch.linspace(0, 1, 20_001, dtype=torch.float64)


def log_prob(x, logits):
    return ContinuousBernoulli(1).log_prob(x[:, None], logits[:, None])


@pytest.mark.parametrize("logit", LOGITS.tolist())
def test_the_density_integrates_to_one(logit):
    density = log_prob(GRID, torch.full_like(GRID, logit)).exp()
    assert torch.trapezoid(density, GRID).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("x", [0.0, 0.2, 0.5, 1.0])
def test_it_agrees_with_torch_distributions_away_from_one_half(x):
    logits = LOGITS[(LOGITS.abs() > 0.5) & (LOGITS.abs() < 15)]
    value = torch.full_like(logits, x)
    torch.testing.assert_close(log_prob(value, logits), Reference(logits=logits).log_prob(value), atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(ContinuousBernoulli(1).mean(logits), Reference(logits=logits).mean)


def test_at_one_half_it_is_the_uniform_density_and_smooth_around_it():
    near = torch.linspace(-1e-2, 1e-2, 2001)  # float32, where the formula of the paper is 0 / 0
    x = torch.full_like(near, 0.3)
    exact = log_prob(x.double(), near.double())
    torch.testing.assert_close(log_prob(x, near).double(), exact, atol=2e-7, rtol=0)
    assert log_prob(x[:1], torch.zeros(1)).item() == 0
    assert ContinuousBernoulli(1).mean(torch.zeros(1)).item() == 0.5
    assert (ContinuousBernoulli(1).mean(near.double()).diff() > 0).all()


def test_series_and_formula_meet_without_a_step():
    below, above = torch.tensor([1 - 1e-12]).double(), torch.tensor([1 + 1e-12]).double()
    x = torch.tensor([0.7], dtype=torch.float64)
    torch.testing.assert_close(log_prob(x, below), log_prob(x, above), atol=1e-9, rtol=0)
    means = (ContinuousBernoulli(1).mean(logits) for logits in (below, above))
    torch.testing.assert_close(*means, atol=1e-9, rtol=0)


def test_the_probability_of_a_level_is_the_integral_over_its_bin():
    logits = torch.tensor([[-4.0], [0.3], [9.0]], dtype=torch.float64)
    for level in (0, 1, 128, 255):
        x = torch.full_like(logits, level / 255)
        ends = ((x - 1 / 510).clamp_min(0), (x + 1 / 510).clamp_max(1))
        integral = Reference(logits=logits).cdf(ends[1]) - Reference(logits=logits).cdf(ends[0])
        found = ContinuousBernoulli(1).discrete_log_prob(x, logits).exp()
        torch.testing.assert_close(found, integral[:, 0], rtol=1e-6, atol=1e-12)


def test_the_mean_is_not_the_sigmoid_of_the_logit():
    """The mistake of reading the decoder's output as a Bernoulli's: at logit 3 it would say 0.95."""
    assert ContinuousBernoulli(1).mean(torch.tensor([3.0])).item() == pytest.approx(0.7191, abs=1e-4)


def test_samples_follow_the_distribution_function():
    for logit in (-30.0, -2.0, 0.0, 1e-8, 5.0):
        logits = torch.full((20_000, 1), logit)
        draws = ContinuousBernoulli(1).sample(logits, torch.Generator().manual_seed(1)).double().sort(0).values
        assert draws.min() >= 0
        assert draws.max() <= 1
        uniform = (torch.arange(20_000, dtype=torch.float64)[:, None] + 0.5) / 20_000
        distance = (Reference(logits=logits.double()).cdf(draws) - uniform).abs().max().item()
        assert distance < 1.95 / 20_000**0.5  # Kolmogorov and Smirnov, one in a thousand
