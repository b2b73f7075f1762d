"""Estimates of the log-likelihood of a split, one value per image, in nats."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.dataset.batches import index_batches, model_input
from pipeline.dataset.noise import stream_key
from pipeline.vae.bounds import importance_samples, iw_bound
from pipeline.vae.densities import gaussian_kl_per_dimension
from pipeline.vae.model import VAE

_POSTERIOR_NOISE = 1
_ENCODER_BATCH = 1000


class Posterior(NamedTuple):
    """What the model sees of a split, and q(z|x) of each image; x [n, C, H, W], the others [n, latent_dim]."""

    x: Tensor
    mu: Tensor
    logvar: Tensor


class Estimates(NamedTuple):
    """Per image [n], in nats: the ELBO (its `recon` is a mean over the K samples) and the importance bound."""

    elbo: Tensor
    recon: Tensor
    kl: Tensor
    iw_bound: Tensor


@torch.no_grad()
def posterior(model: VAE, images: Tensor, binarize: str, seed: int) -> Posterior:
    """Encode uint8 images [n, C, H, W]; binarisation is drawn once, from the seed and each image's index."""
    device = next(model.parameters()).device
    parts = []
    for examples in index_batches(torch.arange(len(images)), _ENCODER_BATCH):
        x = model_input(images[examples].to(device), examples.to(device), binarize, seed)
        parts.append((x, *model.encode(x)))
    return Posterior(*(torch.cat(column) for column in zip(*parts, strict=True)))


@torch.no_grad()
def estimate(
    model: VAE,
    given: Posterior,
    samples: int,
    seed: int,
    batch_log_weights: int,
    on_images: Callable[[int], None] = lambda _: None,
) -> Estimates:
    """The ELBO and the importance-weighted bound with exactly K = `samples` samples of z per image.

    The noise of an image depends on (seed, its index) alone; `batch_log_weights` bounds how many samples of z
    are decoded at once, and changes the result by rounding only. `on_images` hears how many images are done.
    """
    # Results are written in place: small tensors kept from every round would pin the heap between the large ones.
    recon, bound = torch.empty_like(given.mu[:, 0]), torch.empty_like(given.mu[:, 0])
    images_at_once = max(1, batch_log_weights // samples)
    for examples in index_batches(torch.arange(len(given.x)), images_at_once):
        x, mu, logvar = (value[examples] for value in given)
        eps = torch.stack([_noise(seed, index, samples, mu) for index in examples.tolist()])
        pieces = torch.split(eps, batch_log_weights, dim=1)
        parts = [importance_samples(model, x, mu, logvar, piece) for piece in pieces]
        log_w, log_p = (torch.cat(column, dim=1) for column in zip(*parts, strict=True))  # (batch, K) each
        recon[examples], bound[examples] = log_p.mean(1), iw_bound(log_w)
        on_images(len(examples))
    kl = gaussian_kl_per_dimension(given.mu, given.logvar).sum(1)
    return Estimates(recon - kl, recon, kl, bound)


def mean_and_stderr(values: Tensor) -> tuple[float, float]:
    """The mean over images, and the standard error of that mean."""
    values = values.double()
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


def _noise(seed: int, index: int, samples: int, like: Tensor) -> Tensor:
    """Standard-normal noise [K, latent_dim] of one image."""
    generator = torch.Generator().manual_seed(stream_key(seed, _POSTERIOR_NOISE, index) >> 1)
    return torch.randn(samples, like.shape[1], generator=generator, dtype=like.dtype).to(like.device)
