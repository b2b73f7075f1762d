"""The linear-Gaussian model, whose likelihood and posterior are known (Tipping and Bishop: probabilistic PCA)."""

import torch

from pipeline.vae.model import VAE, VAEConfig

PIXELS, LATENTS, SIGMA = (1, 2, 3), 2, 0.4


def linear_vae(sigma=SIGMA):
    """Without hidden layers encoder and decoder are affine: x|z ~ N(Wz + b, sigma^2 I), which is PPCA."""
    torch.manual_seed(0)
    vae = VAE(VAEConfig(PIXELS, "mlp", (), "relu", LATENTS, "gaussian", sigma)).double()
    with torch.no_grad():
        vae.decoder[0].weight.normal_(0, 0.5)
    return vae


@torch.no_grad()
def give_exact_posterior(vae):
    """q(z|x) = p(z|x) = N(M^-1 W^T (x - b), sigma^2 M^-1), M = W^T W + sigma^2 I; W has orthogonal columns."""
    weight = torch.linalg.qr(vae.decoder[0].weight)[0] * torch.tensor([1.1, 0.6], dtype=torch.float64)
    vae.decoder[0].weight.copy_(weight)
    variance = torch.exp(vae.likelihood.logvar)
    inverse = torch.diag(1 / ((weight.T @ weight).diagonal() + variance))
    head = vae.encoder[-1]  # it sees 2x - 1
    gain = inverse @ weight.T
    head.weight.copy_(torch.cat([gain / 2, torch.zeros_like(gain)]))
    mean_bias = gain @ (0.5 - vae.decoder[0].bias)
    head.bias.copy_(torch.cat([mean_bias, (variance * inverse).diagonal().log()]))


def images(count, seed=0):
    return torch.rand(count, *PIXELS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
