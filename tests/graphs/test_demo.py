import dataclasses
import re

import numpy as np
import onnx
import pytest

from pipeline.commands.options import DEMO_FOLDER
from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.graphs import demo
from pipeline.graphs.demo import write_demo
from pipeline.graphs.manifest import build_manifest
from pipeline.graphs.onnx_export import finish
from pipeline.graphs.sampler import sampler_model
from pipeline.runtime import Sampler
from pipeline.runtime.manifest import MANIFEST, read_manifest
from pipeline.runtime.sampler import SAMPLER


def test_the_demo_is_the_sampler_alone_as_it_was_exported(mlp, tmp_path):
    size = write_demo(mlp.folder, tmp_path / "demo")
    assert (tmp_path / "demo" / "sampler.onnx").read_bytes() == mlp.files["sampler.onnx"]
    manifest = read_json(tmp_path / "demo" / "manifest.json")
    exported = read_json(mlp.folder / "manifest.json")
    assert manifest["files"] == {"sampler.onnx": exported["files"]["sampler.onnx"]}
    assert manifest["metadata"] == exported["metadata"]
    assert size == sum(path.stat().st_size for path in (tmp_path / "demo").iterdir())


def test_what_is_too_large_to_ship_is_refused(mlp, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"sampler.onnx and its manifest have [\d,]+ bytes; expected fewer than 1,000"):
        write_demo(mlp.folder, tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_a_model_of_no_commit_is_refused(mlp, tmp_path):
    metadata = dataclasses.replace(mlp.metadata, graph="sampler", git_revision="0fb6cfb-dirty")
    decoder = onnx.load_from_string(mlp.files["decoder.onnx"])
    content = finish(sampler_model(decoder, mlp.metadata.latent_dim), metadata)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "sampler.onnx").write_bytes(content)
    write_json(tmp_path / "export" / "manifest.json", build_manifest({"sampler.onnx": content}))
    with pytest.raises(UserError, match="was trained at 0fb6cfb-dirty; expected a commit"):
        write_demo(tmp_path / "export", tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_what_ships_is_whole_small_of_a_commit_and_draws_digits():
    manifest = read_manifest(DEMO_FOLDER)
    assert list(manifest.sha256) == [SAMPLER]
    assert {path.name for path in DEMO_FOLDER.iterdir()} == {SAMPLER, MANIFEST}
    assert sum(path.stat().st_size for path in DEMO_FOLDER.iterdir()) < demo.MOST_BYTES
    sampler = Sampler(DEMO_FOLDER, "cpu")
    assert re.fullmatch("[0-9a-f]{40}", sampler.metadata.git_revision)
    images = sampler.sample(100)
    ink = images.mean(axis=(1, 2, 3)) / 255
    assert images.shape == (100, 28, 28, 1)
    assert ((ink > 0.02) & (ink < 0.4)).all()  # white strokes on black
    assert images[:, [0, -1]].max() < 128  # and nothing at the edge
    assert len(np.unique(images, axis=0)) == 100
