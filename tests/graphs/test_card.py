import dataclasses
import re
import subprocess
import sys

from pipeline.files import read_json
from pipeline.graphs.card import write_card


def card(exported, **changes):
    metadata = dataclasses.replace(exported.metadata, **changes)
    manifest = read_json(exported.folder / "manifest.json")
    extra = {"A section more": "with its text", "An empty one": ""}
    return write_card(metadata, manifest, {"decoder_max_abs_error": 1.25e-7}, {"test/elbo": -101.25}, extra)


def test_the_lines_in_the_card_run_as_they_stand(mlp):
    (code,) = re.findall(r"```python\n(.*?)```", card(mlp), re.DOTALL)
    check = "\nassert images.shape == (16, 8, 8, 1) and images.dtype == np.uint8 and z.shape == (16, 3)"
    subprocess.run([sys.executable, "-c", code + check], cwd=mlp.folder, check=True)


def test_the_card_says_what_the_files_take_where_they_came_from_and_what_was_measured(mlp):
    text = card(mlp)
    for expected in (
        "# Variational auto-encoder of 8x8 grey images",
        "seed int64 [n], index int64 [n], temperature float32 [n]",
        "| git_revision | `0fb6cfb` |",
        "| `test/elbo` | -101.2 |",
        "| `decoder_max_abs_error` | 1.25e-07 |",
        "onnxruntime from 1.21 on",
        "## A section more\n\nwith its text\n\n## Origin",
    ):
        assert expected in text
    assert "An empty one" not in text


def test_the_card_claims_no_more_than_is_in_the_folder_and_was_measured(mlp):
    text = card(mlp)
    assert "`triton/` holds the float32 ones once more" in text
    assert "on CUDA where there is a GPU; with TensorRT it was not tried" in text
    assert "runtime and device" not in text


def test_the_card_of_a_plain_auto_encoder_warns_of_its_samples(mlp):
    assert "samples need not look like data" in card(mlp, objective="autoencoder")
    drawn_from_codes = card(mlp, objective="autoencoder", aggregate_components=3)
    assert "standard normal that the" not in drawn_from_codes
    assert "need not look like data" not in card(mlp)


def test_the_card_says_what_the_sampler_draws_from_in_place_of_the_prior(mlp):
    assert "from a mixture of 3 Gaussians that was fitted to the training codes" in card(mlp, aggregate_components=3)
    each = "from a mixture of 3 Gaussians for each class that was fitted to the training codes"
    assert each in card(mlp, aggregate_components=3, prior="per_class")


def test_the_card_says_what_a_score_is_and_what_it_cannot_do(mlp, conv):
    text = card(mlp)
    for expected in ("minus the ELBO", "means over 4 samples", "| 99 % | ", "arXiv 1810.09136", "probabilities of"):
        assert expected in text
    assert "probabilities of" not in card(conv)  # its likelihood is Gaussian
    assert "is a density" in card(conv)
    assert "is a density" not in card(mlp)
    plain = card(mlp, objective="autoencoder")
    assert "minus recon at z = mu" in plain
    assert "samples of z" not in plain
