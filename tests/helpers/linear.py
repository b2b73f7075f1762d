"""The linear-Gaussian model, whose likelihood and posterior are known (Tipping and Bishop: probabilistic PCA)."""

import torch
from torch.distributions import MultivariateNormal

from pipeline.metrics.likelihood import Encoded
from pipeline.vae.model import VAE, VAEConfig

PIXELS, LATENTS, SIGMA = (1, 2, 3), 2, 0.4


def linear_vae(sigma=SIGMA):
    """Without hidden layers encoder and decoder are affine: x|z ~ N(Wz + b, sigma^2 I), which is PPCA."""
    torch.manual_seed(0)
    vae = VAE(VAEConfig(PIXELS, "mlp", (), "relu", LATENTS, "gaussian", sigma)).double()
    with torch.no_grad():
        vae.decoder[0].weight.normal_(0, 0.5)
    return vae


def conditional_linear_vae(prior="standard", classes=3):
    """The same for each class y, with x|z ~ N(Wz + b + c_y, sigma^2 I) and its own prior where it is `per_class`."""
    torch.manual_seed(0)
    of_class = {"condition": "label", "classes": tuple(f"class {y}" for y in range(classes)), "prior": prior}
    vae = VAE(VAEConfig(PIXELS, "mlp", (), "relu", LATENTS, "gaussian", SIGMA, **of_class)).double()
    with torch.no_grad():
        vae.decoder.first[0].weight.normal_(0, 0.5)
        for parameter in (*vae.prior.parameters(), vae.encoder.class_bias.weight, vae.decoder.class_bias.weight):
            parameter.normal_(0, 0.4)
    return vae


@torch.no_grad()
def model_of_class(vae, label):
    """The unconditional model that a conditional one with a standard prior is for one class."""
    alone = linear_vae()
    for network, of_class in ((vae.encoder, alone.encoder), (vae.decoder, alone.decoder)):
        (given,) = (layer for layer in network.first if hasattr(layer, "weight"))
        (taken,) = (layer for layer in of_class if hasattr(layer, "weight"))
        taken.weight.copy_(given.weight)
        taken.bias.copy_(given.bias + network.class_bias.weight[label])
    return alone


def marginal_of_class(vae, label):
    """The exact p(x|y) of one class."""
    layer, of_class = vae.decoder.first[0], vae.decoder.class_bias.weight[label]
    prior = vae.prior.given(torch.tensor([label]))
    mean, variance = (prior.mu[0], prior.logvar[0].exp()) if vae.config.prior == "per_class" else (0, 1)
    weight, noise = layer.weight, torch.exp(vae.likelihood.logvar) * torch.eye(len(layer.bias), dtype=torch.float64)
    covariance = (weight * variance) @ weight.T + noise
    return MultivariateNormal(layer.bias + of_class + (weight * mean).sum(1), covariance)


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


def marginal(vae):
    """The exact p(x): a Gaussian with covariance W W^T + sigma^2 I."""
    weight, bias = vae.decoder[0].weight, vae.decoder[0].bias
    noise = torch.exp(vae.likelihood.logvar) * torch.eye(len(bias), dtype=torch.float64)
    return MultivariateNormal(bias, weight @ weight.T + noise)


class Split(Encoded):
    """A split whose images are no bytes: float64 [n, C, H, W]."""

    def x(self, examples):
        return self.pixels[examples]


@torch.no_grad()
def split(vae, x, label=None):
    """Images, of a conditional model with their classes, and the posteriors that the model gives of them."""
    return Split(*vae.encode(x, label), x, "none", 0, label)
