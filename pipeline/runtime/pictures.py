"""Images to files: a grid to look at, an array, or a folder of PNGs. Bounded memory, and whole or absent."""

import math
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.files import atomic_directory, atomic_file, expect_new_folder

if TYPE_CHECKING:
    from PIL import Image

MAX_GRID_IMAGES = 10_000
# Bytes of the canvas: 10,000 images of 28x28 take 34 million, 256 of 512x512 in colour 203 million.
MAX_GRID_VALUES = 2**28
SMALLEST_TILE = 56  # pixels; smaller images are enlarged by a whole factor, each pixel a square
LONGEST_STRIP = 16  # images in a row of a walk
GAP = 2
BACKGROUND = 128

Images = NDArray[np.uint8]


def check_output(output: str, n: int) -> None:
    """Hold that `write_images` can write so many images there, before any is computed.

    Raises:
        UserError: the suffix is unknown, a grid would be too large, or `output` is already of the other kind.
    """
    path, kind = Path(output), _kind(output)
    if kind == "grid" and n > MAX_GRID_IMAGES:
        raise UserError(f"{output}: a grid of {n} images; expected at most {MAX_GRID_IMAGES} (use .npy or a folder/)")
    if kind != "folder" and path.is_dir():
        raise UserError(f"{output}: is a folder; expected the name of a file, or a trailing / to fill a new folder")
    if kind == "folder":
        expect_new_folder(output)


def write_images(output: str, parts: Iterable[Images], n: int, shape: tuple[int, int, int]) -> None:
    """Write `n` images that come in `parts`, each uint8 [k, H, W, C]; `shape` is (H, W, C).

    `.png` is a grid, `.npy` one array uint8 [n, H, W, C], a trailing slash a folder of 000000.png and so on.

    Raises:
        UserError: the suffix is unknown, a grid would take more than 256 MiB of memory (said before the first part is
            asked for), or the system refuses to write there.
    """
    path, kind = Path(output), _kind(output)
    try:
        if kind == "grid":
            _write_grid(path, parts, n, shape)
        elif kind == "array":
            _write_array(path, parts, (n, *shape))
        else:
            _write_folder(path, parts, digits=max(6, len(str(n - 1))))
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror or error})") from None


def make_grid(images: Images, columns: int | None = None) -> "Image.Image":
    """Images uint8 [n, H, W, C] as one picture, in reading order; nearly square unless `columns` is given.

    Raises:
        UserError: it would take more than 256 MiB.
    """
    check_grid(len(images), images.shape[1:], columns)
    return _Grid(len(images), images.shape[1:], columns).painted([images])


def check_grid(n: int, shape: tuple[int, ...], columns: int | None = None, what: str = "a grid") -> None:
    """Hold that `make_grid` can paint `n` images of `shape` (H, W, C), before any is computed; errors name `what`.

    Raises:
        UserError: the picture would take more than 256 MiB.
    """
    height, width, channels = _Grid(n, shape, columns).size
    if height * width * channels > MAX_GRID_VALUES:
        raise UserError(f"{what} of {width}x{height} pixels; expected fewer images (or another form than PNG)")


def strip_columns(n: int) -> int:
    """How many of a walk's n images stand in a row: all of them, or as many in each row where one would be too long."""
    return math.ceil(n / math.ceil(n / LONGEST_STRIP))


def as_picture(image: Images, smallest: int = 1) -> "Image.Image":
    """One image uint8 [H, W, C], enlarged by a whole factor until its longer side has `smallest` pixels."""
    from PIL import Image

    factor = math.ceil(smallest / max(image.shape[:2]))
    return Image.fromarray(_without_single_channel(image.repeat(factor, 0).repeat(factor, 1)))


def beside_each_other(left: Images, right: Images) -> Images:
    """Two images uint8 [H, W, C] side by side, a small gap between them."""
    gap = np.full((len(left), GAP, left.shape[2]), BACKGROUND, np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def _kind(output: str) -> str:
    if output.endswith(("/", "\\")):
        return "folder"
    kinds = {".png": "grid", ".npy": "array"}
    suffix = Path(output).suffix.lower()
    if suffix not in kinds:
        raise UserError(f"{output}: suffix is {suffix!r}; expected .png (a grid), .npy, or a trailing / (a folder)")
    return kinds[suffix]


class _Grid:
    """A canvas for `n` images of shape (H, W, C), which are painted as they come."""

    def __init__(self, n: int, shape: tuple[int, ...], columns: int | None = None) -> None:
        height, width, channels = shape
        self.factor = math.ceil(SMALLEST_TILE / max(height, width))
        self.height, self.width = height * self.factor, width * self.factor
        self.columns = columns or min(n, math.ceil(math.sqrt(n * height / width)))
        rows = math.ceil(n / self.columns)
        self.size = (rows * (self.height + GAP) + GAP, self.columns * (self.width + GAP) + GAP, channels)

    def painted(self, parts: Iterable[Images]) -> "Image.Image":
        from PIL import Image

        canvas = np.full(self.size, BACKGROUND, np.uint8)
        for number, image in enumerate(_each(parts)):
            top = GAP + number // self.columns * (self.height + GAP)
            left = GAP + number % self.columns * (self.width + GAP)
            enlarged = image.repeat(self.factor, 0).repeat(self.factor, 1)
            canvas[top : top + self.height, left : left + self.width] = enlarged
        return Image.fromarray(_without_single_channel(canvas))


def _write_grid(path: Path, parts: Iterable[Images], n: int, shape: tuple[int, int, int]) -> None:
    check_grid(n, shape, what=f"{path}: a grid")
    with atomic_file(path) as beside:
        _Grid(n, shape).painted(parts).save(beside, optimize=True)


def _write_array(path: Path, parts: Iterable[Images], shape: tuple[int, ...]) -> None:
    """Written, not mapped: where the disk is full, to touch a page of a mapped file would end the process.

    Raises:
        UserError: the disk has not so much room.
    """
    with atomic_file(path) as beside, open(beside, "wb") as file:
        _check_room(path, math.prod(shape))
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for part in parts:
            file.write(np.ascontiguousarray(part).data)


def _check_room(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise UserError(
            f"{path}: {needed / 1e9:,.1f} GB of images where {free / 1e9:,.1f} GB are free; expected fewer of them"
        )


def _write_folder(path: Path, parts: Iterable[Images], digits: int) -> None:
    from PIL import Image

    with atomic_directory(path) as beside:
        for number, image in enumerate(_each(parts)):
            Image.fromarray(_without_single_channel(image)).save(beside / f"{number:0{digits}}.png")


def _each(parts: Iterable[Images]) -> Iterator[Images]:
    for part in parts:
        yield from part


def _without_single_channel(image: Images) -> Images:
    return image[..., 0] if image.shape[-1] == 1 else image
