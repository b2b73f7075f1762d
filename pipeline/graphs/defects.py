"""Defects drawn into images: strange pictures whose fault, and its place, are known.

A defect is one opaque mark of one colour: a scratch (a line), a spot (a disc) or a patch (a rectangle, as if a piece
were missing). Sizes follow the shorter side of the image. Real defects differ; these are the same for every model.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

CONTRAST = 64  # grey levels of 255 between the mark and the mean of what it covers, at least

Images = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Grid = NDArray[np.float64]


def draw_defects(images: Images, seed: int) -> tuple[Images, Mask]:
    """Each image with one defect, and which pixels it covers.

    Image i's defect is a function of (seed, i) and of that image alone: its kind, place, size and direction are drawn
    uniformly, and of each channel a level that lies at least `CONTRAST` from the mean of the pixels to be covered.

    Args:
        images: uint8 [n, H, W, C]; left as they are.
        seed: not negative.

    Returns:
        uint8 [n, H, W, C], and bool [n, H, W] with at least one pixel of each image.
    """
    drawn = images.copy()
    masks = np.zeros(images.shape[:3], np.bool_)
    for i, image in enumerate(drawn):
        rng = np.random.default_rng([seed, i])
        masks[i] = _mark(rng, image.shape[:2])
        image[masks[i]] = [_level(rng, covered.mean()) for covered in image[masks[i]].T]
    return drawn, masks


def _mark(rng: np.random.Generator, size: tuple[int, int]) -> Mask:
    """The pixels of a mark around a pixel's middle, so that it covers that pixel at least."""
    height, width = size
    down, right = np.mgrid[:height, :width].astype(np.float64)
    kinds: tuple[Callable[[np.random.Generator, float, Grid, Grid], Mask], ...] = (_scratch, _spot, _patch)
    kind = kinds[rng.integers(len(kinds))]
    return kind(rng, min(height, width), down - rng.integers(height), right - rng.integers(width))


def _scratch(rng: np.random.Generator, side: float, down: Grid, right: Grid) -> Mask:
    """A line, 15 to 50 % of the side long and up to 7 % wide, a pixel at least."""
    angle, half_length = rng.uniform(0, np.pi), side * rng.uniform(0.15, 0.5) / 2
    half_width = max(0.5, side * rng.uniform(0.02, 0.07) / 2)
    along = down * np.sin(angle) + right * np.cos(angle)
    across = down * np.cos(angle) - right * np.sin(angle)
    mask: Mask = (np.abs(along) <= half_length) & (np.abs(across) <= half_width)
    return mask


def _spot(rng: np.random.Generator, side: float, down: Grid, right: Grid) -> Mask:
    """A disc with a radius of 3 to 10 % of the side."""
    radius = side * rng.uniform(0.03, 0.1)
    return down**2 + right**2 <= radius**2


def _patch(rng: np.random.Generator, side: float, down: Grid, right: Grid) -> Mask:
    """A rectangle, each side 10 to 30 % of the image's."""
    half_height, half_width = side * rng.uniform(0.1, 0.3, 2) / 2
    mask: Mask = (np.abs(down) <= half_height) & (np.abs(right) <= half_width)
    return mask


def _level(rng: np.random.Generator, covered: float) -> int:
    levels = np.arange(256)
    return int(rng.choice(levels[np.abs(levels - covered) >= CONTRAST]))
