import resource

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import UserError
from pipeline.runtime.pictures import check_output, make_grid, write_images

GREY = np.arange(5 * 8 * 8, dtype=np.uint8).reshape(5, 8, 8, 1)
COLOUR = np.random.default_rng(0).integers(0, 256, (3, 60, 40, 3), dtype=np.uint8)


def test_a_grid_shows_every_image_in_reading_order():
    grid = np.asarray(make_grid(GREY))
    assert grid.shape == (2 * 58 + 2, 3 * 58 + 2)  # tiles of 56 pixels, each stored pixel a 7x7 square
    for number, image in enumerate(GREY[..., 0]):
        top, left = 2 + number // 3 * 58, 2 + number % 3 * 58
        assert np.array_equal(grid[top : top + 56 : 7, left : left + 56 : 7], image)
        assert np.array_equal(grid[top + 6 : top + 56 : 7, left + 6 : left + 56 : 7], image)


def test_large_colour_images_keep_their_size_in_a_grid():
    grid = np.asarray(make_grid(COLOUR))
    assert grid.shape == (62 + 2, 3 * 42 + 2, 3)
    assert np.array_equal(grid[2:62, 44:84], COLOUR[1])


@pytest.mark.parametrize(
    ("n", "shape", "size"), [(1, (70, 57), (74, 61)), (2, (64, 8), (68, 22)), (3, (8, 64), (32, 68))]
)
def test_a_grid_has_no_column_that_no_image_is_for(n, shape, size):
    grid = np.asarray(make_grid(np.zeros((n, *shape, 1), np.uint8)))
    assert grid.shape == size


@pytest.mark.parametrize("images", [GREY, COLOUR])
def test_an_array_holds_the_images_as_they_came(tmp_path, images):
    path = tmp_path / "images.npy"
    write_images(str(path), [images[:2], images[2:]], len(images), images.shape[1:])
    assert np.array_equal(np.load(path, allow_pickle=False), images)


def test_an_array_takes_room_on_the_disk_as_its_parts_come(tmp_path):
    """A file that is mapped has its full size at once and no room behind it: a full disk then ends the process."""
    sizes = []

    def parts():
        for part in range(0, 300, 100):
            yield np.full((100, 8, 8, 1), part % 256, np.uint8)
            sizes.append(next(tmp_path.iterdir()).stat().st_size)

    write_images(f"{tmp_path}/images.npy", parts(), 300, (8, 8, 1))
    assert sizes[0] <= 6400 + 128
    assert sizes[1] <= 12800 + 128
    assert np.load(tmp_path / "images.npy", allow_pickle=False).shape == (300, 8, 8, 1)


def test_an_array_that_no_disk_has_room_for_is_refused_before_any_image_is_asked_for(tmp_path):
    asked = []

    def parts():
        asked.append(True)
        yield GREY

    with pytest.raises(UserError, match=r"images.npy: 64,000,000.0 GB of images where [\d,.]+ GB are free; expected"):
        write_images(f"{tmp_path}/new/images.npy", parts(), 10**15, (8, 8, 1))
    assert not asked
    assert not list((tmp_path / "new").iterdir())


def test_a_disk_that_is_full_half_way_is_one_line_and_leaves_nothing(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def parts():
        yield GREY
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        for _ in range(1000):
            yield GREY

    try:
        with pytest.raises(UserError, match=r"images.npy: cannot be written \(File too large\)"):
            write_images(f"{tmp_path}/images.npy", parts(), 1001 * len(GREY), GREY.shape[1:])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("images", [GREY, COLOUR])
def test_a_folder_holds_one_file_for_each_image(tmp_path, images):
    write_images(f"{tmp_path}/many/", [images[:2], images[2:]], len(images), images.shape[1:])
    names = sorted(path.name for path in (tmp_path / "many").iterdir())
    assert names == [f"{number:06}.png" for number in range(len(images))]
    with Image.open(tmp_path / "many" / "000001.png") as picture:
        assert np.array_equal(np.asarray(picture).reshape(images.shape[1:]), images[1])


@pytest.mark.parametrize("output", ["images.npy", "grid.png", "many/"])
def test_a_failure_on_the_way_leaves_nothing(tmp_path, output):
    def parts():
        yield GREY[:2]
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        write_images(f"{tmp_path}/{output}", parts(), 5, (8, 8, 1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "n", "message"),
    [
        ("grid.gif", 1, r"suffix is '.gif'; expected .png \(a grid\), .npy, or a trailing /"),
        ("grid", 1, "suffix is ''; expected"),
        ("grid.png", 10_001, "a grid of 10001 images; expected at most 10000"),
        ("full/", 1, "already there; expected a folder that is new or empty"),
        ("full.npy", 1, "is a folder; expected the name of a file"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_work(tmp_path, output, n, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "full.npy").mkdir()
    with pytest.raises(UserError, match=message):
        check_output(f"{tmp_path}/{output}", n)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/grid.png: cannot be written"):
        write_images(f"{tmp_path}/file/grid.png", [GREY], 5, (8, 8, 1))


def test_grid_of_too_many_pixels_is_refused_before_an_image_is_made(tmp_path):
    def parts():
        pytest.fail("an image was asked for")
        yield

    with pytest.raises(UserError, match=r"a grid of \d+x\d+ pixels; expected fewer images"):
        write_images(f"{tmp_path}/grid.png", parts(), 5000, (256, 256, 3))
    assert not list(tmp_path.iterdir())


def test_grid_of_parts_is_that_of_the_whole(tmp_path):
    images = np.concatenate([GREY, GREY[::-1]])
    write_images(
        f"{tmp_path}/grid.png", (images[start : start + 3] for start in range(0, len(images), 3)), 10, GREY.shape[1:]
    )
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "grid.png")), np.asarray(make_grid(images)))
