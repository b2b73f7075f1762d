"""The examples for Node and for the browser: the images of Python, and one line for what is wrong."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samplers import assert_same_images, with_classes

from pipeline.runtime.noise import INDEX_LIMIT, SEED_LIMIT

EXAMPLES = Path(__file__).parents[2] / "examples"
EXPECTED_BY_PAGE = {
    "seed": f"a whole number from 0 to {SEED_LIMIT - 1}",
    "count": "a whole number from 1 to 256",
    "temperature": "a number from 0 to 3",
}


def test_node_example_writes_the_images_of_python(node_example, model, tmp_path):
    done = run_node_example(
        node_example, model.folder / "sampler.onnx", tmp_path / "grid.png", "--seed=7", "--count=9", "--first=40"
    )
    assert not done.returncode, done.stderr
    height, width, channels = model.sampler.image_shape
    grid = np.asarray(Image.open(tmp_path / "grid.png")).reshape(3, height, 3, width, channels).swapaxes(1, 2)
    assert_same_images(grid.reshape(9, height, width, channels), model.sampler.sample(9, seed=7, first=40))


@pytest.mark.parametrize(
    "argument",
    [
        "--seed=-1",
        f"--seed={SEED_LIMIT}",
        "--seed=1.5",
        "--count=0",
        "--count=100001",
        f"--first={INDEX_LIMIT}",
        "--temperature=-1",
        "--temperature=1001",
        "--temperature=nan",
        "--temperature=",
    ],
)
def test_node_example_refuses_what_the_sampler_cannot_draw(node_example, mlp, tmp_path, argument):
    done = run_node_example(node_example, mlp.folder / "sampler.onnx", tmp_path / "grid.png", argument)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {argument.split('=')[0]} is ")
    assert not (tmp_path / "grid.png").exists()


def test_node_example_says_what_is_wrong_with_a_file(node_example, mlp, tmp_path):
    decoder = mlp.folder / "decoder.onnx"
    done = run_node_example(node_example, decoder, tmp_path / "grid.png")
    assert done.returncode == 2
    assert done.stderr == f"error: {decoder}: its inputs are z; expected a sampler.onnx of a model without classes\n"
    assert not (tmp_path / "grid.png").exists()


def test_node_example_says_that_it_draws_no_classes(node_example, mlp, tmp_path):
    conditional = tmp_path / "sampler.onnx"
    conditional.write_bytes(with_classes(mlp))
    done = run_node_example(node_example, conditional, tmp_path / "grid.png")
    assert done.returncode == 2
    inputs = "seed,index,temperature,label"
    assert (
        done.stderr
        == f"error: {conditional}: its inputs are {inputs}; expected a sampler.onnx of a model without classes\n"
    )


@pytest.mark.parametrize("content", [None, b"", b"no model", slice(-50)], ids=["missing", "empty", "text", "truncated"])
def test_node_example_says_that_a_file_is_no_model(node_example, mlp, tmp_path, content):
    file = tmp_path / "sampler.onnx"
    if content is not None:
        file.write_bytes(mlp.files["sampler.onnx"][content] if isinstance(content, slice) else content)
    done = run_node_example(node_example, file, tmp_path / "grid.png")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {file}: is missing or is no ONNX file (")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "grid.png").exists()


def test_web_example_shows_the_images_of_python(browse, model):
    seen = browse("app_page.html", {"sampler.onnx": (model.folder / "sampler.onnx").read_bytes()})
    assert seen["errors"] == []
    assert seen["first"]["status"] == "16 images of seed 7"
    assert_shows(seen["first"]["images"], model.sampler.sample(16, seed=7))
    assert_shows(seen["edge"]["images"], model.sampler.sample(5, seed=SEED_LIMIT - 1))
    for asked, status in seen["refused"].items():
        name, _, value = asked.partition("=")
        assert status == f"No images: {name} is {value or 'NaN'}; expected {EXPECTED_BY_PAGE[name]}"
    assert len(seen["refused"]) == 9


@pytest.mark.parametrize(
    ("choose", "reason"),
    [
        (lambda mlp: mlp.files["sampler.onnx"][:-50], "sampler.onnx is missing or is no ONNX file ("),
        (lambda mlp: mlp.files["decoder.onnx"], "the inputs of sampler.onnx are z; expected a sampler.onnx"),
    ],
    ids=["truncated", "another"],
)
def test_web_example_says_what_is_wrong_with_a_file(browse, mlp, choose, reason):
    seen = browse("app_page.html", {"sampler.onnx": choose(mlp)})
    assert seen["first"]["images"] == []
    assert seen["first"]["status"].startswith(f"No images: {reason}")
    assert "\n" not in seen["first"]["status"]


def assert_shows(canvases, images):
    shape = {(canvas["height"], canvas["width"]) for canvas in canvases}
    assert shape == {images.shape[1:3]}
    shown = np.array([canvas["rgba"] for canvas in canvases]).reshape(*images.shape[:3], 4)
    assert (shown[..., 3] == 255).all()
    assert_same_images(shown[..., :3], np.broadcast_to(images, (*images.shape[:3], 3)))


# What is fetched


@pytest.mark.parametrize("name", ["node", "web"])
def test_lock_files_name_no_host_and_pin_what_they_fetch(name):
    lock = (EXAMPLES / name / "package-lock.json").read_text()
    assert "://" not in lock
    packages = json.loads(lock)["packages"]
    wanted = packages.pop("")["dependencies"]
    assert wanted == json.loads((EXAMPLES / name / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"[0-9.]+", version) for version in wanted.values())
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())


def test_page_names_no_other_host():
    page = "".join((EXAMPLES / "web" / name).read_text() for name in ("index.html", "app.mjs", "style.css"))
    assert not re.search(r"""\w://|["'(]//""", page)


def run_node_example(folder, *arguments):
    command = ["node", "sample.mjs", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
