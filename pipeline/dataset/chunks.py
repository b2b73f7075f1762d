"""What every source gives: images in chunks that fit in memory, on their way to the store."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.dataset.store import SPLITS

CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Skipped:
    """A file that could not be decoded, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Chunk:
    """Some images of a source, in its order."""

    images: np.ndarray
    """uint8 [m, C, H, W]; m may be 0 where all files of the chunk were skipped."""
    labels: np.ndarray | None = None
    """Class indices, int64 [m], where the source has classes."""
    splits: tuple[str, ...] = SPLITS
    """The splits among which these images are drawn; a single one where the set's publisher has decided."""
    skipped: tuple[Skipped, ...] = ()
    rounding_error: float = 0.0
    """Largest distance between a value and the level that stands for it, in units of the pixel range."""


@dataclass(frozen=True)
class Source:
    """A set of images that can be read once."""

    count: int
    """How many images there are to read, skipped ones included."""
    classes: tuple[str, ...] | None
    chunks: Iterator[Chunk]


def rows_per_chunk(row_bytes: int) -> int:
    """How many rows of `row_bytes` make one chunk; at least one."""
    return max(1, CHUNK_BYTES // row_bytes)
