from dataclasses import astuple

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, rankdata
from sklearn.metrics import roc_auc_score

from pipeline.dataset.store import open_prepared
from pipeline.graphs import detection as module
from pipeline.graphs.defects import draw_defects
from pipeline.graphs.detection import Auroc, measure_auroc, measure_detection
from pipeline.graphs.detection_section import detection_section
from pipeline.runtime import Sampler


@pytest.fixture
def unseen(digits):
    return open_prepared(digits).test.images


def scorer(exported):
    return exported.files["scorer.onnx"]


@pytest.mark.parametrize("decimals", [6, 0])  # with ties and without
def test_auroc_is_the_share_of_pairs_in_order(decimals):
    rng = np.random.default_rng(0)
    normal, strange = rng.normal(0, 2, 70).round(decimals), rng.normal(1, 2, 50).round(decimals)
    found = measure_auroc(normal, strange)
    labels = np.repeat([0, 1], [70, 50])
    assert found.value == pytest.approx(roc_auc_score(labels, np.concatenate([normal, strange])))
    assert found.value == pytest.approx(mannwhitneyu(strange, normal).statistic / (70 * 50))
    assert (found.normal, found.strange) == (70, 50)


@pytest.mark.parametrize("values", [[2.0, 0.5, 2.0, 2.0], [np.inf, 1.0, -np.inf], [7.0], [1.0, np.nan, 0.0]])
def test_ranks_are_those_of_scipy(values):
    assert np.array_equal(module._ranks(np.array(values)), rankdata(values), equal_nan=True)


@pytest.mark.parametrize("shift", [0.0, 1.0, -1.5])
def test_the_standard_error_is_the_spread_over_repetitions(shift):
    rng = np.random.default_rng(1)
    found = [measure_auroc(rng.normal(0, 1, 60), rng.normal(shift, 2, 90)) for _ in range(600)]
    spread = np.std([auroc.value for auroc in found])
    assert np.mean([auroc.stderr for auroc in found]) == pytest.approx(spread, rel=0.12)


def test_what_is_told_apart_has_auroc_1_and_what_is_mistaken_0():
    low, high = np.arange(5.0), np.arange(5.0) + 10
    assert measure_auroc(low, high) == Auroc(1.0, 0.0, 5, 5)
    assert measure_auroc(high, low) == Auroc(0.0, 0.0, 5, 5)
    assert measure_auroc(low, low).value == 0.5


def test_held_out_images_stand_against_all_test_images_by_the_scores_of_the_file(mlp, unseen):
    held_out = np.random.default_rng(0).integers(0, 200, (40, 1, 8, 8), dtype=np.uint8)
    score = Sampler(mlp.folder, "cpu").score
    normal, strange = (score(np.moveaxis(images, 1, -1))[0] for images in (unseen, held_out))
    found = measure_detection(scorer(mlp), unseen, held_out, 500)
    assert astuple(found.held_out) == pytest.approx(astuple(measure_auroc(normal, strange)))
    assert found.metrics["auroc_held_out"] == found.held_out.value
    fewer = measure_detection(scorer(mlp), unseen, held_out, 30).held_out
    assert (fewer.normal, fewer.strange) == (30, 30)


def test_the_error_map_is_read_by_its_largest_mean_over_the_window(mlp):
    errors = np.zeros((3, 28, 28), np.float32)
    errors[0, 10, 20] = 9  # one pixel
    errors[1, 4:7, 4:7] = 2  # a block
    errors[2, 0, 0] = 9  # in the corner, where the map is mirrored
    peak, place = module._peaks(errors, 3)
    np.testing.assert_allclose(peak, [1, 2, 4])
    assert [divmod(int(at), 28) for at in place[1:]] == [(5, 5), (0, 0)]
    assert np.abs(np.subtract(divmod(int(place[0]), 28), (10, 20))).max() <= 1


def test_without_held_out_images_only_defects_are_measured(exported):
    images = np.random.default_rng(0).integers(0, 256, (21, *exported.metadata.image_shape), dtype=np.uint8)
    found = measure_detection(scorer(exported), images, None, 500)
    assert (found.defects.normal, found.defects.strange) == (11, 10)
    names = ("auroc_defects", "auroc_defects_error_map", "defects_located")
    assert list(found.metrics) == [key for name in names for key in (name, f"{name}_stderr")]
    assert all(0 <= value <= 1 for value in found.metrics.values())


def test_the_share_of_located_defects_has_the_standard_error_of_a_share(mlp, unseen, monkeypatch):
    def ten_wholly_covered(images, seed):
        return images, np.repeat(np.arange(len(images)) < 10, 8 * 8).reshape(-1, 8, 8)

    monkeypatch.setattr(module, "draw_defects", ten_wholly_covered)
    found = measure_detection(scorer(mlp), unseen, None, 500)
    share = 10 / found.defects.strange
    assert (found.located, found.covered) == pytest.approx((share, share))
    assert found.located_stderr == pytest.approx((share * (1 - share) / found.defects.strange) ** 0.5)


def test_no_image_stands_on_both_sides(mlp, unseen, monkeypatch):
    given = []
    monkeypatch.setattr(module, "draw_defects", lambda images, seed: given.append(images) or draw_defects(images, seed))
    read = []
    plain = module._Reader.read
    monkeypatch.setattr(
        module._Reader, "read", lambda self, images, label: read.append(images) or plain(self, images, label)
    )
    measure_detection(scorer(mlp), unseen, None, 20)
    normal, defective = ({image.tobytes() for image in images} for images in (read[0], given[0]))
    assert len(normal) == len(defective) == 20
    assert not normal & defective


def test_memory_follows_the_batch_and_the_batch_changes_nothing(mlp, unseen, monkeypatch):
    whole = measure_detection(scorer(mlp), unseen, unseen, 500).metrics
    monkeypatch.setattr(module, "LATENTS_TOGETHER", 8)  # two images
    assert measure_detection(scorer(mlp), unseen, unseen, 500).metrics == pytest.approx(whole)


def test_three_test_images_are_too_few_to_say(mlp, unseen):
    assert measure_detection(scorer(mlp), unseen[:3], unseen, 500) is None


def test_the_window_is_odd_and_a_tenth_of_the_shorter_side():
    sizes = [(28, 28), (8, 8), (64, 300), (1, 1), (200, 100)]
    assert [module._window(size) for size in sizes] == [3, 1, 7, 1, 11]


def test_the_section_tells_what_was_measured_and_what_it_is_not(mlp, unseen):
    found = measure_detection(scorer(mlp), unseen, unseen[:20], 500)
    text = detection_section(found, ["a|b", "line\nbreak"])
    held_out = f"{found.held_out.value:.3f} ± {found.held_out.stderr:.3f}"
    assert f"| 20 images of held-out labels: a\\|b, 'line\\nbreak' | 50 test images | `score` | {held_out} |" in text
    assert f"| `error` | {found.defects_error_map.value:.3f} ±" in text
    assert "mean over 1x1 pixels" in " ".join(text.split())
    assert "Another held-out label" in text


@pytest.mark.parametrize(("value", "warns"), [(0.49, True), (0.51, False)])
def test_the_section_says_so_where_the_unknown_is_found_less_strange(mlp, unseen, value, warns):
    found = measure_detection(scorer(mlp), unseen, None, 500)
    object.__setattr__(found, "held_out", Auroc(value, 0.01, 9, 9))
    assert ("*less* strange" in detection_section(found, ["1"])) is warns
