import numpy as np
import pytest
from PIL import Image

from pipeline.metrics import figures

GENERATOR = np.random.default_rng(0)


def random_images(count, channels=1, height=8, width=6):
    return GENERATOR.random((count, channels, height, width), dtype=np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_shows_every_image_in_its_place(channels):
    images = random_images(5, channels)
    picture = figures.mosaic(images, rows=2, columns=3)
    picture = picture[..., None] if channels == 1 else picture
    np.testing.assert_array_equal(picture[9:17, 7:13], images[4].transpose(1, 2, 0))
    assert (picture[9:, 14:] == 1).all()  # the sixth place is empty


def test_reconstructions_stand_below_their_originals():
    originals, reconstructed = np.zeros((3, 1, 4, 4), np.float32), np.ones((3, 1, 4, 4), np.float32)
    axes = figures.reconstructions(originals, reconstructed, columns=3).axes[0]
    shown = axes.images[0].get_array()
    assert shown[:4].max() == 1  # the white lines between
    assert shown[0, 0] == 0
    assert shown[5, 0] == 1


@pytest.mark.parametrize("count", [5, 7, 11])
def test_each_reconstruction_stands_below_its_original_in_a_short_row_too(count):
    grey = np.linspace(0.1, 0.4, count, dtype=np.float32)
    originals = np.broadcast_to(grey[:, None, None, None], (count, 1, 4, 4))
    axes = figures.reconstructions(originals, originals + 0.5, columns=4).axes[0]
    shown = np.asarray(axes.images[0].get_array())[::5, ::5]  # the first pixel of each
    rows, places = np.divmod(np.arange(count), 4)
    np.testing.assert_allclose(shown[2 * rows, places], grey)
    np.testing.assert_allclose(shown[2 * rows + 1, places], grey + 0.5)
    assert [text.get_text() for text in axes.texts] == ["image", "recon"] * (len(shown) // 2)
    assert (shown[-2:, count % 4 :] == 1).all()


def test_fewer_images_than_columns_fill_one_row_each():
    images = np.zeros((3, 1, 4, 4), np.float32)
    assert figures.reconstructions(images, images).axes[0].images[0].get_array().shape[:2] == (9, 14)


def test_the_kl_of_thousands_of_dimensions_fits_a_page():
    kl = np.linspace(0, 2, 3000)
    figure = figures.kl_per_dimension(kl.tolist(), kl.tolist(), 0.01)
    assert figure.get_size_inches()[0] <= 16
    assert len(figure.axes[0].patches) == 2  # the active ones, and the others


def test_dimensions_too_many_to_be_named_are_told_by_their_rank():
    few, many = (figures.kl_per_dimension([0.5] * count, [1.0] * count, 0.01).axes[0] for count in (50, 51))
    assert (few.get_xlabel(), len(few.get_xticks())) == ("dimension of z", 50)
    assert many.get_xlabel() == "rank of the dimension by its KL"


def test_figures_are_png_files_that_depend_on_nothing_but_their_contents(tmp_path):
    images = random_images(4)
    for name in ("first.png", "second.png"):
        figures.save_figure(figures.image_grid(images, 2, "title"), tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert Image.open(tmp_path / "first.png").format == "PNG"


def test_curves_mark_the_epoch_that_was_kept():
    rows = [{"epoch": e, "train/recon": -9.0 / e, "val/recon": -10.0 / e} for e in (1.0, 2.0, 3.0)]
    axes = figures.learning_curves(rows, kept_epoch=2).axes
    assert len(axes) == 1  # an auto-encoder has no ELBO and no KL
    kept = axes[0].lines[-1]
    assert (list(kept.get_xdata()), list(kept.get_ydata())) == ([2], [-5.0])


def test_inactive_dimensions_are_pale():
    figure = figures.kl_per_dimension([0.1, 2.0], [0.0, 1.0], threshold=0.01)
    first, second = figure.axes[0].patches
    assert first.get_height() == 2.0
    assert first.get_facecolor() != second.get_facecolor()


def test_the_importance_bound_is_drawn_along_its_samples():
    metrics = {"test/nll_iw10": 104.5, "test/nll_iw1": 107.1, "test/nll_iw100": 103.4, "test/nll_iw100_stderr": 1.3}
    [curve, _] = figures.importance_bound(metrics).axes[0].lines
    assert curve.get_xydata().tolist() == [[1, 107.1], [10, 104.5], [100, 103.4]]
