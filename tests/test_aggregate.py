import pytest
import torch
from safetensors.torch import save_file

from pipeline.aggregate import AGGREGATE, load_aggregate, save_aggregate
from pipeline.errors import UserError
from pipeline.vae.priors.class_mixtures import MixturePerClass
from pipeline.vae.priors.mixtures import Mixture

MIXTURE = Mixture(torch.tensor([0.25, 0.75]).log(), torch.randn(2, 3), torch.randn(2, 3))


def test_what_is_saved_is_read_again(tmp_path):
    save_aggregate(tmp_path, MIXTURE)
    found = load_aggregate(tmp_path, 3).mixture()
    assert all(torch.equal(a, b) for a, b in zip(found, MIXTURE, strict=True))


def test_a_mixture_of_each_class_is_read_again(tmp_path):
    saved = Mixture(torch.rand(4, 2).log_softmax(1), torch.randn(4, 2, 3), torch.randn(4, 2, 3))
    save_aggregate(tmp_path, saved)
    found = load_aggregate(tmp_path, 3, classes=4)
    assert isinstance(found, MixturePerClass)
    assert all(torch.equal(a, b) for a, b in zip(found.mixture(), saved, strict=True))
    with pytest.raises(UserError, match=r"log_weights has shape \[4, 2\]; expected \[5, 2\]"):
        load_aggregate(tmp_path, 3, classes=5)
    with pytest.raises(UserError, match=r"log_weights has shape \[4, 2\]; expected \[2\]"):
        load_aggregate(tmp_path, 3)


def test_none_is_read_as_none(tmp_path):
    save_aggregate(tmp_path, None)
    assert load_aggregate(tmp_path, 3) is None


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"aggregate\.safetensors: not found; expected what evaluate wrote"):
        load_aggregate(tmp_path, 3)


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path):
    (tmp_path / AGGREGATE).mkdir()
    with pytest.raises(IsADirectoryError) as error:
        load_aggregate(tmp_path, 3)
    assert error.value.filename == str(tmp_path / AGGREGATE)


def test_a_damaged_file_is_refused(tmp_path):
    save_aggregate(tmp_path, MIXTURE)
    content = (tmp_path / AGGREGATE).read_bytes()
    (tmp_path / AGGREGATE).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="not readable as safetensors"):
        load_aggregate(tmp_path, 3)


def test_a_mixture_of_another_latent_dimension_is_refused(tmp_path):
    save_aggregate(tmp_path, MIXTURE)
    with pytest.raises(UserError, match=r"mu has shape \[2, 3\]; expected \[2, 5\]"):
        load_aggregate(tmp_path, 5)


def test_other_tensors_are_refused(tmp_path):
    save_file({"mu": torch.zeros(2, 3)}, tmp_path / AGGREGATE)
    with pytest.raises(UserError, match="holds mu; expected log_weights, logvar, mu"):
        load_aggregate(tmp_path, 3)
