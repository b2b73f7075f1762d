"""Draws each image's split from its own bytes, so that equal images always stand on the same side."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from pipeline.dataset.chunks import Chunk


@dataclass(frozen=True)
class SplitDraw:
    """A seeded draw; `test_fraction` is unused where a set has a test split of its own."""

    val_fraction: float
    test_fraction: float
    seed: int

    def divide(self, chunk: Chunk) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
        """Yield (split, images, labels) for each split that images of this chunk belong to, in their order."""
        names = self.assign(chunk.images, chunk.splits)
        for split in chunk.splits:
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


def uniform_from_bytes(images: np.ndarray, seed: int) -> np.ndarray:
    """One number in [0, 1) per image, float64 [n]: BLAKE2b of its bytes, keyed with the seed, to 53 bits."""
    key = seed.to_bytes(8, "little")
    digests = (blake2b(image.tobytes(), digest_size=8, key=key).digest() for image in images)
    return np.array([int.from_bytes(digest, "little") >> 11 for digest in digests], np.float64) / 2**53
