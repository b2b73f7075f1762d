"""A conditional model, made by hand: no stage trains one."""

import dataclasses
import json

import numpy as np
import pytest
from explorer import Explorer, serve_folder, serve_model
from onnx import parser

from pipeline.files import write_json
from pipeline.graphs.manifest import build_manifest
from pipeline.graphs.onnx_export import finish
from pipeline.graphs.sampler import sampler_model
from pipeline.runtime import Sampler
from pipeline.runtime.explorer.folder import write_explorer

NAMES = ["night", "dusk", "day"]
LEVELS = np.array([0.2, 0.5, 0.8])

# Each class has a grey value of its own, to which z adds a little.
DECODER = """
<ir_version: 10, opset_import: ["" : 18]>
conditional (float[n, 24] z, int64[n] label) => (float[n, 1, 2, 2] x)
<float[3] levels = {0.2, 0.5, 0.8}, float small = {0.01}, int64[4] shape = {-1, 1, 1, 1}, int64[1] ones = {1},
 int64[4] square = {1, 1, 2, 2}>
{
    level = Gather(levels, label)
    sum = ReduceSum <keepdims = 0> (z, ones)
    added = Mul(sum, small)
    value = Add(level, added)
    pixel = Reshape(value, shape)
    x = Expand(pixel, square)
}
"""


@pytest.fixture(scope="module")
def model(mlp, tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditional")
    latent_kl = (1.0,) * 20 + (0.0,) * 4
    metadata = dataclasses.replace(mlp.metadata, latent_dim=24, image_shape=(1, 2, 2), latent_kl=latent_kl)
    graphs = {"sampler": sampler_model(parser.parse_model(DECODER), 24), "decoder": parser.parse_model(DECODER)}
    files = {
        f"{name}.onnx": finish(graph, dataclasses.replace(metadata, graph=name), {"labels": json.dumps(NAMES)})
        for name, graph in graphs.items()
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_json(folder / "manifest.json", build_manifest(files))
    return folder


@pytest.fixture(params=["server", "folder"])
def page(request, tab, model, tmp_path):
    if request.param == "server":
        serving = serve_model(Sampler(model, "cpu", threads=1))
    else:
        write_explorer(tmp_path / "site", model, request.getfixturevalue("dist"))
        serving = serve_folder(tmp_path / "site")
    with serving as address:
        yield Explorer(tab, address, "#seed=3&label=1").wait()


def shown_class(page, canvas="picture"):
    levels = page.pixels(canvas, 1) / 255
    return int(np.abs(LEVELS - levels.mean()).argmin())


def test_the_class_is_chosen_by_its_name(page):
    assert page.tab.run("[...document.querySelectorAll('#label option')].map((option) => option.text)") == NAMES
    assert shown_class(page) == 1
    page.enter("#label", 2)
    page.settle()
    assert shown_class(page) == 2
    assert "label=2" in page.tab.run("location.hash")


def test_a_moved_code_is_decoded_under_the_chosen_class(page):
    page.enter(page.slider(0), 4)
    page.settle()
    z = page.code()
    page.enter("#label", 0)
    page.settle()
    np.testing.assert_array_equal(page.code(), z)
    expected = 255 * (0.2 + 0.01 * z.sum())
    assert np.abs(page.pixels(channels=1) - expected).max() <= 1


def test_of_many_dimensions_the_most_active_are_shown(page):
    shown = "document.querySelectorAll('#sliders label:not([hidden])').length"
    assert page.tab.run(shown) == 16
    page.click("#all")
    assert page.tab.run(shown) == 24
    following = page.tab.run("document.getElementById('inactive').nextSibling.firstChild.textContent")
    assert following == "z21"


def test_a_model_without_classes_offers_none(tab, sampler):
    with serve_model(sampler) as address:
        page = Explorer(tab, address).wait()
        assert not page.tab.run("document.getElementById('label').checkVisibility()")
        assert "label" not in page.tab.run("location.hash")
        assert page.tab.run("document.getElementById('own').checkVisibility()")
