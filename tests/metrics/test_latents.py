import torch

from pipeline.metrics.latents import latent_use
from pipeline.vae.priors import StandardNormal


def test_a_collapsed_dimension_is_not_active_and_carries_no_nats():
    generator = torch.Generator().manual_seed(0)
    mu = torch.stack([torch.zeros(500), torch.randn(500, generator=generator), 0.05 * torch.ones(500)], dim=1)
    logvar = torch.tensor([[0.0, -3.0, 0.0]]).expand(500, -1)
    use = latent_use(mu, logvar, StandardNormal(3))
    assert use.active_units == 1
    assert use.by_kl()[0] == 1
    assert use.kl[0] == 0
