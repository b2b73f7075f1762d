import numpy as np
import pytest
from PIL import Image

from pipeline.dataset.pixels import Conversion

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("color", ["keep", "grey", "rgb"])
@pytest.mark.parametrize("image_size", [None, (5, 4), (3, 9)])
def test_a_batch_is_converted_as_each_of_its_images(channels, color, image_size):
    images = RANDOM.integers(0, 256, (4, 5, 4, channels), dtype=np.uint8)
    conversion = Conversion(color, image_size)
    singly = [conversion.image(Image.fromarray(image.squeeze(2) if channels == 1 else image)) for image in images]
    np.testing.assert_array_equal(conversion.batch(images), np.stack(singly))


def test_shrinking_averages_instead_of_dropping_pixels():
    stripes = np.tile(np.array([0, 255], np.uint8), 32)[None, None, :, None].repeat(64, axis=1)
    small = Conversion("keep", (8, 8)).batch(stripes)
    assert np.abs(small[..., 1:-1].astype(int) - 127).max() < 12


def test_grey_is_luma():
    red = np.zeros((1, 2, 2, 3), np.uint8)
    red[..., 0] = 255
    assert (Conversion("grey", None).batch(red) == round(0.299 * 255)).all()
