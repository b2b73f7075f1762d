import json
import math

import numpy as np
import pytest
import torch
from sparse_set import make_sparse_set

from pipeline.dataset.batches import mapped_images
from pipeline.dataset.store import memory_bytes, open_prepared
from pipeline.dataset.writer import dataset_writer
from pipeline.errors import UserError


@pytest.fixture
def prepared(tmp_path):
    images = np.arange(6 * 3 * 4 * 5, dtype=np.uint8).reshape(6, 3, 4, 5)
    with dataset_writer(tmp_path, (3, 4, 5), ["cat", "dog"]) as writer:
        for split, part in (("train", slice(0, 3)), ("val", slice(3, 5)), ("test", slice(5, 6))):
            writer.append(split, images[part], np.array([0, 1, 1, 0, 1, 1])[part])
        (tmp_path / "meta.json").write_text(json.dumps(writer.finish()))
    return tmp_path, images


def test_what_was_written_is_opened_memory_mapped(prepared):
    folder, images = prepared
    data = open_prepared(folder)
    assert isinstance(data.train.images, np.memmap)
    np.testing.assert_array_equal(data.train.images, images[:3])
    np.testing.assert_array_equal(data.test.labels, [1])
    assert data.image_shape == (3, 4, 5)
    assert (data.held_out, data.held_out_labels) == (None, [])
    assert len(data.sha256) == 64


def test_a_split_larger_than_this_machines_memory_is_opened_and_read(tmp_path):
    count = 4 * memory_bytes() // 784
    make_sparse_set(tmp_path, (1, 28, 28), count)
    images = mapped_images(open_prepared(tmp_path).train.images)
    assert images.shape == (count, 1, 28, 28)
    assert images[torch.tensor([0, count // 2, count - 1])].sum() == 0


def test_what_was_held_out_is_opened_too(tmp_path):
    images = np.arange(4 * 2 * 2, dtype=np.uint8).reshape(4, 1, 2, 2)
    with dataset_writer(tmp_path, (1, 2, 2), ["cat", "dog"], held_out=True) as writer:
        for row, split in enumerate(("train", "val", "test", "held_out")):
            writer.append(split, images[row : row + 1], np.array([split == "held_out"], np.int64))
        (tmp_path / "meta.json").write_text(json.dumps(writer.finish()))
    data = open_prepared(tmp_path)
    np.testing.assert_array_equal(data.held_out.images, images[3:])
    np.testing.assert_array_equal(data.held_out.labels, [1])
    assert data.held_out_labels == ["dog"]
    (tmp_path / "held_out.npy").unlink()
    with pytest.raises(UserError, match=r"held_out\.npy: not found"):
        open_prepared(tmp_path)


def test_the_files_are_plain_npy(prepared):
    folder, images = prepared
    np.testing.assert_array_equal(np.load(folder / "val.npy", allow_pickle=False), images[3:5])


@pytest.mark.parametrize("name", ["meta.json", "train.npy", "val_labels.npy"])
def test_a_missing_file_is_named(prepared, name):
    folder, _ = prepared
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name}: not found"):
        open_prepared(folder)


@pytest.mark.parametrize("size", [0, 50, 130])
def test_a_truncated_file_is_named(prepared, size):
    folder, _ = prepared
    with open(folder / "train.npy", "r+b") as file:
        file.truncate(size)
    with pytest.raises(UserError, match=r"train\.npy: .*truncated"):
        open_prepared(folder)


def test_a_damaged_header_is_named(prepared):
    folder, _ = prepared
    content = (folder / "train.npy").read_bytes()
    (folder / "train.npy").write_bytes(content.replace(b"'shape': (3, 3, 4, 5)", b"'shape': (((((((((((("))
    with pytest.raises(UserError, match=r"train\.npy: not readable"):
        open_prepared(folder)


def test_an_array_other_than_meta_says_is_refused(prepared):
    folder, images = prepared
    np.save(folder / "test.npy", images[:2])
    with pytest.raises(UserError, match=r"test\.npy: holds uint8 \[2, 3, 4, 5\]; expected uint8 \[1, 3, 4, 5\]"):
        open_prepared(folder)


def test_a_meta_file_of_something_else_is_refused(prepared):
    folder, _ = prepared
    (folder / "meta.json").write_text('{"shape": [1, 2, 3]}')
    with pytest.raises(UserError, match=r"meta\.json: lacks 'classes'"):
        open_prepared(folder)


@pytest.mark.parametrize(("part", "value"), [("values", "grey"), ("splits", 3), ("shape", 28)])
def test_a_part_of_a_meta_file_that_is_of_another_kind_is_told_of(prepared, part, value):
    folder, _ = prepared
    meta = json.loads((folder / "meta.json").read_text()) | {part: value}
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match=r"meta\.json: has a part of another kind \(.*\); expected what the prepare"):
        open_prepared(folder)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("mean", "a", "values.mean is 'a'; expected a number from 0 to 255"),
        ("mean", -1, "values.mean is -1; expected a number from 0 to 255"),
        ("standard_deviation", math.nan, "values.standard_deviation is nan; expected a number from 0 to 255"),
        ("standard_deviation", None, "values.standard_deviation is None; expected a number from 0 to 255"),
        ("binary_fraction", "0.5", "values.binary_fraction is '0.5'; expected a number from 0 to 1"),
        ("binary_fraction", 1.5, "values.binary_fraction is 1.5; expected a number from 0 to 1"),
        ("kind", "black", "values.kind is 'black'; expected one of binary, near-binary, grey, colour"),
        ("kind", ["grey"], "values.kind is ['grey']; expected one of binary, near-binary, grey, colour"),
    ],
)
def test_statistics_that_no_images_have_are_named(prepared, name, value, expected):
    folder, _ = prepared
    meta = json.loads((folder / "meta.json").read_text())
    meta["values"][name] = value
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(UserError) as error:
        open_prepared(folder)
    assert str(error.value) == f"{folder / 'meta.json'}: {expected}"


@pytest.mark.parametrize("name", ["kind", "mean", "standard_deviation", "binary_fraction"])
def test_a_statistic_that_is_missing_is_named(prepared, name):
    folder, _ = prepared
    meta = json.loads((folder / "meta.json").read_text())
    del meta["values"][name]
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match=rf"meta\.json: lacks '{name}'; expected what the prepare stage writes"):
        open_prepared(folder)
