"""Image files to what the model takes: found, decoded one by one as they are needed, and never skipped in silence.

Files are decoded as the prepare stage decodes them (`pipeline/image_file.py`), to the same pixels. They are hostile
input: an image too large to decode safely is refused before its pixels are allocated.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError, shown

if TYPE_CHECKING:
    from PIL import Image

MODES = {1: "L", 3: "RGB"}
MOST_IMAGES_TOGETHER = 256
MOST_BYTES_TOGETHER = 2**25

Images = NDArray[np.uint8]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class ImageBatch:
    """Some files and their pixels, uint8 [n, H, W, C], n >= 1."""

    files: list[str]
    images: Images


def find_images(paths: Sequence[Path | str]) -> list[str]:
    """Every file named, and every file in the folders named, at any depth, each folder sorted by name.

    In a folder, names that begin with a dot are ignored; every other file counts as an image.

    Raises:
        UserError: a path is missing, a folder cannot be listed or holds a link to a folder, or there is no file.
    """
    files: list[str] = []
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"{shown(str(path))}: not found; expected an image, or a folder of images")
        files += _files_below(path) if path.is_dir() else [str(path)]
    if not files:
        raise UserError(f"{', '.join(shown(str(path)) for path in paths)}: holds no images; expected at least one")
    return list(dict.fromkeys(files))


def read_images(
    files: Iterable[str], shape: Shape, resize: bool = False, skip: Callable[[str, str], None] | None = None
) -> Iterator[ImageBatch]:
    """Decode files as the batches are asked for; only one batch is held at a time.

    Args:
        files: their names.
        shape: (H, W, C) that the model takes.
        resize: stretch images of another size instead of refusing them.
        skip: told of each file that is no image, and why; without it such a file is an error.

    Raises:
        UserError: a file is no image and there is no `skip`, or an image has another size and `resize` is off.
    """
    together = max(1, min(MOST_IMAGES_TOGETHER, MOST_BYTES_TOGETHER // (shape[0] * shape[1] * shape[2])))
    names: list[str] = []
    images: list[Images] = []
    for file in files:
        image = decode_image(file, shape, resize)
        if isinstance(image, str):
            if skip is None:
                raise UserError(f"{shown(file)}: {image}; expected an image (--skip-bad leaves such files out)")
            skip(file, image)
            continue
        names.append(file)
        images.append(image)
        if len(names) == together:
            yield ImageBatch(names, np.stack(images))
            names, images = [], []
    if names:
        yield ImageBatch(names, np.stack(images))


def decode_image(file: str, shape: Shape, resize: bool = False) -> Images | str:
    """The pixels of one file as uint8 [H, W, C], or why it has none.

    The orientation in EXIF is applied, transparency is laid on white, 16 bits become 8, and of an animation the first
    frame counts. Colour becomes grey by the luma of ITU-R BT.601, grey becomes colour by three equal channels,
    whichever the model takes. `resize` stretches with a Lanczos filter.

    Raises:
        UserError: the image has another size than `shape` and `resize` is off.
    """
    from PIL import Image

    from pipeline.image_file import FORMATS, may_have_size, why_undecoded

    if not Path(file).is_file():
        return "not a regular file, or a link to nothing"
    height, width, channels = shape
    try:
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(file, formats=FORMATS) as opened,
        ):
            if not (resize or may_have_size(opened, height, width)):
                raise _another_size(file, opened.size, (height, width))
            image = load_as(opened, MODES[channels], (height, width) if resize else None)
    except UserError:
        raise
    except Exception as error:  # Pillow promises no closed list of what a broken file may raise
        return why_undecoded(error)
    if image.size != (width, height):
        raise _another_size(file, image.size, (height, width))
    return np.asarray(image).reshape(shape)


def load_as(opened: "Image.Image", mode: str, size: tuple[int, int] | None = None) -> "Image.Image":
    """What Pillow has opened, decoded as `load_upright` does, in mode L or RGB, and stretched to (H, W) if given.

    Raises:
        Exception: whatever `load_upright` raises of a broken file.
    """
    from PIL.Image import Resampling

    from pipeline.image_file import load_upright

    image = load_upright(opened, size).convert(mode)
    return image if size is None else image.resize((size[1], size[0]), Resampling.LANCZOS)


def _another_size(file: str, found: tuple[int, int], expected: tuple[int, int]) -> UserError:
    """`found` is (W, H), as Pillow has it; `expected` (H, W)."""
    return UserError(
        f"{shown(file)}: is {found[1]}x{found[0]} (height x width); "
        f"expected {expected[0]}x{expected[1]}, which the model takes (--resize stretches images to it)"
    )


def _files_below(folder: Path) -> list[str]:
    def refuse(error: OSError) -> None:
        raise UserError(f"{shown(str(error.filename))}: cannot be listed ({error.strerror})")

    files: list[str] = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for link in (Path(place, name) for name in folders if Path(place, name).is_symlink()):
            raise UserError(f"{shown(str(link))}: is a link to a folder; expected folders and images (name it besides)")
        files += [str(Path(place, name)) for name in sorted(names) if not name.startswith(".")]
    return files
