import pytest
import torch

from pipeline.vae.likelihoods.logistic import DiscretizedLogistic
from pipeline.vae.likelihoods.logistic_mixture import LogisticMixture

LEVELS = torch.arange(256, dtype=torch.float64) / 255
K = 2


def random_parameters(channels, seed=0, rows=1):
    outputs = LogisticMixture(channels, K).outputs
    p = torch.randn(rows, outputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    p[:, K + K * channels : K + 2 * K * channels] -= 2  # scales of a few grey levels
    return p


def of_red(p):
    """The parameters of the first channel alone: logits, K of the locations (component by component), K scales."""
    return torch.cat([p[:, :K], p[:, K : K + 3 * K : 3], p[:, K + 3 * K : K + 6 * K : 3]], dim=1)


def test_one_component_of_one_channel_is_a_discretized_logistic():
    p = torch.tensor([[0.7, 0.2, -2.0]], dtype=torch.float64).expand(256, 3)
    found = LogisticMixture(1, 1).log_prob(LEVELS[:, None], p)
    torch.testing.assert_close(found, DiscretizedLogistic(1).log_prob(LEVELS[:, None], p[:, 1:]))


def test_green_and_blue_summed_out_leave_the_mixture_of_red():
    """Sums over all 65,536 greens and blues: a probability of colours, whatever the weights between channels."""
    p, mixture = random_parameters(3), LogisticMixture(3, K)
    greens, blues = torch.cartesian_prod(LEVELS, LEVELS).T
    reds = LEVELS[[0, 90, 160, 255]]
    for red in reds:
        x = torch.stack([red.expand(len(greens)), greens, blues], dim=1)
        summed = mixture.log_prob(x, p.expand(len(x), -1)).logsumexp(0)
        alone = LogisticMixture(1, K).log_prob(red.view(1, 1), of_red(p))
        torch.testing.assert_close(summed, alone[0], atol=1e-9, rtol=1e-9)


def test_channels_of_a_pixel_know_of_one_another():
    """A large weight from red to green: of a bright red, a bright green is likelier than a dark one."""
    p = torch.zeros(1, LogisticMixture(3, 1).outputs)
    p[:, 4:7] = -2.0  # scales
    p[:, 7] = 3.0  # the weight of red in green: tanh(3)
    colours = torch.tensor([[230, 220, 128], [230, 30, 128], [20, 30, 128], [20, 220, 128]]) / 255
    both, red_alone, neither, green_alone = LogisticMixture(3, 1).log_prob(colours, p.expand(4, -1)).tolist()
    assert both > red_alone + 5
    assert neither > green_alone + 5


def test_the_component_is_drawn_for_the_whole_pixel():
    """Two colours, half and half: samples are one or the other, never red of one with green of the other."""
    p = torch.full((1, LogisticMixture(3, 2).outputs), 0.0)
    p[:, 2:5], p[:, 5:8], p[:, 8:14] = -0.8, 0.8, -6.0
    draws = LogisticMixture(3, 2).sample(p.expand(4000, -1), torch.Generator().manual_seed(0))
    bright = draws > 0.5
    assert (bright == bright[:, :1]).all()
    assert bright.float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_the_mean_is_that_of_samples_where_locations_stay_off_the_ends():
    p = random_parameters(3, seed=3, rows=6)
    p[:, K : K + 3 * K] *= 0.2
    p[:, K + 3 * K : K + 6 * K] -= 1.5
    draws = LogisticMixture(3, K).sample(p.repeat_interleave(20_000, 0), torch.Generator().manual_seed(0))
    draws = draws.view(6, 20_000, 3)
    tolerance = 5 * draws.std(1).max().item() / 20_000**0.5
    torch.testing.assert_close(draws.mean(1), LogisticMixture(3, K).mean(p), atol=tolerance, rtol=0)


def test_the_mean_keeps_close_to_that_of_samples_where_channels_are_clipped_at_black_and_white():
    """Scales as wide as the range: to plug in the earlier channels' means would be off by 0.1 here."""
    p = random_parameters(3, seed=5, rows=20)
    p[:, K + 3 * K : K + 6 * K] += 2
    draws = LogisticMixture(3, K).sample(p.repeat_interleave(20_000, 0), torch.Generator().manual_seed(0))
    error = (draws.view(20, 20_000, 3).mean(1) - LogisticMixture(3, K).mean(p)).abs()
    assert error.max() < 0.025
    assert error.mean() < 0.006


def test_outputs_are_three_a_component_in_grey_and_ten_in_colour():
    assert [LogisticMixture(channels, 5).outputs for channels in (1, 3)] == [15, 50]
