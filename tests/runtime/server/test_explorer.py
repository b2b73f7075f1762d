import base64
import importlib.util
import re
import socket
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from PIL import Image

from pipeline.runtime import Sampler
from pipeline.runtime.server.app import create_app
from pipeline.runtime.server.page import FILES

_spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
browser = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(browser)

DRAWN = "document.querySelectorAll('.tiles button[aria-label]').length == 32"
PIXELS = """(() => {
    const { width, height } = document.getElementById('picture');
    const copy = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
    copy.drawImage(document.getElementById('picture'), 0, 0);
    return [...copy.getImageData(0, 0, width, height).data];
})()"""
CODE = "new URLSearchParams(location.hash.slice(1)).get('z')"


@pytest.fixture(scope="module", params=["mlp", "conv"])
def sampler(request):
    return Sampler(request.getfixturevalue(request.param).folder, "cpu", threads=1)


@pytest.fixture(scope="module")
def address(sampler):
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(sampler), log_level="warning", ws="none"))
    running = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    running.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    running.join(20)


@pytest.fixture(scope="session")
def tab(tmp_path_factory):
    if not browser.find_chromium():
        pytest.skip("no chromium is installed")
    opened = browser.Browser(tmp_path_factory.mktemp("profile"))
    opened.resize(1280, 900)
    yield opened
    opened.close()


@pytest.fixture
def page(tab, address):
    """Opens the explorer at a hash, drawn; the console must have stayed silent."""

    def opening(fragment=""):
        tab.send("Page.navigate", url="about:blank")
        tab.send("Page.navigate", url=f"{address}/{fragment}")
        tab.until(f"{DRAWN} && document.getElementById('opened-title').textContent && location.hash")
        return tab

    tab.problems.clear()
    yield opening
    assert not tab.problems


def shown(page, sampler):
    """The canvas as uint8 [H, W, C]."""
    height, width, channels = sampler.image_shape
    return np.array(page.run(PIXELS), np.uint8).reshape(height, width, 4)[..., :channels]


def code(page):
    """The z that the address bar holds: float32 [latent_dim]."""
    page.until(f"{CODE} !== null")
    text = page.run(CODE)
    return np.frombuffer(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "<f4")


def slide(page, dimension, value):
    page.run(
        f"""(() => {{ const slider = document.querySelectorAll('#sliders input')[{dimension}];
        slider.value = {value}; slider.dispatchEvent(new Event('input')); }})()"""
    )


def test_the_page_shows_the_samples_of_its_seed(page, sampler):
    opened = page("#seed=7&first=24&open=2")
    np.testing.assert_array_equal(shown(opened, sampler), sampler.sample(1, seed=7, first=26)[0])


def test_a_slider_changes_the_picture_to_what_python_decodes(page, sampler):
    opened = page("#seed=7")
    before = shown(opened, sampler)
    opened.run(f"window.before = String({PIXELS}), 0")
    slide(opened, 1, 3.5)
    opened.until(f"String({PIXELS}) != before")
    z = code(opened)
    assert z[1] == np.float32(3.5)
    assert np.abs(shown(opened, sampler).astype(int) - before).max() > 1
    np.testing.assert_array_equal(shown(opened, sampler), sampler.decode(z[None])[0])


def test_a_link_restores_what_was_seen(page, sampler):
    opened = page("#seed=5&temperature=0.5&from=1&to=2")
    slide(opened, 0, -2.25)
    z = code(opened)
    fragment = opened.run("location.hash")
    again = page(fragment)
    again.until("document.getElementById('opened-title').textContent == 'A linked image'")
    np.testing.assert_array_equal(shown(again, sampler), sampler.decode(z[None])[0])
    names = ("seed", "temperature", "from", "to")
    assert again.run(f"{list(names)}.map((id) => document.getElementById(id).value)") == ["5", "0.5", "1", "2"]
    assert again.run("Number(document.querySelector('#sliders input').value)") == -2.25


def test_reset_after_another_seed_links_to_the_image_that_it_shows(page, sampler):
    opened = page("#seed=5")
    before = shown(opened, sampler)
    slide(opened, 0, -2.25)
    opened.run(
        "[...document.querySelectorAll('#seed')].map((e) => (e.value = 6, e.dispatchEvent(new Event('change'))))"
    )
    opened.until("location.hash.includes('seed=6')")
    opened.run("window.seen = location.hash, document.getElementById('reset').click()")
    np.testing.assert_array_equal(shown(opened, sampler), before)
    opened.until("location.hash != seen")
    np.testing.assert_allclose(code(opened), sampler.latents(1, seed=5)[0], rtol=1e-5)


def test_a_broken_link_says_so_and_shows_a_sample(page, sampler):
    opened = page("#seed=5&z=abc")
    opened.until("document.getElementById('status').textContent.startsWith('the link')")
    np.testing.assert_array_equal(shown(opened, sampler), sampler.sample(1, seed=5)[0])


def test_an_image_of_ones_own_is_encoded_and_decoded(page, sampler, tmp_path):
    height, width, channels = sampler.image_shape
    own = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    Image.fromarray(own[..., 0] if channels == 1 else own).save(tmp_path / "own.png")
    opened = page()
    opened.choose_file("#file", tmp_path / "own.png")
    opened.until("!document.getElementById('compared').hidden")
    mu, _ = sampler.encode(own[None])
    np.testing.assert_allclose(code(opened), mu[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(shown(opened, sampler), sampler.decode(code(opened)[None])[0])


def test_what_is_wrong_is_said_in_one_line(page, tmp_path):
    opened = page()
    (tmp_path / "note.png").write_text("not an image")
    opened.choose_file("#file", tmp_path / "note.png")
    opened.until("document.getElementById('status').textContent.startsWith('note.png: is not an image')")


def test_arrow_keys_move_through_the_grid(page):
    opened = page()
    opened.run("document.querySelector('#grid button').focus()")
    opened.press("ArrowRight")
    opened.press("ArrowDown")
    assert opened.run("[...document.querySelectorAll('#grid button')].indexOf(document.activeElement)") == 9


def test_a_phone_needs_no_sideways_scrolling(page, tab):
    tab.resize(360, 800)
    try:
        assert page().run("document.documentElement.scrollWidth") <= 360
    finally:
        tab.resize(1280, 900)


def test_the_page_is_self_contained_and_under_a_strict_policy(address):
    for name in FILES:
        url = f"{address}/{name.removeprefix('index.html')}"
        with urllib.request.urlopen(url, timeout=20) as response:  # noqa: S310
            text, policy = response.read().decode(), response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"""https?://|["'(]//""", text)
        assert not re.search(r"""<[^>]+\s(on\w+|style)=""", text)
