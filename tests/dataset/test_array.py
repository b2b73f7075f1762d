import tracemalloc
import zipfile

import numpy as np
import pytest

from pipeline.dataset import chunks as chunks_module
from pipeline.dataset.array import nearest_levels, open_array
from pipeline.dataset.pixels import Conversion
from pipeline.errors import UserError

AS_FOUND = Conversion("keep", None)
RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (12, 9, 7), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (12, 9, 7, 3), dtype=np.uint8)


def read(path, conversion=AS_FOUND):
    parts = list(open_array(path, conversion).chunks)
    return np.concatenate([part.images for part in parts]), max(part.rounding_error for part in parts)


def saved(folder, array, name="a.npy"):
    np.save(folder / name, array)
    return folder / name


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, GREY[:, None]),
        (GREY[..., None], GREY[:, None]),
        (COLOUR, COLOUR.transpose(0, 3, 1, 2)),
        (GREY[:, :7].reshape(12, 49), GREY[:, None, :7]),
    ],
)
def test_every_layout_becomes_channels_first(tmp_path, array, expected):
    np.testing.assert_array_equal(read(saved(tmp_path, array))[0], expected)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_array_named_images_is_read_from_npz(tmp_path, save):
    save(tmp_path / "a.npz", other=np.zeros(3), images=GREY)
    np.testing.assert_array_equal(read(tmp_path / "a.npz")[0], GREY[:, None])


def test_the_only_array_of_an_npz_needs_no_name(tmp_path):
    np.savez(tmp_path / "a.npz", digits=GREY)
    np.testing.assert_array_equal(read(tmp_path / "a.npz")[0], GREY[:, None])


def test_rows_are_read_in_chunks_and_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks_module, "CHUNK_BYTES", 5 * GREY[0].nbytes)
    source = open_array(saved(tmp_path, GREY), AS_FOUND)
    parts = [chunk.images for chunk in source.chunks]
    assert [len(part) for part in parts] == [5, 5, 2]
    np.testing.assert_array_equal(np.concatenate(parts), GREY[:, None])


def test_rows_without_a_square_take_their_shape_from_image_size(tmp_path):
    path = saved(tmp_path, GREY.reshape(12, 63))
    np.testing.assert_array_equal(read(path, Conversion("keep", (9, 7)))[0], GREY[:, None])
    with pytest.raises(UserError, match=r"rows of 63 values.*prepare\.image_size"):
        read(path)


def test_labels_of_any_kind_become_class_indices(tmp_path):
    for labels, names in (([3, -1, 3, 7], ("-1", "3", "7")), (["b", "a", "b", "c"], ("a", "b", "c"))):
        np.savez(tmp_path / "a.npz", images=GREY[:4], labels=np.array(labels))
        source = open_array(tmp_path / "a.npz", AS_FOUND)
        assert source.classes == names
        np.testing.assert_array_equal(next(source.chunks).labels, [1, 0, 1, 2])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_floats_become_the_nearest_levels(tmp_path, dtype):
    levels, error = read(saved(tmp_path, (GREY / 255).astype(dtype)))
    np.testing.assert_array_equal(levels, GREY[:, None])
    assert error < 1e-3


def test_the_rounding_error_is_the_largest_one():
    levels, error = nearest_levels(np.array([0.0, 1.0, 10.5 / 255, 20.25 / 255]))
    assert levels.tolist()[:2] == [0, 255]
    assert error == pytest.approx(0.5 / 255)


@pytest.mark.parametrize(("value", "told"), [(np.nan, "nan"), (1.5, "1.5"), (-0.25, "-0.25"), (np.inf, "inf")])
def test_a_float_outside_the_unit_range_is_named_with_its_place(tmp_path, monkeypatch, value, told):
    monkeypatch.setattr(chunks_module, "CHUNK_BYTES", 1000)
    array = np.full((12, 9, 7), 0.5, np.float32)
    array[11, 2, 3] = value
    with pytest.raises(UserError, match=rf"a\.npy: value at \[11, 2, 3\] is {told}; expected floats in \[0, 1\]"):
        read(saved(tmp_path, array))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 4, 4), np.int64), "holds int64; expected uint8"),
        (np.zeros((5, 4, 4), bool), "holds bool; expected uint8"),
        (np.zeros((5, 4, 4), complex), "holds complex128; expected uint8"),
        (np.zeros(5, np.uint8), r"has shape \[5\]; expected \[n, H, W\]"),
        (np.uint8(3), r"has shape \[\]; expected"),
        (np.zeros((5, 4, 4, 2), np.uint8), r"has shape \[5, 4, 4, 2\]; expected"),
        (np.zeros((5, 3, 4, 4), np.uint8), r"has shape \[5, 3, 4, 4\]; expected"),
        (np.zeros((5, 1, 4, 4, 1), np.uint8), "has shape .*; expected"),
        (np.zeros((0, 4, 4), np.uint8), r"has shape \[0, 4, 4\]; expected at least one image"),
        (np.zeros((5, 0, 4), np.uint8), "expected at least one image, and one pixel"),
        (np.array([[[None]]]), "holds Python objects"),
        (np.asfortranarray(GREY), "is in Fortran order"),
        (np.zeros((5, 4), [("a", "u1")]), "expected uint8"),
    ],
)
def test_an_array_of_another_kind_is_refused_in_one_line(tmp_path, array, message):
    with pytest.raises(UserError, match=message) as caught:
        read(saved(tmp_path, array))
    assert "\n" not in str(caught.value)


def test_a_broken_file_is_refused_in_one_line(tmp_path):
    whole = saved(tmp_path, GREY).read_bytes()
    np.savez_compressed(tmp_path / "whole.npz", images=GREY)
    archive = (tmp_path / "whole.npz").read_bytes()
    damaged = bytearray(archive)
    damaged[200:260] = bytes(60)
    broken = {
        "short.npy": whole[:-1],
        "long.npy": whole + b"x",
        "header.npy": whole[:20],
        "empty.npy": b"",
        "text.npy": b"hello",
        "pickle.npy": b"\x80\x04K\x01.",
        "short.npz": archive[:-30],
        "damaged.npz": bytes(damaged),
        "text.npz": b"hello",
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", ["(12, 9, 8)", "(10**9,)", "(99999999999, 9, 7)", "(-12, -9, 7)", "((((((", "  (1,"])
def test_a_header_that_lies_is_refused_before_anything_is_read(tmp_path, shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + GREY.tobytes()
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", content)
    (tmp_path / "a.npy").write_bytes(content)
    for name in ("a.npz", "a.npy"):
        with pytest.raises(UserError, match=name) as caught:
            open_array(tmp_path / name, AS_FOUND)
        assert "\n" not in str(caught.value)


def test_a_header_longer_than_any_array_needs_is_refused_before_it_is_read(tmp_path):
    content = b"\x93NUMPY\x02\x00" + (2**24).to_bytes(4, "little") + b" " * 2**24
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", content)
    (tmp_path / "a.npy").write_bytes(content)
    del content
    for name in ("a.npz", "a.npy"):
        tracemalloc.start()
        with pytest.raises(UserError, match=rf"{name}.*a header of 16,777,216 bytes; expected at most") as caught:
            open_array(tmp_path / name, AS_FOUND)
        assert "\n" not in str(caught.value)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()


def test_labels_of_no_bytes_are_refused(tmp_path):
    header = b"{'descr': '<U0', 'fortran_order': False, 'shape': (12,), }\n"
    np.savez(tmp_path / "a.npz", images=GREY)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("labels.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(UserError, match=r"a\.npz\[labels\]: holds <U0, of 0 bytes each; expected an"):
        open_array(tmp_path / "a.npz", AS_FOUND)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": GREY, "b": GREY}, "holds the arrays a, b; expected one, or one named images"),
        ({}, r"holds the arrays \(none\)"),
        ({"images": GREY, "labels": np.zeros(3, int)}, r"holds int64 \[3\]; expected \[12\] whole numbers"),
        ({"images": GREY, "labels": np.zeros(12)}, "holds float64"),
        ({"images": GREY, "labels": np.array([None] * 12)}, "holds Python objects"),
    ],
)
def test_an_archive_of_other_content_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize(("name", "message"), [("no.npy", "not found"), ("a.png", "expected a .npy or .npz file")])
def test_a_path_that_is_no_array_is_refused(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


def peak_while_reading(path):
    tracemalloc.start()
    for _ in open_array(path, AS_FOUND).chunks:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_memory_does_not_grow_with_the_array(tmp_path, monkeypatch, save):
    monkeypatch.setattr(chunks_module, "CHUNK_BYTES", 2**16)
    for count in (1000, 20000):
        labels = np.where(np.arange(count) % 2, "cat", "a dog of 16 char")
        save(tmp_path / f"{count}.npz", images=np.full((count, 16, 16), 0.5, np.float32), labels=labels)
    peak_while_reading(tmp_path / "1000.npz")
    few, many = peak_while_reading(tmp_path / "1000.npz"), peak_while_reading(tmp_path / "20000.npz")
    assert many < 1.5 * few
