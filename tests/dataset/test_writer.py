import hashlib
import tracemalloc

import numpy as np
import pytest

from pipeline.dataset.writer import dataset_writer, value_statistics


def write(folder, chunks, classes=None):
    folder.mkdir(exist_ok=True)
    with dataset_writer(folder, (1, 16, 16), classes) as writer:
        for split, images, labels in chunks:
            writer.append(split, images, labels)
        return writer.finish()


def test_the_size_of_the_chunks_does_not_matter(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 1, 16, 16), dtype=np.uint8)
    whole = write(tmp_path / "whole", [("train", images, None)])
    pieces = write(tmp_path / "pieces", [("train", images[i : i + 7], None) for i in range(0, 30, 7)])
    assert whole == pieces
    assert (tmp_path / "whole/train.npy").read_bytes() == (tmp_path / "pieces/train.npy").read_bytes()


def test_the_hash_is_of_the_images_then_the_labels(tmp_path):
    images = np.arange(512, dtype=np.uint8).reshape(2, 1, 16, 16)
    labels = np.array([1, 0])
    meta = write(tmp_path, [("test", images, labels)], ["a", "b"])
    assert meta["splits"]["test"]["sha256"] == hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert meta["splits"]["test"]["class_counts"] == [1, 1]


def test_statistics_are_those_of_all_values(tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (40, 1, 16, 16), dtype=np.uint8)
    values = write(tmp_path, [("train", images[:25], None), ("val", images[25:], None)])["values"]
    assert values["minimum"] == images.min()
    assert values["maximum"] == images.max()
    assert values["mean"] == pytest.approx(images.mean())
    assert values["standard_deviation"] == pytest.approx(images.std())
    assert values["binary_fraction"] == pytest.approx(np.isin(images, [0, 255]).mean())


def test_binary_images_have_binary_fraction_one():
    assert value_statistics(np.bincount([0, 0, 255], minlength=256))["binary_fraction"] == 1


def test_images_of_another_shape_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected uint8"):
        write(tmp_path, [("train", np.zeros((1, 1, 8, 8), np.uint8), None)])


def peak_while_writing(folder, chunks):
    chunk = np.zeros((64, 1, 16, 16), np.uint8)
    tracemalloc.start()
    write(folder, (("train", chunk, np.zeros(64, np.int64)) for _ in range(chunks)), ["a"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    peak_while_writing(tmp_path / "warm", 2)
    few, many = peak_while_writing(tmp_path / "few", 5), peak_while_writing(tmp_path / "many", 500)
    assert many < 1.2 * few
