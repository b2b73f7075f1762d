"""The model as apps meet it: pixels as they hold them on the outside, the network's own layout inside.

Of a conditional model each takes the classes besides, `label` int64 [n].
"""

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.runtime.noise import standard_normal
from pipeline.vae.model import VAE
from pipeline.vae.posteriors import repeat, repeated
from pipeline.vae.priors.mixtures import FixedMixture, MixturePrior


class Decoder(nn.Module):
    """z float32 [n, latent_dim] -> x float32 [n, C, H, W], pixel means in [0, 1]."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """The pixel means of each row's z."""
        return self.vae.mean(z, label)


class DecoderAndParameters(nn.Module):
    """The same, and besides what the likelihood takes, [n, ...]: the logits, or the means of the Gaussian."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The pixel means of each row's z, and the parameters that they come from."""
        parameters = self.vae.decode(z, label)
        return self.vae.likelihood.mean(parameters).clamp(0, 1), parameters


class Encoder(nn.Module):
    """images uint8 [n, H, W, C] -> mu and logvar of q(z|x), each float32 [n, latent_dim]."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The posterior of each row's image."""
        q = self.vae.posterior(unit_pixels(images), label)
        return q.mu, q.logvar


class Scorer(nn.Module):
    """images uint8 [n, H, W, C] -> score float32 [n] in nats, higher = stranger, and error float32 [n, H, W].

    The score is minus the ELBO (arXiv 1312.6114, equation 10: Monte Carlo in recon, and in the KL where it has no
    closed form); the error is minus log p(x_pixel|z), summed over channels and averaged over the samples of z, so that
    the sum of the map is minus recon. The samples' noise is a constant of the module, the same for every image: a row
    stands alone, and images are compared without the luck of a draw.

    x is the grey value in [0, 1], whatever training did. Under a Bernoulli likelihood it is then the probability of a
    white pixel, and recon, being linear in x, is the expectation over all binarisations of the image, given z. That
    z comes from the grey image: so the score is close to, but not, the mean of minus the ELBO of binarised images.
    For the objective `autoencoder` z is mu, and the score is minus recon alone.
    """

    eps: Tensor

    def __init__(self, vae: VAE, objective: str, samples: int) -> None:
        super().__init__()
        self.vae = vae
        self.prior = FixedMixture(vae.prior.mixture()) if isinstance(vae.prior, MixturePrior) else vae.prior
        self.variational = objective != "autoencoder"
        self.register_buffer("eps", score_noise(samples if self.variational else 0, vae.config.latent_dim))

    def forward(self, images: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The score and the error map of each row's image."""
        x = unit_pixels(images)
        q = self.vae.posterior(x, label)
        if not self.variational:
            error = self._error(x, self.vae.decode(q.mu, label))
            return error.sum((1, 2)), error
        samples = len(self.eps)
        q, label = q.repeat(samples), repeated(label, samples)
        draw = q.draw(self.eps.expand(x.shape[0], -1, -1).flatten(0, 1))  # z is (n * samples, latent_dim)
        errors = self._error(repeat(x, samples), self.vae.parameters_of(draw, label))  # (n * samples, H, W)
        error = errors.view(-1, samples, *errors.shape[1:]).mean(1)
        kl = q.kl(draw, self.prior.given(label)).view(-1, samples).mean(1)
        return error.sum((1, 2)) + kl, error

    def _error(self, x: Tensor, parameters: Tensor) -> Tensor:
        """-log p(x_pixel|z), over all channels of the pixel; x [m, C, H, W] -> [m, H, W]."""
        return -self.vae.likelihood.pixel_log_prob(x, parameters)


def unit_pixels(images: Tensor) -> Tensor:
    """uint8 [n, H, W, C] -> x float32 [n, C, H, W] in [0, 1]."""
    return images.permute(0, 3, 1, 2).to(torch.float32) / 255


def score_noise(samples: int, latent_dim: int) -> Tensor:
    """The scorer's fixed noise, float32 [samples, latent_dim]: the first rows of seed 0."""
    index = np.arange(samples, dtype=np.int64)
    return torch.from_numpy(standard_normal(np.zeros_like(index), index, latent_dim))
