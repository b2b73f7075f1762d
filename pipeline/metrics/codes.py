"""The training images as the model codes them."""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.dataset.batches import evenly, images_at_once, index_batches, mapped_images, model_input
from pipeline.dataset.noise import standard_normal, stream_key
from pipeline.dataset.store import Split
from pipeline.vae.model import VAE

MOST = 60_000
"""Training images that are coded, from all over the split."""

_BINARIZATION, _NOISE = 0, 1  # streams of the seed


class Codes(NamedTuple):
    """Of n images, on the CPU."""

    mu: Tensor
    """Means of q(z|x), [n, latent_dim]."""
    z: Tensor
    """One draw of each q(z|x), [n, latent_dim]: together, draws from the aggregate posterior."""
    labels: Tensor | None
    """Classes, int64 [n]."""


@torch.no_grad()
def code_training(model: VAE, split: Split, binarize: str, seed: int) -> Codes:
    """Code a training split, or 60,000 of its images; the noise of each is a function of (seed, its index)."""
    device, conditional = next(model.parameters()).device, bool(model.config.classes)
    labels = None if split.labels is None else torch.from_numpy(split.labels)
    pixels, chosen = mapped_images(split.images), evenly(len(split.images), MOST)
    mu, z = (torch.empty(len(chosen), model.config.latent_dim) for _ in range(2))
    for rows in index_batches(torch.arange(len(chosen)), images_at_once(split.images.shape[1:])):
        examples = chosen[rows]
        x = model_input(pixels[examples], examples, binarize, stream_key(seed, _BINARIZATION)).to(device)
        eps = standard_normal(stream_key(seed, _NOISE), examples, model.config.latent_dim).to(device)
        label = labels[examples].to(device) if conditional and labels is not None else None
        q = model.posterior(x, label)
        mu[rows], z[rows] = q.mu.cpu(), q.draw(eps).z.cpu()
    return Codes(mu, z, None if labels is None else labels[chosen])
