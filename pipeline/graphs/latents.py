"""How much each latent dimension tells of an image, measured with the encoder that is shipped, and its scale."""

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.graphs.labels import Labels, label_input
from pipeline.runtime.sampler import ENCODER
from pipeline.runtime.session import open_session
from pipeline.runtime.together import rows_together
from pipeline.vae.priors.base import Prior

IMAGES_TOGETHER = 512


def latent_moments(density: Prior, classes: int = 0) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each dimension of z: [latent_dim] each, of all classes together where it has some.

    Four digits are kept.
    """
    given = density.given(torch.arange(classes) if classes else None)
    mean, variance = (moment.detach().double().reshape(-1, density.latent_dim) for moment in given.moments())
    centre = mean.mean(0)
    deviation = (variance.mean(0) + (mean - centre).square().mean(0)).sqrt()
    return _four_digits(centre), _four_digits(deviation)


def measure_latent_kl(
    encoder: bytes, prior: Prior, validation: NDArray[np.uint8], labels: Labels | None = None
) -> tuple[float, ...]:
    """KL(q(z|x) || p(z)) of each dimension in nats, the mean over validation images uint8 [n, C, H, W]: [latent_dim].

    `labels`, int64 [n], are the images' classes where the model is conditional.
    A dimension near 0 is one that the decoder does without (arXiv 1511.06349, section 3). Four digits are kept.
    """
    encode = open_session(encoder, "cpu", name=ENCODER).run
    total = torch.zeros((), dtype=torch.float64)
    together = rows_together(validation.shape[1:], IMAGES_TOGETHER)
    for start in range(0, len(validation), together):
        rows = slice(start, start + together)
        asked = {"images": np.moveaxis(validation[rows], 1, -1), **label_input(labels, rows)}  # images (n, H, W, C)
        mu, logvar = (torch.from_numpy(output).double() for output in encode(["mu", "logvar"], asked))
        label = None if labels is None else torch.from_numpy(labels[rows])
        total = total + prior.given(label).kl_per_dimension(mu, logvar).sum(0)
    return _four_digits(total / len(validation))


def _four_digits(values: torch.Tensor) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in values.tolist())
