"""Draws each image's split from its own bytes, so that equal images always stand on the same side.

Images of a held-out class are not drawn: they stand apart from all three splits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from pipeline.dataset.chunks import Chunk
from pipeline.dataset.store import HELD_OUT
from pipeline.errors import UserError, shown

NAMES_SHOWN = 50


@dataclass(frozen=True)
class SplitDraw:
    """A seeded draw; `test_fraction` is unused where a set has a test split of its own."""

    val_fraction: float
    test_fraction: float
    seed: int
    held_out: tuple[int, ...] = ()
    """Indices of the classes that no split gets."""

    def divide(self, chunk: Chunk) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
        """Yield (split, images, labels) for each split that images of this chunk belong to, in their order."""
        names = self.assign(chunk.images, chunk.splits)
        if self.held_out and chunk.labels is not None:
            names = np.where(np.isin(chunk.labels, self.held_out), HELD_OUT, names)
        for split in (*chunk.splits, HELD_OUT):
            rows = names == split
            if rows.any():
                yield split, chunk.images[rows], None if chunk.labels is None else chunk.labels[rows]

    def assign(self, images: np.ndarray, among: tuple[str, ...]) -> np.ndarray:
        """The name of each image's split, [n], for uint8 images [n, C, H, W]."""
        if len(among) == 1:
            return np.full(len(images), among[0])
        uniform = uniform_from_bytes(images, self.seed)
        bounds = {"test": self.test_fraction if "test" in among else 0.0}
        bounds["val"] = bounds["test"] + self.val_fraction
        return np.select([uniform < bounds["test"], uniform < bounds["val"]], ["test", "val"], "train")


def held_out_classes(labels: Sequence[str | int], classes: Sequence[str] | None) -> tuple[int, ...]:
    """The class indices that `prepare.held_out_labels` names.

    An entry is a class's name as text; a whole number is its index, from 0, where no class is named by a number.

    Raises:
        UserError: there are no classes, one is unknown, or none would be left to train on.
    """
    if not labels:
        return ()
    if classes is None:
        raise UserError(
            f"prepare.held_out_labels is {list(labels)}, and the source has no labels; expected [], or a folder with "
            "one subfolder per class, an array file with labels, or a set that has classes"
        )
    known = {name: index for index, name in enumerate(classes)}
    if not any(name.removeprefix("-").isdecimal() for name in classes):
        known |= {str(index): index for index in range(len(classes))}
    for place, label in enumerate(labels):
        if str(label) not in known:
            raise UserError(f"prepare.held_out_labels.{place} is {label!r}; expected one of {_listed(classes)}")
    held_out = sorted({known[str(label)] for label in labels})
    if len(held_out) == len(classes):
        raise UserError(f"prepare.held_out_labels names all {len(classes)} labels; expected one left to train on")
    return tuple(held_out)


def uniform_from_bytes(images: np.ndarray, seed: int) -> np.ndarray:
    """One number in [0, 1) per image, float64 [n]: BLAKE2b of its bytes, keyed with the seed, to 53 bits."""
    key = seed.to_bytes(8, "little")
    digests = (blake2b(image.tobytes(), digest_size=8, key=key).digest() for image in images)
    return np.array([int.from_bytes(digest, "little") >> 11 for digest in digests], np.float64) / 2**53


def _listed(names: Sequence[str]) -> str:
    first = [shown(name) for name in names[:NAMES_SHOWN]]
    return ", ".join(first) + (f", ... ({len(names):,} in all)" if len(names) > NAMES_SHOWN else "")
