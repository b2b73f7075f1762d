"""One array of images in a .npy file, or in a .npz file beside optional labels.

Both are read as streams, in chunks: memory stays flat, compressed or not, and nothing is unpickled.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np

from pipeline.dataset.chunks import Chunk, Source, rows_per_chunk
from pipeline.dataset.npy_stream import ArrayHeader, keys, read_header, read_rows, row_bytes
from pipeline.dataset.pixels import Conversion
from pipeline.errors import UserError

IMAGES_KEY = "images"
LABELS_KEY = "labels"
LAYOUTS = "[n, H, W], [n, H, W, C] with C 1 or 3, or [n, d]"


def open_array(path: Path, conversion: Conversion) -> Source:
    """Images from `path`: uint8, or floats in [0, 1] that become 256 levels.

    The array is [n, H, W], [n, H, W, C] with C 1 or 3, or [n, d], whose rows are [height, width] of `image_size`
    where that has d pixels, and squares elsewhere. In a .npz it is the key `images`, or the only array beside
    `labels`, [n], whole numbers or text; their sorted distinct values are the classes.

    Raises:
        UserError: the file is missing, broken, or holds something else; a value is NaN or outside [0, 1].
    """
    key = _images_key(path)
    header = read_header(path, key)
    image_shape = _image_shape(header, conversion.image_size)
    labels = _open_labels(path, header.shape[0])
    classes = None if labels is None else tuple(str(name) for name in labels.distinct.tolist())
    return Source(header.shape[0], classes, _chunks(path, key, header, image_shape, labels, conversion))


def nearest_levels(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Floats in [0, 1] as the nearest of 256 levels, uint8, and the largest rounding error in units of the range."""
    scaled = values.astype(np.float64) * 255
    levels = np.rint(scaled)
    return levels.astype(np.uint8), float(np.abs(scaled - levels).max()) / 255


def _chunks(
    path: Path,
    key: str | None,
    header: ArrayHeader,
    image_shape: tuple[int, int, int],
    labels: "_Labels | None",
    conversion: Conversion,
) -> Iterator[Chunk]:
    first, together = 0, rows_per_chunk(row_bytes(header))
    indices = repeat(None) if labels is None else labels.indices(path, together)
    for rows, part in zip(read_rows(path, key, header, together), indices, strict=False):
        error = 0.0
        if header.dtype.kind == "f":
            _refuse_outside_unit_range(rows, first, header)
            rows, error = nearest_levels(rows)
        images = conversion.batch(rows.reshape(-1, *image_shape))
        yield Chunk(images, part, rounding_error=error)
        first += len(rows)


def _refuse_outside_unit_range(rows: np.ndarray, first: int, header: ArrayHeader) -> None:
    wrong = ~((rows >= 0) & (rows <= 1))  # written so that NaN is wrong as well
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        index = [first + place[0], *place[1:]]
        raise UserError(f"{header.name}: value at {index} is {rows[place]:g}; expected floats in [0, 1], or uint8")


def _images_key(path: Path) -> str | None:
    if path.suffix not in (".npy", ".npz"):
        raise UserError(f"prepare.path: {path}; expected a .npy or .npz file for prepare.source: array")
    if not path.is_file():
        found = "a folder" if path.is_dir() else "not found"
        raise UserError(f"prepare.path: {path} is {found}; expected a .npy or .npz file")
    if path.suffix == ".npy":
        return None
    names = keys(path)
    candidates = [name for name in names if name != LABELS_KEY]
    if IMAGES_KEY in names:
        return IMAGES_KEY
    if len(candidates) != 1:
        raise UserError(f"{path}: holds the arrays {', '.join(names) or '(none)'}; expected one, or one named images")
    return candidates[0]


def _image_shape(header: ArrayHeader, image_size: tuple[int, int] | None) -> tuple[int, int, int]:
    """Height, width and channels of one image."""
    name, shape, dtype = header.name, header.shape, header.dtype
    if dtype != np.uint8 and dtype.kind != "f":
        raise UserError(f"{name}: holds {dtype}; expected uint8, or floats in [0, 1]")
    if len(shape) not in (2, 3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise UserError(f"{name}: has shape {list(shape)}; expected {LAYOUTS}")
    if min(shape) < 1:
        raise UserError(f"{name}: has shape {list(shape)}; expected at least one image, and one pixel in it")
    if len(shape) == 2:
        return (*_height_and_width(name, shape[1], image_size), 1)
    return shape[1], shape[2], shape[3] if len(shape) == 4 else 1


def _height_and_width(name: str, pixels: int, image_size: tuple[int, int] | None) -> tuple[int, int]:
    if image_size is not None and math.prod(image_size) == pixels:
        return image_size
    side = math.isqrt(pixels)
    if side * side != pixels:
        raise UserError(
            f"{name}: has rows of {pixels} values, which is no square; "
            f"expected prepare.image_size: [height, width] with height x width = {pixels}"
        )
    return side, side


@dataclass(frozen=True)
class _Labels:
    """The labels of an archive, of which only the distinct values are held: [classes], sorted."""

    header: ArrayHeader
    distinct: np.ndarray

    def indices(self, path: Path, most: int) -> Iterator[np.ndarray]:
        """Each image's class index, int64, so many images at a time."""
        rows = read_rows(path, LABELS_KEY, self.header, most)
        return (np.searchsorted(self.distinct, part).astype(np.int64) for part in rows)


def _open_labels(path: Path, count: int) -> _Labels | None:
    """The labels beside `count` images; None where there are none."""
    if path.suffix != ".npz" or LABELS_KEY not in keys(path):
        return None
    header = read_header(path, LABELS_KEY)
    if header.dtype.kind not in "iuU" or header.shape != (count,):
        raise UserError(
            f"{header.name}: holds {header.dtype} {list(header.shape)}; expected [{count}] whole numbers or text"
        )
    distinct = np.empty(0, header.dtype)
    for part in read_rows(path, LABELS_KEY, header, rows_per_chunk(row_bytes(header))):
        distinct = np.union1d(distinct, part)
    return _Labels(header, distinct)
