"""The page in a browser, once over the server and once as a static folder: it is to do the same."""

import numpy as np
import pytest
from explorer import assert_same, drop, own_image, shown

YELLOW, PURPLE = (253, 231, 37), (68, 1, 84)  # the ends of viridis


def test_the_page_shows_the_samples_of_its_seed(visit, site):
    page = visit("#seed=7&first=24&open=2")
    assert_same(shown(page, site.sampler), site.sampler.sample(1, seed=7, first=26)[0])


def test_a_slider_changes_the_picture_to_what_python_decodes(visit, site):
    page = visit("#seed=7")
    before = shown(page, site.sampler)
    page.enter(page.slider(1), 3.5)
    page.settle()
    z = page.code()
    assert z[1] == np.float32(3.5)
    assert np.abs(shown(page, site.sampler).astype(int) - before).max() > 1
    assert_same(shown(page, site.sampler), site.sampler.decode(z[None])[0])


def test_an_arrow_key_moves_a_slider_and_the_picture(visit, site):
    page = visit("#seed=7")
    most_active = int(np.argmax(site.sampler.metadata.latent_kl))
    page.enter(page.slider(most_active), 1)
    page.tab.run(f'document.querySelector("{page.slider(most_active)}").focus()')
    for _ in range(4):
        page.tab.press("ArrowRight")
    page.settle()
    assert page.code()[most_active] == pytest.approx(1.2)
    assert_same(shown(page, site.sampler), site.sampler.decode(page.code()[None])[0])


def test_the_temperature_scales_the_samples(visit, site):
    page = visit("#seed=7")
    page.enter("#temperature", 0.5)
    page.settle()
    assert_same(shown(page, site.sampler), site.sampler.sample(1, seed=7, temperature=0.5)[0])


def test_a_walk_begins_and_ends_at_its_seeds(visit, site):
    page = visit("#from=5&to=6")
    for place, seed in ((1, 5), (8, 6)):
        page.click(f"#walk button:nth-child({place})")
        page.settle()
        np.testing.assert_allclose(page.code(), site.sampler.latents(1, seed=seed)[0], rtol=1e-4, atol=1e-5)
        assert_same(shown(page, site.sampler), site.sampler.sample(1, seed=seed)[0])


def test_a_link_restores_what_was_seen(visit, site):
    page = visit("#seed=5&temperature=0.5&from=1&to=2")
    page.enter(page.slider(0), -2.25)
    page.settle()
    z, fragment = page.code(), page.tab.run("location.hash")
    again = visit(fragment)
    assert again.text("#opened-title") == "A linked image"
    assert_same(shown(again, site.sampler), site.sampler.decode(z[None])[0])
    assert [again.value(f"#{name}") for name in ("seed", "temperature", "from", "to")] == ["5", "0.5", "1", "2"]
    assert float(again.value(again.slider(0))) == -2.25


def test_reset_after_another_seed_links_to_the_image_that_it_shows(visit, site):
    page = visit("#seed=5")
    before = shown(page, site.sampler)
    page.enter(page.slider(0), -2.25)
    page.enter("#seed", 6)
    page.settle()
    page.click("#reset")
    page.settle()
    np.testing.assert_array_equal(shown(page, site.sampler), before)
    np.testing.assert_allclose(page.code(), site.sampler.latents(1, seed=5)[0], rtol=1e-4, atol=1e-5)


def test_an_image_of_ones_own_is_reconstructed_and_the_sliders_start_at_its_code(visit, site, tmp_path):
    file, own = own_image(site.sampler, tmp_path)
    page = visit()
    drop(page, file)
    page.settle()
    mu, _ = site.sampler.encode(own[None])
    np.testing.assert_allclose(page.code(), mu[0], rtol=1e-3, atol=1e-4)
    assert_same(shown(page, site.sampler), site.sampler.decode(mu)[0])
    assert_same(page.pixels("original", own.shape[2]), own)
    page.enter(page.slider(2), 1.5)
    page.settle()
    np.testing.assert_allclose(page.code(), [*mu[0][:2], 1.5], rtol=1e-3, atol=1e-4)


def test_an_image_of_ones_own_has_the_score_and_the_error_map_of_python(visit, site, tmp_path):
    file, own = own_image(site.sampler, tmp_path)
    page = visit()
    page.tab.choose_file("#file", file)
    page.settle()
    score, error = site.sampler.score(own[None])
    share = float(site.sampler.strangeness(score)[0])
    number, unit = page.text("#score").replace("−", "-").split()
    assert unit == "nats"
    assert float(number) == pytest.approx(score[0], abs=0.06)
    expected = "stranger than every" if share == 1 else f"stranger than {100 * share:.1f}\u00a0%"
    assert page.text("#stranger").startswith(expected)
    pixels = page.pixels("error")
    assert tuple(pixels[np.unravel_index(error[0].argmax(), error[0].shape)]) == YELLOW
    assert tuple(pixels[np.unravel_index(error[0].argmin(), error[0].shape)]) == PURPLE
    ends = [float(page.text(f"#{name}").replace("−", "-")) for name in ("least", "most")]
    assert ends == pytest.approx([error.min(), error.max()], abs=0.06)


def test_arrow_keys_move_through_the_grid(visit):
    page = visit()
    page.tab.run("document.querySelector('#grid button').focus()")
    page.tab.press("ArrowRight")
    page.tab.press("ArrowDown")
    assert page.tab.run("[...document.querySelectorAll('#grid button')].indexOf(document.activeElement)") == 9


def test_a_phone_needs_no_sideways_scrolling(visit, tab, site, tmp_path):
    file, _ = own_image(site.sampler, tmp_path)
    tab.resize(360, 800)
    try:
        page = visit()
        drop(page, file)
        page.settle()
        assert tab.run("document.documentElement.scrollWidth") <= 360
    finally:
        tab.resize(1280, 900)
