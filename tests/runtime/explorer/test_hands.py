"""What a hand does besides looking: keys, the PNG, the link; and the page of a model that is its sampler alone."""

import time

import numpy as np
import pytest
from explorer import Explorer, serve_model, shown
from PIL import Image

from pipeline.runtime import Sampler


@pytest.fixture
def downloads(tab, tmp_path):
    """Where the browser saves files."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    tab.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    return folder


def test_the_saved_png_is_the_picture_in_the_size_of_the_model(visit, site, downloads):
    page = visit("#seed=7&open=2")
    page.click("#download")
    file = wait_for_file(downloads, "seed-7-image-2.png")
    with Image.open(file) as picture:
        channels = site.sampler.image_shape[2]
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB"))[..., :channels], shown(page, site.sampler))


def wait_for_file(folder, name):
    end = time.monotonic() + 20
    while not (folder / name).is_file():
        assert time.monotonic() < end, [path.name for path in folder.iterdir()]
        time.sleep(0.05)
    return folder / name


def test_the_copied_link_is_that_of_what_is_seen(visit):
    page = visit("#seed=7")
    clipboard = "{ writeText: async (text) => (window.copied = text) }"
    page.tab.run(f"Object.defineProperty(navigator, 'clipboard', {{ value: {clipboard} }})")
    page.enter(page.slider(1), 1.5)
    page.settle()
    page.click("#copy")
    page.tab.until("document.getElementById('copy').textContent === 'Copied'")
    assert page.tab.run("window.copied") == page.tab.run("location.href")
    assert "seed=7" in page.tab.run("window.copied")
    assert page.code()[1] == 1.5


CONTROLS = (
    *("next", "seed", "reseed", "temperature", "grid", "from", "to", "walk", "file"),
    *("copy", "download", "reset"),
)
SHOWN_SLIDERS = """[...document.querySelectorAll("#sliders label:not([hidden]) input")]
    .map((input) => input.dataset.dimension)"""
FOCUSED = """(() => { const at = document.activeElement;
    return at.id || at.parentElement.id || at.dataset.dimension; })()"""


def test_tab_reaches_every_control_and_a_grid_once(visit):
    page = visit()
    page.enter(page.slider(0), 1)  # Reset can be pressed now
    page.settle()
    page.tab.run("document.activeElement.blur()")
    reached: list[str] = []
    while reached.count("next") < 2 and len(reached) < 40:
        page.tab.press("Tab")
        reached.append(page.tab.run(FOCUSED))
    assert [name for name in reached if name in CONTROLS] == [*CONTROLS, "next"]
    assert set(page.tab.run(SHOWN_SLIDERS)) <= set(reached)


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_follows_the_light_or_dark_of_the_system(visit, tab, dark):
    tab.resize(1280, 900, dark)
    try:
        visit()
        ground, ink = (
            tab.run(f"getComputedStyle(document.body).{name}.match(/\\d+/g).map(Number)")
            for name in ("backgroundColor", "color")
        )
        assert (sum(ground) < sum(ink)) is dark
    finally:
        tab.resize(1280, 900)


def test_a_sampler_alone_has_samples_and_says_what_the_page_lacks(tab, mlp, tmp_path):
    (tmp_path / "sampler.onnx").write_bytes(mlp.files["sampler.onnx"])
    sampler = Sampler(tmp_path / "sampler.onnx", "cpu", threads=1)
    with serve_model(sampler) as address:
        page = Explorer(tab, address, "#seed=7").wait()
        np.testing.assert_allclose(shown(page, sampler).astype(int), sampler.sample(1, seed=7)[0], atol=1)
        seen = [page.tab.run(f"document.getElementById('{name}').checkVisibility()") for name in PARTS]
        assert dict(zip(PARTS, seen, strict=True)) == {**dict.fromkeys(PARTS, False), "lacking": True}
        assert page.text("#lacking").startswith("This model is its sampler alone.")


@pytest.mark.parametrize("limit", [{"max_images": 5}, {"max_pixel_bytes": 1}])  # the second leaves one image a request
def test_a_server_that_gives_few_images_at_a_time_shows_the_same(tab, sampler, limit):
    with serve_model(sampler, **limit) as address:
        page = Explorer(tab, address, "#seed=7&open=22&from=5&to=6").wait()
        np.testing.assert_allclose(shown(page, sampler).astype(int), sampler.sample(1, seed=7, first=22)[0], atol=1)
        for place, seed in ((1, 5), (8, 6)):
            page.click(f"#walk button:nth-child({place})")
            page.settle()
            np.testing.assert_allclose(shown(page, sampler).astype(int), sampler.sample(1, seed=seed)[0], atol=1)


PARTS = ["walking", "own", "latent", "lacking"]


def test_a_whole_model_lacks_nothing(visit):
    page = visit()
    assert [page.tab.run(f"document.getElementById('{name}').checkVisibility()") for name in PARTS] == [True] * 3 + [
        False
    ]
