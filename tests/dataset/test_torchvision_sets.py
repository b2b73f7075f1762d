import hashlib
import os
import socket
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
import torchvision.datasets as published
from cifar import put_cifar
from PIL import Image

from pipeline.dataset.pixels import Conversion
from pipeline.dataset.torchvision_sets import NAMES, open_torchvision
from pipeline.errors import UserError

AS_FOUND = Conversion("keep", None)
SHARED = Path(os.environ.get("VAE_TEST_DATA", Path(__file__).parents[3] / "shared/data"))
RANDOM = np.random.default_rng(0)
DIGITS = RANDOM.integers(0, 256, (20, 6, 5), dtype=np.uint8)
LABELS = np.arange(20) % 10


def put_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())


def put_mnist(raw, train="train", test="t10k"):
    for name, part in ((train, slice(0, 15)), (test, slice(15, 20))):
        put_idx(raw / f"{name}-images-idx3-ubyte", DIGITS[part])
        put_idx(raw / f"{name}-labels-idx1-ubyte", LABELS[part])


def read(name, root, conversion=AS_FOUND):
    source = open_torchvision(name, root, conversion, "stop")
    return source, list(source.chunks)


def assert_standard_splits(chunks, images):
    assert [chunk.splits for chunk in chunks] == [("train", "val"), ("test",)]
    np.testing.assert_array_equal(np.concatenate([chunk.images for chunk in chunks]), images)
    np.testing.assert_array_equal(np.concatenate([chunk.labels for chunk in chunks]), LABELS)


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_idx_files_are_read_where_they_lie(tmp_path, name, folder):
    put_mnist(tmp_path / folder / "raw")
    source, chunks = read(name, tmp_path)
    assert (source.count, len(source.classes)) == (20, 10)
    assert_standard_splits(chunks, DIGITS[:, None])


def test_emnist_is_put_upright(tmp_path):
    put_mnist(tmp_path / "EMNIST/raw", "emnist-balanced-train", "emnist-balanced-test")
    source, chunks = read("emnist", tmp_path)
    assert len(source.classes) == 47
    assert_standard_splits(chunks, DIGITS.swapaxes(1, 2)[:, None])


def test_svhn_is_read_where_it_lies(tmp_path, monkeypatch):
    images = RANDOM.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    sums = {}
    for split, part in (("train", slice(0, 15)), ("test", slice(15, 20))):
        path = tmp_path / f"{split}_32x32.mat"
        stored_labels = np.where(LABELS == 0, 10, LABELS)[part, None].astype(np.uint8)
        scipy.io.savemat(path, {"X": images[part].transpose(2, 3, 1, 0), "y": stored_labels})
        sums[split] = ["", path.name, hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()]
    monkeypatch.setattr(published.SVHN, "split_list", sums)
    source, chunks = read("svhn", tmp_path)
    assert source.classes == tuple("0123456789")
    assert_standard_splits(chunks, images)


def put_both_splits(folder, monkeypatch, images):
    put_cifar(folder, monkeypatch, (images[:15], LABELS[:15]), (images[15:], LABELS[15:]))


def test_cifar10_is_read_where_it_lies(tmp_path, monkeypatch):
    images = RANDOM.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    put_both_splits(tmp_path / "cifar-10-batches-py", monkeypatch, images)
    source, chunks = read("cifar10", tmp_path)
    assert source.classes[3] == "class 3"
    assert_standard_splits(chunks, images)


def test_a_pickle_with_another_checksum_is_never_opened(tmp_path, monkeypatch, offline):
    put_both_splits(tmp_path / "cifar-10-batches-py", monkeypatch, np.zeros((20, 3, 32, 32), np.uint8))
    monkeypatch.setattr(published.cifar.pickle, "load", lambda *_, **__: pytest.fail("was opened"))
    with (tmp_path / "cifar-10-batches-py/a").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="cifar-10-batches-py"):
        read("cifar10", tmp_path)


def test_celeba_keeps_its_three_splits(tmp_path, monkeypatch):
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    lines = []
    for i in range(6):
        name = f"{i:06d}.jpg"
        Image.new("RGB", (6, 8), (40 * i, 0, 0)).save(folder / "img_align_celeba" / name)
        lines.append(f"{name} {i // 2}\n")
    (folder / "list_eval_partition.txt").write_text("".join(lines))
    for name in ("list_attr_celeba", "identity_CelebA", "list_bbox_celeba", "list_landmarks_align_celeba"):
        (folder / f"{name}.txt").write_text(
            "2\nh\n" * (name != "identity_CelebA") + "".join(f"{i:06d}.jpg 1\n" for i in range(6))
        )
    monkeypatch.setattr(published.CelebA, "file_list", [(a, None, name) for a, _, name in published.CelebA.file_list])
    source, chunks = read("celeba", tmp_path, Conversion("keep", (4, 3)))
    assert (source.count, source.classes) == (6, None)
    assert [(chunk.splits, chunk.images.shape) for chunk in chunks] == [
        ((split,), (2, 3, 4, 3)) for split in ("train", "val", "test")
    ]
    reds = np.concatenate([chunk.images[:, 0].mean(axis=(1, 2)) for chunk in chunks])
    np.testing.assert_allclose(reds, 40 * np.arange(6), atol=3)


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise URLError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_network_the_error_says_what_to_put_where(tmp_path, name, offline, capsys):
    root = tmp_path / "sets"
    with pytest.raises(UserError, match=rf"prepare\.source {name}: .*; offline, put .* under {root}") as caught:
        read(name, root)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""
    assert socket.getdefaulttimeout() is None


def test_a_download_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    def first_file_only(url, download_root, filename, md5):
        if "labels" in filename:
            raise ConnectionResetError("connection reset")
        put_idx(Path(download_root) / filename.removesuffix(".gz"), DIGITS)

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", first_file_only)
    with pytest.raises(UserError, match=r"mnist: not in .* \(connection reset\)"):
        read("mnist", tmp_path / "sets")
    assert list(tmp_path.iterdir()) == []


def test_a_download_is_moved_to_its_place_beside_what_lies_there(tmp_path, monkeypatch):
    def all_files(url, download_root, filename, md5):
        put_mnist(Path(download_root))

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", all_files)
    put_mnist(tmp_path / "KMNIST/raw")
    put_idx(tmp_path / "MNIST/raw/train-images-idx3-ubyte", DIGITS[:1])  # what an earlier break left behind
    _, chunks = read("mnist", tmp_path)
    assert_standard_splits(chunks, DIGITS[:, None])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["KMNIST", "MNIST"]


@pytest.mark.parametrize("cut", [0, 3, 10, 100])
def test_a_truncated_file_is_named_not_downloaded_over(tmp_path, cut):
    put_mnist(tmp_path / "MNIST/raw")
    with (tmp_path / "MNIST/raw/train-images-idx3-ubyte").open("r+b") as file:
        file.truncate(cut)
    with pytest.raises(UserError, match=r"mnist: .* holds broken files"):
        read("mnist", tmp_path)


def test_labels_that_do_not_fit_their_images_are_refused(tmp_path):
    for labels in (LABELS[:7], LABELS[:15] + 3):
        put_mnist(tmp_path / "MNIST/raw")
        put_idx(tmp_path / "MNIST/raw/train-labels-idx1-ubyte", labels)
        with pytest.raises(UserError, match="expected one label below 10 per image"):
            read("mnist", tmp_path)


@pytest.mark.skipif(not (SHARED / "MNIST/raw").is_dir(), reason=f"the full MNIST is not in {SHARED}")
def test_the_real_mnist_has_its_published_sizes():
    source, chunks = read("mnist", SHARED)
    assert source.count == 70_000
    assert sum(len(chunk.images) for chunk in chunks if chunk.splits == ("test",)) == 10_000
    assert np.concatenate([chunk.labels for chunk in chunks])[:5].tolist() == [5, 0, 4, 1, 9]
