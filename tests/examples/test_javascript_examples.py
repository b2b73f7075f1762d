"""The same graphs in onnxruntime-node, and in onnxruntime-web under Node and in Chromium."""

import functools
import itertools
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.graphs.noise import noise_model
from pipeline.runtime.noise import INDEX_LIMIT, SEED_LIMIT, random_integers, standard_normal

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
LATENT_DIM = 5
EDGE_SEEDS = [0, 1, 2**31, 2**32, SEED_LIMIT - 1]
EDGE_INDICES = [0, 1, 2**31, 2**32, INDEX_LIMIT - 1]
PAIRS = np.array(list(itertools.product(EDGE_SEEDS, EDGE_INDICES)), np.int64)
RANDOM = np.random.default_rng(0).integers(0, [SEED_LIMIT - 1, INDEX_LIMIT], (500, 2))
SEED, INDEX = np.concatenate([PAIRS, RANDOM]).T


@pytest.fixture(params=["node", "web"])
def run_graph(request):
    """Runs a graph file under Node: in onnxruntime-node, or in the wasm of onnxruntime-web."""
    folder = request.getfixturevalue(f"{request.param}_example")
    return functools.partial(run_under_node, folder, f"onnxruntime-{request.param}")


@pytest.fixture(scope="session")
def noise_graph(tmp_path_factory):
    file = tmp_path_factory.mktemp("noise") / "noise.onnx"
    file.write_bytes(noise_model(LATENT_DIM, with_bits=True).SerializeToString())
    return file


# The generator


def test_words_are_equal_bit_for_bit_under_node(run_graph, noise_graph):
    (answer,) = run_graph(noise_graph, [tensors(seed=SEED, index=INDEX)])
    assert_same_noise(answer)


def test_words_are_equal_bit_for_bit_in_chromium(browse, noise_graph):
    requests = json.dumps([tensors(seed=SEED, index=INDEX)])
    report = browse("graph_page.html", {"graph.onnx": noise_graph.read_bytes(), "requests.json": requests.encode()})
    assert_same_noise(arrays(report["answers"][0]))


def assert_same_noise(answer):
    assert answer["bits"].dtype == np.uint64
    np.testing.assert_array_equal(answer["bits"], random_integers(SEED, INDEX, 2 * ((LATENT_DIM + 1) // 2)))
    np.testing.assert_allclose(answer["eps"], standard_normal(SEED, INDEX, LATENT_DIM), rtol=0, atol=3e-6)


# The sampler


def test_sampler_gives_the_images_of_python_under_node(run_graph, model):
    check_sampler(run_graph(model.folder / "sampler.onnx", sample_requests()), model.sampler)


def test_sampler_gives_the_images_of_python_in_chromium(browse, model):
    requests = json.dumps(sample_requests()).encode()
    graph = (model.folder / "sampler.onnx").read_bytes()
    report = browse("graph_page.html", {"graph.onnx": graph, "requests.json": requests})
    check_sampler([arrays(answer) for answer in report["answers"]], model.sampler)


def check_sampler(answers, sampler):
    """Ten images of seed 7 in one call, the same in two calls, and in another order."""
    whole, first, second, backwards = answers
    assert_same_images(whole["images"], sampler.sample(10, seed=7))
    np.testing.assert_allclose(whole["z"], sampler.latents(10, seed=7), rtol=0, atol=3e-6)
    for images in (np.concatenate([first["images"], second["images"]]), backwards["images"][::-1]):
        assert_same_images(images, whole["images"])


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
    ["--seed=-1", f"--seed={SEED_LIMIT}", "--seed=1.5", "--count=0", f"--first={INDEX_LIMIT}", "--temperature=-1"],
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


def test_web_example_shows_the_images_of_python(browse, model):
    seen = browse("app_page.html", {"sampler.onnx": (model.folder / "sampler.onnx").read_bytes()})
    assert seen["errors"] == []
    assert seen["first"]["status"] == "16 images of seed 7"
    assert_shows(seen["first"]["images"], model.sampler.sample(16, seed=7))
    assert_shows(seen["edge"]["images"], model.sampler.sample(5, seed=SEED_LIMIT - 1))
    assert seen["beyond"]["status"] == f"No images: seed is {SEED_LIMIT}; expected at most {SEED_LIMIT - 1}"


def assert_shows(canvases, images):
    shape = {(canvas["height"], canvas["width"]) for canvas in canvases}
    assert shape == {images.shape[1:3]}
    shown = np.array([canvas["rgba"] for canvas in canvases]).reshape(*images.shape[:3], 4)
    assert (shown[..., 3] == 255).all()
    assert_same_images(shown[..., :3], np.broadcast_to(images, (*images.shape[:3], 3)))


def assert_same_images(actual, expected):
    """Within one grey level, and nearly everywhere equal."""
    assert actual.shape == expected.shape
    difference = np.abs(actual.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


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


# Tensors between numpy and JavaScript


def sample_requests():
    return [sample_rows(index) for index in (range(10), range(4), range(4, 10), range(9, -1, -1))]


def sample_rows(index):
    index = np.array(index, np.int64)
    return tensors(seed=np.full_like(index, 7), index=index, temperature=np.ones(len(index), np.float32))


def tensors(**feeds):
    """Arrays as graphs.mjs takes them."""
    return {
        name: {"type": str(array.dtype), "dims": list(array.shape), "data": [str(value) for value in array.ravel()]}
        for name, array in feeds.items()
    }


def arrays(answer):
    """The outputs of graphs.mjs as arrays."""
    return {
        name: np.array([np.dtype(output["type"]).type(value) for value in output["data"]]).reshape(output["dims"])
        for name, output in answer.items()
    }


def run_under_node(folder, package, file, requests):
    command = ["node", "run.mjs", package, str(file)]
    done = subprocess.run(
        command, cwd=folder, input=json.dumps(requests), capture_output=True, text=True, timeout=120, check=False
    )
    assert not done.returncode, done.stderr
    return [arrays(answer) for answer in json.loads(done.stdout)]


def run_node_example(folder, *arguments):
    command = ["node", "sample.mjs", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
