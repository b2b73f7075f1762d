import dataclasses
import json
import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.checkpoint import BINARIZE, OBJECTIVES, Checkpoint, load_checkpoint, save_checkpoint
from pipeline.errors import UserError
from pipeline.params import TrainParams
from pipeline.vae.model import VAE, VAEConfig

MLP = VAEConfig((1, 8, 8), "mlp", (16, 12), "tanh", 3, "gaussian", "learned")
CONV = VAEConfig((3, 9, 12), "conv", (4, 6), "silu", 2, "gaussian", 0.1)


def save_random(folder, config=MLP):
    torch.manual_seed(0)
    vae = VAE(config)
    save_checkpoint(folder, Checkpoint(vae, "autoencoder", "static"))
    return vae


@pytest.fixture
def folder(tmp_path):
    save_random(tmp_path)
    return tmp_path


def edit_config(folder, edit):
    content = json.loads((folder / "config.json").read_text())
    edit(content)
    (folder / "config.json").write_text(json.dumps(content))


def edit_weights(folder, edit):
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors")


def message(folder):
    with pytest.raises(UserError) as error:
        load_checkpoint(folder)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{folder}/")
    return str(error.value).removeprefix(f"{folder}/")


def test_a_model_of_before_a_choice_was_added_is_one_that_does_not_make_it(tmp_path):
    ladder = VAEConfig((1, 8, 8), "ladder", (16,), "silu", 4, "bernoulli", "learned", latent_groups=2)
    vae = save_random(tmp_path, ladder)
    added = [field.name for field in dataclasses.fields(VAEConfig) if field.default == getattr(ladder, field.name)]
    assert "group_network" in added
    edit_config(tmp_path, lambda content: [content["model"].pop(name) for name in added])
    found = load_checkpoint(tmp_path).model
    assert found.config == ladder
    assert {"encoder.first.2.weight", "decoder.of_z.0.weight"} <= set(found.state_dict())
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in vae.state_dict().items())


@pytest.mark.parametrize("config", [MLP, CONV], ids=["mlp", "conv"])
def test_a_model_comes_back_bit_for_bit(tmp_path, config):
    vae = save_random(tmp_path, config)
    found = load_checkpoint(tmp_path)
    assert found.model.config == config
    assert (found.objective, found.binarize) == ("autoencoder", "static")
    assert not found.model.training
    assert all(torch.equal(value, found.model.state_dict()[name]) for name, value in vae.state_dict().items())
    x = torch.rand(2, *config.image_shape)
    assert torch.equal(vae.encode(x)[0], found.model.encode(x)[0])


def test_the_same_weights_are_the_same_bytes(tmp_path, folder):
    (tmp_path / "again").mkdir()
    save_checkpoint(tmp_path / "again", load_checkpoint(folder))
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_a_file_that_is_missing_is_named(folder):
    (folder / "model.safetensors").unlink()
    assert message(folder) == "model.safetensors: not found; expected weights that train wrote"
    (folder / "config.json").unlink()
    assert message(folder) == "config.json: not found; expected a file that an earlier stage writes"


@pytest.mark.parametrize("put", [Path.mkdir, lambda path: path.symlink_to(path)], ids=["a folder", "a circular link"])
def test_weights_that_are_there_and_cannot_be_read_are_not_said_to_be_missing(folder, put):
    path = folder / "model.safetensors"
    path.unlink()
    put(path)
    with pytest.raises(OSError, match=r"model\.safetensors") as error:
        load_checkpoint(folder)
    assert error.value.filename == str(path)


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_truncated_weights_are_named(folder, size):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:size])
    assert message(folder).startswith("model.safetensors: not readable as safetensors (")


def test_weights_of_something_else_are_named(folder):
    torch.save({"a": torch.zeros(3)}, folder / "model.safetensors")
    assert message(folder).startswith("model.safetensors: not readable as safetensors (")


def test_a_missing_weight_is_named(folder):
    edit_weights(folder, lambda weights: weights.pop("decoder.0.bias"))
    expected = "model.safetensors: decoder.0.bias is missing; expected the weights that config.json describes"
    assert message(folder) == expected


def test_a_weight_too_many_is_named(folder):
    edit_weights(folder, lambda weights: weights.update({"decoder.9.bias": torch.zeros(2)}))
    expected = "model.safetensors: decoder.9.bias is not part of the model; expected the weights that config.json"
    assert message(folder).startswith(expected)


def test_a_weight_of_another_shape_is_named(folder):
    edit_weights(folder, lambda weights: weights.update({"decoder.0.bias": torch.zeros(7)}))
    assert message(folder) == "model.safetensors: decoder.0.bias has shape [7]; expected [12] by config.json"


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_weight_that_is_not_finite_is_named(folder, value):
    edit_weights(folder, lambda weights: weights["decoder.0.bias"][3:5].fill_(value))
    assert message(folder) == f"model.safetensors: decoder.0.bias holds {value}; expected finite numbers: train again"


def test_weights_that_do_not_fit_the_config_are_refused(folder):
    edit_config(folder, lambda config: config["model"].update(latent_dim=4))
    assert message(folder) == "model.safetensors: decoder.0.weight has shape [12, 3]; expected [12, 4] by config.json"


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda config: config.pop("model"), "config.json: model is missing; expected a file that train wrote"),
        (lambda config: config.pop("objective"), "config.json: objective is missing; expected a file that train"),
        (lambda config: config.pop("binarize"), "config.json: binarize is missing; expected a file that train"),
        (lambda config: config.update(objective="vae"), "config.json: objective is 'vae'; expected one of elbo"),
        (lambda config: config.update(binarize="often"), "config.json: binarize is 'often'; expected one of none"),
        (lambda config: config.update(model=[1]), "config.json: model is [1]; expected an object"),
        (lambda config: config["model"].pop("hidden"), "config.json: not a model's config: "),
        (lambda config: config["model"].update(colour=1), "config.json: not a model's config: "),
        (lambda config: config["model"].update(network="rnn"), "config.json: model.network is 'rnn'; expected one of"),
        (lambda config: config["model"].update(likelihood="beta"), "config.json: model.likelihood is 'beta'; expected"),
        (lambda config: config["model"].update(latent_dim="3"), "config.json: model.latent_dim is '3'; expected whole"),
        (lambda config: config["model"].update(latent_dim=-3), "config.json: model.latent_dim is -3; expected whole"),
        (lambda config: config["model"].update(hidden=16), "config.json: model.hidden is 16; expected whole numbers"),
        (lambda config: config["model"].update(image_shape=[8, 8]), "config.json: model.image_shape is (8, 8); expect"),
        (
            lambda config: config["model"].update(network="conv", hidden=[]),
            "config.json: model.hidden has 0 stages; expected 1",
        ),
        (lambda config: config["model"].update(sigma="wide"), "config.json: model.sigma is 'wide'; expected a number"),
        (lambda config: config["model"].update(sigma=0), "config.json: model.sigma is 0; expected a number > 0"),
    ],
)
def test_a_config_of_something_else_is_refused(folder, edit, expected):
    edit_config(folder, edit)
    assert message(folder).startswith(expected)


@pytest.mark.parametrize("content", [b'{"model": ', b"[]", b"\xff"])
def test_a_config_that_is_no_json_object_is_refused(folder, content):
    (folder / "config.json").write_bytes(content)
    assert message(folder).startswith("config.json: ")


def test_a_model_of_every_objective_and_binarisation_can_be_opened():
    for field, known in (("objective", OBJECTIVES), ("binarize", BINARIZE)):
        assert get_args(TrainParams.model_fields[field].annotation) == known
