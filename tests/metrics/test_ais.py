from itertools import pairwise

import pytest
import torch
from linear import images, linear_vae, marginal, split

from pipeline.errors import UserError
from pipeline.metrics.ais import Annealing, estimate_ais, temperatures
from pipeline.metrics.likelihood import encode_split, estimate
from pipeline.vae.model import VAE, VAEConfig

EVERY = torch.arange(6)


def estimated(annealing, most_chains=1000):
    vae = linear_vae()
    return estimate_ais(vae, split(vae, images(6)), EVERY, annealing, most_chains)


@pytest.mark.parametrize("schedule", ["linear", "sigmoid"])
def test_long_chains_reach_the_exact_likelihood(schedule):
    exact = marginal(linear_vae()).log_prob(images(6).flatten(1))
    found = estimated(Annealing(60, 60, schedule, 0))
    torch.testing.assert_close(found, exact, rtol=0, atol=0.25)
    assert (found - exact).mean().abs() < 0.06


def test_short_chains_bound_the_likelihood_from_below_and_longer_ones_more_closely():
    exact = marginal(linear_vae()).log_prob(images(6).flatten(1)).mean()
    means = [estimated(Annealing(steps, 2, "linear", 0)).mean() for steps in (1, 5, 60)]
    assert means == sorted(means)
    assert means[-1] < exact < means[-1] + 0.3


def test_how_many_chains_move_at_once_does_not_change_the_estimate():
    annealing = Annealing(5, 3, "sigmoid", 0)
    torch.testing.assert_close(estimated(annealing, 6), estimated(annealing))


def test_another_seed_gives_another_estimate():
    assert not torch.equal(estimated(Annealing(5, 3, "linear", 0)), estimated(Annealing(5, 3, "linear", 1)))


def test_progress_counts_every_step_of_every_image():
    vae, heard = linear_vae(), []
    estimate_ais(vae, split(vae, images(6)), EVERY[:5], Annealing(4, 3, "linear", 0), 6, heard.append)
    assert sum(heard) == 5 * 4


def test_it_agrees_with_the_importance_bound_on_binary_pixels():
    torch.manual_seed(0)
    model = VAE(VAEConfig((1, 4, 4), "mlp", (8,), "tanh", 2, "bernoulli", "learned")).eval()
    pixels = torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    given = encode_split(model, pixels, "static", 0)
    bound = estimate(model, given, 5000, 0, 5000).iw_bound
    annealed = estimate_ais(model, given, EVERY[:5], Annealing(50, 100, "linear", 0), 1000)
    torch.testing.assert_close(annealed, bound, rtol=0, atol=0.06)


@pytest.mark.parametrize("schedule", ["linear", "sigmoid"])
def test_temperatures_rise_from_0_to_1(schedule):
    betas = temperatures(schedule, 10)
    assert (len(betas), betas[0], betas[-1]) == (11, 0, 1)
    assert betas == sorted(set(betas))


def test_the_sigmoidal_schedule_is_slow_at_both_ends():
    betas = temperatures("sigmoid", 10)
    rises = [after - before for before, after in pairwise(betas)]
    assert rises[0] == pytest.approx(rises[-1])
    assert rises[5] > 4 * rises[0]


def test_an_unknown_schedule_is_named():
    with pytest.raises(UserError, match="evaluate.ais_schedule is 'cubic'; expected linear or sigmoid"):
        temperatures("cubic", 10)
