"""Writes the prepared data as it comes: memory is that of one chunk, whatever the number of images.

The .npy header stands first and names the length, which is known last. numpy pads it so that the length can grow
in place (`numpy.lib.format`), so the header is written anew, at the same size, when a file is closed.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from pipeline.dataset.store import HELD_OUT, SPLITS, images_file, labels_file
from pipeline.dataset.values import count_levels, has_colour, value_statistics


class NpyAppender:
    """A .npy file that grows along its first axis: rows of `row_shape`, stored little-endian in C order."""

    def __init__(self, path: Path, dtype: str, row_shape: tuple[int, ...]):
        self.count = 0
        self._dtype = np.dtype(dtype)
        self._row_shape = row_shape
        self._file = path.open("wb")
        self._write_header()
        self._header_bytes = self._file.tell()

    def append(self, rows: np.ndarray) -> None:
        """Append rows [m, *row_shape] of the file's type."""
        if rows.shape[1:] != self._row_shape or rows.dtype != self._dtype:
            raise ValueError(f"rows are {rows.dtype} {rows.shape}; expected {self._dtype} [m, {self._row_shape}]")
        self._file.write(np.ascontiguousarray(rows).data)
        self.count += len(rows)

    def finish(self) -> None:
        """Write the final length into the header."""
        self._file.seek(0)
        self._write_header()
        if self._file.tell() != self._header_bytes:
            raise RuntimeError(f"{self._file.name}: the header's size changed from {self._header_bytes} bytes")

    def close(self) -> None:
        """Close the file; without `finish` before, it says that it has no rows."""
        self._file.close()

    def _write_header(self) -> None:
        shape = (self.count, *self._row_shape)
        header = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self._file, header)


class SplitWriter:
    """The images of one split, and their labels where `classes` is not None."""

    def __init__(self, folder: Path, split: str, image_shape: tuple[int, ...], classes: Sequence[str] | None):
        self.images = NpyAppender(folder / images_file(split), "|u1", image_shape)
        self.labels = None if classes is None else NpyAppender(folder / labels_file(split), "<i8", ())
        self._labels_path = folder / labels_file(split)
        self._class_counts = np.zeros(len(classes or ()), np.int64)
        self._hash = hashlib.sha256()

    def append(self, images: np.ndarray, labels: np.ndarray | None) -> None:
        """Append uint8 images [m, C, H, W] and their labels [m]."""
        images = np.ascontiguousarray(images)
        self.images.append(images)
        self._hash.update(images.data)
        if self.labels is not None and labels is not None:
            self.labels.append(labels)
            self._class_counts += np.bincount(labels, minlength=len(self._class_counts))

    def finish(self) -> dict[str, Any]:
        """Complete the files; returns count, sha256 (of the images' bytes, then the labels') and class counts."""
        self.images.finish()
        if self.labels is not None:
            self.labels.finish()
        self.close()
        if self.labels is not None and self.labels.count:
            self._hash.update(np.load(self._labels_path, mmap_mode="r").data)
        return {
            "count": self.images.count,
            "sha256": self._hash.hexdigest(),
            "class_counts": None if self.labels is None else self._class_counts.tolist(),
        }

    def close(self) -> None:
        """Close the files."""
        self.images.close()
        if self.labels is not None:
            self.labels.close()


class DatasetWriter:
    """The splits, the histogram of their values, and the hash over everything."""

    def __init__(self, folder: Path, image_shape: tuple[int, ...], classes: Sequence[str] | None, held_out: bool):
        self._image_shape = image_shape
        self._classes = classes
        self._levels = np.zeros(256, np.int64)
        self._has_colour = False
        splits = SPLITS + (HELD_OUT,) * held_out
        self._splits = {split: SplitWriter(folder, split, image_shape, classes) for split in splits}

    def append(self, split: str, images: np.ndarray, labels: np.ndarray | None) -> None:
        """Append uint8 images [m, C, H, W], and labels int64 [m] where there are classes, to one split."""
        self._splits[split].append(images, labels)
        if split != HELD_OUT:  # the values are those of the images that the model is to know
            self._levels += count_levels(images)
            self._has_colour = self._has_colour or has_colour(images)

    @property
    def counts(self) -> dict[str, int]:
        """How many images each split holds so far."""
        return {name: writer.images.count for name, writer in self._splits.items()}

    def finish(self) -> dict[str, Any]:
        """Complete the files; returns shape, classes, splits, values and sha256 as they stand in meta.json.

        There must be at least one image in train, val or test.
        """
        splits = {name: writer.finish() for name, writer in self._splits.items()}
        hashes = [split["sha256"] for split in splits.values()]
        return {
            "shape": list(self._image_shape),
            "classes": None if self._classes is None else list(self._classes),
            "splits": splits,
            "values": value_statistics(self._levels, self._has_colour),
            "sha256": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        }

    def close(self) -> None:
        """Close all files; harmless after `finish`."""
        for writer in self._splits.values():
            writer.close()


@contextmanager
def dataset_writer(
    folder: Path, image_shape: tuple[int, ...], classes: Sequence[str] | None, *, held_out: bool = False
) -> Iterator[DatasetWriter]:
    """A `DatasetWriter` whose files are closed whatever happens; `held_out` gives it a fourth array of that name."""
    writer = DatasetWriter(folder, image_shape, classes, held_out)
    try:
        yield writer
    finally:
        writer.close()
