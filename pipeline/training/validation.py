"""Sums of the bound's terms over batches, and the metrics that come of them."""

from collections.abc import Iterable

import torch
from torch import Tensor

from pipeline.training.feed import Batch
from pipeline.vae.bounds import Bound, elbo_of_draw
from pipeline.vae.model import VAE
from pipeline.vae.objectives import first_sample

Metrics = dict[str, float]


def bound_of(model: VAE, batch: Batch) -> tuple[Bound, Tensor | None]:
    """The ELBO of a batch, and of a ladder the KL of each latent dimension, [batch, latent_dim]; both in nats."""
    q = model.posterior(batch.x, batch.label)
    draw = q.draw(first_sample(batch.eps, model.config.latent_dim))
    bound = elbo_of_draw(model, batch.x, q, draw, batch.label)
    kl = q.kl_per_dimension(draw, model.prior.given(batch.label)) if model.group_sizes else None
    return bound, kl


def sum_terms(bound: Bound) -> Tensor:
    """elbo, recon and kl summed over the batch: float64 [3]."""
    return torch.stack([term.detach() for term in bound]).sum(1, dtype=torch.float64)


@torch.no_grad()
def sum_over(model: VAE, batches: Iterable[Batch]) -> Tensor:
    """elbo, recon and kl summed over all batches, and of a ladder each group's KL: float64 [3 + groups]."""
    sums = torch.zeros(3 + len(model.group_sizes), dtype=torch.float64, device=next(model.parameters()).device)
    for batch in batches:
        bound, kl = bound_of(model, batch)
        sums[:3] += sum_terms(bound)
        if kl is not None:
            of_groups = torch.split(kl, list(model.group_sizes), dim=1)
            sums[3:] += torch.stack([part.sum(dtype=torch.float64) for part in of_groups])
    return sums


def means(split: str, sums: Tensor, count: int, objective: str) -> Metrics:
    """Per image, in nats, from sums over `count` of them, [3 or 3 + groups]: `val/elbo` and the like.

    Of a ladder also each group's share of the KL, the top one's first: `val/kl_group_1`, and so on. An auto-encoder
    has a reconstruction term alone.
    """
    elbo, recon, kl, *of_groups = (sums / count).tolist()
    if objective == "autoencoder":
        return {f"{split}/recon": recon}
    groups = {f"{split}/kl_group_{place}": share for place, share in enumerate(of_groups, 1)}
    return {f"{split}/elbo": elbo, f"{split}/recon": recon, f"{split}/kl": kl} | groups
