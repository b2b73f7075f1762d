"""What holds of each likelihood: one probability shared among the values, honest gradients, samples that fit."""

import math

import pytest
import torch

from pipeline.errors import UserError
from pipeline.vae.likelihoods.bernoulli import Bernoulli
from pipeline.vae.likelihoods.logistic_mixture import LogisticMixture
from pipeline.vae.likelihoods.make import LIKELIHOODS, bits_per_dim, make_likelihood

LEVELS = torch.arange(256, dtype=torch.float64) / 255
CASES = [(name, channels, 0.07) for name in LIKELIHOODS for channels in (1, 3)] + [
    ("gaussian", 1, "learned"),
    ("gaussian", 1, "per_pixel"),
    ("gaussian", 3, "per_pixel"),
]


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(str, case)))
def case(request):
    name, channels, sigma = request.param
    return make_likelihood(name, channels, sigma, components=3).double().eval(), channels


def parameters(likelihood, *shape, seed=0, spread=1.5):
    """What a decoder might give, float64 [*shape[:1], outputs, *shape[1:]]."""
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(shape[0], likelihood.outputs, *shape[1:], generator=generator, dtype=torch.float64)


def values(likelihood):
    return LEVELS[[0, 255]] if isinstance(likelihood, Bernoulli) else LEVELS


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("spread", [0.0, 1.5, 40.0])
@pytest.mark.parametrize("sigma", [0.002, 0.07, 3.0, "per_pixel"])
def test_the_probabilities_of_all_stored_values_sum_to_one(name, spread, sigma):
    likelihood = make_likelihood(name, 1, sigma, components=3).double()
    x = values(likelihood)[:, None, None, None]
    for one in parameters(likelihood, 8, 1, 1, spread=spread):
        probabilities = likelihood.discrete_log_prob(x, one.expand(len(x), -1, -1, -1)).exp()
        assert probabilities.sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("spread", [1.5, 300.0])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_in_float32_they_sum_to_one_to_its_last_digits(name, spread):
    """An image has hundreds of pixels, whose errors may all lie to one side."""
    likelihood = make_likelihood(name, 1, 0.07, components=3)
    x = values(likelihood)[:, None, None].float()
    for one in parameters(likelihood, 8, 1, spread=spread).float():
        probabilities = likelihood.discrete_log_prob(x, one.expand(len(x), -1, -1)).double().exp()
        assert probabilities.sum().item() == pytest.approx(1, abs=1e-6)


def test_the_density_or_probability_of_an_image_is_that_of_its_pixels_together(case):
    likelihood, channels = case
    p, x = parameters(likelihood, 4, 2, 3), torch.randint(0, 256, (4, channels, 2, 3)) / 255
    pixels = likelihood.pixel_log_prob(x, p)
    assert pixels.shape == (4, 2, 3)
    torch.testing.assert_close(likelihood.log_prob(x, p), pixels.sum((1, 2)))
    alone = likelihood.pixel_log_prob(x[:, :, 1:, :1], p[:, :, 1:, :1])
    torch.testing.assert_close(alone, pixels[:, 1:, :1])


def test_gradients_agree_with_finite_differences(case):
    likelihood, channels = case
    x = values(likelihood)[torch.tensor([0, -1, 1])].expand(3, 3)[:channels].T[:, :, None].clone()
    p = parameters(likelihood, 3, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: likelihood.log_prob(x, p), p)
    assert torch.autograd.gradcheck(lambda p: likelihood.mean(p), p)


def test_samples_have_the_mean_and_lie_among_the_values(case):
    likelihood, channels = case
    p = parameters(likelihood, 1, 2, 2).float()
    draws = likelihood.float().sample(p.expand(40_000, -1, -1, -1), torch.Generator().manual_seed(0))
    assert draws.shape == (40_000, channels, 2, 2)
    tolerance = 5 * draws.std(0).max().item() / 200
    if channels > 1 and isinstance(likelihood, LogisticMixture):
        tolerance += 0.02  # locations far beyond black and white, where the mean of a conditioned channel bends
    torch.testing.assert_close(draws.mean(0), likelihood.mean(p)[0].detach(), atol=tolerance, rtol=0)
    if not likelihood.is_density:
        distance = (draws.unique()[:, None] - values(likelihood)).abs().min(1).values
        assert distance.max() < 1e-6


@pytest.mark.parametrize(("name", "sigma"), [("bernoulli", 1.0), ("gaussian", 0.07), ("gaussian", "per_pixel")])
def test_noise_that_is_given_makes_draws_of_the_same_distribution(name, sigma):
    likelihood = make_likelihood(name, 1, sigma, components=1).eval()
    p = parameters(likelihood, 1, 2).float().expand(40_000, -1, -1)
    eps = torch.randn(40_000, 1, 2, generator=torch.Generator().manual_seed(0))
    made, drawn = likelihood.sample_from(p, eps), likelihood.sample(p, torch.Generator().manual_seed(1))
    assert torch.equal(made, likelihood.sample_from(p, eps))
    for moment in (1, 2):
        spread = drawn.pow(moment).std(0).max().item()
        expected = drawn.pow(moment).mean(0)
        torch.testing.assert_close(made.pow(moment).mean(0), expected, atol=5 * spread / 140, rtol=0)


@pytest.mark.parametrize("name", ["bernoulli", "discretized_logistic", "logistic_mixture"])
def test_samples_are_as_probable_as_the_entropy_says(name):
    """The mean of -log p over samples against the sum over all values: another location or scale would be found out."""
    likelihood = make_likelihood(name, 1, "learned", components=3)
    p, x = parameters(likelihood, 1, 1), values(likelihood)[:, None, None]
    log_prob = likelihood.log_prob(x, p.expand(len(x), -1, -1)).detach()
    draws = likelihood.sample(p.expand(20_000, -1, -1), torch.Generator().manual_seed(0))
    found = likelihood.log_prob(draws, p.expand(20_000, -1, -1)).detach()
    tolerance = 5 * found.std().item() / 20_000**0.5
    assert found.mean().item() == pytest.approx((log_prob.exp() * log_prob).sum().item(), abs=tolerance)


def test_extreme_parameters_have_a_finite_probability_and_gradient(case):
    likelihood, channels = case
    likelihood = likelihood.float()
    for size in (-1e4, 1e4):
        p = torch.full((2, likelihood.outputs, 1), size, requires_grad=True)
        x = torch.tensor([0.0, 1.0])[:, None, None].expand(2, channels, 1)
        log_prob = likelihood.log_prob(x, p)
        assert log_prob.isfinite().all()
        log_prob.sum().backward()
        assert p.grad.isfinite().all()
        assert likelihood.mean(p).isfinite().all()


def test_a_uniform_distribution_over_the_levels_costs_eight_bits_per_dimension():
    assert bits_per_dim(784 * math.log(256), 784) == pytest.approx(8)


def test_fair_coins_cost_one_bit_per_dimension():
    assert bits_per_dim(784 * math.log(2), 784) == pytest.approx(1)


def test_unknown_likelihood_is_refused_by_name():
    expected = "model.likelihood is 'bernouli'; expected one of bernoulli, continuous_bernoulli, gaussian, discretized_"
    with pytest.raises(UserError, match=expected):
        make_likelihood("bernouli", 1, "learned", 5)
