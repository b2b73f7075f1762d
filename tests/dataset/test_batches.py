import pytest
import torch

from pipeline.dataset.batches import binarize, evenly, images_at_once, index_batches, model_input, to_unit


def grey(level, count=4000):
    return torch.full((count, 1, 8, 8), level, dtype=torch.uint8)


def test_batches_cover_the_order_and_the_last_may_be_smaller():
    batches = list(index_batches(torch.arange(10), 4))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert torch.equal(torch.cat(batches), torch.arange(10))


@pytest.mark.parametrize(
    ("count", "most", "expected"), [(10, 4, [0, 3, 6, 9]), (7, 2, [0, 6]), (3, 5, [0, 1, 2]), (5, 0, [])]
)
def test_some_of_a_split_are_from_its_first_to_its_last_image(count, most, expected):
    assert evenly(count, most).tolist() == expected


@pytest.mark.parametrize(
    ("image_shape", "images"), [((1, 28, 28), 1000), ((3, 64, 64), 83), ((3, 256, 256), 5), ((3, 2000, 2000), 1)]
)
def test_the_larger_the_images_the_fewer_at_once(image_shape, images):
    assert images_at_once(image_shape) == images


def test_who_asks_for_more_small_images_at_once_gets_them():
    assert images_at_once((1, 28, 28), 5000) == 5000
    assert images_at_once((3, 32, 32), 5000) == 1666


def test_pixels_become_fractions_of_255():
    assert to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])


@pytest.mark.parametrize("level", [1, 51, 128, 254])
def test_a_pixel_is_drawn_as_one_with_its_grey_value_as_probability(level):
    share = binarize(grey(level), torch.arange(4000), seed=0).mean().item()
    probability = level / 255
    assert share == pytest.approx(probability, abs=5 * (probability * (1 - probability) / 256_000) ** 0.5)


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_are_certain(level):
    assert binarize(grey(level), torch.arange(4000), seed=0).unique().tolist() == [level / 255]


def test_static_binarisation_is_the_same_in_every_epoch_and_dynamic_is_not():
    pixels, examples = grey(128, 4), torch.arange(4)
    static = [model_input(pixels, examples, "static", 0, epoch) for epoch in (1, 2)]
    dynamic = [model_input(pixels, examples, "dynamic", 0, epoch) for epoch in (1, 2)]
    assert torch.equal(*static)
    assert not torch.equal(*dynamic)


def test_dynamic_binarisation_of_a_measured_split_is_the_static_one():
    pixels, examples = grey(128, 4), torch.arange(4)
    assert torch.equal(model_input(pixels, examples, "dynamic", 0), model_input(pixels, examples, "static", 0))


def test_an_example_is_binarised_alike_in_any_batch():
    pixels = grey(128, 10)
    shuffled = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    ordered = model_input(pixels, torch.arange(10), "dynamic", 3, 5)
    assert torch.equal(model_input(pixels, shuffled, "dynamic", 3, 5), ordered[shuffled])


def test_unbinarised_pixels_stay_as_they_are():
    assert torch.equal(model_input(grey(51, 2), torch.arange(2), "none", 0, 1), to_unit(grey(51, 2)))
