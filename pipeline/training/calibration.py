"""The sigma of an optimal-sigma Gaussian: of a step, the whole batch's; kept, that of the training images."""

import itertools
from collections.abc import Iterator

import torch

from pipeline.training.feed import Batch
from pipeline.training.ranks import Ranks
from pipeline.vae.likelihoods.base import Likelihood
from pipeline.vae.likelihoods.gaussian import Gaussian
from pipeline.vae.model import VAE
from pipeline.vae.objectives import first_sample

CALIBRATION_IMAGES = 4096  # one number is asked of so many images: its error is far below that of the sigma itself


def to_calibrate(likelihood: Likelihood) -> Gaussian | None:
    """The likelihood, if it has a sigma that no gradient sets."""
    return likelihood if isinstance(likelihood, Gaussian) and likelihood.is_optimal else None


def sharing_batches(likelihood: Likelihood, ranks: Ranks) -> Gaussian | None:
    """The likelihood, if in the middle of the objective it asks the other ranks for what they see of the batch.

    Such an objective is not compiled.
    """
    gaussian = to_calibrate(likelihood) if ranks.world_size > 1 else None
    if gaussian is not None:
        gaussian.share_batches(ranks.add_up)
    return gaussian


@torch.no_grad()
def mean_squared_error(model: VAE, batches: Iterator[Batch], global_batch_size: int, ranks: Ranks) -> float:
    """E (x - mean)^2 over the pixels of the first images that the ranks see, z drawn from q(z|x).

    `batches` are this rank's; all ranks take the same number of them, so that they see the images that one would.
    """
    device = next(model.parameters()).device
    sums = torch.zeros(2, dtype=torch.float64, device=device)  # of squares, and how many
    for batch in itertools.islice(batches, -(-CALIBRATION_IMAGES // global_batch_size)):
        if not len(batch.examples):  # the other ranks have what the last batch holds
            break
        eps = first_sample(batch.eps, model.config.latent_dim)
        means = model.parameters_of(model.posterior(batch.x, batch.label).draw(eps), batch.label)
        squares = (batch.x - means).square().sum(dtype=torch.float64)
        sums += torch.stack([squares, torch.full_like(squares, batch.x.numel())])
    squares, count = ranks.add_up(sums).tolist()
    return float(squares / count)
