import pytest
import torch
from sklearn.datasets import load_digits

from pipeline.quality import neighbours
from pipeline.quality.neighbours import Neighbours, memorisation, nearest_training

DIGITS = torch.from_numpy((load_digits().images * 255 / 16).round().astype("uint8"))[:, None]
TRAINING, TEST, FRESH = DIGITS[:900], DIGITS[900:1300], DIGITS[1300:1700]
GENERATOR = torch.Generator().manual_seed(0)


def noisy(images, grey_levels):
    noise = grey_levels * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    return (images + noise).round().clamp(0, 255).to(torch.uint8)


def judged(samples):
    return memorisation(nearest_training(samples, TRAINING), nearest_training(TEST, TRAINING))


def test_the_two_nearest_are_those_of_all_distances():
    found = nearest_training(TEST, TRAINING)
    distances = torch.cdist(TEST.flatten(1).double() / 255, TRAINING.flatten(1).double() / 255)
    expected = distances.topk(2, largest=False)
    torch.testing.assert_close(found.distances.double(), expected.values, rtol=1e-5, atol=1e-5)
    assert (found.indices == expected.indices).float().mean() > 0.99  # equal distances may stand in either order


def test_how_many_are_held_at_once_does_not_change_them(monkeypatch):
    whole = nearest_training(TEST, TRAINING)
    monkeypatch.setattr(neighbours, "_TRAINING_TOGETHER", 7)
    parts = nearest_training(TEST, TRAINING)
    assert torch.equal(whole.distances, parts.distances)


def test_a_grey_level_of_difference_is_seen():
    other = TRAINING[5:6].clone()
    other[0, 0, 3, 3] ^= 1
    found = nearest_training(other, TRAINING)
    assert found.indices[0, 0] == 5
    assert found.distances[0, 0].item() == pytest.approx(1 / 255)


def test_the_two_nearest_are_told_from_two_more_that_are_nearly_as_near():
    """On bright images of 784 pixels an expanded square in float32 cannot tell one grey level from four."""
    orders = torch.stack([torch.randperm(4, generator=torch.Generator().manual_seed(seed)) for seed in range(20)])
    for order in orders:
        training = torch.full((4, 1, 28, 28), 255, dtype=torch.uint8)
        for row, changed in enumerate(order):
            training[row, 0, 3, : changed + 1] -= 1
        found = nearest_training(torch.full((1, 1, 28, 28), 255, dtype=torch.uint8), training)
        assert order[found.indices[0]].tolist() == [0, 1]
        torch.testing.assert_close(found.distances[0], torch.tensor([1, 2**0.5]) / 255)


def test_new_images_of_the_same_kind_are_no_copies():
    found = judged(FRESH)
    assert found.ratio == pytest.approx(1, abs=0.1)
    assert found.copies == 0


@pytest.mark.parametrize("grey_levels", [0, 4])
def test_a_model_that_returns_training_images_is_found(grey_levels):
    found = judged(noisy(TRAINING[100:500], grey_levels))
    assert found.ratio < 0.25
    assert found.copies > 0.95


def test_a_model_that_returns_a_training_image_now_and_then_is_found_by_the_share_of_copies():
    found = judged(torch.cat([FRESH[:360], TRAINING[:40]]))
    assert found.ratio > 0.9
    assert found.copies == pytest.approx(0.1)


def test_a_copy_is_at_most_a_third_as_far_from_its_nearest_training_image_as_from_the_next():
    distances = torch.tensor([[1.0, 3.1], [1.0, 2.9], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    found = Neighbours(torch.zeros(5, 2, dtype=torch.int64), distances)
    assert found.copies.tolist() == [True, False, False, True, True]


def test_equal_training_images_do_not_hide_a_copy():
    doubled = torch.cat([TRAINING, TRAINING])
    assert nearest_training(TRAINING[:10], doubled).copies.all()


def test_data_with_equal_images_in_both_splits_say_so():
    test = Neighbours(torch.zeros(4, 2, dtype=torch.int64), torch.tensor([[0.0, 1.0]]).expand(4, 2))
    found = memorisation(test, test)
    assert test.copy_share == 1
    assert found == (1, 1)
