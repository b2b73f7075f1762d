"""The training images nearest to others, and whether samples are copies of them.

Distances are Euclidean between pixels, in units of the pixel range: what is to be found is an image that is given back,
and for that neither labels nor features are needed.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.dataset.batches import index_batches

COPY_RATIO = 1 / 3
"""An image is a copy if the distance to its nearest training image is at most this share of that to the second (Yoon et
al. 2023, "Diffusion probabilistic models generalize when they fail to memorize")."""

_TRAINING_TOGETHER = 4096  # bounds the memory
_CANDIDATES = 4  # whose distances are computed once more, exactly


class Neighbours(NamedTuple):
    """The two nearest training images of each image, the nearest first: their indices and distances, [n, 2]."""

    indices: Tensor
    distances: Tensor

    @property
    def copy_share(self) -> float:
        """Share of the images that are copies. Of test images, more than 0 where the data hold equal images."""
        return self.copies.double().mean().item()

    def by_likeness(self) -> Tensor:
        """The images in the order in which one training image stands out among those near to them, [n]."""
        return (self.distances[:, 0] / self.distances[:, 1].clamp(min=1e-12)).argsort()

    @property
    def copies(self) -> Tensor:
        """Which images are copies, bool [n]: of two equal training images too, at distance 0."""
        return self.distances[:, 0] <= COPY_RATIO * self.distances[:, 1]


class Memorisation(NamedTuple):
    """How near samples are to the training images, held against test images, which are near to them by kind alone."""

    ratio: float
    """The median distance of samples to their nearest training image over that of test images: 1 for images of the same
    kind that are new, 0 for copies, above 1 for images unlike the data. 1 where more than half of the test images are
    training images themselves: no sample can be nearer than those."""
    copies: float
    """Share of samples that are copies; found also where they are few, which leaves the median alone."""


@torch.no_grad()
def nearest_training(images: Tensor, training: Tensor) -> Neighbours:
    """The two nearest of the training images, uint8 [m, C, H, W] with m > 1, to each of others, uint8 [n, C, H, W].

    Time grows with n m; of the training images, which may be memory-mapped, a few thousand are held at once.
    """
    x = _points(images)
    found = torch.empty(len(x), 0), torch.empty(len(x), 0, dtype=torch.int64)
    for rows in index_batches(torch.arange(len(training)), _TRAINING_TOGETHER):
        y = _points(training[rows])
        squares = y.square().sum(1) - 2 * x @ y.T  # without |x|^2, which is the same for all
        near, columns = squares.topk(min(_CANDIDATES, len(y)), largest=False)
        near, indices = torch.cat([found[0], near], 1), torch.cat([found[1], rows[columns]], 1)
        near, kept = near.topk(min(_CANDIDATES, near.shape[1]), largest=False)
        found = near, indices.gather(1, kept)
    return _exactly(x, training, found[1])


def memorisation(samples: Neighbours, test: Neighbours) -> Memorisation:
    """Hold the neighbours of samples against those of test images."""
    medians = [neighbours.distances[:, 0].median() for neighbours in (samples, test)]
    return Memorisation(
        ratio=float(medians[0] / medians[1]) if medians[1] > 0 else 1.0,
        copies=samples.copy_share,
    )


def _exactly(x: Tensor, training: Tensor, candidates: Tensor) -> Neighbours:
    """The nearest two of the candidates [n, k], by differences: an expanded square is blind to small ones."""
    columns = [(x - _points(training[candidate])).square().sum(1).sqrt() for candidate in candidates.T]
    distances, order = torch.stack(columns, 1).topk(2, largest=False)
    return Neighbours(candidates.gather(1, order), distances)


def _points(images: Tensor) -> Tensor:
    """uint8 [n, C, H, W] -> float32 [n, C * H * W] in [0, 1]."""
    return images.flatten(1).float() / 255
