import dataclasses
import json
import shutil

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.runtime import Sampler
from pipeline.runtime.scores import LEVELS, ScoreScale, images_together

SCALE = ScoreScale.of(np.arange(101, dtype=np.float32), samples=8)


def images(n=30, shape=(8, 8, 1)):
    return np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)


def test_a_score_is_placed_among_those_of_the_validation_images():
    np.testing.assert_allclose(SCALE.strangeness([-5, 0, 7.5, 50, 97, 100, 1e9]), [0, 0, 0.075, 0.5, 0.97, 1, 1])
    assert SCALE.strangeness(25.0) == 0.25


def test_what_is_written_is_read_back():
    assert ScoreScale.from_strings(SCALE.to_strings(), "a file") == SCALE


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("score_samples", "many", "score_quantiles or score_samples is malformed"),
        ("score_samples", "0", "score_quantiles or score_samples is malformed"),
        ("score_quantiles", "[1]", "malformed"),
        ("score_quantiles", "{", "malformed"),
        ("score_quantiles", json.dumps({"levels": [0, 1]}), "lacks 'scores'"),
        ("score_quantiles", json.dumps({"levels": [0, 1], "scores": [2, 1]}), "does not rise"),
        ("score_quantiles", json.dumps({"levels": [0, 1], "scores": [1]}), "does not rise"),
        ("score_quantiles", '{"levels": [0, 1], "scores": [1, NaN]}', "malformed"),
    ],
)
def test_malformed_quantiles_are_refused(name, value, message):
    with pytest.raises(UserError, match=f"a file: metadata .*{message}"):
        ScoreScale.from_strings(SCALE.to_strings() | {name: value}, "a file")


def test_missing_quantiles_are_refused():
    with pytest.raises(UserError, match="a file: metadata lacks 'score_quantiles'"):
        ScoreScale.from_strings({}, "a file")


def test_the_sampler_scores_images_in_chunks(exported):
    sampler = Sampler(exported.folder, "cpu")
    given = images(shape=sampler.image_shape)
    score, error = sampler.score(given)
    assert (score.dtype, score.shape) == (np.float32, (30,))
    assert (error.dtype, error.shape) == (np.float32, (30, *sampler.image_shape[:2]))
    chunked = Sampler(exported.folder, "cpu", batch_size=20).score(given)
    np.testing.assert_allclose(chunked[0], score, rtol=1e-5)
    np.testing.assert_allclose(chunked[1], error, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("latents", "samples", "expected"), [(512, 8, 64), (20, 8, 2), (8, 8, 1), (7, 8, 1), (9, 1, 9)]
)
def test_no_more_latents_are_decoded_at_once_than_are_allowed_but_for_those_of_one_image(latents, samples, expected):
    assert images_together(latents, samples) == expected


@pytest.mark.parametrize(("batches", "expected"), [(3, 3), (0.5, 1)])
def test_a_batch_of_scored_images_decodes_no_more_latents_than_one_of_samples(mlp, monkeypatch, batches, expected):
    samples = Sampler(mlp.folder, "cpu").score_scale.samples
    sampler, seen = Sampler(mlp.folder, "cpu", batch_size=int(batches * samples)), []
    runner = sampler.runner

    def watched(name):
        run = runner(name)
        return lambda outputs, given: seen.append(len(given["images"])) or run(outputs, given)

    monkeypatch.setattr(sampler, "runner", watched)
    sampler.score(images(2 * expected))
    assert seen == [expected, expected]


def test_strangeness_is_a_share_that_rises_with_the_score(mlp):
    sampler = Sampler(mlp.folder, "cpu")
    score, _ = sampler.score(images(200))
    share = sampler.strangeness(score)
    assert share.min() >= 0
    assert share.max() <= 1
    assert (np.diff(share[np.argsort(score)]) >= 0).all()
    assert 0.3 < share.mean() < 0.7  # images like those of the scale


def test_the_oracle_of_a_scale_without_spread_is_a_step():
    scale = dataclasses.replace(SCALE, scores=(5.0,) * len(LEVELS))
    assert scale.strangeness(4.0) == 0
    assert scale.strangeness(6.0) == 1


def test_an_export_without_a_scorer_says_so(mlp, tmp_path):
    folder = shutil.copytree(mlp.folder, tmp_path / "export")
    manifest = read_json(folder / "manifest.json")
    del manifest["files"]["scorer.onnx"]
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(UserError, match=r"manifest.json: lists no scorer.onnx; expected one of"):
        Sampler(folder, "cpu").score(images())
    with pytest.raises(UserError, match="lists no scorer.onnx"):
        Sampler(folder, "cpu").strangeness(1.0)


def test_other_images_are_refused(mlp):
    with pytest.raises(UserError, match=r"^images are .*; expected uint8 \['n >= 1', 8, 8, 1\]"):
        Sampler(mlp.folder, "cpu").score(np.zeros((2, 9, 8, 1), np.uint8))
