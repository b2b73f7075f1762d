import itertools

import pytest

from pipeline.metrics.figures import save_figure
from pipeline.sweep.figure import rate_distortion

ROWS = [
    {"model.latent_dim": d, "train.beta": b, "rate": 20 / b + d, "distortion": 80 + 10 * b - d}
    for d, b in itertools.product((5, 2), (1.0, 0.5, 2.0))
]


@pytest.fixture
def axes():
    [axes] = rate_distortion(ROWS, "model.latent_dim", "train.beta").axes
    return axes


def labelled(axes):
    """The lines of the legend, by label."""
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def test_there_is_a_line_for_each_value_of_the_first_param_along_the_second(axes):
    lines = labelled(axes)
    assert list(lines) == ["latent_dim 2", "latent_dim 5"]
    assert lines["latent_dim 5"].get_xdata().tolist() == [45.0, 25.0, 15.0]
    assert lines["latent_dim 5"].get_ydata().tolist() == [80.0, 85.0, 95.0]


def labels_of(axes, rows):
    at_points = {text.xy: text.get_text() for text in axes.texts}
    return [at_points.get((row["rate"], row["distortion"])) for row in rows]


def test_every_point_is_labelled_with_its_value(axes):
    assert labels_of(axes, ROWS) == ["1", "0.5", "2", "1", "0.5", "2"]


def crowded():
    """One line: twenty points in one place, and another far from them."""
    rows = [{"d": 2, "b": b, "rate": 10 + b / 1000, "distortion": 9 + b / 1000} for b in range(20)]
    return [*rows, {"d": 2, "b": 20, "rate": 20.0, "distortion": 5.0}]


def test_of_many_points_in_one_place_both_ends_are_labelled_and_what_has_room():
    [axes] = rate_distortion(crowded(), "d", "b").axes
    labels = labels_of(axes, crowded())
    assert labels[0] == "0" and labels[-1] == "20"
    assert 2 < sum(label is not None for label in labels) < 10


def test_no_label_of_a_point_touches_another_or_the_line():
    [axes] = rate_distortion(crowded(), "d", "b").axes
    axes.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts if "ELBO" not in text.get_text()]
    assert not any(box.overlaps(other) for box, other in itertools.combinations(boxes, 2))
    [line] = labelled(axes).values()
    path = line.get_path().transformed(axes.transData)
    assert not any(path.intersects_bbox(box, filled=False) for box in boxes)


def test_rate_and_distortion_add_up_to_minus_the_elbo_that_a_grey_line_is_labelled_with(axes):
    grey = [line for line in axes.lines if line not in labelled(axes).values()]
    assert len(grey) >= 4
    labels = {round(sum(text.xy), 6): text.get_text() for text in axes.texts}
    for line in grey:
        sums = line.get_xdata() + line.get_ydata()
        assert sums[0] == pytest.approx(sums[1])
        assert labels[round(float(sums[0]), 6)].endswith(f"−{sums[0]:g}")


def test_of_a_density_whose_elbo_is_above_0_the_grey_lines_say_so():
    rows = [row | {"distortion": row["distortion"] - 130} for row in ROWS]
    [axes] = rate_distortion(rows, "model.latent_dim", "train.beta").axes
    labels = {round(sum(text.xy), 6): text.get_text() for text in axes.texts if "ELBO" in text.get_text()}
    assert min(labels) < 0 < max(labels)
    for total, label in labels.items():
        assert float(label.removeprefix("ELBO ").replace("−", "-")) == pytest.approx(-total)


def test_a_single_point_is_drawn(tmp_path):
    save_figure(rate_distortion(ROWS[:1], "model.latent_dim", "train.beta"), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
