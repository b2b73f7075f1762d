import dataclasses

import pytest
import torch
from linear import conditional_linear_vae, images, marginal_of_class, split
from sklearn.datasets import load_digits

from pipeline.compiler import has_compiler
from pipeline.errors import UserError
from pipeline.metrics.likelihood import (
    curve_sizes,
    encode_split,
    estimate,
    fastest_weigh,
    recon_at_mean,
)
from pipeline.vae.bounds import importance_samples
from pipeline.vae.model import VAE, VAEConfig

DIGITS = torch.from_numpy((load_digits().images * 255 / 16).astype("uint8"))[:20, None]
EVERY = torch.arange(20)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return VAE(VAEConfig((1, 8, 8), "mlp", (16,), "relu", 3, "bernoulli", "learned")).eval()


@pytest.fixture(scope="module")
def given(model):
    return encode_split(model, DIGITS, "dynamic", seed=0)


def test_memory_limit_does_not_change_the_estimate(model, given):
    whole, images_apart, samples_apart = (estimate(model, given, 50, 0, limit) for limit in (10_000, 60, 7))
    for other in (images_apart, samples_apart):
        for expected, value in zip(whole, other, strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-4)


def short_of_memory(most):
    def weigh(model, x, q, eps, label):
        if eps.shape[0] * eps.shape[1] > most:
            raise torch.OutOfMemoryError("no memory")
        return importance_samples(model, x, q, eps, label)

    return weigh


@pytest.mark.parametrize("most", [250, 7])
def test_what_does_not_fit_into_memory_is_weighed_in_halves_and_the_estimate_is_the_same(model, given, most):
    done = []
    found = estimate(model, given, 50, 0, 400, done.append, short_of_memory(most))
    for expected, value in zip(estimate(model, given, 50, 0, most), found, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-4)
    assert sum(done) == 20


def test_a_memory_that_holds_no_sample_at_all_is_told_in_a_line(model, given):
    with pytest.raises(UserError, match=r"^params.yaml: evaluate.batch_log_weights is 400, and the device's memory"):
        estimate(model, given, 50, 0, 400, weigh=short_of_memory(0))


def test_exactly_k_samples_are_decoded_for_each_image(model, given):
    seen = []

    def counting(model, x, q, eps, label):
        seen.append(eps.shape[0] * eps.shape[1])
        return importance_samples(model, x, q, eps, label)

    estimate(model, given, 33, 0, 100, weigh=counting)
    assert sum(seen) == 20 * 33
    assert max(seen) <= 100


def test_much_to_weigh_is_compiled_and_little_is_not(given, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: "compiler")
    monkeypatch.setattr("pipeline.metrics.likelihood._WORTH_COMPILING", 20 * 64 * 1000)
    assert fastest_weigh(given, 999) is importance_samples
    assert fastest_weigh(given, 1000) is not importance_samples
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert fastest_weigh(given, 1000) is importance_samples


def test_compiling_does_not_change_the_estimate(model, given, monkeypatch):
    if not has_compiler(given.mu.device):
        pytest.skip("no C++ compiler")
    monkeypatch.setattr("pipeline.metrics.likelihood._WORTH_COMPILING", 0)
    plain, fast = (estimate(model, given, 50, 0, 1000, weigh=w) for w in (importance_samples, fastest_weigh(given, 50)))
    for expected, value in zip(plain, fast, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-4)


def test_bounds_are_in_order(model, given):
    one, many = (estimate(model, given, samples, 0, 5000) for samples in (1, 2000))
    assert many.elbo.mean() < many.iw_bound.mean()
    assert one.iw_bound.mean() < many.iw_bound.mean()
    torch.testing.assert_close(many.elbo, many.recon - many.kl)


def test_same_seed_same_estimate_and_progress_counts_every_image(model, given):
    done = []
    first, second = (estimate(model, given, 10, 3, 100, done.append) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert sum(done) == 2 * 20


def test_encoding_sees_binary_images_only_where_asked(model):
    assert set(encode_split(model, DIGITS, "static", 0).x(EVERY).unique().tolist()) == {0.0, 1.0}
    assert len(encode_split(model, DIGITS, "none", 0).x(EVERY).unique()) > 2


def test_reconstruction_at_the_mean_has_no_noise(model, given):
    expected = model.likelihood.log_prob(given.x(EVERY), model.decode(given.mu))
    torch.testing.assert_close(recon_at_mean(model, given), expected.detach())


def test_the_curve_rises_to_the_bound_with_all_samples(model, given):
    found = estimate(model, given, 1000, 0, 5000)
    assert curve_sizes(1000) == [1, 10, 100, 500, 1000]
    assert found.curve.shape == (20, 5)
    torch.testing.assert_close(found.curve[:, -1], found.iw_bound)
    means = found.curve.mean(0).tolist()
    assert means == sorted(means)


@pytest.mark.parametrize(("samples", "sizes"), [(1, [1]), (2, [1, 2]), (5, [1, 2, 5]), (250, [1, 10, 100, 125, 250])])
def test_the_curve_has_powers_of_ten_half_of_the_samples_and_all(samples, sizes):
    assert curve_sizes(samples) == sizes


@pytest.mark.parametrize("prior", ["standard", "per_class"])
def test_each_image_of_a_conditional_model_is_measured_under_its_class(prior):
    vae, label, x = conditional_linear_vae(prior), torch.tensor([2, 0, 1, 1, 0]), images(5)
    given = split(vae, x, label)
    exact = torch.stack([marginal_of_class(vae, y).log_prob(one.flatten()) for y, one in zip(label, x, strict=True)])
    found = estimate(vae, given, 20_000, 0, 50_000)
    torch.testing.assert_close(found.iw_bound, exact.detach(), rtol=0, atol=0.1)
    torch.testing.assert_close(
        found.elbo, found.curve[:, 0], rtol=0, atol=0.2
    )  # with the KL in closed form, and by draws


def test_images_of_several_classes_are_encoded_and_given_back_as_their_own(model):
    classes = tuple(map(str, range(3)))
    conditional = VAE(dataclasses.replace(model.config, condition="label", classes=classes)).eval()
    label = EVERY % 3
    given = encode_split(conditional, DIGITS, "static", 0, label)
    alone = [conditional.encode(given.x(one), y)[0] for one, y in zip(EVERY.split(1), label.split(1), strict=True)]
    torch.testing.assert_close(given.mu, torch.cat(alone).detach())
    expected = conditional.likelihood.log_prob(given.x(EVERY), conditional.decode(given.mu, label))
    torch.testing.assert_close(recon_at_mean(conditional, given), expected.detach())
