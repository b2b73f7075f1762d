"""What the page answers to what is wrong: one line that helps, and the page goes on."""

import numpy as np
import pytest
from explorer import OPENING_SEED, Explorer, assert_same, drop, own_image, serve_model, shown
from PIL import Image

from pipeline.runtime import Sampler


def test_a_broken_link_says_so_and_shows_a_sample(visit, site):
    page = visit("#seed=5&z=abc")
    assert page.text("#status").startswith("the link")
    assert_same(shown(page, site.sampler), site.sampler.sample(1, seed=5)[0])


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("seed=x1&temperature=0.5", "the link's seed is 'x1'; expected 0 to 9007199254740991"),
        ("first=281474976710650", "the link's first is '281474976710650'; expected 0 to 281474976710632"),
        (
            "temperature=-1&open=24",
            "the link's open is '24'; expected 0 to 23, its temperature is '-1'; expected 0 to 2",
        ),
        (
            "temprature=2&sed=1&seed=-1",
            "the link's seed is '-1'; expected 0 to 9007199254740991, its temprature and sed are not known; "
            "expected seed, first, temperature, label, from, to, open, z",
        ),
        (
            "temperature=99&z=1,2",
            "the link's temperature is '99'; expected 0 to 2, and the link's z is not one that this page wrote",
        ),
        ("from=&label=1", "the link's from is ''; expected 0 to 9007199254740991, its label is '1'; expected 0 to 0"),
    ],
)
def test_what_a_link_says_wrongly_is_named_and_the_rest_is_shown(visit, site, said, message):
    page = visit(f"#to=6&{said}")
    assert page.text("#status") == message
    assert page.value("#to") == "6"
    temperature = 0.5 if "0.5" in said else 1.0
    assert_same(shown(page, site.sampler), site.sampler.sample(1, OPENING_SEED, temperature=temperature)[0])


def test_the_last_images_of_a_seed_are_shown(visit, site):
    page = visit("#first=281474976710632&open=23")
    page.click("#next")
    page.settle()
    assert page.text("#status") == ""
    assert page.text("#range") == "281474976710632 to 281474976710655"
    assert_same(shown(page, site.sampler), site.sampler.sample(1, OPENING_SEED, first=2**48 - 1)[0])


def test_what_is_wrong_is_said_in_one_line(visit, site, tmp_path):
    (tmp_path / "note.png").write_text("not an image")
    page = visit()
    page.tab.choose_file("#file", tmp_path / "note.png")
    page.settle()
    assert page.text("#status") == "note.png: is not an image that this browser can read"
    drop(page, own_image(site.sampler, tmp_path)[0])
    page.settle()
    assert page.text("#status") == ""
    page.enter("#seed", -3)
    assert page.text("#status").startswith("the seed is '-3'; expected a whole number from 0 to")
    page.enter("#seed", 3)
    page.settle()
    assert page.text("#status") == ""


def test_a_decompression_bomb_is_refused(visit, tmp_path):
    Image.new("1", (5000, 4000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 10_000
    page = visit()
    before = page.text("#opened-title")
    page.tab.choose_file("#file", tmp_path / "bomb.png")
    page.settle()
    assert page.text("#status") == "bomb.png: has 5000 × 4000 pixels; expected 16777216 at most"
    assert page.text("#opened-title") == before


def test_a_score_that_is_not_a_number_is_told_as_such(tab, mlp, tmp_path):
    sampler = Sampler(mlp.folder, "cpu", threads=1)
    graphs = sampler.runner
    score = graphs("scorer.onnx")

    def nowhere(outputs, rows):
        return [np.full_like(output, np.nan) for output in score(outputs, rows)]

    sampler.runner = lambda name: nowhere if name == "scorer.onnx" else graphs(name)
    with serve_model(sampler) as address:
        page = Explorer(tab, address).wait()
        drop(page, own_image(sampler, tmp_path)[0])
        page.settle()
        assert page.text("#score") == "not a number"
        assert page.text("#stranger") == "cannot be compared with the validation images"
        assert tab.run("document.getElementById('rank-mark').getBoundingClientRect().width") == 0
        assert page.text("#status") == ""


def test_two_files_at_once_and_what_is_no_file_are_refused(visit, site, tmp_path):
    file, _ = own_image(site.sampler, tmp_path)
    page = visit()
    drop(page, file, file)
    assert page.text("#status") == "2 files; expected one image"
    drop(page)
    assert page.text("#status") == "no files; expected one image"
    drop(page, file)
    page.settle()
    assert (page.text("#status"), page.text("#opened-title")) == ("", "own.png")


def test_an_image_of_another_size_is_stretched_and_the_page_says_so(visit, site, tmp_path):
    file, own = own_image(site.sampler, tmp_path)
    page = visit()
    drop(page, file)
    page.settle()
    assert page.text("#origin") == "Yours"
    Image.new("RGB", (40, 30), "white").save(tmp_path / "wide.png")
    drop(page, tmp_path / "wide.png")
    page.settle()
    assert page.text("#origin") == "Yours, was 40 × 30"
    np.testing.assert_array_equal(page.pixels("original", own.shape[2]), np.full_like(own, 255))
