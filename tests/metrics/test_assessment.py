"""Samples of small models over real digits, judged."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from pipeline.dataset.noise import stream_key
from pipeline.dataset.store import PreparedData, Split
from pipeline.metrics.assessment import assess
from pipeline.metrics.codes import code_training
from pipeline.metrics.quality import Reference
from pipeline.metrics.streams import Stream
from pipeline.params import load_params
from pipeline.quality.compare import compare
from pipeline.vae.model import VAE, VAEConfig

DISTANCES = ("kid", "fid", "precision", "recall", "density", "coverage")
PARAMS = load_params(Path(__file__).parents[2] / "params.yaml").evaluate.model_copy(update={"quality_images": 150})


def prepared(labelled):
    images = (load_digits().images * 255 / 16).round().astype(np.uint8)[:, None]
    labels = load_digits().target.astype(np.int64)
    train, val, test = (
        Split(images[part], labels[part] if labelled else None)
        for part in (slice(1000), slice(1000, 1100), slice(1100, 1400))
    )
    meta = {"classes": [str(d) for d in range(10)] if labelled else None}
    return PreparedData(train, val, test, None, meta, Path("data/prepared"))


DATA, UNLABELLED = prepared(True), prepared(False)


def model_of(decoder=None):
    torch.manual_seed(0)
    model = VAE(VAEConfig((1, 8, 8), "mlp", (16,), "relu", 3, "bernoulli", "learned")).eval()
    if decoder:
        model.decoder = decoder
    return model


class Remembers(nn.Module):
    """A "decoder" that gives back a training image whatever z is."""

    def forward(self, z):
        x = torch.from_numpy(DATA.train.images).float() / 255
        which = (z[:, 0].sigmoid() * len(x)).long().clamp(max=len(x) - 1)
        return x[which].clamp(1e-6, 1 - 1e-6).logit()


def judged(model, data, **changes):
    test_mu = torch.randn(len(data.test.images), 3, generator=torch.Generator().manual_seed(0))
    return assess(model, data, test_mu, PARAMS.model_copy(update=changes), "none")


@pytest.fixture(scope="module")
def unlabelled():
    return judged(model_of(), UNLABELLED, aggregate_components=5)


def test_without_labels_the_features_are_random_convolutions(unlabelled):
    expected = {f"{prefix}{name}_random_conv" for name in DISTANCES for prefix in ("", "yardstick_", "aggregate_")}
    expected |= {f"{prefix}kid_random_conv_stderr" for prefix in ("", "yardstick_", "aggregate_")}
    expected |= {f"{prefix}memorisation_{name}" for name in ("ratio", "copies") for prefix in ("", "aggregate_")}
    assert set(unlabelled.metrics) == expected | {"memorisation_test_copies"}
    assert set(unlabelled.pictures) == {"nearest_training", "aggregate_nearest_training", "aggregate_samples"}
    assert unlabelled.mixture.mu.shape == (5, 3)


class Stripes:
    """Stands for Inception: the means of eight stripes of an image, on a scale that is not one."""

    def __init__(self, weights):
        assert weights == Path("inception.safetensors")

    def features(self, images):
        return 7 * images.float().flatten(1).unflatten(1, (8, -1)).mean(2) / 255


def test_inception_is_asked_where_its_weights_are_named_and_its_features_are_taken_as_they_are(monkeypatch):
    monkeypatch.setattr("pipeline.metrics.quality.Inception", Stripes)
    found = judged(model_of(), UNLABELLED, inception_weights="inception.safetensors").metrics
    assert {f"{name}_inception" for name in DISTANCES} <= found.keys()
    assert found["fid_inception"] > found["yardstick_fid_inception"] > 0
    extract = Stripes(Path("inception.safetensors")).features
    reference = Reference(UNLABELLED, {"inception": extract, "random_conv": extract}, 150)
    samples = torch.from_numpy(UNLABELLED.val.images)
    plain = compare(extract(reference.test), extract(samples))
    distances = reference.distances(samples)
    assert distances["kid_inception"] == plain["kid"]
    assert distances["kid_inception_stderr"] == plain["kid_stderr"]
    assert distances["kid_random_conv"] != pytest.approx(plain["kid"], rel=0.1)  # our own features are brought to scale


def test_training_images_are_nearer_to_test_images_than_samples_of_an_untrained_model(unlabelled):
    found = unlabelled.metrics
    assert abs(found["yardstick_kid_random_conv"]) < 4 * found["yardstick_kid_random_conv_stderr"]
    assert found["kid_random_conv"] > 10 * found["kid_random_conv_stderr"]
    assert found["yardstick_coverage_random_conv"] > 0.75
    assert found["coverage_random_conv"] < 0.1


def test_a_model_that_gives_training_images_back_is_good_by_every_distance_and_found_by_memorisation():
    found = judged(model_of(Remembers()), UNLABELLED).metrics
    assert found["precision_random_conv"] > 0.7
    assert found["memorisation_copies"] > 0.9
    assert found["memorisation_ratio"] < 0.1
    assert found["memorisation_test_copies"] == 0


def test_with_labels_the_features_are_a_classifiers_and_its_accuracy_is_told():
    found = judged(model_of(), DATA).metrics
    assert {f"{name}_classifier" for name in DISTANCES} <= set(found)
    assert not any("random_conv" in name for name in found)
    assert found["classifier_accuracy"] > 0.8
    assert 0 < found["probe_accuracy"] < 0.3  # the codes of the test split are noise here


def test_data_of_a_single_class_have_no_classifier_and_no_probe():
    one = Split(DATA.train.images[:200], np.zeros(200, np.int64))
    found = judged(model_of(), dataclasses.replace(DATA, train=one)).metrics
    assert "fid_random_conv" in found
    assert not {"probe_accuracy", "classifier_accuracy"} & set(found)


def test_samples_that_are_not_wanted_are_not_drawn(monkeypatch):
    monkeypatch.setattr("pipeline.metrics.assessment.draw_images", None)
    found = judged(model_of(), DATA, quality_images=0, aggregate_components=2)
    assert set(found.metrics) == {"probe_accuracy"}
    assert found.mixture.mu.shape == (2, 3)


def test_the_same_seed_gives_the_same_figures(unlabelled):
    assert judged(model_of(), UNLABELLED, aggregate_components=5).metrics == unlabelled.metrics
    assert judged(model_of(), UNLABELLED, aggregate_components=5, seed=1).metrics != unlabelled.metrics


def test_codes_are_draws_of_each_images_own_posterior():
    model = model_of()
    codes = code_training(model, DATA.train, "none", seed=0)
    x = torch.from_numpy(DATA.train.images).float() / 255
    mu, logvar = model.encode(x)
    torch.testing.assert_close(codes.mu, mu)
    noise = (codes.z - mu) / torch.exp(logvar / 2)
    assert noise.mean().abs() < 0.06
    assert noise.std().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(codes.labels, torch.from_numpy(DATA.train.labels))


@pytest.mark.parametrize("binarize", ["static", "dynamic"])
def test_a_model_of_binary_pixels_codes_binary_images(binarize):
    model, seen = model_of(), []
    model.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    code_training(model, DATA.train, binarize, seed=0)
    assert torch.cat(seen).unique().tolist() == [0, 1]


@pytest.mark.parametrize("noisy_codes", [True, False])
def test_the_mixture_is_of_draws_of_the_posteriors_or_of_their_means(noisy_codes):
    model, params = model_of(), PARAMS.model_copy(update={"quality_images": 0, "aggregate_components": 1})
    found = assess(model, UNLABELLED, torch.zeros(300, 3), params, "none", noisy_codes).mixture
    codes = code_training(model, DATA.train, "none", stream_key(0, Stream.TRAINING_CODES))
    fitted_to = codes.z if noisy_codes else codes.mu
    torch.testing.assert_close(found.logvar[0].exp(), fitted_to.var(0, correction=0), rtol=1e-3, atol=0)
    assert codes.mu.var(0).max() < 0.5 < codes.z.var(0).min()


class RemembersWhereCodesAre(Remembers):
    """And is black all around the prior's middle."""

    def forward(self, z):
        return torch.where(z[:, :1, None, None] > 3, super().forward(z - 6), -9.0)


@pytest.fixture(scope="module")
def remembering():
    model = model_of(RemembersWhereCodesAre())
    with torch.no_grad():
        model.encoder[-1].bias[0] += 6
    return judged(model, UNLABELLED, aggregate_components=1)


def test_the_samples_of_the_aggregate_density_are_drawn_from_it_and_others_from_the_prior(remembering):
    assert remembering.metrics["memorisation_copies"] < 0.1
    assert remembering.metrics["aggregate_memorisation_copies"] > 0.9


def test_the_figure_of_the_aggregate_density_shows_its_samples(remembering):
    picture = np.asarray(remembering.pictures["aggregate_samples"].axes[0].images[0].get_array())
    grey = (255 * picture).round().astype(np.uint8)
    shown = {grey[y : y + 8, x : x + 8].tobytes() for y in range(0, 90, 9) for x in range(0, 90, 9)}
    remembered = shown & {image.tobytes() for image in UNLABELLED.train.images}
    assert len(remembered) > 0.9 * len(shown) > 50


def test_what_samples_are_held_against_is_from_all_over_a_split():
    levels = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None, None], (200, 1, 4, 4)).copy()
    data = dataclasses.replace(UNLABELLED, train=Split(levels, None), test=Split(levels, None))
    chosen = Reference(data, {}, 50).test[:, 0, 0, 0]
    assert len(chosen.unique()) == 50
    assert chosen.min() < 20 < 180 < chosen.max()


def conditional(prior):
    torch.manual_seed(0)
    config = VAEConfig(
        (1, 8, 8),
        "mlp",
        (16,),
        "relu",
        3,
        "bernoulli",
        "learned",
        prior=prior,
        condition="label",
        classes=tuple("0123456789"),
    )
    return VAE(config).eval()


@pytest.mark.parametrize("prior", ["standard", "per_class"])
def test_of_a_conditional_model_the_classifier_reads_the_class_of_each_sample(prior):
    found = judged(conditional(prior), DATA, quality_images=100).metrics
    assert 0 <= found["sample_label_accuracy"] < 0.5  # it is untrained


def test_samples_that_are_of_their_class_are_read_as_such():
    model = conditional("standard")
    model.decoder = OneOfEachClass()
    assert judged(model, DATA).metrics["sample_label_accuracy"] > 0.9


class OneOfEachClass(nn.Module):
    """A "decoder" that knows one image of each class."""

    def forward(self, z, label):
        first = torch.tensor([int((DATA.train.labels == c).argmax()) for c in range(10)])
        x = torch.from_numpy(DATA.train.images[first[label]]).float() / 255
        return x.clamp(1e-6, 1 - 1e-6).logit()


def test_samples_of_all_classes_are_asked_for_as_often_as_training_images_have_them(monkeypatch):
    monkeypatch.setattr("pipeline.metrics.assessment.classifier_of", lambda *_: None)  # slow to train
    chosen = (DATA.train.labels == 7) | (np.arange(1000) % 4 == 0)
    labels = DATA.train.labels[chosen]
    model, asked = conditional("standard"), []
    model.decoder.register_forward_pre_hook(lambda _, given: asked.append(given[1]))
    train = Split(DATA.train.images[chosen], labels)
    judged(model, dataclasses.replace(DATA, train=train), quality_images=300, aggregate_components=0)
    found, expected = (np.bincount(of, minlength=10) / len(of) for of in (torch.cat(asked), labels))
    assert expected[7] > 0.25
    assert found.min() > 0
    np.testing.assert_allclose(found, expected, atol=0.08)


def test_where_classes_have_priors_of_their_own_each_has_a_mixture_of_its_own_codes():
    model = conditional("per_class")
    with torch.no_grad():
        model.encoder.class_bias.weight.mul_(20)  # codes that tell of the class
    found = judged(model, DATA, quality_images=100, aggregate_components=2)
    assert tuple(found.mixture.mu.shape) == (10, 2, 3)
    codes = code_training(model, DATA.train, "none", stream_key(0, Stream.TRAINING_CODES))
    means = (found.mixture.log_weights.exp()[..., None] * found.mixture.mu).sum(1)
    for place in range(10):
        torch.testing.assert_close(means[place], codes.z[codes.labels == place].mean(0), atol=1e-3, rtol=0)
    assert 0 <= found.metrics["aggregate_sample_label_accuracy"] < 0.5  # the decoder is untrained
