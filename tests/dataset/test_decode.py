import re
import struct
import zlib

import numpy as np
import pytest
from answers import many_scans
from PIL import Image, JpegImagePlugin

from pipeline.dataset import decode as decode_module
from pipeline.dataset.decode import ImageFile, decode, decode_files
from pipeline.dataset.pixels import Conversion
from pipeline.errors import UserError

AS_FOUND = Conversion("keep", None)
COLOUR = np.random.default_rng(0).integers(0, 256, (10, 6, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


def pixels(path, image, conversion=AS_FOUND, **options):
    image.save(path, **options)
    return decode(str(path), conversion)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp"])
def test_lossless_formats_keep_every_level(tmp_path, name):
    found = pixels(tmp_path / name, Image.fromarray(COLOUR), lossless=True)
    np.testing.assert_array_equal(found, COLOUR.transpose(2, 0, 1))


def test_jpeg_is_decoded(tmp_path):
    smooth = np.linspace(0, 255, 64, dtype=np.uint8).reshape(8, 8)
    found = pixels(tmp_path / "a.jpg", Image.fromarray(smooth), quality=95)
    assert np.abs(found[0].astype(int) - smooth).max() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_the_orientation_in_exif_is_applied(tmp_path, name, orientation):
    upright = COLOUR
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(turned))
    found = pixels(tmp_path / name, image, exif=exif.tobytes(), lossless=True)
    np.testing.assert_array_equal(found, upright.transpose(2, 0, 1))


def test_a_photo_lying_on_its_side_is_turned_before_it_is_resized(tmp_path):
    sky = np.zeros((40, 80), np.uint8)
    sky[:, :40] = 255  # upright, the bright half is on top
    exif = Image.Exif()
    exif[0x0112] = 6
    found = pixels(tmp_path / "a.jpg", Image.fromarray(sky), Conversion("keep", (8, 4)), exif=exif.tobytes())
    assert found.shape == (1, 8, 4)
    assert found[0, :3].min() > 200
    assert found[0, 5:].max() < 60


def test_transparency_is_laid_on_white(tmp_path):
    alpha = np.full((10, 6, 1), 255, np.uint8)
    alpha[:5] = 0
    found = pixels(tmp_path / "a.png", Image.fromarray(np.concatenate([COLOUR, alpha], axis=2)))
    assert (found[:, :5] == 255).all()
    np.testing.assert_array_equal(found[:, 5:], COLOUR.transpose(2, 0, 1)[:, 5:])


def test_grey_with_transparency_stays_grey(tmp_path):
    image = Image.fromarray(np.stack([GREY, np.full_like(GREY, 255)], axis=2), mode="LA")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png", image), GREY[None])


def test_a_palette_is_looked_up(tmp_path):
    image = Image.fromarray(COLOUR).quantize(16)
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png", image), expected)


def test_a_transparent_palette_entry_is_white(tmp_path):
    image = Image.fromarray(np.zeros((4, 4), np.uint8), mode="P")
    image.putpalette([10, 20, 30])
    assert (pixels(tmp_path / "a.png", image, transparency=0) == 255).all()


def test_sixteen_bits_become_the_nearest_eight(tmp_path):
    values = np.array([[0, 257, 65535, 257 * 100 + 128, 257 * 100 + 129]], np.uint16)
    assert pixels(tmp_path / "a.png", Image.fromarray(values)).tolist() == [[[0, 1, 255, 100, 101]]]


def test_the_transparent_level_of_sixteen_bits_is_white_and_its_neighbours_are_grey(tmp_path):
    image = Image.fromarray(np.array([[0, 299, 300, 301, 65535]], np.uint16))
    assert pixels(tmp_path / "a.png", image, transparency=300).tolist() == [[[0, 1, 255, 1, 255]]]


def test_one_bit_becomes_black_and_white(tmp_path):
    found = pixels(tmp_path / "a.png", Image.fromarray(GREY > 128))
    np.testing.assert_array_equal(found, np.where(GREY > 128, 255, 0)[None])


def test_cmyk_becomes_colour(tmp_path):
    image = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    found = pixels(tmp_path / "a.jpg", image)
    assert found.shape == (3, 4, 4)
    assert found[0].min() > 200
    assert found[1:].max() < 60


def test_the_first_frame_of_an_animation_counts(tmp_path):
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    found = pixels(tmp_path / "a.png", frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(found, COLOUR.transpose(2, 0, 1))


def test_color_is_converted_as_asked(tmp_path):
    assert pixels(tmp_path / "a.png", Image.fromarray(COLOUR), Conversion("grey", None)).shape == (1, 10, 6)
    found = pixels(tmp_path / "b.png", Image.fromarray(GREY), Conversion("rgb", None))
    np.testing.assert_array_equal(found, np.stack([GREY] * 3))


@pytest.mark.parametrize(("name", "options"), [("a.png", {}), ("a.jpg", {}), ("a.webp", {}), ("a.bmp", {})])
def test_a_truncated_file_gives_a_reason(tmp_path, name, options):
    big = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    big.save(tmp_path / name, **options)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
    assert isinstance(decode(str(tmp_path / name), AS_FOUND), str)


@pytest.mark.parametrize("content", [b"", b"hello", b"GIF89a" + bytes(20), b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_a_file_that_is_no_image_gives_a_reason(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    reason = decode(str(tmp_path / "a.png"), AS_FOUND)
    assert isinstance(reason, str)
    assert "\n" not in reason


def test_other_formats_are_not_opened(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png", format="TIFF")
    assert decode(str(tmp_path / "a.png"), AS_FOUND) == "not a PNG, JPEG, WebP or BMP image"


def test_every_damaged_byte_ends_in_pixels_or_a_reason(tmp_path):
    for name in ("a.png", "a.jpg", "a.webp", "a.bmp"):
        Image.fromarray(COLOUR).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        for place in range(0, len(content), 7):
            damaged = bytearray(content)
            damaged[place] ^= 0xFF
            (tmp_path / name).write_bytes(damaged)
            assert isinstance(decode(str(tmp_path / name), AS_FOUND), np.ndarray | str)


def png_that_claims(width, height):
    def part(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + part(b"IDAT", zlib.compress(bytes(1000))) + part(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_a_bad_image(tmp_path, side, recwarn):
    (tmp_path / "a.png").write_bytes(png_that_claims(side, side))
    with pytest.raises(UserError, match=r"a\.png: more than 89,478,485 pixels"):
        list(decode_files(listed(tmp_path), AS_FOUND, "stop"))
    assert not recwarn


def test_what_is_no_regular_file_gives_a_reason(tmp_path):
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    assert "not a regular file" in decode(str(tmp_path / "gone"), AS_FOUND)


def listed(folder, labels=None):
    return [
        ImageFile(str(path), None if labels is None else labels[i], ("train",))
        for i, path in enumerate(sorted(folder.iterdir()))
    ]


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_many_threads_give_the_order_of_one(tmp_path, monkeypatch, threads):
    images = np.random.default_rng(0).integers(0, 256, (150, 5, 5), dtype=np.uint8)
    for i, image in enumerate(images):
        size = (400, 400) if i % 10 == 0 else (5, 5)  # slow ones among the fast
        Image.fromarray(image).resize(size, Image.Resampling.NEAREST).save(tmp_path / f"{i:03d}.png")
    monkeypatch.setattr(decode_module.os, "cpu_count", lambda: threads)
    conversion = Conversion("keep", (5, 5))
    files = listed(tmp_path, labels=list(range(150)))
    chunks = list(decode_files(files, conversion, "stop"))
    np.testing.assert_array_equal(np.concatenate([chunk.labels for chunk in chunks]), np.arange(150))
    serial = np.stack([decode(file.path, conversion) for file in files])
    np.testing.assert_array_equal(np.concatenate([chunk.images for chunk in chunks]), serial)


def test_few_images_are_in_flight_at_a_time(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    asked = []
    monkeypatch.setattr(decode_module.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(decode_module, "decode", lambda path, *_: asked.append(path) or GREY[None])
    next(decode_files(listed(tmp_path) * 5000, AS_FOUND, "stop"))
    assert len(asked) < 100


def test_large_images_are_in_flight_by_their_bytes_and_leave_in_small_chunks(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    large, asked = np.zeros((1, 2000, 2000), np.uint8), []
    monkeypatch.setattr(decode_module.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(decode_module, "decode", lambda path, *_: asked.append(path) or large)
    chunks = decode_files(listed(tmp_path) * 400, AS_FOUND, "stop")
    sizes = [len(next(chunks).images) for _ in range(20)]
    assert sizes == [2] * 20
    assert len(asked) <= 40 + (64 * 2**20 // large.nbytes) + 8


def test_an_image_of_another_size_is_told_of_before_it_is_decoded(tmp_path, monkeypatch):
    sizes = [(10, 6)] * 12 + [(4000, 6)]
    for place, size in enumerate(sizes):
        Image.new("L", size).save(tmp_path / f"{place:02}.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (6, 10)).save(tmp_path / "11.png", exif=exif)  # upright as the others
    load, loaded = decode_module.load_upright, []
    monkeypatch.setattr(decode_module, "load_upright", lambda image, _: loaded.append(image.size) or load(image, _))
    with pytest.raises(UserError, match=r"12\.png: is 6x4000 while .*00\.png is 6x10"):
        list(decode_files(listed(tmp_path), AS_FOUND, "stop"))
    assert set(loaded) == {(10, 6), (6, 10)}


def test_a_bad_file_stops_or_is_skipped_with_its_label(tmp_path):
    for name in ("a.png", "c.png"):
        Image.fromarray(GREY).save(tmp_path / name)
    (tmp_path / "b.png").write_text("hello")
    files = listed(tmp_path, labels=[0, 1, 2])
    with pytest.raises(UserError, match=r"b\.png: not a PNG, JPEG, WebP or BMP image; .*prepare\.on_bad_image"):
        list(decode_files(files, AS_FOUND, "stop"))
    (chunk,) = decode_files(files, AS_FOUND, "skip")
    assert chunk.labels.tolist() == [0, 2]
    assert [(item.file, item.reason) for item in chunk.skipped] == [
        (str(tmp_path / "b.png"), "not a PNG, JPEG, WebP or BMP image")
    ]


def test_what_follows_or_is_inside_of_a_jpeg_is_no_scan_of_it(tmp_path):
    """A phone's picture holds a preview, and a film behind the image."""
    path = tmp_path / "a.jpg"
    Image.fromarray(GREY).save(path, progressive=True, restart_marker_blocks=1)
    content, many = path.read_bytes(), b"\xff\xda" * 200
    preview = b"\xff\xe2" + (2 + len(many)).to_bytes(2, "big") + many
    path.write_bytes(content[:2] + preview + content[2:] + many)
    assert decode(str(path), AS_FOUND).shape == (1, 10, 6)
    path.write_bytes(many_scans(101) + many)
    assert decode(str(path), AS_FOUND) == "cannot be decoded (a JPEG of 101 scans, expected at most 100)"


def test_images_of_two_sizes_need_image_size(tmp_path):
    for name, rows in (("a.png", 10), ("b.png", 9)):
        Image.fromarray(GREY[:rows]).save(tmp_path / name)
    message = r"b\.png: is 9x6 while .*a\.png is 10x6 \(height x width\); .*prepare\.image_size"
    with pytest.raises(UserError, match=message):
        list(decode_files(listed(tmp_path), AS_FOUND, "skip"))
    (chunk,) = decode_files(listed(tmp_path), Conversion("keep", (4, 5)), "stop")
    assert chunk.images.shape == (2, 1, 4, 5)


def test_grey_among_colour_needs_color(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    Image.fromarray(GREY).save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b\.png: is grey while .*a\.png is in colour; .*prepare\.color"):
        list(decode_files(listed(tmp_path), AS_FOUND, "stop"))
    (chunk,) = decode_files(listed(tmp_path), Conversion("grey", None), "stop")
    assert chunk.images.shape == (2, 1, 10, 6)


@pytest.mark.parametrize("conversion", [AS_FOUND, Conversion("grey", (4, 4))])
def test_a_jpeg_of_more_scans_than_any_camera_writes_is_refused_before_it_is_decoded(tmp_path, monkeypatch, conversion):
    path = tmp_path / "slow.jpg"
    path.write_bytes(many_scans(100))
    assert decode(str(path), conversion).shape[0] == 1
    path.write_bytes(many_scans(101))
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", None)
    reason = re.escape(f"{path}: cannot be decoded (a JPEG of 101 scans, expected at most 100); expected an image")
    with pytest.raises(UserError, match=reason):
        list(decode_files([ImageFile(str(path), None, ("train",))], conversion, "stop"))
