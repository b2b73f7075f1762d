"""A conditional model that draws from the aggregate mixture over a standard prior, made by hand."""

from dataclasses import replace

import numpy as np
import pytest
from conditional import write_model
from explorer import Explorer, serve_model

NAMES = ["night", "dusk", "day"]
LEVELS = np.array([0.2, 0.5, 0.8])


@pytest.fixture(scope="module")
def model(mlp, tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditional")
    metadata = replace(mlp.metadata, aggregate_components=4)
    write_model(folder, metadata, NAMES, latent_dim=24, latent_kl=(1.0,) * 20 + (0.0,) * 4)
    return folder


def shown_class(page, canvas="picture"):
    levels = page.pixels(canvas, 1) / 255
    return int(np.abs(LEVELS - levels.mean()).argmin())


def test_the_class_is_chosen_by_its_name(page):
    assert page.tab.run("[...document.querySelectorAll('#label option')].map((option) => option.text)") == NAMES
    assert shown_class(page) == 1
    page.enter("#label", 2)
    page.settle()
    assert shown_class(page) == 2
    assert "label=2" in page.tab.run("location.hash")


def test_a_moved_code_is_decoded_under_the_chosen_class(page):
    page.enter(page.slider(0), 4)
    page.settle()
    z = page.code()
    page.enter("#label", 0)
    page.settle()
    np.testing.assert_array_equal(page.code(), z)
    expected = 255 * (0.2 + 0.01 * z.sum())
    assert np.abs(page.pixels(channels=1) - expected).max() <= 1


def test_the_walk_between_two_draws_of_another_density_is_straight(page):
    codes = []
    for place in (1, 3, 8):
        page.click(f"#walk button:nth-child({place})")
        page.settle()
        codes.append(page.code())
    start, point, end = codes
    np.testing.assert_allclose(point, start + (end - start) * 2 / 7, atol=1e-5)


def test_of_many_dimensions_the_most_active_are_shown(page):
    shown = "document.querySelectorAll('#sliders label:not([hidden])').length"
    assert page.tab.run(shown) == 16
    page.click("#all")
    assert page.tab.run(shown) == 24
    following = page.tab.run("document.getElementById('inactive').nextSibling.firstChild.textContent")
    assert following == "z20"


def test_a_model_without_classes_offers_none(tab, sampler):
    with serve_model(sampler) as address:
        page = Explorer(tab, address).wait()
        assert not page.tab.run("document.getElementById('label').checkVisibility()")
        assert "label" not in page.tab.run("location.hash")
        assert page.tab.run("document.getElementById('own').checkVisibility()")
