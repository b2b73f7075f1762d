"""Images that a model makes, as the sampler gives them: pixel means, rounded to grey levels."""

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from pipeline.dataset.batches import images_at_once, index_batches
from pipeline.vae.model import VAE
from pipeline.vae.priors.base import Prior


@torch.no_grad()
def draw_images(model: VAE, density: Prior, count: int, seed: int, labels: Tensor | None = None) -> Tensor:
    """E[x|z] of z from a density (the model's prior or another), uint8 [count, C, H, W], on the CPU.

    A conditional model makes an image of each of `labels`, int64 [count].
    """
    device = next(model.parameters()).device
    labels = None if labels is None else labels.to(device)
    z = density.given(labels).sample(count, Generator().manual_seed(seed)).to(device)
    return torch.cat([means.mul(255).round().to(torch.uint8) for means in _means(model, z, labels)])


@torch.no_grad()
def pixel_means(model: VAE, z: Tensor, label: Tensor | None = None) -> Tensor:
    """E[x|z] of z [n, latent_dim] and a conditional model's classes `label`: [n, C, H, W] in [0, 1], on the CPU."""
    return torch.cat(list(_means(model, z, label)))


def _means(model: VAE, z: Tensor, label: Tensor | None) -> Iterator[Tensor]:
    for rows in index_batches(torch.arange(len(z)), images_at_once(model.config.image_shape)):
        yield model.mean(z[rows], None if label is None else label[rows]).cpu()
