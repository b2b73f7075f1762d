from dataclasses import replace

import pytest

from pipeline.errors import UserError
from pipeline.runtime.metadata import Metadata


def strings(**changes):
    entries = Metadata("decoder", 3, (1, 8, 8), "bernoulli", "standard", "elbo", "d", "p", "g", "m").to_strings()
    return {key: value for key, value in (entries | changes).items() if value is not None}


@pytest.mark.parametrize("latent_kl", [(1.5, 0.0, 2.25), None])
@pytest.mark.parametrize("posterior", ["iaf", None])
def test_what_is_written_is_what_is_read(latent_kl, posterior):
    metadata = Metadata("decoder", 3, (1, 8, 8), "bernoulli", "standard", "elbo", "d", "p", "g", "m", latent_kl)
    metadata = replace(metadata, posterior=posterior, latent_mean=latent_kl, latent_deviation=latent_kl)
    assert Metadata.from_strings(metadata.to_strings(), "a.onnx") == metadata


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": None}, "a.onnx: carries no vae-pipeline metadata"),
        ({"format": "vae-pipeline/9"}, "a.onnx: format is 'vae-pipeline/9'; expected 'vae-pipeline/1'"),
        ({"likelihood": None}, "a.onnx: metadata likelihood is missing"),
        ({"latent_dim": "many"}, "a.onnx: metadata latent_dim is .*many.*; expected 1 whole number"),
        ({"latent_dim": "0"}, "a.onnx: metadata latent_dim is"),
        ({"image_shape": "[1, 8]"}, "a.onnx: metadata image_shape is .*; expected 3 whole number"),
        ({"image_shape": "[1, 8, true]"}, "a.onnx: metadata image_shape is"),
        ({"image_shape": "[" * 100_000}, "a.onnx: metadata image_shape is"),
        ({"latent_dim": "9" * 5000}, r"a.onnx: metadata latent_dim is \[999"),
        ({"latent_kl": "[1, 2]"}, r"a.onnx: metadata latent_kl is \[1, 2\]; expected 3 finite number"),
        ({"latent_kl": "[1, 2, NaN]"}, "a.onnx: metadata latent_kl is"),
        ({"latent_kl": f"[1, 2, 1{'0' * 400}]"}, "a.onnx: metadata latent_kl is"),
        ({"latent_kl": "7"}, "a.onnx: metadata latent_kl is 7"),
        ({"latent_mean": "[1]"}, r"a.onnx: metadata latent_mean is \[1\]; expected 3 finite number"),
        ({"latent_deviation": "[]"}, r"a.onnx: metadata latent_deviation is \[\]; expected 3 finite number"),
    ],
)
def test_malformed_metadata_is_answered_in_one_line(changes, message):
    with pytest.raises(UserError, match=message) as error:
        Metadata.from_strings(strings(**changes), "a.onnx")
    assert "\n" not in str(error.value)
