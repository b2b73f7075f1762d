import dataclasses

import pytest
import torch
from linear import LATENTS, conditional_linear_vae, images, marginal_of_class, model_of_class, noise
from quadrature import assert_drawn_from, grid
from torch import nn
from torch.distributions import Normal, kl_divergence

from pipeline.errors import UserError
from pipeline.vae.bounds import elbo, importance_samples, iw_bound
from pipeline.vae.condition import Conditioned
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.objectives import OBJECTIVES, noise_shape, objective

LABEL = torch.tensor([2, 0, 1, 2])
CONFIG = VAEConfig(
    (1, 8, 8), "mlp", (16,), "relu", 3, "bernoulli", "learned", condition="label", classes=("cat", "dog")
)


@pytest.mark.parametrize("prior", ["standard", "per_class"])
def test_the_bounds_of_a_conditional_model_stand_in_order_and_reach_the_likelihood_of_the_class(prior):
    vae, x = conditional_linear_vae(prior), images(4)
    exact = torch.stack([marginal_of_class(vae, y).log_prob(one.flatten()) for y, one in zip(LABEL, x, strict=True)])
    with torch.no_grad():
        eps = noise(4, 40_000, LATENTS)
        log_w = importance_samples(vae, x, vae.posterior(x, LABEL), eps, LABEL).log_w
        many = [elbo(vae, x, eps[:, k], LABEL).elbo for k in range(500)]
        bounds = [torch.stack(many).mean(0), iw_bound(log_w[:, :4000].reshape(-1, 10)).view(4, -1).mean(1)]
    assert (bounds[0] < bounds[1]).all()
    assert (bounds[1] < exact).all()
    torch.testing.assert_close(iw_bound(log_w), exact, atol=0.05, rtol=0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_is_for_each_class_that_of_the_model_of_this_class(name):
    vae, x = conditional_linear_vae(), images(5)
    eps = noise(5, *noise_shape(name, 3, LATENTS, x[0].numel()))
    for label in range(3):
        made = objective(name, vae, x, eps, 0.7, label=torch.full((5,), label))
        expected = objective(name, model_of_class(vae, label), x, eps, 0.7)
        torch.testing.assert_close(made.loss, expected.loss)
        torch.testing.assert_close(made.bound, expected.bound)


@pytest.mark.parametrize("prior", ["standard", "per_class"])
@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "tc"])  # that one is of the whole batch
def test_of_images_of_several_classes_the_loss_is_the_mean_of_what_each_costs_alone(name, prior):
    vae, x = conditional_linear_vae(prior), images(4)
    eps = noise(4, *noise_shape(name, 3, LATENTS, x[0].numel()))
    together = objective(name, vae, x, eps, 0.7, label=LABEL)
    alone = [
        objective(name, vae, *of_one, 0.7, label=y)
        for *of_one, y in zip(x.split(1), eps.split(1), LABEL.split(1), strict=True)
    ]
    torch.testing.assert_close(together.loss, torch.stack([one.loss for one in alone]).mean())
    torch.testing.assert_close(together.bound.elbo, torch.cat([one.bound.elbo for one in alone]))


def test_a_prior_per_class_has_the_kl_of_its_class_in_closed_form():
    prior = conditional_linear_vae("per_class").prior
    mu, logvar = noise(4, LATENTS), noise(4, LATENTS, seed=2)
    given = prior.given(LABEL)
    sigma = torch.exp(0.5 * prior.logvar)
    expected = kl_divergence(Normal(mu, torch.exp(0.5 * logvar)), Normal(prior.mu[LABEL], sigma[LABEL]))
    torch.testing.assert_close(given.kl_per_dimension(mu, logvar), expected)
    torch.testing.assert_close(given.kl(mu, logvar, noise(4, LATENTS, seed=3)), expected.sum(1))


def test_free_bits_under_a_prior_per_class_are_of_the_kl_to_the_class():
    vae, x, eps = conditional_linear_vae("per_class"), images(4), noise(4, LATENTS)
    per_dimension = vae.prior.given(LABEL).kl_per_dimension(*vae.encode(x, LABEL)).mean(0)
    bits = per_dimension.sort().values[:2].mean().item()  # between the least and the next
    loss, bound = objective("elbo", vae, x, eps, 1.0, free_bits=bits, label=LABEL)
    torch.testing.assert_close(loss, per_dimension.clamp_min(bits).sum() - bound.recon.mean())
    assert loss > objective("elbo", vae, x, eps, 1.0, label=LABEL).loss


def test_a_prior_per_class_draws_what_its_density_says():
    prior = conditional_linear_vae("per_class").prior
    label = torch.arange(3).repeat_interleave(20_000)
    z = prior.given(label).sample(len(label), torch.Generator().manual_seed(0)).view(3, -1, LATENTS)
    torch.testing.assert_close(z.mean(1).double(), prior.mu.detach(), atol=0.02, rtol=0)
    torch.testing.assert_close(z.var(1).log().double(), prior.logvar.detach(), atol=0.05, rtol=0)
    density = Normal(prior.mu[label], torch.exp(0.5 * prior.logvar[label])).log_prob(z.flatten(0, 1)).sum(1)
    torch.testing.assert_close(prior.given(label).log_prob(z.flatten(0, 1)), density)


@torch.no_grad()
def test_the_density_of_each_class_integrates_to_one_and_is_drawn_from():
    prior = conditional_linear_vae("per_class").prior
    points, area = grid(12.0, 400)
    for y in range(3):
        of_class = prior.given(torch.full((1,), y))
        assert (of_class.log_prob(points).exp().sum() * area).item() == pytest.approx(1, abs=1e-4)
        many = prior.given(torch.full((20_000,), y))
        assert_drawn_from(many.sample(20_000, torch.Generator().manual_seed(y)).double(), of_class.log_prob)


@torch.no_grad()
def test_a_vamp_prior_is_the_mean_posterior_of_pseudo_inputs_that_have_classes():
    vae, z = conditional_vamp(), 2 * noise(6, LATENTS)
    inputs, label = images(5), torch.tensor([2, 2, 0, 1, 2])
    vae.prior.start_from(inputs, label)
    mu, logvar = vae.encode(inputs.clamp(0.02, 0.98), label)
    densities = Normal(mu, torch.exp(0.5 * logvar)).log_prob(z[:, None]).sum(2).exp()
    torch.testing.assert_close(vae.prior.log_prob(z), densities.mean(1).log())
    points, area = grid(12.0, 400)
    assert (vae.prior.log_prob(points).exp().sum() * area).item() == pytest.approx(1, abs=1e-4)
    assert_drawn_from(vae.prior.sample(20_000, torch.Generator().manual_seed(0)).double(), vae.prior.log_prob)


def test_pseudo_inputs_of_a_conditional_model_want_classes_and_those_of_another_none():
    with pytest.raises(UserError, match="label is missing; expected one of 3 classes"):
        conditional_vamp().prior.start_from(images(5))
    plain = VAE(dataclasses.replace(CONFIG, condition="none", classes=(), prior="vamp", prior_components=5))
    with pytest.raises(UserError, match="label is given; expected none"):
        plain.prior.start_from(torch.rand(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64))


def conditional_vamp():
    """Of three classes whose posteriors differ, with five pseudo-inputs."""
    vae = conditional_linear_vae()
    config = dataclasses.replace(vae.config, prior="vamp", prior_components=5)
    other = VAE(config).double()
    other.encoder.load_state_dict(vae.encoder.state_dict())
    return other


def test_gradients_of_a_prior_per_class_agree_with_finite_differences():
    prior, z = conditional_linear_vae("per_class").prior, noise(4, LATENTS).requires_grad_()
    weights = tuple(prior.parameters())
    assert torch.autograd.gradcheck(lambda z, *_: prior.given(LABEL).log_prob(z), (z, *weights))


def test_a_class_is_one_input_more_of_a_dense_network():
    torch.manual_seed(0)
    conditioned = Conditioned(nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)), 3)
    layer = conditioned.first[1]
    wider = nn.Linear(9, 5)
    with torch.no_grad():
        wider.weight.copy_(torch.cat([layer.weight, conditioned.class_bias.weight.T], dim=1))
        wider.bias.copy_(layer.bias)
    x = torch.rand(4, 1, 2, 3)
    beside = torch.cat([x.flatten(1), torch.eye(3)[LABEL]], dim=1)
    torch.testing.assert_close(conditioned(x, LABEL), conditioned.rest(wider(beside)))


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("prior", ["standard", "mixture", "per_class"])
def test_every_part_learns_of_the_class(network, prior):
    config = dataclasses.replace(CONFIG, network=network, prior=prior, prior_components=4)
    vae, label = VAE(config), torch.tensor([0, 1, 1])
    (-elbo(vae, torch.rand(3, 1, 8, 8), torch.randn(3, 3), label).elbo.sum()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in vae.parameters())
    x = torch.rand(1, 1, 8, 8).expand(2, -1, -1, -1)
    means = vae.mean(vae.encode(x, torch.tensor([0, 1]))[0], torch.tensor([0, 1]))
    assert (means[0] - means[1]).abs().max() > 1e-3


def test_a_conditional_model_without_a_label_and_a_label_without_a_class_are_refused():
    x, label = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    conditional, plain = VAE(CONFIG), VAE(dataclasses.replace(CONFIG, condition="none", classes=()))
    for call in (lambda: conditional.posterior(x), lambda: conditional.mean(torch.zeros(2, 3))):
        with pytest.raises(UserError, match="label is missing; expected one of 2 classes"):
            call()
    for call in (lambda: plain.posterior(x, label), lambda: plain.mean(torch.zeros(2, 3), label)):
        with pytest.raises(UserError, match="label is given; expected none"):
            call()
    with pytest.raises(UserError, match="label is missing"):
        VAE(dataclasses.replace(CONFIG, prior="per_class")).prior.given(None)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"classes": ()}, "model.classes has 0 names; expected the names of the classes for condition label"),
        ({"condition": "none"}, "model.classes has 2 names; expected none for condition none"),
        ({"classes": ("cat", "cat")}, "expected each name once"),
        ({"classes": (1, 2)}, "expected a list of names"),
        ({"condition": "lable"}, "model.condition is 'lable'; expected one of none, label"),
    ],
)
def test_a_config_whose_classes_do_not_fit_is_refused(changes, error):
    with pytest.raises(UserError, match=error):
        dataclasses.replace(CONFIG, **changes)


def test_a_prior_per_class_wants_classes():
    config = dataclasses.replace(CONFIG, condition="none", classes=(), prior="per_class")
    with pytest.raises(UserError, match="expected model.condition: label"):
        VAE(config)


def test_wake_sleep_dreams_of_the_classes_that_it_is_awake_for():
    """Each phase teaches its network what these classes are, and nothing of another."""
    vae, x, label = conditional_linear_vae().requires_grad_(), images(4), torch.tensor([2, 0, 0, 2])
    eps = noise(4, *noise_shape("wake_sleep", 1, LATENTS, x[0].numel()))
    objective("wake_sleep", vae, x, eps, 1.0, label=label).loss.backward()
    for network in (vae.encoder, vae.decoder):
        learned = network.class_bias.weight.grad.abs().sum(1) > 0
        assert learned.tolist() == [True, False, True]
