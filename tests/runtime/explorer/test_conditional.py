"""The explorer over a conditional model that was trained, if briefly, on real digits of three classes."""

import json
from itertools import combinations

import numpy as np
import pytest
import torch
from explorer import assert_same, shown
from sklearn.datasets import load_digits

from pipeline.graphs.build import build_files
from pipeline.graphs.manifest import build_manifest
from pipeline.runtime import Sampler
from pipeline.runtime.metadata import Metadata
from pipeline.vae.bounds import elbo
from pipeline.vae.model import VAE, VAEConfig

NAMES = ("zero", "one", "two")
DIGITS = load_digits(n_class=len(NAMES))
CONFIG = VAEConfig((1, 8, 8), "mlp", (32,), "relu", 3, "bernoulli", "learned", condition="label", classes=NAMES)
METADATA = Metadata("", 3, (1, 8, 8), "bernoulli", "standard", "elbo", "da7a" * 16, "9a3a" * 16, "0fb6cfb", "8f14e45f")


@pytest.fixture(scope="module")
def model(tmp_path_factory, quick_export):
    folder = tmp_path_factory.mktemp("conditional")
    images = (DIGITS.images[:60, None] * 255 / 16).round().astype(np.uint8)
    files = build_files(trained_vae(steps=150), METADATA, 2, images, labels=DIGITS.target[:60])
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "manifest.json").write_text(json.dumps(build_manifest(files)))
    return folder


def trained_vae(steps):
    torch.manual_seed(0)
    vae, x, label = VAE(CONFIG), torch.from_numpy(DIGITS.images[:, None] / 16).float(), torch.from_numpy(DIGITS.target)
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        (-elbo(vae, x, torch.randn(len(x), CONFIG.latent_dim), label).elbo.mean()).backward()
        optimizer.step()
    return vae.eval()


def test_each_class_of_a_code_is_the_picture_that_python_gives_of_it(page, model):
    sampler = Sampler(model, "cpu", threads=1)
    assert page.tab.run("document.getElementById('label').checkVisibility()")
    assert page.tab.run("document.querySelector('#label').selectedOptions[0].text") == "one"
    assert_same(shown(page, sampler), sampler.sample(1, seed=3, label="one")[0])
    page.enter(page.slider(1), -1)
    page.settle()
    z, pictures = page.code(), []
    assert z[1] == -1
    for index, name in enumerate(NAMES):
        page.enter("#label", index)
        page.settle()
        np.testing.assert_array_equal(page.code(), z)
        pictures.append(shown(page, sampler))
        assert_same(pictures[-1], sampler.decode(z[None], label=name)[0])
    for one, other in combinations(pictures, 2):
        assert np.abs(one.astype(int) - other).mean() > 16  # grey levels; two real digits of two classes: about 64


def test_the_model_has_learnt_what_its_classes_look_like(model):
    means = np.stack([DIGITS.images[DIGITS.target == index].mean(0) for index in range(len(NAMES))]) * 255 / 16
    for index, name in enumerate(NAMES):
        (picture,) = Sampler(model, "cpu", threads=1).decode(np.zeros((1, 3), np.float32), label=name)
        assert np.abs(picture[..., 0] - means).mean((1, 2)).argmin() == index
