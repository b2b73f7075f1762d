"""How many rows a graph is given at once: its memory grows with them, and with the values of an image."""

import math
from collections.abc import Sequence

MOST_ROWS = 512
MOST_VALUES = 2**21  # of all rows together; a convolutional decoder takes some 150 bytes for each


def rows_together(image_shape: Sequence[int], most: int = MOST_ROWS) -> int:
    """As many rows as images of this shape leave room for, at most `most` and at least one."""
    return max(1, min(most, MOST_VALUES // math.prod(image_shape)))
