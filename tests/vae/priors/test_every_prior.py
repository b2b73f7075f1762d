import copy
import math

import pytest
import torch
from flows import stir
from quadrature import assert_drawn_from, grid
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from pipeline.errors import UserError
from pipeline.vae.bounds import elbo, importance_samples
from pipeline.vae.flows import FlowSize
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.priors.flow import FlowPrior
from pipeline.vae.priors.make import PRIORS, make_prior
from pipeline.vae.priors.mixtures import FixedMixture, LearnedMixture, Mixture, mixture_log_prob
from pipeline.vae.priors.normal import StandardNormal
from pipeline.vae.priors.vamp import VampPrior

SIZES = (1, 4, 4)
FLOW = FlowSize(4, (8, 8))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def vae_with(prior, latent_dim=2, components=5):
    torch.manual_seed(0)
    given = {"prior": prior, "prior_components": components, "flow_layers": FLOW.layers, "flow_hidden": FLOW.hidden}
    vae = VAE(VAEConfig(SIZES, "mlp", (8,), "tanh", latent_dim, "bernoulli", 1.0, **given)).double()
    with torch.no_grad():
        vae.encoder[-1].weight.mul_(6)  # posteriors that differ
        vae.encoder[-1].bias[latent_dim:] -= 1
        if prior == "mixture":
            vae.prior.logits.copy_(noise(components))
            vae.prior.logvar.copy_(noise(components, latent_dim, seed=1) - 1)
        if prior == "flow":
            stir(vae.prior)
    return vae


def reference(prior):
    """The same density by torch.distributions."""
    log_weights, mu, logvar = prior.mixture()
    return MixtureSameFamily(Categorical(logits=log_weights), Independent(Normal(mu, torch.exp(0.5 * logvar)), 1))


@pytest.fixture(params=[name for name in PRIORS if name != "per_class"])  # that one: test_condition.py
def vae(request):
    return vae_with(request.param)


@pytest.fixture(params=["mixture", "vamp"])
def mixture(request):
    return vae_with(request.param).prior


def test_standard_normal_agrees_with_torch_distributions():
    z = noise(4, 3)
    torch.testing.assert_close(StandardNormal(3).log_prob(z), Normal(0.0, 1.0).log_prob(z).sum(1))


@torch.no_grad()
def test_the_density_integrates_to_one_in_two_dimensions(vae):
    points, area = grid(12.0, 600)
    assert (vae.prior.log_prob(points).exp().sum() * area).item() == pytest.approx(1, abs=1e-4)


@torch.no_grad()
def test_samples_match_the_density(vae):
    z = vae.prior.sample(20_000, torch.Generator().manual_seed(0)).double()
    assert_drawn_from(z, vae.prior.log_prob)


@torch.no_grad()
def test_a_mixture_agrees_with_torch_distributions(mixture):
    z = 2 * noise(50, 2)
    torch.testing.assert_close(mixture.log_prob(z), reference(mixture).log_prob(z))


@pytest.mark.parametrize("name", ["mixture", "vamp", "flow"])
def test_gradients_agree_with_finite_differences(name):
    prior, z = vae_with(name).prior, noise(3, 2).requires_grad_()
    weights = tuple(prior.parameters())
    assert torch.autograd.gradcheck(lambda z, *_: prior.log_prob(z), (z, *weights))


@torch.no_grad()
def test_the_vamp_prior_is_the_mean_posterior_of_its_pseudo_inputs():
    vae, z = vae_with("vamp"), noise(6, 2)
    mu, logvar = vae.encode(torch.sigmoid(vae.prior.logits))
    densities = Normal(mu, torch.exp(0.5 * logvar)).log_prob(z[:, None]).sum(2).exp()
    torch.testing.assert_close(vae.prior.log_prob(z), densities.mean(1).log())


@torch.no_grad()
def test_pseudo_inputs_start_from_images():
    vae = vae_with("vamp")
    images = torch.rand(5, *SIZES, dtype=torch.float64)
    vae.prior.start_from(images)
    torch.testing.assert_close(torch.sigmoid(vae.prior.logits), images.clamp(0.02, 0.98))


def test_the_vamp_prior_teaches_the_encoder_but_does_not_hold_it_twice():
    vae = vae_with("vamp")
    assert [name for name in vae.state_dict() if name.startswith("prior.")] == ["prior.logits"]
    vae.prior.log_prob(noise(3, 2)).sum().backward()
    assert vae.encoder[-1].weight.grad.abs().max() > 0
    assert vae.prior.logits.grad.abs().max() > 0
    other = copy.deepcopy(vae)
    with torch.no_grad():
        other.encoder[-1].bias += 1  # a copy's prior follows the copy's encoder
        assert not torch.equal(other.prior.mixture().mu, vae.prior.mixture().mu)


@torch.no_grad()
def test_without_a_closed_form_the_kl_is_right_on_average(mixture):
    mu, logvar = noise(1, 2).expand(50_000, -1), (noise(1, 2, seed=1) - 1).expand(50_000, -1)
    z = mu + torch.exp(0.5 * logvar) * noise(50_000, 2, seed=2)
    estimates = mixture.kl(mu, logvar, z)
    points, area = grid(12.0, 1200)
    log_q = Normal(mu[0], torch.exp(0.5 * logvar[0])).log_prob(points).sum(1)
    exact = (log_q.exp() * (log_q - mixture.log_prob(points))).sum().item() * area
    assert estimates.mean().item() == pytest.approx(exact, abs=5 * estimates.std().item() / 50_000**0.5)


def test_the_kl_of_each_dimension_agrees_with_torch_distributions():
    mu, logvar = noise(2, 4, 3)
    expected = kl_divergence(Normal(mu, torch.exp(0.5 * logvar)), Normal(torch.zeros_like(mu), 1.0))
    torch.testing.assert_close(StandardNormal(3).kl_per_dimension(mu, logvar), expected)


@torch.no_grad()
def test_of_a_mixture_it_is_to_the_gaussian_with_the_moments_of_each_dimension(mixture):
    mu, logvar = noise(2, 4, 2)
    moments = reference(mixture)
    expected = kl_divergence(Normal(mu, torch.exp(0.5 * logvar)), Normal(moments.mean, moments.variance.sqrt()))
    torch.testing.assert_close(mixture.kl_per_dimension(mu, logvar), expected)


@torch.no_grad()
def test_a_fixed_copy_has_the_density_and_no_weights(mixture):
    z = noise(5, 2)
    fixed = FixedMixture(mixture.mixture())
    torch.testing.assert_close(fixed.log_prob(z), mixture.log_prob(z))
    assert list(fixed.parameters()) == []


@torch.no_grad()
def test_under_autocast_the_density_keeps_its_digits(mixture):
    z = 3 * noise(20, 2).float()
    prior = FixedMixture(mixture.mixture()).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = prior.log_prob(z)
    torch.testing.assert_close(rounded, prior.log_prob(z))


@torch.no_grad()
def test_in_float32_the_density_of_narrow_components_keeps_its_digits():
    """At sigma 0.02 the terms of a square are thousands, and their difference is a few nats."""
    sigma, count, latent_dim = 0.02, 500, 40
    logvar = torch.full((count, latent_dim), 2 * math.log(sigma))
    mixture = Mixture(torch.full((count,), -math.log(count)), noise(count, latent_dim).float(), logvar)
    z = mixture.mu + sigma * noise(count, latent_dim, seed=1).float()
    exact = reference(FixedMixture(Mixture(*(value.double() for value in mixture)))).log_prob(z.double())
    torch.testing.assert_close(mixture_log_prob(z, mixture).double(), exact, rtol=0, atol=5e-5)


@torch.no_grad()
def test_every_importance_weight_averages_to_the_bound_under_any_prior(vae):
    """elbo's recon - kl and the log-weights are estimates of the same number."""
    x = (torch.rand(1, *SIZES, generator=torch.Generator().manual_seed(0)) > 0.5).double()
    eps = noise(1, 20_000, 2)
    log_w = importance_samples(vae, x, vae.posterior(x), eps).log_w
    bound = elbo(vae, x.expand(20_000, -1, -1, -1), eps[0])
    torch.testing.assert_close(bound.elbo, bound.recon - bound.kl)
    assert bound.elbo.mean().item() == pytest.approx(log_w.mean().item(), abs=5 * log_w.std().item() / 20_000**0.5)


@torch.no_grad()
def test_of_a_flow_it_is_to_the_gaussian_with_the_moments_of_each_dimension():
    prior, (mu, logvar) = vae_with("flow").prior, noise(2, 4, 2)
    points, area = grid(12.0, 600)
    weights = prior.log_prob(points).exp()[:, None] * area
    mean = (weights * points).sum(0)
    spread = (weights * (points - mean).square()).sum(0).sqrt()
    expected = kl_divergence(Normal(mu, torch.exp(0.5 * logvar)), Normal(mean, spread))
    torch.testing.assert_close(prior.kl_per_dimension(mu, logvar), expected, rtol=0.05, atol=0.02)
    torch.testing.assert_close(prior.kl_per_dimension(mu, logvar), prior.kl_per_dimension(mu, logvar))


@torch.no_grad()
def test_a_flow_starts_as_the_standard_normal():
    z = noise(5, 3)
    torch.testing.assert_close(FlowPrior(3, FLOW).double().log_prob(z), StandardNormal(3).log_prob(z))


@torch.no_grad()
def test_the_density_of_what_a_flow_makes_of_noise_is_that_of_the_noise_over_the_jacobian():
    prior, eps = vae_with("flow", latent_dim=3).prior, noise(1, 3)
    jacobian = torch.autograd.functional.jacobian(prior.from_noise, eps)[0, :, 0]
    expected = StandardNormal(3).log_prob(eps) - jacobian.det().abs().log()
    torch.testing.assert_close(prior.log_prob(prior.from_noise(eps)), expected)


def test_samples_of_the_standard_normal_have_its_moments():
    z = StandardNormal(2).sample(50_000, torch.Generator().manual_seed(0))
    assert z.shape == (50_000, 2)
    assert z.mean(0).abs().max() < 0.02
    torch.testing.assert_close(z.T.cov(), torch.eye(2), atol=0.02, rtol=0)


def test_a_prior_by_another_name_is_refused():
    with pytest.raises(UserError, match="expected one of standard, mixture, vamp, per_class, flow"):
        make_prior("vampire", 2, 5, SIZES, lambda x: (x, x), flow=FLOW)
    kinds = {"mixture": LearnedMixture, "vamp": VampPrior, "flow": FlowPrior}
    for name, kind in kinds.items():
        assert isinstance(make_prior(name, 2, 5, SIZES, lambda x: (x, x), flow=FLOW), kind)
