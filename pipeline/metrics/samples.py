"""Images that a model makes, as the sampler gives them: pixel means, rounded to grey levels."""

import torch
from torch import Generator, Tensor

from pipeline.dataset.batches import index_batches
from pipeline.vae.model import VAE
from pipeline.vae.priors import Prior

_TOGETHER = 1000


@torch.no_grad()
def draw_images(model: VAE, density: Prior, count: int, seed: int, labels: Tensor | None = None) -> Tensor:
    """E[x|z] of z from a density (the model's prior or another), uint8 [count, C, H, W], on the CPU.

    A conditional model makes an image of each of `labels`, int64 [count].
    """
    device = next(model.parameters()).device
    labels = None if labels is None else labels.to(device)
    z = density.given(labels).sample(count, Generator().manual_seed(seed % 2**63)).to(device)
    batches = index_batches(torch.arange(count), _TOGETHER)
    return torch.cat([_grey_levels(model.mean(z[rows], None if labels is None else labels[rows])) for rows in batches])


def _grey_levels(means: Tensor) -> Tensor:
    return means.mul(255).round().to(torch.uint8).cpu()
