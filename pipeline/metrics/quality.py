"""How good samples are, held against the test images and the training images."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pipeline.dataset.batches import mapped_images, to_unit
from pipeline.dataset.store import PreparedData, Split
from pipeline.metrics.figures import Array
from pipeline.quality.classifier import Classifier, train_classifier
from pipeline.quality.compare import compare
from pipeline.quality.inception import Inception
from pipeline.quality.kid import scaled
from pipeline.quality.neighbours import Neighbours, memorisation, nearest_training
from pipeline.quality.random_conv import random_conv_features

Extract = Callable[[Tensor], Tensor]

MOST_NEIGHBOURS = 2000
"""Samples, and test images, whose nearest training images are looked for: each is held against all of those."""

_SHOWN = 12
_CHOICE = 0  # the seed that says which images of a split are compared
_OWN_SCALE = ("inception",)  # the kernel of the KID was made for these features; others are brought to its scale


class Reference:
    """What samples are held against.

    Args:
        data: its test split is the real set; its training split holds what may have been copied.
        extractors: features of uint8 images [n, C, H, W] -> [n, d], by the name that metrics bear.
        images: of the test split at most so many; as many samples are wanted.
    """

    def __init__(self, data: PreparedData, extractors: Mapping[str, Extract], images: int) -> None:
        self.test = _scattered(data.test, images)
        self.training = mapped_images(data.train.images)
        self._extractors = extractors
        self._real = {name: extract(self.test) for name, extract in extractors.items()}
        self.neighbours = self.nearest(self.test)
        self.yardstick = self.distances(_scattered(data.train, len(self.test)))
        """`distances` of training images, as many as the test images where there are: what good samples would reach."""

    def distances(self, samples: Tensor) -> dict[str, float]:
        """Between uint8 samples [n, C, H, W] and the test images: `kid_classifier`, `kid_classifier_stderr`, ..."""
        found = {}
        for name, extract in self._extractors.items():
            unit = torch.ones(1) if name in _OWN_SCALE else self._real[name]
            for metric, value in compare(scaled(self._real[name], by=unit), scaled(extract(samples), by=unit)).items():
                stem, stderr, _ = metric.partition("_stderr")
                found[f"{stem}_{name}{stderr}"] = value
        return found

    def nearest(self, samples: Tensor) -> Neighbours:
        """The two nearest training images of the first 2,000 of uint8 samples [n, C, H, W]."""
        return nearest_training(samples[:MOST_NEIGHBOURS], self.training)

    def closest(self, images: Tensor, neighbours: Neighbours) -> tuple[Array, Array]:
        """The 12 images of which one training image stands out most among the near ones, and those: in [0, 1]."""
        shown = neighbours.by_likeness()[:_SHOWN]
        nearest = self.training[neighbours.indices[shown, 0]]
        return to_unit(images[shown]).numpy(), to_unit(nearest).numpy()

    def copying(self, neighbours: Neighbours) -> dict[str, float]:
        """`memorisation_ratio` and the share of copies among samples with these neighbours."""
        found = memorisation(neighbours, self.neighbours)
        return {"memorisation_ratio": found.ratio, "memorisation_copies": found.copies}


def classifier_of(data: PreparedData, seed: int) -> Classifier | None:
    """A classifier of the data's classes, trained on the training split; None where there are not two classes."""
    labels = data.train.labels
    if labels is None or len(labels) < 2 or (labels == labels[0]).all():
        return None
    images = mapped_images(data.train.images)
    return train_classifier(images, torch.from_numpy(labels.copy()), len(data.meta["classes"]), seed)


def choose_extractors(classifier: Classifier | None, inception_weights: str | None) -> dict[str, Extract]:
    """`classifier` where there is one, else `random_conv`; and `inception` where a file of its weights is named.

    Raises:
        UserError: that file is not what it should be.
    """
    chosen: dict[str, Extract] = {"classifier": classifier.features} if classifier else {}
    chosen = chosen or {"random_conv": random_conv_features}
    if inception_weights is not None:
        chosen["inception"] = Inception(Path(inception_weights)).features
    return chosen


def _scattered(split: Split, most: int) -> Tensor:
    """At most so many of a split's images, drawn at random: the estimators take them to be independent."""
    order = torch.randperm(len(split.images), generator=torch.Generator().manual_seed(_CHOICE))
    return mapped_images(split.images)[order[:most]]
