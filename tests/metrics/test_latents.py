import torch

from pipeline.metrics.latents import latent_use
from pipeline.vae.priors import Normal, StandardNormal


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
