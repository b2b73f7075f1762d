import copy
import dataclasses
import json

import numpy as np
import onnx
import pytest
import torch

from pipeline.graphs.build import build_files
from pipeline.graphs.manifest import build_manifest
from pipeline.graphs.modules import Encoder, Scorer, score_noise
from pipeline.graphs.onnx_export import to_onnx
from pipeline.graphs.scorer import finish_scorer
from pipeline.runtime import open_session
from pipeline.vae.bounds import elbo


def images_for(exported, n=9, seed=0):
    channels, height, width = exported.metadata.image_shape
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def score(exported, images):
    return open_session(exported.files["scorer.onnx"], "cpu").run(["score", "error"], {"images": images})


def test_the_score_is_minus_the_elbo_that_the_checkpoint_reports(exported):
    images = images_for(exported)
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        bounds = [elbo(exported.vae, x, eps.expand(len(x), -1)) for eps in score_noise(4, 3)]
    found, error = score(exported, images)
    expected = -torch.stack([bound.elbo for bound in bounds]).mean(0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    minus_recon = -torch.stack([bound.recon for bound in bounds]).mean(0)
    np.testing.assert_allclose(error.sum((1, 2), dtype=np.float64), minus_recon, rtol=1e-5)


def test_the_error_map_is_that_of_each_pixel(mlp):
    image = images_for(mlp, 1)
    x = torch.from_numpy(image)[..., 0] / 255
    with torch.no_grad():
        mu, logvar = mlp.vae.encode(x[:, None])
        logits = mlp.vae.decode(mu + torch.exp(0.5 * logvar) * score_noise(4, 3))[:, 0]
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, x.expand(4, 8, 8), reduction="none")
    np.testing.assert_allclose(score(mlp, image)[1][0], expected.mean(0), rtol=1e-4, atol=1e-6)


def test_a_row_stands_alone_whatever_its_neighbours(exported):
    images = images_for(exported)
    whole = score(exported, images)
    order = np.random.default_rng(3).permutation(len(images))
    for parts in (np.array_split(order, len(order)), np.array_split(order, 2), [order]):
        for output in range(2):
            joined = np.concatenate([score(exported, images[part])[output] for part in parts])
            np.testing.assert_allclose(joined, whole[output][order], rtol=1e-5, atol=1e-5)
    twice = score(exported, images[[0, 0]])
    assert twice[0][0] == pytest.approx(twice[0][1], rel=1e-6)  # the same noise for both


def test_scores_do_not_change_from_run_to_run(exported):
    session = open_session(exported.files["scorer.onnx"], "cpu")
    runs = [session.run(["score"], {"images": images_for(exported)})[0] for _ in range(3)]
    assert np.array_equal(runs[0], runs[1])
    assert np.array_equal(runs[0], runs[2])


def test_the_score_of_an_auto_encoder_is_minus_recon_at_the_mean(mlp):
    images = torch.from_numpy(images_for(mlp))
    with torch.no_grad():
        found, error = Scorer(mlp.vae, "autoencoder", 8)(images)
        bound = elbo(mlp.vae, images.permute(0, 3, 1, 2) / 255, torch.zeros(len(images), 3))
    np.testing.assert_allclose(found, -bound.recon, rtol=1e-5)
    np.testing.assert_allclose(error.sum((1, 2)), found, rtol=1e-5)


def test_an_auto_encoder_can_be_exported_too(mlp):
    module = Scorer(mlp.vae, "autoencoder", 8)
    model = to_onnx(module, [torch.zeros(2, 8, 8, 1, dtype=torch.uint8)], ["images"], ["score", "error"])
    metadata = dataclasses.replace(mlp.metadata, graph="scorer", objective="autoencoder")
    content = finish_scorer(model, metadata, 8, np.moveaxis(images_for(mlp), -1, 1))
    images = images_for(mlp, 5, seed=2)
    with torch.no_grad():
        expected = module(torch.from_numpy(images))[0]
    np.testing.assert_allclose(open_session(content, "cpu").run(["score"], {"images": images})[0], expected, rtol=1e-5)


def test_an_image_beyond_all_bounds_has_a_finite_score(mlp):
    vae = copy.deepcopy(mlp.vae)
    images = images_for(mlp)
    with torch.no_grad():
        vae.encoder[-1].bias[3:] = 200.0  # a variance that float32 could not hold
        expected = Encoder(vae)(torch.from_numpy(images))
    files = build_files(vae, mlp.metadata, 4, np.moveaxis(images, -1, 1))
    score, error = open_session(files["scorer.onnx"], "cpu").run(["score", "error"], {"images": images})
    assert np.isfinite(score).all()
    assert np.isfinite(error).all()
    assert score.min() > 1e9
    found = open_session(files["encoder.onnx"], "cpu").run(["mu", "logvar"], {"images": images})
    for output, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(output, reference, rtol=1e-5, atol=1e-5)
    assert (found[1] < 26).all()


def test_over_binarisations_the_reconstruction_term_is_the_mean(mlp):
    """Given z, recon of grey x is the mean of recon over images drawn with x as probability."""
    x = torch.from_numpy(images_for(mlp, 1)).permute(0, 3, 1, 2) / 255
    z = torch.tensor([[0.3, -1.0, 0.5]])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        logits = mlp.vae.decode(z)
        draws = torch.bernoulli(x.expand(20_000, -1, -1, -1), generator=generator)
        drawn = mlp.vae.likelihood.log_prob(draws, logits)
        grey = mlp.vae.likelihood.log_prob(x, logits).item()
    assert abs(drawn.mean().item() - grey) < 4 * drawn.std().item() / 20_000**0.5


def test_the_quantiles_are_those_of_the_validation_scores_by_the_file_itself(exported):
    """The validation images are those of the fixture."""
    shape = exported.metadata.image_shape
    validation = np.random.default_rng(1).integers(0, 256, (40, *shape), dtype=np.uint8)
    scores = score(exported, np.moveaxis(validation, 1, -1))[0].astype(np.float64)
    model = onnx.load_from_string(exported.files["scorer.onnx"])
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["graph"] == "scorer"
    assert properties["score_samples"] == "4"
    quantiles = json.loads(properties["score_quantiles"])
    assert quantiles["levels"] == [0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1]
    np.testing.assert_allclose(quantiles["scores"], np.quantile(scores, quantiles["levels"]), rtol=1e-5)


def test_the_manifest_holds_the_quantiles_too(mlp):
    entries = build_manifest(mlp.files)["files"]
    assert entries["scorer.onnx"]["scores"]["samples"] == 4
    assert len(entries["scorer.onnx"]["scores"]["quantiles"]["scores"]) == 11
    assert not any("scores" in entry for name, entry in entries.items() if name != "scorer.onnx")
