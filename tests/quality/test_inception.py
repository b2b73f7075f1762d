"""With random weights: what torchvision publishes is not at hand, and only its values would differ."""

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import inception_v3

from pipeline.errors import UserError
from pipeline.quality.inception import Inception

IMAGES = torch.randint(0, 256, (1, 1, 12, 10), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return inception_v3(weights=None, init_weights=False, transform_input=False).eval()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@torch.no_grad()
def test_features_are_those_before_the_last_layer(network, name, tmp_path):
    (torch.save if name.endswith("pth") else save_file)(network.state_dict(), tmp_path / name)
    found = Inception(tmp_path / name).features(IMAGES)
    assert found.shape == (1, 2048)
    x = torch.nn.functional.interpolate(IMAGES / 127.5 - 1, (299, 299), mode="bilinear", antialias=True)
    torch.testing.assert_close(network.fc(found), network(x.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-4)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"evaluate\.inception_weights: .*none\.pth not found; expected a file"):
        Inception(tmp_path / "none.pth")


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_a_file_that_holds_no_weights_is_refused_in_one_line(name, tmp_path):
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(UserError, match=r"not readable as weights") as error:
        Inception(tmp_path / name)
    assert "\n" not in str(error.value)


def test_weights_of_another_network_are_refused(tmp_path):
    save_file(torch.nn.Linear(2, 2).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other\.safetensors: .*expected torchvision's Inception v3") as error:
        Inception(tmp_path / "other.safetensors")
    assert "\n" not in str(error.value)


def test_code_in_a_file_of_weights_is_not_run(tmp_path):
    torch.save({"fc.weight": pytest.Mark}, tmp_path / "code.pth")
    with pytest.raises(UserError, match="not readable as weights"):
        Inception(tmp_path / "code.pth")
