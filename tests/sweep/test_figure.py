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


def test_of_points_that_lie_together_the_ends_are_labelled():
    rows = [
        {"d": 2, "b": b, "rate": rate, "distortion": 9.0} for b, rate in ((1, 10.0), (2, 10.1), (3, 15.0), (4, 20.0))
    ]
    [axes] = rate_distortion(rows, "d", "b").axes
    assert labels_of(axes, rows) == ["1", None, "3", "4"]


def test_rate_and_distortion_add_up_to_minus_the_elbo_that_a_grey_line_is_labelled_with(axes):
    grey = [line for line in axes.lines if line not in labelled(axes).values()]
    assert len(grey) >= 4
    labels = {round(sum(text.xy), 6): text.get_text() for text in axes.texts}
    for line in grey:
        sums = line.get_xdata() + line.get_ydata()
        assert sums[0] == pytest.approx(sums[1])
        assert labels[round(float(sums[0]), 6)].endswith(f"−{sums[0]:g}")


def test_a_single_point_is_drawn(tmp_path):
    save_figure(rate_distortion(ROWS[:1], "model.latent_dim", "train.beta"), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
