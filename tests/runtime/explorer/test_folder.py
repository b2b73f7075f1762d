import json
import re
import shutil

import httpx
import pytest
from explorer import Explorer, serve_folder, serve_model

from pipeline import cli
from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.runtime.explorer import IN_FOLDER, ON_SERVER, read_page_file
from pipeline.runtime.explorer.folder import RUNTIME, write_explorer
from pipeline.runtime.manifest import read_manifest

STOPPED = "document.getElementById('stopped')?.hidden === false"


@pytest.fixture
def dist_stub(tmp_path):
    """Files of the right names, for what does not run them."""
    for name in RUNTIME:
        (tmp_path / "dist").mkdir(exist_ok=True)
        (tmp_path / "dist" / name).write_bytes(name.encode())
    return tmp_path / "dist"


def test_the_folder_holds_the_page_the_model_and_the_runtime(mlp, dist_stub, tmp_path):
    write_explorer(tmp_path / "site", mlp.folder, dist_stub)
    names = {*IN_FOLDER, "backend.js", "README.txt", "manifest.json", *RUNTIME, *mlp.files}
    assert {path.name for path in (tmp_path / "site").iterdir()} == names
    assert read_manifest(tmp_path / "site").read("scorer.onnx") == mlp.files["scorer.onnx"]
    assert "onnx.js" in (tmp_path / "site" / "backend.js").read_text()


def test_without_the_runtime_the_folder_says_which_files_it_lacks(mlp, tmp_path):
    write_explorer(tmp_path / "site", mlp.folder)
    notice = (tmp_path / "site" / "README.txt").read_text()
    assert all(name in notice for name in RUNTIME)
    assert not any((tmp_path / "site" / name).exists() for name in RUNTIME)


def test_files_that_the_page_does_not_run_stay_away(mlp, tmp_path):
    model = shutil.copytree(mlp.folder, tmp_path / "export")
    content = read_json(model / "manifest.json")
    content["files"]["decoder.int8.onnx"] = content["files"]["decoder.onnx"]
    content["other_files"] = {"triton/decoder/1/model.onnx": content["files"]["decoder.onnx"]}
    (model / "manifest.json").write_text(json.dumps(content))
    shutil.copy(model / "decoder.onnx", model / "decoder.int8.onnx")
    write_explorer(tmp_path / "site", model)
    kept = read_manifest(tmp_path / "site")
    assert (set(kept.sha256), kept.others) == (set(mlp.files), {})
    assert not (tmp_path / "site" / "decoder.int8.onnx").exists()


def test_a_folder_that_holds_something_is_left_alone(mlp, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="already there; expected a folder that is new or empty"):
        write_explorer(tmp_path, mlp.folder)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_nothing_is_written_where_a_file_is_missing_or_damaged(mlp, dist_stub, tmp_path):
    (dist_stub / RUNTIME[1]).unlink()
    with pytest.raises(UserError, match=rf"{RUNTIME[1]}: cannot be read .*; expected it in onnxruntime-web's dist/"):
        write_explorer(tmp_path / "site", mlp.folder, dist_stub)
    model = shutil.copytree(mlp.folder, tmp_path / "export")
    (model / "decoder.onnx").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"decoder.onnx: sha256 is"):
        write_explorer(tmp_path / "site", model)
    assert not (tmp_path / "site").exists()


def test_the_command_writes_the_folder_and_says_what_it_lacks(mlp, dist_stub, tmp_path, capsys):
    arguments = ["--model", str(mlp.folder), "--runtime", str(dist_stub)]
    for folder, given in ((tmp_path / "a", arguments), (tmp_path / "b", arguments[:2])):
        with pytest.raises(SystemExit, match="0"):
            cli.main(["explorer", str(folder), *given])
        assert (folder / "index.html").is_file()
    whole, lacking = capsys.readouterr().out.splitlines()
    assert whole == f"wrote {tmp_path / 'a'}: the explorer of {mlp.folder}, for any web server"
    assert lacking.endswith(f"put {RUNTIME[0]} and {RUNTIME[1]} of onnxruntime-web's dist/ into it")


def test_the_page_says_which_files_of_the_runtime_are_missing(tab, mlp, tmp_path):
    write_explorer(tmp_path / "site", mlp.folder)
    with serve_folder(tmp_path / "site") as address:
        page = Explorer(tab, address)
        tab.until(STOPPED)
        assert page.text("#stopped").startswith("onnxruntime-web is not in this folder")
        assert all(name in page.text("#stopped") for name in RUNTIME)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "worker.js: could not be loaded from the web server"),
        ("throw new Error('of another time');", "worker.js: Uncaught Error: of another time"),
    ],
)
def test_the_page_says_that_its_worker_does_not_run(tab, mlp, dist_stub, tmp_path, script, message):
    write_explorer(tmp_path / "site", mlp.folder, dist_stub)
    (tmp_path / "site" / "worker.js").unlink()
    if script:
        (tmp_path / "site" / "worker.js").write_text(script)
    with serve_folder(tmp_path / "site") as address:
        page = Explorer(tab, address)
        tab.until(STOPPED)
        assert page.text("#stopped") == message
        tab.problems.clear()  # the browser names a file that it does not get


def test_the_page_refuses_a_file_that_is_not_the_one_of_the_manifest(tab, mlp, dist, tmp_path):
    write_explorer(tmp_path / "site", mlp.folder, dist)
    with (tmp_path / "site" / "decoder.onnx").open("ab") as file:
        file.write(b"\0")
    with serve_folder(tmp_path / "site") as address:
        page = Explorer(tab, address)
        tab.until(STOPPED)
        assert page.text("#stopped") == "decoder.onnx: has another sha256 than manifest.json lists"


@pytest.mark.parametrize("name", sorted({*ON_SERVER, *IN_FOLDER}))
def test_the_page_names_no_other_host_and_no_inline_script(name):
    text = read_page_file(name).decode()
    assert not re.search(r"""\w+://(?!\))|["'(]//""", text.replace("file://", ""))
    assert not re.search(r"""<[^>]+\s(on\w+|style)=""", text)
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)


def test_the_server_sends_a_policy_that_lets_nothing_else_run(sampler):
    with serve_model(sampler) as address:
        policy = httpx.get(address).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
