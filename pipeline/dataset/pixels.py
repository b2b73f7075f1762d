"""Brings every image to the colour and the size that params ask for."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

Color = Literal["keep", "grey", "rgb"]


@dataclass(frozen=True)
class Conversion:
    """Colour and size of the prepared images.

    Grey is the luma of ITU-R BT.601 (Pillow's mode L). Resizing stretches to `image_size` [height, width] with a
    Lanczos filter that widens as the image shrinks, so that fine patterns do not alias.
    """

    color: Color
    image_size: tuple[int, int] | None

    def image(self, image: Image.Image) -> np.ndarray:
        """A Pillow image of mode L or RGB as uint8 [C, H, W]."""
        if self.color != "keep":
            image = image.convert({"grey": "L", "rgb": "RGB"}[self.color])
        if self.image_size is not None:
            height, width = self.image_size
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        pixels = np.asarray(image)
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    def batch(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 [m, H, W, C], C being 1 or 3, as uint8 [m, C, H, W]."""
        if self._changes(images.shape[1:]):
            return np.stack(
                [self.image(Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)) for image in images]
            )
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))

    def _changes(self, shape: tuple[int, ...]) -> bool:
        height, width, channels = shape
        wanted = {"keep": channels, "grey": 1, "rgb": 3}[self.color]
        return wanted != channels or self.image_size not in (None, (height, width))
