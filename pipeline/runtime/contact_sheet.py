"""The strangest images beside their error maps, on one sheet to look at."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.pictures import as_picture

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

TILE = 112  # pixels of an image's longer side, about
MARGIN = 16
GAP = 4
TEXT_HEIGHT = 13
PAPER, INK, FAINT = (255, 255, 255), (24, 24, 27), (113, 113, 122)

# Colours of the error, as in the explorer: eleven points of viridis, in between mixed. Light grows along the way, so
# the map also reads in grey and to the colour-blind.
_VIRIDIS = np.array(
    [
        (68, 1, 84), (72, 36, 117), (65, 68, 135), (53, 95, 141), (42, 120, 142), (33, 145, 140),
        (34, 168, 132), (68, 191, 112), (122, 209, 81), (189, 223, 38), (253, 231, 37),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """One image of the sheet."""

    file: str
    score: float
    """Nats."""
    stranger_than: float
    """A share in [0, 1]."""
    image: NDArray[np.uint8]
    """[H, W, C]"""
    error: NDArray[np.float32]
    """[H, W], nats."""


def contact_sheet(scored: list[Scored]) -> "Image.Image":
    """At least one scored image, in the order given, each with its error map; all maps share one scale."""
    from PIL import Image, ImageDraw, ImageFont

    low, high = error_range([item.error for item in scored])
    tiles = [_tile(item, low, high) for item in scored]
    width, height = tiles[0].width + MARGIN, tiles[0].height + 2 * TEXT_HEIGHT + MARGIN
    columns = max(1, min(len(tiles), round(math.sqrt(1.6 * len(tiles) * height / width))))
    rows = math.ceil(len(tiles) / columns)
    top = 3 * MARGIN
    sheet = Image.new("RGB", (columns * width + MARGIN, rows * height + top + MARGIN), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT_HEIGHT - 2)
    _legend(sheet, draw, font, low, high)
    for number, (item, tile) in enumerate(zip(scored, tiles, strict=True)):
        left, upper = MARGIN + number % columns * width, top + number // columns * height
        sheet.paste(tile, (left, upper))
        score, file = f"{in_nats(item.score)}, stranger than {100 * item.stranger_than:.1f} %", item.file
        draw.text((left, upper + tile.height + 2), _fitting(file, font, tile.width), INK, font)
        draw.text((left, upper + tile.height + 2 + TEXT_HEIGHT), _fitting(score, font, tile.width), FAINT, font)
    return sheet


def error_range(errors: list[NDArray[np.float32]]) -> tuple[float, float]:
    """The ends of the colours: where the errors of the median image begin, and where all but 1 in 200 pixels end.

    One pixel, or one image far from all others, is not to darken the rest.
    """
    lowest, highest = ([np.quantile(error, level) for error in errors] for level in (0, 0.995))
    return float(np.median(lowest)), float(np.median(highest))


def colour_errors(error: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """An error map [H, W] as colours uint8 [H, W, 3], dark where the error is low, light where it is high."""
    share = np.clip((error.astype(np.float64) - low) / max(high - low, 1e-12), 0, 1) * (len(_VIRIDIS) - 1)
    channels = [np.interp(share, np.arange(len(_VIRIDIS)), _VIRIDIS[:, channel]) for channel in range(3)]
    colours: NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return colours


def in_nats(score: float) -> str:
    """`112.4 nats`; what lies beyond all sense is cut short."""
    return f"{score:.1f} nats" if abs(score) < 1e6 else f"{score:.0e} nats"


def _tile(item: Scored, low: float, high: float) -> "Image.Image":
    """The image and its map, side by side."""
    from PIL import Image

    image, error = as_picture(item.image, TILE), as_picture(colour_errors(item.error, low, high), TILE)
    tile = Image.new("RGB", (2 * image.width + GAP, image.height), PAPER)
    tile.paste(image, (0, 0))
    tile.paste(error, (image.width + GAP, 0))
    return tile


def _legend(
    sheet: "Image.Image",
    draw: "ImageDraw.ImageDraw",
    font: "ImageFont.ImageFont | ImageFont.FreeTypeFont",
    low: float,
    high: float,
) -> None:
    from PIL import Image

    before, after = f"error of a pixel (nats), one scale for all   {low:.1f} ", f" {high:.1f} and more"
    bar = colour_errors(np.linspace(low, high, 80, dtype=np.float32)[None].repeat(TEXT_HEIGHT - 3, 0), low, high)
    left = MARGIN + round(draw.textlength(before, font)) + 2
    draw.text((MARGIN, MARGIN), before, FAINT, font)
    sheet.paste(Image.fromarray(bar), (left, MARGIN + 2))
    draw.text((left + 82, MARGIN), after, FAINT, font)


def _fitting(text: str, font: "ImageFont.ImageFont | ImageFont.FreeTypeFont", width: int) -> str:
    """The text, or its end where it is too wide: of a path, the end tells most."""
    text = text.encode("ascii", "replace").decode()  # the font that comes with Pillow has little else
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("..." + text) > width:
        text = text[1:]
    return "..." + text
