import dataclasses
import json
import shutil

import numpy as np
import onnx
import pytest

from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.graphs.manifest import build_manifest
from pipeline.graphs.onnx_export import finish
from pipeline.runtime import Sampler
from pipeline.runtime.variants import variant_file


@pytest.fixture(scope="module")
def folder(mlp, tmp_path_factory):
    """An export whose int8 sampler and decoder show the negative, so that no test can take one file for the other."""
    folder = shutil.copytree(mlp.folder, tmp_path_factory.mktemp("variants") / "export")
    files = dict(mlp.files)
    for graph in ("sampler", "decoder"):
        model = onnx.load_from_string(mlp.files[f"{graph}.onnx"])
        for constant in model.graph.initializer:
            if constant.name == "vae.decoder.2.weight":
                array = onnx.numpy_helper.to_array(constant)
                constant.CopyFrom(onnx.numpy_helper.from_array(-array, constant.name))
        files[f"{graph}.int8.onnx"] = finish(model, dataclasses.replace(mlp.metadata, graph=graph, variant="int8"))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_json(folder / "manifest.json", build_manifest(files))
    return folder


def test_a_variant_is_opened_only_where_it_is_asked_for(folder, mlp):
    plain, int8 = Sampler(folder, "cpu"), Sampler(folder, "cpu", variant="int8")
    assert np.array_equal(plain.sample(8), Sampler(mlp.folder, "cpu").sample(8))
    assert not np.array_equal(plain.sample(8), int8.sample(8))
    assert (plain.metadata.variant, int8.metadata.variant) == (None, "int8")


def test_the_decoder_is_of_the_samplers_variant_and_the_encoder_is_float32(folder):
    plain, int8 = Sampler(folder, "cpu"), Sampler(folder, "cpu", variant="int8")
    assert np.array_equal(int8.decode(int8.latents(8)), int8.sample(8))
    images = plain.sample(8)
    assert np.array_equal(plain.encode(images)[0], int8.encode(images)[0])


def test_a_lone_file_is_what_it_is(folder):
    lone = Sampler(folder / "sampler.int8.onnx", "cpu")
    assert lone.metadata.variant == "int8"
    assert np.array_equal(lone.sample(8), Sampler(folder, "cpu", variant="int8").sample(8))
    with pytest.raises(UserError, match=r"sampler.onnx: computes in float32; expected int8"):
        Sampler(folder / "sampler.onnx", "cpu", variant="int8")


def test_every_file_of_the_folder_can_be_opened_by_name(folder):
    sampler = Sampler(folder, "cpu")
    assert "sampler.int8.onnx" in sampler.files
    for name in sampler.files:
        assert sampler.session(name).get_outputs()


def test_a_variant_that_was_not_written_is_refused_with_what_the_export_found(mlp, tmp_path):
    folder = shutil.copytree(mlp.folder, tmp_path / "export")
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**content, "variants": {"fp16": "no GPU to measure it on"}}))
    with pytest.raises(UserError, match=r"lists no sampler.fp16.onnx, no fp16 copy: no GPU to measure it on"):
        Sampler(folder, "cpu", variant="fp16")


def test_a_variant_that_the_folder_lacks_is_named(mlp):
    with pytest.raises(UserError, match=r"lists no sampler.int8.onnx, no int8 copy: an earlier export made none"):
        Sampler(mlp.folder, "cpu", variant="int8")
    with pytest.raises(UserError, match="variant is 'int4'; expected one of fp16, int8; without one"):
        Sampler(mlp.folder, "cpu", variant="int4")


def test_the_name_of_a_variant_says_what_it_is():
    assert variant_file("decoder.onnx", "fp16") == "decoder.fp16.onnx"
    assert variant_file("decoder.onnx", None) == "decoder.onnx"
    assert variant_file("encoder.onnx", "fp16") == "encoder.onnx"
