import pytest
import torch
from linear import conditional_linear_vae, give_exact_posterior, images, linear_vae, split

from pipeline.metrics.amortisation import amortisation_gap
from pipeline.vae.flows import Flow, Moved
from pipeline.vae.posteriors import FlowPosterior

EVERY = torch.arange(8)


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr("pipeline.metrics.amortisation._STEPS", 10)


def exact_model():
    """Its q(z|x) is p(z|x), which has a diagonal covariance."""
    vae = linear_vae()
    give_exact_posterior(vae)
    return vae


@torch.no_grad()
def disturb(vae):
    """Move the means that the encoder gives by an affine map of them, and its log-variances by 1."""
    head = vae.encoder[-1]
    means = slice(0, vae.config.latent_dim)
    head.weight[means] *= 1.4
    head.bias[means] += 0.5
    head.bias[vae.config.latent_dim :] -= 1


class Still(Flow):
    """Moves nothing, and says so without a closed form."""

    def __init__(self):
        super().__init__([], 0)

    def forward(self, z, context=None):
        return Moved(z, torch.zeros_like(z))


def test_an_exact_posterior_has_nothing_to_gain():
    vae = exact_model()
    gap = amortisation_gap(vae, split(vae, images(8)), EVERY, 0)
    assert gap.shape == (8,)
    assert gap.abs().max() < 0.02


def test_the_gap_is_the_divergence_from_the_exact_posterior():
    vae = exact_model()
    exact = split(vae, images(8))
    disturb(vae)
    given = split(vae, images(8))
    ratio = given.logvar - exact.logvar
    expected = 0.5 * (ratio.exp() + (given.mu - exact.mu).square() / exact.logvar.exp() - 1 - ratio).sum(1)
    assert expected.min() > 0.3
    found = amortisation_gap(vae, given, EVERY, 0)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.2)
    assert (found - expected).mean().abs() < 0.05


def test_a_prior_without_closed_kl_gives_the_same_gap(monkeypatch):
    vae = exact_model()
    disturb(vae)
    given = split(vae, images(8))
    closed = amortisation_gap(vae, given, EVERY, 0)
    monkeypatch.setattr(vae.prior, "has_closed_kl", False)
    torch.testing.assert_close(amortisation_gap(vae, given, EVERY, 0), closed, rtol=0.05, atol=0.1)


def test_a_flow_that_moves_nothing_leaves_the_gap_of_its_gaussian():
    vae = exact_model()
    disturb(vae)
    given = split(vae, images(8))
    gaussian = amortisation_gap(vae, given, EVERY, 0)
    vae.flow = Still()
    assert isinstance(vae.posterior(images(8)), FlowPosterior)
    torch.testing.assert_close(amortisation_gap(vae, given, EVERY, 0), gaussian, rtol=0.05, atol=0.1)


def test_the_model_is_left_as_it_was(few_steps):
    vae = exact_model()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    amortisation_gap(vae, split(vae, images(8)), EVERY, 0)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert all(parameter.grad is None for parameter in vae.parameters())


def test_what_a_subset_gives_does_not_depend_on_the_others(few_steps):
    vae = exact_model()
    disturb(vae)
    given = split(vae, images(8))
    torch.testing.assert_close(
        amortisation_gap(vae, given, EVERY[5:], 0), amortisation_gap(vae, given, EVERY, 0)[5:], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("prior", ["standard", "per_class"])
def test_each_image_of_a_conditional_model_has_the_gap_of_its_own_class(few_steps, prior):
    vae, label = conditional_linear_vae(prior), torch.tensor([2, 0, 1, 1, 0, 2, 0, 1])
    given = split(vae, images(8), label)
    alone = torch.cat([amortisation_gap(vae, given, one, 0) for one in EVERY.split(1)])
    torch.testing.assert_close(amortisation_gap(vae, given, EVERY, 0), alone, rtol=1e-4, atol=1e-4)
