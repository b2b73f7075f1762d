import numpy as np
import pytest
from PIL import Image

from pipeline.dataset.folder import open_folder
from pipeline.dataset.pixels import Conversion
from pipeline.errors import UserError


def put(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), level, np.uint8)).save(path, format="PNG")


def read(folder):
    source = open_folder(folder, Conversion("keep", None), "stop")
    chunks = list(source.chunks)
    levels = np.concatenate([chunk.images[:, 0, 0, 0] for chunk in chunks])
    labels = [chunk.labels for chunk in chunks]
    return source, levels.tolist(), None if labels[0] is None else np.concatenate(labels).tolist()


def test_a_flat_folder_has_no_classes_and_is_read_by_name(tmp_path):
    for name, level in (("b.png", 2), ("a.jpeg", 1), ("c", 3)):
        put(tmp_path / name, level)
    source, levels, labels = read(tmp_path)
    assert (source.count, source.classes, levels, labels) == (3, None, [1, 2, 3], None)


def test_subfolders_are_classes_in_the_order_of_their_names(tmp_path):
    for name, level in (("dog/a.png", 1), ("cat/b.png", 2), ("cat/a.png", 3), ("eel/z.png", 4)):
        put(tmp_path / name, level)
    source, levels, labels = read(tmp_path)
    assert (source.classes, levels, labels) == (("cat", "dog", "eel"), [3, 2, 1, 4], [0, 0, 1, 2])


def test_hidden_files_and_folders_are_ignored(tmp_path):
    put(tmp_path / "a.png", 1)
    put(tmp_path / ".thumbnails/a.png", 2)
    (tmp_path / ".DS_Store").write_text("")
    assert read(tmp_path)[1] == [1]


def test_links_to_files_outside_are_followed(tmp_path):
    put(tmp_path / "cache/0f3a", 7)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").symlink_to(tmp_path / "cache/0f3a")
    assert read(tmp_path / "images")[1] == [7]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "holds no images; expected PNG, JPEG, WebP or BMP files"),
        ([".hidden.png"], "holds no images"),
        (["a.png", "cat/b.png"], r"a\.png: lies beside subfolders such as cat; expected"),
        (["cat/b.png", "dog/kennel/b.png"], "kennel: is a folder in a class's folder"),
        (["cat/b.png", "dog/.hidden"], "dog: holds no images"),
    ],
)
def test_a_folder_of_another_layout_is_refused(tmp_path, files, message):
    for name in files:
        put(tmp_path / name, 0)
    with pytest.raises(UserError, match=message):
        open_folder(tmp_path, Conversion("keep", None), "skip")


def test_what_is_no_image_beside_classes_is_told_as_what_is_none_in_one(tmp_path):
    for place in ("", "cat/"):
        folder = tmp_path / f"in-{place}"
        put(folder / "cat/b.png", 0)
        (folder / place / "LICENSE").write_text("All rights reserved")
        with pytest.raises(UserError) as caught:
            read(folder)
        assert str(caught.value) == (
            f"{folder / place / 'LICENSE'}: not a PNG, JPEG, WebP or BMP image; expected an image "
            "(prepare.on_bad_image: skip leaves such files out)"
        )


def test_what_is_no_image_beside_classes_is_skipped_and_listed_on_demand(tmp_path):
    for name, level in (("cat/a.png", 1), ("dog/a.png", 2)):
        put(tmp_path / name, level)
    (tmp_path / "labels.csv").write_text("a,b")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone")
    source = open_folder(tmp_path, Conversion("keep", None), "skip")
    (chunk,) = source.chunks
    assert (source.count, source.classes) == (5, ("cat", "dog"))
    assert (chunk.images[:, 0, 0, 0].tolist(), chunk.labels.tolist()) == ([1, 2], [0, 1])
    assert [skipped.file for skipped in chunk.skipped] == [
        str(tmp_path / name) for name in ("empty.png", "labels.csv", "nowhere.png")
    ]


def test_a_missing_folder_and_a_file_are_refused(tmp_path):
    put(tmp_path / "a.png", 0)
    for name, found in (("nowhere", "not found"), ("a.png", "a file")):
        with pytest.raises(UserError, match=f"prepare.path: .*{name} is {found}; expected a folder"):
            open_folder(tmp_path / name, Conversion("keep", None), "stop")


def test_a_class_whose_name_is_no_utf_8_is_refused(tmp_path):
    put(tmp_path / "cat/a.png", 0)
    put(tmp_path / "caf\udce9/a.png", 1)
    with pytest.raises(UserError, match=r"caf\\udce9': is no UTF-8; expected the name of a class in UTF-8$"):
        open_folder(tmp_path, Conversion("keep", None), "stop")


def test_a_name_with_a_line_break_is_told_on_one_line(tmp_path):
    put(tmp_path / "a.png", 0)
    (tmp_path / "b\nc.png").write_text("hello")
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
    assert r"b\nc.png" in str(caught.value)
