import pytest
import torch
from sklearn.datasets import load_digits

from pipeline.quality import classifier as module
from pipeline.quality.classifier import Classifier, train_classifier

DIGITS = torch.from_numpy((load_digits().images * 255 / 16).round().astype("uint8"))[:, None]
LABELS = torch.from_numpy(load_digits().target)
TRAIN, TEST = slice(0, 1200), slice(1200, None)


@pytest.fixture(scope="module")
def classifier():
    return train_classifier(DIGITS[TRAIN], LABELS[TRAIN], 10, seed=0)


def test_it_reads_digits_that_it_never_saw(classifier):
    assert classifier.accuracy(DIGITS[TEST], LABELS[TEST]) > 0.88


def test_its_accuracy_is_the_share_of_right_answers(classifier):
    said = classifier.classify(DIGITS[:50])
    assert classifier.accuracy(DIGITS[:50], said) == 1
    assert classifier.accuracy(DIGITS[:50], torch.where(torch.arange(50) < 10, (said + 1) % 10, said)) == 0.8


def test_features_of_an_image_do_not_depend_on_the_others(classifier):
    together = classifier.features(DIGITS[:300])
    assert together.shape == (300, 64)
    torch.testing.assert_close(together[256:260], classifier.features(DIGITS[256:260]), rtol=1e-4, atol=1e-5)


def test_the_same_seed_trains_the_same_classifier_and_the_callers_generator_is_left_alone(monkeypatch):
    monkeypatch.setattr(module, "_FEWEST_STEPS", 10)
    monkeypatch.setattr(module, "_EPOCHS", 1)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one, again, other = (train_classifier(DIGITS[:200], LABELS[:200], 10, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.features(DIGITS[:5]), again.features(DIGITS[:5]))
    assert not torch.equal(one.features(DIGITS[:5]), other.features(DIGITS[:5]))


@pytest.mark.parametrize("shape", [(3, 5, 9), (3, 70, 40)])
def test_images_of_any_size_have_features(shape):
    images = torch.randint(0, 256, (20, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    classifier = Classifier(3, 2).eval()
    assert classifier.features(images).shape == (20, 64)
    assert set(classifier.classify(images).tolist()) <= {0, 1}
