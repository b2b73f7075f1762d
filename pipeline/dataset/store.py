"""The prepared data as it lies on disk: uint8 [n, C, H, W] for train, val and test, and meta.json beside them.

Where labels were held out, a fourth array `held_out` has their images; else there is no such file.

`pipeline.dataset.writer` writes this folder; here it is opened.
"""

import math
import mmap
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pipeline.dataset.values import SUITABLE
from pipeline.errors import UserError, one_line
from pipeline.files import read_json

SPLITS = ("train", "val", "test")
HELD_OUT = "held_out"
META_FILE = "meta.json"
_STATISTICS = {"mean": 255, "standard_deviation": 255, "binary_fraction": 1}  # of `values`, and the most each can be
# What numpy raises on a damaged .npy file: its header is Python text, and is parsed as such.
DAMAGED = (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError)


@dataclass(frozen=True)
class Split:
    """The images of one split, uint8 [n, C, H, W], and their class indices, int64 [n]; both memory-mapped."""

    images: np.ndarray
    labels: np.ndarray | None


@dataclass(frozen=True)
class PreparedData:
    """The three splits, the images held out from them if there are any, and what the folder's meta.json says."""

    train: Split
    val: Split
    test: Split
    held_out: Split | None
    meta: dict[str, Any]
    folder: Path

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.meta["shape"]
        return channels, height, width

    @property
    def held_out_labels(self) -> list[str]:
        """Names of the classes that were held out."""
        counts = self.meta["splits"].get(HELD_OUT, {}).get("class_counts") or []
        return [name for name, count in zip(self.meta["classes"] or [], counts, strict=False) if count]

    @property
    def sha256(self) -> str:
        """One hash over all images and labels, those held out included."""
        return str(self.meta["sha256"])


def images_file(split: str) -> str:
    """Name of the file with a split's images."""
    return f"{split}.npy"


def labels_file(split: str) -> str:
    """Name of the file with a split's labels; absent where the set has no classes."""
    return f"{split}_labels.npy"


def open_prepared(folder: Path | str) -> PreparedData:
    """Open what the prepare stage wrote, without reading or hashing the images.

    Raises:
        UserError: a file is missing, truncated, or other than meta.json says; or that says what no images are like.
    """
    folder = Path(folder)
    meta = read_json(folder / META_FILE)
    try:
        shape, labelled = tuple(meta["shape"]), meta["classes"] is not None
        present = SPLITS + (HELD_OUT,) * (HELD_OUT in meta["splits"])
        counts = {split: meta["splits"][split]["count"] for split in present}
        meta["sha256"], [meta["values"][name] for name in ("kind", *_STATISTICS)]
    except (KeyError, TypeError) as error:
        found = f"lacks {error}" if isinstance(error, KeyError) else f"has a part of another kind ({one_line(error)})"
        raise UserError(f"{folder / META_FILE}: {found}; expected what the prepare stage writes") from None
    _check_values(meta["values"], folder / META_FILE)
    splits = {split: _open_split(folder, split, (counts[split], *shape), labelled) for split in present}
    held_out = splits.pop(HELD_OUT, None)
    return PreparedData(**splits, held_out=held_out, meta=meta, folder=folder)


def _check_values(values: dict[str, Any], path: Path) -> None:
    """Hold that what meta.json says of the pixel values can be: a model takes its scale and its advice from there."""
    if values["kind"] not in tuple(SUITABLE):  # by ==: a list has no hash
        raise UserError(f"{path}: values.kind is {values['kind']!r}; expected one of {', '.join(SUITABLE)}")
    for name, most in _STATISTICS.items():
        value = values[name]
        if type(value) not in (int, float) or not 0 <= value <= most:
            raise UserError(f"{path}: values.{name} is {value!r}; expected a number from 0 to {most}")


def _open_split(folder: Path, split: str, shape: tuple[int, ...], labelled: bool) -> Split:
    images = _open_array(folder / images_file(split), np.dtype(np.uint8), shape)
    labels = _open_array(folder / labels_file(split), np.dtype(np.int64), shape[:1]) if labelled else None
    return Split(images, labels)


def _open_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    try:
        # Not copy-on-write: the kernel counts that as memory, and refuses a file that is larger than all there is.
        array: np.memmap[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; expected a file that the prepare stage writes") from None
    except DAMAGED as error:
        reason = one_line(error)
        raise UserError(f"{path}: not readable as .npy, or truncated ({reason}); run the prepare stage again") from None
    if array.dtype != dtype or array.shape != shape:
        raise UserError(
            f"{path}: holds {array.dtype} {list(array.shape)}; expected {dtype} {list(shape)} as meta.json says"
        )
    if not math.prod(shape):
        raise UserError(f"{path}: is empty; expected at least one image")
    pages: object = array.base
    if array.nbytes > memory_bytes() and isinstance(pages, mmap.mmap):
        pages.madvise(mmap.MADV_RANDOM)  # what is read ahead of a shuffled example would be gone before it serves
    return array


def memory_bytes() -> int:
    """Of this machine."""
    return int(psutil.virtual_memory().total)
