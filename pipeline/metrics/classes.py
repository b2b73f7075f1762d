"""Samples of each class of a conditional model."""

import torch
from torch import Generator, Tensor

from pipeline.vae.model import VAE


@torch.no_grad()
def class_rows(model: VAE, columns: int, classes: int, seed: int) -> Tensor:
    """Pixel means [classes * columns, C, H, W] of draws from the first classes; a column shares its noise."""
    device = next(model.parameters()).device
    rows = []
    for place in range(classes):
        label = torch.full((columns,), place, device=device)
        z = model.prior.given(label).sample(columns, Generator().manual_seed(seed)).to(device)
        rows.append(model.mean(z, label).cpu())
    return torch.cat(rows)
