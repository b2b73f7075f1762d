import torch
from torch.distributions import Normal, kl_divergence

from pipeline.vae.priors import StandardNormal


def test_standard_normal_agrees_with_torch_distributions():
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(StandardNormal(3).log_prob(z), Normal(0.0, 1.0).log_prob(z).sum(1))


def test_samples_have_the_shape_and_the_moments_of_the_prior():
    z = StandardNormal(2).sample(50_000, torch.Generator().manual_seed(0))
    assert z.shape == (50_000, 2)
    assert z.mean(0).abs().max() < 0.02
    torch.testing.assert_close(z.T.cov(), torch.eye(2), atol=0.02, rtol=0)


def test_the_kl_of_each_dimension_agrees_with_torch_distributions():
    mu, logvar = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = kl_divergence(Normal(mu, torch.exp(0.5 * logvar)), Normal(torch.zeros_like(mu), 1.0))
    torch.testing.assert_close(StandardNormal(3).kl_per_dimension(mu, logvar), expected)
