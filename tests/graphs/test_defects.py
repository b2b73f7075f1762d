import numpy as np
import pytest

from pipeline.graphs.defects import CONTRAST, draw_defects


def pictures(shape, n=300):
    """Smooth ones, so that the mean of what a mark covers says something."""
    rng = np.random.default_rng(0)
    return np.broadcast_to(rng.integers(0, 256, (n, 1, 1, shape[2])), (n, *shape)).astype(np.uint8)


@pytest.fixture(params=[(28, 28, 1), (32, 20, 3), (8, 8, 1), (1, 1, 3)], ids=str)
def images(request):
    return pictures(request.param)


def test_only_what_the_mask_covers_changes_and_it_covers_something(images):
    before = images.copy()
    drawn, masks = draw_defects(images, seed=0)
    np.testing.assert_array_equal(images, before)
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal((drawn != images).any(-1), masks)
    assert masks.any((1, 2)).all()


def test_each_mark_has_one_colour_that_stands_out_in_every_channel(images):
    drawn, masks = draw_defects(images, seed=0)
    for image, marked, mask in zip(images, drawn, masks, strict=True):
        assert len(np.unique(marked[mask], axis=0)) == 1
        assert np.abs(marked[mask].astype(int) - image[mask]).min() >= CONTRAST


def test_defects_are_small_and_anywhere():
    _, masks = draw_defects(pictures((28, 28, 1), 2000), seed=0)
    assert masks.mean((1, 2)).max() < 0.13  # the largest patch, 30 % of the side each way, with its rim
    assert 0.01 < masks.mean() < 0.04
    assert (masks.sum(0) > 0).all()


def test_the_longest_defect_is_a_scratch_over_half_of_the_shorter_side():
    _, masks = draw_defects(pictures((100, 140, 1)), seed=0)
    longest = max(np.hypot(*np.ptp(np.argwhere(mask), axis=0)) for mask in masks)  # corner to corner of what it covers
    assert 45 < longest <= 50 + 7  # and up to 7 % wide


def test_an_image_has_the_same_defect_whatever_stands_behind_it():
    images = pictures((28, 28, 1))
    drawn, masks = draw_defects(images, seed=3)
    few, few_masks = draw_defects(images[:7], seed=3)
    np.testing.assert_array_equal(few, drawn[:7])
    np.testing.assert_array_equal(few_masks, masks[:7])
    assert not np.array_equal(masks, draw_defects(images, seed=4)[1])


def test_all_three_kinds_are_drawn_at_each_size():
    _, masks = draw_defects(pictures((56, 56, 1)), seed=0)
    areas, boxes = masks.sum((1, 2)), []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append((np.ptp(rows) + 1) * (np.ptp(columns) + 1))
    filled = areas / boxes
    assert 0.2 < (filled == 1).mean() < 0.6  # patches, and a few others that the border cut
    assert 0.1 < ((filled > 0.6) & (filled < 1)).mean() < 0.6  # spots, and upright scratches
    assert 0.1 < (filled < 0.6).mean() < 0.6  # scratches
