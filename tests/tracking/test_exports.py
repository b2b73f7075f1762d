import json

import numpy as np
import pytest

from pipeline.champion import Figure
from pipeline.errors import UserError
from pipeline.runtime import Sampler
from pipeline.tracking.exports import fetch_export
from pipeline.tracking.models import log_sampler
from pipeline.tracking.registry import point_alias, register


@pytest.fixture
def registered(store, trained, mlp):
    """The small model as version 1 of `vae`, and as its champion."""
    model_id = log_sampler(trained.run_id, mlp.folder / "sampler.onnx")
    figure = Figure("nll_iw", 1.0, "bc87", "bernoulli", "grey", "5000")
    point_alias(register("vae", trained.run_id, model_id, figure, []))
    return store


def test_a_registered_model_is_opened_by_its_name(registered, mlp):
    expected = Sampler(mlp.folder, "cpu")
    for name in ("models:/vae@champion", "models:/vae/1"):
        sampler = Sampler(name, "cpu")
        assert sampler.files == expected.files
        assert np.array_equal(sampler.sample(3, seed=2), expected.sample(3, seed=2))
        assert np.array_equal(sampler.decode(np.zeros((1, 3))), expected.decode(np.zeros((1, 3))))


def test_two_versions_are_open_at_once(registered, trained, conv):
    model_id = log_sampler(trained.run_id, conv.folder / "sampler.onnx")
    register("vae", trained.run_id, model_id, Figure("nll_iw", 2.0, "bc87", "bernoulli", "grey", "5000"), [])
    first, second = (Sampler(f"models:/vae/{version}", "cpu") for version in (1, 2))
    assert first.decode(np.zeros((1, 3))).shape == (1, 8, 8, 1)
    assert second.decode(np.zeros((1, 3))).shape == (1, 10, 14, 3)


def test_what_was_fetched_is_held_to_its_manifest(registered):
    folder = fetch_export("models:/vae@champion")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (folder / "scorer.onnx").is_file()
    manifest["files"]["sampler.onnx"]["sha256"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="sampler.onnx: sha256 is .*; manifest.json expects 000000000000"):
        Sampler(folder, "cpu")


LACKING = ["models:/vae@best", "models:/vae/7", "models:/other@champion", "models:/", "models:/vae"]


@pytest.mark.parametrize("name", LACKING)
def test_a_model_that_the_registry_lacks_is_named_in_one_line(registered, name):
    with pytest.raises(UserError) as error:
        Sampler(name, "cpu")
    assert "\n" not in str(error.value)
    assert "MLflow" in str(error.value) or name in str(error.value)


def test_a_store_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(
        UserError, match=r"mlflow\.db: not found; expected the MLflow store that knows models:/vae@champion"
    ):
        Sampler("models:/vae@champion", "cpu")
    assert list(tmp_path.iterdir()) == []
