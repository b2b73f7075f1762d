"""Image files -> pixels: many at a time, bounded in memory, in the order of their names.

Files are hostile input: an image too large to decode safely is refused before its pixels are allocated, and one that
cannot be decoded has a reason, not a traceback (`pipeline/image_file.py`).
"""

import math
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from pipeline.dataset.chunks import CHUNK_BYTES, Chunk, Skipped
from pipeline.dataset.pixels import Conversion
from pipeline.errors import UserError, shown
from pipeline.image_file import FORMATS, load_upright, may_have_size, why_undecoded

FILES_PER_CHUNK = 32
FILES_PER_TASK = 4  # tiny files decode in microseconds; handed over singly, the threads would wait for one another
BYTES_IN_FLIGHT = 64 * 2**20  # of pixels that are decoded ahead of those who take them, as large as the first ones
MOST_THREADS = 8  # opening a file holds the interpreter's lock for a tenth of the time that a small JPEG takes

OnBadImage = Literal["stop", "skip"]
Decoded = np.ndarray | str  # pixels uint8 [C, H, W], or why there are none


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file to decode."""

    path: str
    label: int | None
    splits: tuple[str, ...]


def decode_files(files: Sequence[ImageFile], conversion: Conversion, on_bad_image: OnBadImage) -> Iterator[Chunk]:
    """Decode `files` in parallel; chunks come in the order of `files`, whatever the number of threads.

    Raises:
        UserError: a file cannot be decoded and `on_bad_image` is "stop", or images differ in size or in colour.
    """
    same_shape = _SameShape()
    with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
        for splits, run in groupby(_decode_in_parallel(files, conversion), key=lambda item: item[0].splits):
            while part := list(_of_one_chunk(run)):
                bad = tuple(Skipped(file.path, decoded) for file, decoded in part if isinstance(decoded, str))
                if bad and on_bad_image == "stop":
                    raise UserError(
                        f"{shown(bad[0].file)}: {bad[0].reason}; expected an image "
                        "(prepare.on_bad_image: skip leaves such files out)"
                    )
                good = [(file, decoded) for file, decoded in part if not isinstance(decoded, str)]
                for file, pixels in good:
                    same_shape.check(file.path, pixels)
                yield _chunk(good, splits, bad)


def decode(path: str, conversion: Conversion, size: tuple[int, ...] | None = None) -> Decoded:
    """The pixels of one file, or why it has none.

    The orientation in EXIF is applied; transparency is laid on white; of an animation, the first frame counts.
    Where `size` is given, [height, width], an image of another is not decoded: zeros without memory tell its size.
    """
    if not Path(path).is_file():
        return "not a regular file, or a link to nothing"
    try:
        with Image.open(path, formats=FORMATS) as image:
            if size is not None and not may_have_size(image, *size):
                return np.broadcast_to(np.uint8(0), (1, image.height, image.width))
            return conversion.image(load_upright(image, conversion.image_size))
    except Exception as error:  # Pillow promises no closed list of what a broken file may raise
        return why_undecoded(error)


def is_image(path: Path) -> bool:
    """Whether a file begins as an image does that may be decoded; whether it is whole, its pixels alone would tell."""
    try:
        with warnings.catch_warnings(action="error"), Image.open(path, formats=FORMATS):
            return True
    except Exception:  # as in `decode`
        return False


def _decode_in_parallel(files: Sequence[ImageFile], conversion: Conversion) -> Iterator[tuple[ImageFile, Decoded]]:
    Image.init()  # here, since threads that load Pillow's plugins at once get in each other's way
    workers = min(MOST_THREADS, os.cpu_count() or 1)
    pending: deque[Future[list[tuple[ImageFile, Decoded]]]] = deque()
    most = 1  # tasks in flight, until the first images say how large they are
    shape: tuple[int, ...] | None = None
    pool = ThreadPoolExecutor(workers)
    try:
        for start in range(0, len(files), FILES_PER_TASK):
            size = None if shape is None or conversion.image_size is not None else shape[1:]
            pending.append(pool.submit(_decode_task, files[start : start + FILES_PER_TASK], conversion, size))
            if len(pending) > most:
                done = pending.popleft().result()
                shape = shape or next((decoded.shape for _, decoded in done if not isinstance(decoded, str)), None)
                if shape is not None:
                    most = min(2 * workers, max(1, BYTES_IN_FLIGHT // (FILES_PER_TASK * math.prod(shape))))
                yield from done
        while pending:
            yield from pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_task(
    files: Iterable[ImageFile], conversion: Conversion, size: tuple[int, ...] | None
) -> list[tuple[ImageFile, Decoded]]:
    return [(file, decode(file.path, conversion, size)) for file in files]


def _of_one_chunk(decoded: Iterable[tuple[ImageFile, Decoded]]) -> Iterator[tuple[ImageFile, Decoded]]:
    """The next files: so many, or fewer where their pixels fill a chunk."""
    filled = 0
    for count, (file, pixels) in enumerate(decoded, 1):
        yield file, pixels
        filled += 0 if isinstance(pixels, str) else pixels.nbytes
        if count == FILES_PER_CHUNK or filled >= CHUNK_BYTES:
            return


def _chunk(good: list[tuple[ImageFile, np.ndarray]], splits: tuple[str, ...], bad: tuple[Skipped, ...]) -> Chunk:
    if not good:
        return Chunk(np.empty((0, 1, 1, 1), np.uint8), None, splits, bad)
    labels = [file.label for file, _ in good if file.label is not None]
    images = np.stack([pixels for _, pixels in good])
    return Chunk(images, np.array(labels, np.int64) if labels else None, splits, bad)


class _SameShape:
    """Holds all images to the shape of the first."""

    def __init__(self) -> None:
        self._first: tuple[str, tuple[int, ...]] | None = None

    def check(self, path: str, pixels: np.ndarray) -> None:
        if self._first is None:
            self._first = (path, pixels.shape)
        first_path, (channels, height, width) = self._first
        if pixels.shape[1:] != (height, width):
            raise UserError(
                f"{shown(path)}: is {_size(pixels.shape)} while {shown(first_path)} is {_size(self._first[1])} "
                "(height x width); expected images of one size, or prepare.image_size: [height, width]"
            )
        if len(pixels) != channels:
            raise UserError(
                f"{shown(path)}: is {_color(len(pixels))} while {shown(first_path)} is {_color(channels)}; "
                "expected images of one kind, or prepare.color: grey or rgb"
            )


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[2]}"


def _color(channels: int) -> str:
    return "grey" if channels == 1 else "in colour"
