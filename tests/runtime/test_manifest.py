import shutil

import pytest

from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.runtime.manifest import read_manifest


@pytest.fixture
def folder(mlp, tmp_path):
    return shutil.copytree(mlp.folder, tmp_path / "export")


def test_the_manifest_lists_each_file_with_its_size_and_interface(mlp):
    content = read_json(mlp.folder / "manifest.json")
    assert list(content["files"]) == ["sampler.onnx", "decoder.onnx", "encoder.onnx", "scorer.onnx"]
    decoder = content["files"]["decoder.onnx"]
    assert decoder["bytes"] == len(mlp.files["decoder.onnx"])
    assert decoder["inputs"] == [{"name": "z", "dtype": "float32", "shape": ["n", 3]}]
    assert content["metadata"]["mlflow_run"] == "8f14e45f"


def test_a_verified_file_is_given_whole(mlp):
    assert read_manifest(mlp.folder).read("decoder.onnx") == mlp.files["decoder.onnx"]


def test_a_changed_file_is_refused(folder):
    content = bytearray((folder / "decoder.onnx").read_bytes())
    content[-1] ^= 1
    (folder / "decoder.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"decoder.onnx: sha256 is .*; manifest.json expects"):
        read_manifest(folder).read("decoder.onnx")


def test_the_repository_for_triton_is_listed_and_its_models_are_the_files_themselves(mlp):
    manifest = read_manifest(mlp.folder)
    listed = {path.relative_to(mlp.folder / "triton").as_posix() for path in (mlp.folder / "triton").rglob("*.*")}
    assert {f"triton/{name}" for name in listed} == set(manifest.others)
    for name, content in mlp.files.items():
        assert manifest.read(f"triton/{name.removesuffix('.onnx')}/1/model.onnx") == content


def test_a_manifest_without_other_files_is_read(folder):
    content = read_json(folder / "manifest.json")
    del content["other_files"]
    write_json(folder / "manifest.json", content)
    assert read_manifest(folder).others == {}


def test_a_missing_and_an_unlisted_file_are_named(folder):
    (folder / "decoder.onnx").unlink()
    with pytest.raises(UserError, match=r"decoder.onnx: cannot be read .*; manifest.json lists it"):
        read_manifest(folder).read("decoder.onnx")
    with pytest.raises(UserError, match=r"lists no upscaler.onnx; expected one of sampler.onnx, decoder.onnx"):
        read_manifest(folder).read("upscaler.onnx")


@pytest.mark.parametrize(
    "name",
    ["../decoder.onnx", "/etc/passwd", "a/b.onnx", "..", "", "..\\decoder.onnx", "C:x", "a\0b", "a\nb", "a\ud800b"],
)
def test_a_name_that_leaves_the_folder_is_refused(folder, name):
    content = read_json(folder / "manifest.json")
    content["files"][name] = content["files"]["decoder.onnx"]
    write_json(folder / "manifest.json", content)
    with pytest.raises(UserError, match="expected a plain name inside its folder"):
        read_manifest(folder)


@pytest.mark.parametrize(
    "name",
    [
        "triton/../../x",
        "/etc/passwd",
        "triton//x",
        "..",
        "",
        "triton\\..\\x",
        "triton/C:x",
        "triton/a\0b",
        "triton/a\ud800b",
    ],
)
def test_a_path_that_leaves_the_folder_is_refused(folder, name):
    content = read_json(folder / "manifest.json")
    content["other_files"][name] = content["files"]["decoder.onnx"]
    write_json(folder / "manifest.json", content)
    with pytest.raises(UserError, match="expected a plain name inside its folder"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other/1"}, "format is 'other/1'; expected 'vae-pipeline/1'"),
        ({"files": []}, "files is list; expected an object"),
        ({"files": {}}, "files is dict; expected an object with an entry"),
        ({"files": {"a.onnx": {"sha256": 7}}}, r": files.a.onnx.sha256 is 7; expected 64 hexadecimal digits"),
        ({"files": {"a.onnx": "x"}}, "files.a.onnx.sha256 is None"),
        ({"other_files": ["a"]}, "other_files is list; expected an object with an entry for each file"),
        ({"other_files": {"a/b.c": {}}}, ": other_files.a/b.c.sha256 is None"),
    ],
)
def test_a_malformed_manifest_is_answered_in_one_line(folder, change, message):
    write_json(folder / "manifest.json", read_json(folder / "manifest.json") | change)
    with pytest.raises(UserError, match=message):
        read_manifest(folder)
