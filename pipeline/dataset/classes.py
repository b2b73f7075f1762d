"""The classes that a conditional model knows: those of the training images, numbered from 0 in the data's order."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pipeline.dataset.batches import mapped_images
from pipeline.dataset.store import META_FILE, SPLITS, PreparedData
from pipeline.errors import UserError


def trained_classes(data: PreparedData) -> tuple[str, ...]:
    """Names of the classes that training images have; one that is held out, or has no image, is none of them.

    Raises:
        UserError: the images have no classes.
    """
    names = data.meta["classes"]
    if names is None or data.train.labels is None:
        raise UserError(
            f"{data.folder / META_FILE}: the images have no classes, which model.condition: label wants; expected a "
            "set with labels (of an own folder, one subfolder for each class), or model.condition: none"
        )
    counts = np.bincount(data.train.labels, minlength=len(names))
    return tuple(name for name, count in zip(names, counts, strict=True) if count)


def labels_of(data: PreparedData, split: str, classes: tuple[str, ...]) -> Tensor | None:
    """The class of each image of a split as its place among `classes`, int64 [n]; None where there are no `classes`.

    Raises:
        UserError: the data have other classes, or an image has none of them.
    """
    if not classes:
        return None
    if (known := trained_classes(data)) != classes:
        raise UserError(
            f"{data.folder / META_FILE}: training images have the classes {_listed(known)}; expected "
            f"{_listed(classes)}, those that the checkpoint was trained on"
        )
    stored, names = getattr(data, split).labels, data.meta["classes"]
    if len(classes) == len(names):
        return mapped_images(stored)
    place = np.array([classes.index(name) if name in classes else -1 for name in names])
    labels = place[stored]
    if (strange := labels < 0).any():
        raise UserError(
            f"{data.folder / META_FILE}: {split} has {strange.sum():,} images of the class "
            f"{names[stored[strange][0]]!r}, of which train has none; expected classes that train has "
            "(prepare.held_out_labels leaves one out)"
        )
    return torch.from_numpy(labels)


def renumbered(data: PreparedData, classes: tuple[str, ...]) -> PreparedData:
    """The data with the labels of a model that knows `classes`; as they are where there are none.

    Raises:
        UserError: the data have other classes, or an image has none of them.
    """
    splits = {}
    for name in SPLITS:
        labels = labels_of(data, name, classes)
        if labels is None:
            return data
        splits[name] = replace(getattr(data, name), labels=labels.numpy())
    return replace(data, **splits, meta={**data.meta, "classes": list(classes)})


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
