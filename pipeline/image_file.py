"""How an image file becomes a picture, for the prepare stage and for an app alike: upright, opaque, of 8 bits.

Files are hostile input: only four decoders are reachable, a JPEG of more scans than any camera writes is refused before
it is decoded, and whatever a decoder raises becomes a reason, not a traceback.
"""

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from pipeline.errors import one_line
from pipeline.scans import refuse_many_scans

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")


def load_upright(opened: Image.Image, resized_to: tuple[int, int] | None = None) -> Image.Image:
    """What Pillow has opened, decoded: turned as EXIF says, laid on white, in mode L or RGB as it is grey or not.

    Where it is going to be resized to [height, width], a JPEG may come at a fraction of its size: still twice that.

    Raises:
        ValueError: it is a JPEG of more scans than any camera writes.
        Exception: whatever Pillow raises of a broken file.
    """
    if isinstance(opened, JpegImageFile) and opened.fp is not None:
        refuse_many_scans(opened.fp)
    if resized_to is not None:
        side = 2 * max(resized_to)
        opened.draft(None, (side, side))
    opened.load()
    return _as_grey_or_rgb(ImageOps.exif_transpose(opened))


def may_have_size(opened: Image.Image, height: int, width: int) -> bool:
    """Whether an image has this size, or would have it once turned upright; known before a pixel is decoded.

    Whether it lies on its side, some formats tell behind the pixels.
    """
    return opened.size in ((width, height), (height, width))


def why_undecoded(error: Exception) -> str:
    """What a person is told of a file that Pillow would not open or decode."""
    if isinstance(error, UnidentifiedImageError):
        return "not a PNG, JPEG, WebP or BMP image"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, which is more than is safe to decode"
    return f"cannot be decoded ({one_line(error) or type(error).__name__})"


def _as_grey_or_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel
        levels = np.asarray(image).astype(np.uint32)
        grey = ((levels + 128) // 257).astype(np.uint8)
        if image.has_transparency_data:
            grey[levels == image.info["transparency"]] = 255  # the one level that is transparent, in all its 16 bits
        return Image.fromarray(grey)
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        on_white = Image.new("RGBA", image.size, "white")
        on_white.alpha_composite(image.convert("RGBA"))
        return on_white.convert(mode)
    return image if image.mode == mode else image.convert(mode)
