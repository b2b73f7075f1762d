"""Image files as `vae` reads them, held to how the prepare stage reads them."""

import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from answers import many_scans
from PIL import Image, ImageFile

from pipeline.dataset.decode import decode
from pipeline.dataset.pixels import Conversion
from pipeline.errors import UserError
from pipeline.runtime import images as images_module
from pipeline.runtime.images import decode_image, find_images, read_images

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (10, 6, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]
ALPHA = RNG.integers(0, 256, (10, 6), dtype=np.uint8)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def tricky():
    """Name -> (image, options of saving)."""
    colour, grey = Image.fromarray(COLOUR), Image.fromarray(GREY)
    smooth = Image.fromarray(np.linspace(0, 255, 40 * 24 * 3, dtype=np.uint8).reshape(40, 24, 3))
    palette = colour.quantize(16)
    return {
        "colour.png": (colour, {}),
        "grey.png": (grey, {}),
        "colour.bmp": (colour, {}),
        "colour.webp": (colour, {"lossless": True}),
        "photo.jpg": (smooth, {"quality": 90}),
        "grey.jpg": (smooth.convert("L"), {}),
        "cmyk.jpg": (smooth.convert("CMYK"), {}),
        "sideways.jpg": (smooth, {"exif": turned(6)}),
        "mirrored.png": (colour, {"exif": turned(5)}),
        "alpha.png": (Image.fromarray(np.dstack([COLOUR, ALPHA])), {}),
        "grey_alpha.png": (Image.fromarray(np.dstack([GREY, ALPHA])), {}),
        "palette.png": (palette, {}),
        "palette_alpha.png": (palette, {"transparency": 3}),
        "grey_key.png": (grey, {"transparency": int(GREY[0, 0])}),
        "sixteen.png": (Image.fromarray(RNG.integers(0, 2**16, (10, 6), dtype=np.uint16)), {}),
        "sixteen_key.png": (Image.fromarray(np.repeat(np.uint16([[300, 301]]), 9, 0)), {"transparency": 300}),
        "bits.png": (Image.fromarray(GREY > 128), {}),
        "moving.webp": (colour, {"save_all": True, "append_images": [grey.convert("RGB")], "lossless": True}),
        "moving.png": (colour, {"save_all": True, "append_images": [Image.fromarray(255 - COLOUR)]}),
    }


@pytest.mark.parametrize("name", tricky())
@pytest.mark.parametrize(("channels", "color"), [(1, "grey"), (3, "rgb")])
@pytest.mark.parametrize("resize", [None, (7, 9)])
def test_the_pixels_are_those_that_the_prepare_stage_reads(tmp_path, name, channels, color, resize):
    image, options = tricky()[name]
    path = str(tmp_path / name)
    image.save(path, **options)
    expected = decode(path, Conversion(color, resize)).transpose(1, 2, 0)
    found = decode_image(path, expected.shape, resize is not None)
    assert found.dtype == np.uint8
    assert found.shape == (*expected.shape[:2], channels)
    np.testing.assert_array_equal(found, expected)


def test_the_transparent_level_of_sixteen_bits_is_white(tmp_path):
    image, options = tricky()["sixteen_key.png"]
    image.save(tmp_path / "a.png", **options)
    assert decode_image(str(tmp_path / "a.png"), (9, 2, 1))[..., 0].tolist() == [[255, 1]] * 9


def hostile(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").touch()
    Image.fromarray(COLOUR).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(COLOUR).save(tmp_path / "forbidden.gif")
    for name, side in (("bomb.png", 30_000), ("large.png", 12_000)):
        (tmp_path / name).write_bytes(png_header(side))
    (tmp_path / "gone.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.png")


def png_header(side):
    """A PNG that claims to be so large, and holds next to nothing."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("text.png", "not a PNG, JPEG, WebP or BMP image"),
        ("empty.png", "not a PNG, JPEG, WebP or BMP image"),
        ("forbidden.gif", "not a PNG, JPEG, WebP or BMP image"),
        ("cut.png", "cannot be decoded ("),
        ("bomb.png", "pixels, which is more than is safe to decode"),
        ("large.png", "pixels, which is more than is safe to decode"),
        ("gone.png", "not a regular file, or a link to nothing"),
        ("pipe.png", "not a regular file, or a link to nothing"),
    ],
)
def test_a_file_that_is_no_image_has_a_reason_and_both_readers_agree(tmp_path, name, reason):
    hostile(tmp_path)
    path = str(tmp_path / name)
    found = decode_image(path, (10, 6, 3), resize=True)
    assert reason in found
    with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):  # as decode_files does
        assert found == decode(path, Conversion("rgb", (10, 6)))


def test_another_size_is_refused_unless_it_may_be_resized(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(COLOUR).save(path)
    with pytest.raises(UserError, match=r"a.png: is 10x6 \(height x width\); expected 8x8, .* \(--resize stretches"):
        decode_image(str(path), (8, 8, 3))
    assert decode_image(str(path), (8, 8, 3), resize=True).shape == (8, 8, 3)


def test_another_size_is_refused_before_a_pixel_is_decoded(tmp_path, monkeypatch):
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg", exif=turned(6))
    assert decode_image(str(tmp_path / "a.jpg"), (6, 10, 3)).shape == (6, 10, 3)  # upright it is as wide as it was high
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    with pytest.raises(UserError, match=r"a.jpg: is 10x6 \(height x width\); expected 6x9"):
        decode_image(str(tmp_path / "a.jpg"), (6, 9, 3))


def test_a_jpeg_of_more_scans_than_any_camera_writes_has_a_reason(tmp_path):
    path = tmp_path / "slow.jpg"
    path.write_bytes(many_scans(100))
    assert decode_image(str(path), (8, 8, 1)).shape == (8, 8, 1)
    path.write_bytes(many_scans(101))
    for resize in (False, True):
        found = decode_image(str(path), (8, 8, 1), resize)
        assert found == "cannot be decoded (a JPEG of 101 scans, expected at most 100)"


def test_folders_are_read_to_any_depth_in_the_order_of_names(tmp_path):
    for name in ("b.png", "a/z.png", "a/y/x.png", ".hidden.png", ".cache/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [os.path.relpath(file, tmp_path) for file in find_images([tmp_path])]
    assert found == ["b.png", "a/z.png", "a/y/x.png"]
    assert find_images([tmp_path / "b.png", tmp_path / "a", tmp_path / "b.png"]) == [
        str(tmp_path / name) for name in ("b.png", "a/z.png", "a/y/x.png")
    ]


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="nowhere: not found; expected an image, or a folder of images"):
        find_images([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="empty: holds no images; expected at least one"):
        find_images([tmp_path / "empty"])
    (tmp_path / "loop").symlink_to(tmp_path)
    with pytest.raises(UserError, match="loop: is a link to a folder"):
        find_images([tmp_path])


def test_images_are_decoded_as_they_are_asked_for(tmp_path, monkeypatch):
    files = [str(tmp_path / f"{number:02}.png") for number in range(10)]
    for file in files:
        Image.fromarray(COLOUR).save(file)
    decoded = []

    def counting(file, shape, resize):
        decoded.append(file)
        return decode_image(file, shape, resize)

    monkeypatch.setattr(images_module, "MOST_IMAGES_TOGETHER", 4)
    monkeypatch.setattr(images_module, "decode_image", counting)
    batches = read_images(iter(files), (10, 6, 3))
    assert decoded == []
    for asked, (size, total) in enumerate([(4, 4), (4, 8), (2, 10)]):
        batch = next(batches)
        assert batch.files == files[4 * asked : 4 * asked + size]
        assert batch.images.shape == (size, 10, 6, 3)
        assert len(decoded) == total
    assert next(batches, None) is None


def test_large_images_come_in_small_batches(tmp_path, monkeypatch):
    for number in range(5):
        Image.fromarray(COLOUR).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(images_module, "MOST_BYTES_TOGETHER", 2 * COLOUR.nbytes)
    sizes = [len(batch.files) for batch in read_images(find_images([tmp_path]), (10, 6, 3))]
    assert sizes == [2, 2, 1]


def test_a_bad_file_is_skipped_only_if_somebody_is_told(tmp_path):
    hostile(tmp_path)
    files = find_images([tmp_path])
    with pytest.raises(UserError, match=r"bomb.png: more than .*; expected an image \(--skip-bad leaves"):
        list(read_images(files, (10, 6, 3)))
    told = []
    batches = list(read_images(files, (10, 6, 3), skip=lambda file, reason: told.append(Path(file).name)))
    assert [Path(file).name for batch in batches for file in batch.files] == ["whole.png"]
    assert len(told) == len(files) - 1
