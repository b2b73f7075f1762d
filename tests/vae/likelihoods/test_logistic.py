import numpy as np
import pytest
import torch
from scipy.stats import logistic

from pipeline.vae.likelihoods.logistic import DiscretizedLogistic, clipped_logistic_mean

LEVELS = torch.arange(256, dtype=torch.float64)[:, None] / 255


def parameters(location, scale):
    """Of all levels alike; location and scale on [-1, 1]."""
    return torch.tensor([[location, np.log(scale)]], dtype=torch.float64).expand(256, 2)


@pytest.mark.parametrize("scale", [0.001, 0.01, 0.3, 20.0])
@pytest.mark.parametrize("location", [-1.3, 0.0, 0.71])
def test_it_agrees_with_differences_of_scipys_distribution_function(location, scale):
    x = 2 * LEVELS.numpy()[:, 0] - 1
    lower, upper = ((x + side / 255 - location) / scale for side in (-1, 1))
    lower[0], upper[-1] = -np.inf, np.inf
    flip = lower > 0  # the same interval in the other tail, where differences keep their digits
    expected = np.where(flip, logistic.cdf(-lower) - logistic.cdf(-upper), logistic.cdf(upper) - logistic.cdf(lower))
    found = DiscretizedLogistic(1).log_prob(LEVELS, parameters(location, scale)).exp().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-300)


@pytest.mark.parametrize("scale", [0.001, 0.01, 0.3, 20.0])
@pytest.mark.parametrize("location", [-1.3, 0.0, 0.7137])
def test_the_mean_is_that_of_the_levels_to_within_their_rounding(location, scale):
    p = parameters(location, scale)
    probabilities = DiscretizedLogistic(1).log_prob(LEVELS, p).exp()
    exact = (probabilities * LEVELS[:, 0]).sum().item()
    found = DiscretizedLogistic(1).mean(p)[0].item()
    assert found == pytest.approx(exact, abs=0.5 / 255)
    if scale >= 2 / 255:
        assert found == pytest.approx(exact, abs=1e-4)


def test_a_location_beyond_white_has_a_mean_of_white():
    assert clipped_logistic_mean(torch.tensor(4.0), torch.tensor(-3.0)).item() == pytest.approx(1, abs=1e-6)


def test_float32_keeps_its_digits_in_narrow_bins_and_far_tails():
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(500, 2, 40, generator=generator) * torch.tensor([[3.0], [4.0]])
    x = torch.randint(0, 256, (500, 1, 40), generator=generator) / 255
    exact = DiscretizedLogistic(1).pixel_log_prob(torch.round(x.double() * 255) / 255, p.double())
    torch.testing.assert_close(DiscretizedLogistic(1).pixel_log_prob(x, p).double(), exact, rtol=2e-4, atol=1e-4)


def test_the_first_half_of_the_outputs_are_locations():
    p = torch.tensor([[-0.5, 0.0, 0.5, -7.0, -7.0, -7.0]])
    torch.testing.assert_close(DiscretizedLogistic(3).mean(p), torch.tensor([[0.25, 0.5, 0.75]]), atol=2e-3, rtol=0)
