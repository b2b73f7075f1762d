import pytest

from pipeline.runtime.together import rows_together


@pytest.mark.parametrize(
    ("image_shape", "most", "rows"),
    [((1, 28, 28), 512, 512), ((3, 64, 64), 512, 170), ((3, 256, 256), 512, 10), ((3, 2000, 2000), 512, 1)],
)
def test_the_larger_the_images_the_fewer_rows(image_shape, most, rows):
    assert rows_together(image_shape, most) == rows
