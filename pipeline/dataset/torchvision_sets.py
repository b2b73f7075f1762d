"""torchvision's sets, read as whole arrays where torchvision has them; their published splits are kept.

EMNIST is its `balanced` split: digits and letters, as many of each, the one on which results are most often
reported. SVHN is without `extra`. CelebA has no classes, only attributes, so it has no labels here.
CIFAR-10's files are pickles: torchvision opens them only after their checksums have been compared.
"""

import contextlib
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.dataset.chunks import Chunk, Source, rows_per_chunk
from pipeline.dataset.decode import ImageFile, OnBadImage, decode_files
from pipeline.dataset.pixels import Conversion
from pipeline.errors import UserError, one_line

DIGITS = tuple("0123456789")
TRAIN, TEST = ("train", "val"), ("test",)
SECONDS_WITHOUT_ANSWER = 30.0

BROKEN = (RuntimeError, OSError, EOFError, ValueError, AssertionError)
"""What torchvision raises of files that are missing or damaged."""

Images = tuple[np.ndarray, np.ndarray]  # uint8 [n, H, W, C], int64 [n]


@dataclass(frozen=True)
class Published:
    """One set: how torchvision opens it, and where its files lie below the root."""

    name: str
    build: Callable[..., Any]
    """(root, train, download) -> torchvision's data set."""
    files: str
    """What a person without a network must put there."""


def open_torchvision(name: str, root: Path, conversion: Conversion, on_bad_image: OnBadImage) -> Source:
    """One of `NAMES`, from `root`, where it is downloaded to if it is not there.

    Raises:
        UserError: the set is neither there nor to be downloaded, or its files are broken.
    """
    published = _SETS[name]
    if name == "celeba":
        return _celeba(obtain(published, root, train=True), conversion, on_bad_image)
    train, test = obtain(published, root, train=True), obtain(published, root, train=False)
    parts = [(_arrays(name, train), TRAIN), (_arrays(name, test), TEST)]
    chunks = [in_chunks(images, labels, conversion, splits) for (images, labels), splits in parts]
    classes = DIGITS if name in ("mnist", "svhn") else tuple(train.classes)
    return Source(sum(len(labels) for (_, labels), _ in parts), classes, chain(*chunks))


def in_chunks(
    images: np.ndarray, labels: np.ndarray | None, conversion: Conversion, splits: tuple[str, ...]
) -> Iterator[Chunk]:
    """Chunks of an array in memory, uint8 [n, H, W, C]."""
    step = rows_per_chunk(images[0].nbytes)
    for first in range(0, len(images), step):
        part = slice(first, first + step)
        yield Chunk(conversion.batch(images[part]), None if labels is None else labels[part], splits)


def obtain(published: Published, root: Path, *, train: bool) -> Any:
    """torchvision's data set, downloaded if need be: whole, beside `root`, before any file of it is moved there."""
    try:
        return published.build(str(root), train, download=False)
    except BROKEN as error:
        if "not found" not in str(error):
            reason = one_line(error, 160) or "truncated"
            raise UserError(
                f"prepare.source {published.name}: {root} holds broken files ({reason}); "
                f"expected {published.files}; delete them to download the set again"
            ) from None
    _download(published, root, train)
    try:
        return published.build(str(root), train, download=False)
    except BROKEN as error:
        raise UserError(
            f"prepare.source {published.name}: what was downloaded to {root} is broken ({one_line(error, 160)}); "
            f"expected {published.files}; delete them and try again"
        ) from None


def _download(published: Published, root: Path, train: bool) -> None:
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as beside, _impatient():
            published.build(beside, train, download=True)
            _merge(Path(beside), root)
    except (*BROKEN, ImportError, HTTPException) as error:
        raise UserError(
            f"prepare.source {published.name}: not in {root} and not to be downloaded ({one_line(error, 160)}); "
            f"offline, put {published.files} under {root}"
        ) from None


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """torchvision alone would wait for ever for a host that does not answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS_WITHOUT_ANSWER)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _merge(source: Path, target: Path) -> None:
    """Move a folder's content into `target`; a folder that is not there yet moves as one."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            _merge(entry, place)
        else:
            entry.replace(place)


def _arrays(name: str, data: Any) -> Images:
    """A set's images, upright and channels last, and its labels."""
    if name == "svhn":
        return data.data.transpose(0, 2, 3, 1), data.labels
    if name == "cifar10":
        return data.data, np.asarray(data.targets, np.int64)
    images = data.data.numpy()[..., None]
    if name == "emnist":
        images = images.swapaxes(1, 2)  # its files hold every image transposed
    labels = data.targets.numpy().astype(np.int64)
    if not 0 < len(images) == len(labels) or labels.min() < 0 or labels.max() >= len(data.classes):
        raise UserError(
            f"prepare.source {name}: {data.raw_folder} holds {len(images)} images and {len(labels)} labels "
            f"of which not all fit; expected one label below {len(data.classes)} per image"
        )
    return images, labels


def _celeba(data: Any, conversion: Conversion, on_bad_image: OnBadImage) -> Source:
    folder = Path(data.root) / data.base_folder
    splits = {"0": ("train",), "1": ("val",), "2": ("test",)}
    rows = [line.split() for line in (folder / "list_eval_partition.txt").read_text().splitlines() if line.strip()]
    files = [ImageFile(str(folder / "img_align_celeba" / name), None, splits[part]) for name, part in rows]
    return Source(len(files), None, decode_files(files, conversion, on_bad_image))


def _by_class(name: str, **fixed: Any) -> Callable[..., Any]:
    def build(root: str, train: bool, download: bool) -> Any:
        from torchvision import datasets  # slow to import, and needed by these sets only

        return getattr(datasets, name)(root, train=train, download=download, **fixed)

    return build


def _svhn(root: str, train: bool, download: bool) -> Any:
    from torchvision import datasets

    return datasets.SVHN(root, split="train" if train else "test", download=download)


def _celeba_all(root: str, _train: bool, download: bool) -> Any:
    from torchvision import datasets

    return datasets.CelebA(root, split="all", target_type=[], download=download)


_IDX = "{}/raw/ with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte"
_SETS = {
    published.name: published
    for published in (
        Published("mnist", _by_class("MNIST"), _IDX.format("MNIST")),
        Published("fashion-mnist", _by_class("FashionMNIST"), _IDX.format("FashionMNIST")),
        Published("kmnist", _by_class("KMNIST"), _IDX.format("KMNIST")),
        Published(
            "emnist",
            _by_class("EMNIST", split="balanced"),
            "EMNIST/raw/ with emnist-balanced-{train,test}-{images-idx3,labels-idx1}-ubyte",
        ),
        Published("cifar10", _by_class("CIFAR10"), "cifar-10-batches-py/ (the unpacked python version)"),
        Published("svhn", _svhn, "train_32x32.mat and test_32x32.mat"),
        Published("celeba", _celeba_all, "celeba/ with img_align_celeba/ and torchvision's five .txt files"),
    )
}
NAMES = tuple(_SETS)
