from itertools import pairwise

import pytest
import torch
from linear import conditional_linear_vae, images, linear_vae, marginal, marginal_of_class, noise, split

from pipeline.errors import UserError
from pipeline.metrics.ais import _LEAPFROGS, _TUNING, Annealing, estimate_ais, temperatures
from pipeline.metrics.hmc import Chains
from pipeline.metrics.likelihood import encode_split, estimate
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.priors.normal import StandardNormal

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


@pytest.mark.parametrize(("steps", "chains"), [(1, 20_000), (40, 100)])
def test_each_image_of_a_conditional_model_is_annealed_from_the_prior_of_its_class(steps, chains):
    """A single step is the mean of p(x|z) over draws of the prior; many steps move under it, too."""
    vae, label = conditional_linear_vae("per_class"), torch.tensor([2, 0, 1, 1, 0, 2])
    exact = [marginal_of_class(vae, y).log_prob(x.flatten()) for y, x in zip(label, images(6), strict=True)]
    given, annealing = split(vae, images(6), label), Annealing(steps, chains, "linear", 0)
    found = estimate_ais(vae, given, EVERY, annealing, 100_000)
    torch.testing.assert_close(found, torch.stack(exact).detach(), rtol=0, atol=0.2)


def test_steps_that_are_too_small_or_too_large_are_adapted_until_most_proposals_are_taken_and_some_are_not():
    density = StandardNormal(20).log_prob
    for step in (0.05, 3.0):
        chains = Chains(density, lambda z: 0 * density(z), noise(50, 20), step, _LEAPFROGS)
        taken = []
        for seed in range(200):
            uniform = torch.rand(50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            chains.move(noise(50, 20, seed=seed + 2), uniform, 1.0, _TUNING)
            taken.append(chains.accepted.double().mean().item())
        assert 0.4 < sum(taken[-50:]) / 50 < 0.85


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
