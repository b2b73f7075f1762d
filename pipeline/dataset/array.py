"""One array of images in a .npy file, or in a .npz file beside optional labels.

Both are read as streams, in chunks: memory stays flat, compressed or not, and nothing is unpickled.
"""

import lzma
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from pipeline.dataset.chunks import Chunk, Source, rows_per_chunk
from pipeline.dataset.pixels import Conversion
from pipeline.dataset.store import DAMAGED
from pipeline.errors import UserError

IMAGES_KEY = "images"
LABELS_KEY = "labels"
LAYOUTS = "[n, H, W], [n, H, W, C] with C 1 or 3, or [n, d]"


@dataclass(frozen=True)
class ArrayHeader:
    """What an array's header says; `name` is the file, and the key in it."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool


def open_array(path: Path, conversion: Conversion) -> Source:
    """Images from `path`: uint8, or floats in [0, 1] that become 256 levels.

    The array is [n, H, W], [n, H, W, C] with C 1 or 3, or [n, d], whose rows are [height, width] of `image_size`
    where that has d pixels, and squares elsewhere. In a .npz it is the key `images`, or the only array beside
    `labels`, [n], whole numbers or text; their sorted distinct values are the classes.

    Raises:
        UserError: the file is missing, broken, or holds something else; a value is NaN or outside [0, 1].
    """
    key = _images_key(path)
    header = _read_header(path, key)
    image_shape = _image_shape(header, conversion.image_size)
    classes, labels = _read_labels(path, header.shape[0])
    return Source(header.shape[0], classes, _chunks(path, key, header, image_shape, labels, conversion))


def to_levels(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Floats in [0, 1] as the nearest of 256 levels, uint8, and the largest rounding error in units of the range."""
    scaled = values.astype(np.float64) * 255
    levels = np.rint(scaled)
    return levels.astype(np.uint8), float(np.abs(scaled - levels).max()) / 255


def _chunks(
    path: Path,
    key: str | None,
    header: ArrayHeader,
    image_shape: tuple[int, int, int],
    labels: np.ndarray | None,
    conversion: Conversion,
) -> Iterator[Chunk]:
    first = 0
    for rows in _read_rows(path, key, header):
        error = 0.0
        if header.dtype.kind == "f":
            _refuse_outside_unit_range(rows, first, header)
            rows, error = to_levels(rows)
        images = conversion.batch(rows.reshape(-1, *image_shape))
        part = None if labels is None else labels[first : first + len(rows)]
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
    keys = _keys(path)
    candidates = [key for key in keys if key != LABELS_KEY]
    if IMAGES_KEY in keys:
        return IMAGES_KEY
    if len(candidates) != 1:
        raise UserError(f"{path}: holds the arrays {', '.join(keys) or '(none)'}; expected one, or one named images")
    return candidates[0]


def _keys(path: Path) -> list[str]:
    with _readable(str(path)), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Whatever a broken file raises on its way through zip, zlib and numpy's header is the user's to know."""
    try:
        yield
    except UserError:
        raise
    except (*DAMAGED, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: not readable as a .npy or .npz file, or truncated ({reason})") from None


@contextmanager
def _open_stream(path: Path, key: str | None) -> Iterator[tuple[IO[bytes], int]]:
    """The bytes of one array, and how many there are."""
    if key is None:
        with path.open("rb") as file:
            yield file, path.stat().st_size
    else:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
            yield member, archive.getinfo(f"{key}.npy").file_size


def _read_header(path: Path, key: str | None) -> ArrayHeader:
    name = str(path) if key is None else f"{path}[{key}]"
    with _readable(name), _open_stream(path, key) as (stream, size):
        header = _parse_header(stream, name)
        _check_type(header)
        expected = stream.tell() + math.prod(header.shape) * header.dtype.itemsize
        if size != expected:
            raise UserError(f"{name}: is {size:,} bytes; expected {expected:,} as its header says")
    return header


def _parse_header(stream: IO[bytes], name: str) -> ArrayHeader:
    version = npy.read_magic(stream)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise UserError(f"{name}: .npy version {version}; expected 1.0 or 2.0")
    shape, fortran_order, dtype = read(stream)
    return ArrayHeader(name, shape, dtype, fortran_order)


def _check_type(header: ArrayHeader) -> None:
    if header.dtype.hasobject:
        raise UserError(f"{header.name}: holds Python objects; expected an array of numbers")
    if header.fortran_order and len(header.shape) > 1:
        raise UserError(f"{header.name}: is in Fortran order; expected C order (numpy.ascontiguousarray)")


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


def _read_rows(path: Path, key: str | None, header: ArrayHeader) -> Iterator[np.ndarray]:
    row_shape = header.shape[1:]
    row_bytes = math.prod(row_shape) * header.dtype.itemsize
    left, most = header.shape[0], rows_per_chunk(row_bytes)
    with _readable(header.name), _open_stream(path, key) as (stream, _):
        _parse_header(stream, header.name)
        while left:
            rows = min(left, most)
            content = stream.read(rows * row_bytes)
            if len(content) != rows * row_bytes:
                raise UserError(f"{header.name}: ends {left} rows too early; expected {header.shape[0]} rows")
            yield np.frombuffer(content, header.dtype).reshape(rows, *row_shape)
            left -= rows


def _read_labels(path: Path, count: int) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
    """The classes' names and each image's class index, int64 [count]."""
    if path.suffix != ".npz" or LABELS_KEY not in _keys(path):
        return None, None
    header = _read_header(path, LABELS_KEY)
    if header.dtype.kind not in "iuU" or header.shape != (count,):
        raise UserError(
            f"{header.name}: holds {header.dtype} {list(header.shape)}; expected [{count}] whole numbers or text"
        )
    labels = np.concatenate(list(_read_rows(path, LABELS_KEY, header)))
    classes, indices = np.unique(labels, return_inverse=True)
    return tuple(str(name) for name in classes.tolist()), indices.astype(np.int64)
