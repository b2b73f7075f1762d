import pytest
from rich.progress import Progress

from pipeline.training.progress import TrainingProgress, summary, training_progress

METRICS = {"images_per_second": 12345.0} | {
    f"{split}/{name}": value
    for split in ("train", "val")
    for name, value in (("elbo", -1.0), ("recon", -2.0), ("kl", 1.0))
}


def test_summary_names_elbo_recon_kl_and_speed():
    assert summary(METRICS) == "elbo -1.00 (-1.00)  recon -2.00 (-2.00)  kl 1.00 (1.00)  12,345 images/s"


def test_summary_of_an_autoencoder_has_no_elbo():
    assert (
        summary({"train/recon": -2.0, "val/recon": -3.0, "images_per_second": 9.0}) == "recon -2.00 (-3.00)  9 images/s"
    )


def test_after_a_resume_the_bars_show_the_epochs_that_have_ended_and_the_images_of_the_present_one(capsys):
    bars = Progress(disable=True)
    TrainingProgress(bars, epochs=10, images=600, shown=True).resume(4, 128)
    assert [bar.completed for bar in bars.tasks] == [3, 128]
    assert capsys.readouterr().out == "train: going on at epoch 4/10, image 128\n"


@pytest.mark.parametrize(
    ("epochs", "shown"),
    [
        (1, [1]),
        (7, [1, 2, 3, 4, 5, 6, 7]),
        (19, [1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 19]),
        (100, [1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]),
        (101, [1, 11, 22, 33, 44, 55, 66, 77, 88, 99, 101]),
    ],
)
def test_without_a_terminal_the_first_epoch_has_a_line_and_at_most_ten_more_have(capsys, epochs, shown):
    with training_progress(epochs, images=10) as progress:
        for epoch in range(1, epochs + 1):
            progress.step(10)
            progress.epoch(epoch, METRICS)
    lines = capsys.readouterr().out.splitlines()
    width = len(str(epochs))
    assert [line.partition("  elbo")[0] for line in lines] == [f"epoch {epoch:>{width}}/{epochs}" for epoch in shown]


def test_a_bar_goes_back_with_the_training_without_a_line(capsys):
    with training_progress(epochs=3, images=10) as progress:
        progress.epoch(1, METRICS)
        capsys.readouterr()
        progress.step(7)
        progress.go_back(2)
        progress.step(4)
        assert [task.completed for task in progress._progress.tasks] == [1, 4]
    assert capsys.readouterr().out == ""
