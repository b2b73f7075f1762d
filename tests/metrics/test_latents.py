import math

import pytest
import torch
from linear import LATENTS, PIXELS, SIGMA, images, noise

from pipeline.metrics.latents import latent_use, traversal
from pipeline.vae.bounds import elbo
from pipeline.vae.flows import FlowSize
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.priors.flow import FlowPrior
from pipeline.vae.priors.normal import Normal, StandardNormal


def test_a_collapsed_dimension_is_not_active_and_carries_no_nats():
    generator = torch.Generator().manual_seed(0)
    mu = torch.stack([torch.zeros(500), torch.randn(500, generator=generator), 0.05 * torch.ones(500)], dim=1)
    logvar = torch.tensor([[0.0, -3.0, 0.0]]).expand(500, -1)
    use = latent_use(mu, logvar, StandardNormal(3))
    assert use.active_units == 1
    assert use.by_kl()[0] == 1
    assert use.kl[0] == 0


def test_a_posterior_that_is_the_prior_of_its_class_is_not_active():
    centre = 3.0 * (torch.arange(500) % 2)[:, None].expand(500, 2)
    generator = torch.Generator().manual_seed(0)
    mu = centre + torch.stack([torch.zeros(500), torch.randn(500, generator=generator)], dim=1)
    logvar = torch.zeros(500, 2)
    use = latent_use(mu, logvar, Normal(centre, logvar))
    assert (use.variance > 0.01).tolist() == [False, True]
    assert use.kl[0] == 0


def test_a_traversal_goes_by_the_deviations_of_the_prior_and_leaves_the_rest_of_z():
    prior = Normal(torch.tensor([[1.0, -1.0, 0.0]]), torch.tensor([[4.0, 9.0, 1.0]]).log())
    copies = traversal(torch.tensor([7.0, 8.0, 9.0]), [1, 0], (-2.0, 0.0, 2.0), prior)
    assert copies.tolist() == [
        [7, pytest.approx(-7), 9],
        [7, -1, 9],
        [7, pytest.approx(5), 9],
        [pytest.approx(-3), 8, 9],
        [1, 8, 9],
        [pytest.approx(5), 8, 9],
    ]
    torch.testing.assert_close(traversal(torch.zeros(2), [1], (-3.0,), StandardNormal(2)), torch.tensor([[0.0, -3.0]]))


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
@torch.no_grad()
def test_a_model_whose_z_is_forty_times_smaller_is_the_same_model_and_has_the_same_active_units(prior):
    """z / 40 in posterior and prior, and 40 times the decoder's weights: no bound changes."""
    torch.manual_seed(0)
    of_prior = {"prior": prior, "prior_components": 3}
    vae = VAE(VAEConfig(PIXELS, "mlp", (), "relu", LATENTS, "gaussian", SIGMA, **of_prior)).double()
    x, eps, head, shrunk = images(200), noise(200, LATENTS), vae.encoder[-1], 2 * math.log(1 / 40)
    head.weight[:LATENTS] *= 3
    before, use = elbo(vae, x, eps).elbo, latent_use(*vae.encode(x), vae.prior)
    for value in (head.weight, head.bias):
        value[:LATENTS] /= 40
    head.bias[LATENTS:] += shrunk
    vae.decoder[0].weight *= 40
    if prior == "mixture":
        vae.prior.mu /= 40
        vae.prior.logvar += shrunk
    torch.testing.assert_close(elbo(vae, x, eps).elbo, before)
    after = latent_use(*vae.encode(x), vae.prior)
    assert use.active_units == LATENTS
    torch.testing.assert_close(after, use)


@torch.no_grad()
def test_the_variance_is_a_share_of_that_of_a_flow_or_of_the_prior_of_a_class():
    mu, logvar = noise(500, 2), noise(500, 2, seed=2)
    class_logvar = 2 * (torch.arange(500) % 2)[:, None].expand(500, 2).double()
    of_class = latent_use(mu * torch.exp(0.5 * class_logvar) + 7, logvar, Normal(torch.full_like(mu, 7), class_logvar))
    torch.testing.assert_close(of_class.variance, mu.var(0))
    flow = FlowPrior(2, FlowSize(2, (4,))).double()
    torch.nn.init.constant_(flow.flow.layers[0].conditioner.layers[-1].bias, -1.0)  # the last half shrinks
    z = flow.sample(100_000, torch.Generator().manual_seed(1))
    assert z.var(0).min() < 0.2
    torch.testing.assert_close(latent_use(mu, logvar, flow).variance, mu.var(0) / z.var(0), rtol=0.05, atol=0)
