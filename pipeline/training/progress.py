"""What a person sees while training runs: a live bar at a terminal, else a line of epoch 1 and at most ten more."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINES_WITHOUT_TERMINAL = 10  # beside the first


class TrainingProgress:
    """Shows epochs as they end, and the share of the present one."""

    def __init__(self, progress: Progress, epochs: int, images: int, shown: bool) -> None:
        self._progress, self._shown = progress, shown
        self._epochs, self._images = epochs, images
        self._run = progress.add_task("epochs", total=epochs, metrics="")
        self._epoch = progress.add_task("images", total=images, metrics="")

    def step(self, images: int) -> None:
        """So many images more have been seen in this epoch."""
        self._progress.advance(self._epoch, images)

    def resume(self, epoch: int, images: int) -> None:
        """Training goes on in this epoch, of which so many images have been seen."""
        self._move(epoch, images)
        if self._shown:
            print(f"train: going on at epoch {epoch}/{self._epochs}, image {images:,}", flush=True)

    def go_back(self, epoch: int) -> None:
        """Training has returned to the start of this epoch, as whoever decided it says."""
        self._move(epoch, 0)

    def _move(self, epoch: int, images: int) -> None:
        self._progress.update(self._run, completed=epoch - 1)
        self._progress.update(self._epoch, completed=images)

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch has ended with these metrics."""
        line = summary(metrics)
        self._progress.update(self._run, completed=epoch, metrics=line)
        self._progress.reset(self._epoch)
        every = math.ceil(self._epochs / _LINES_WITHOUT_TERMINAL)
        as_lines = self._shown and not self._progress.console.is_terminal
        if as_lines and (epoch % every == 0 or epoch in (1, self._epochs)):
            print(f"epoch {epoch:>{len(str(self._epochs))}}/{self._epochs}  {line}", flush=True)


@contextmanager
def training_progress(epochs: int, images: int, shown: bool = True) -> Iterator[TrainingProgress]:
    """A progress display for the duration of a block; on ranks that are not `shown`, nothing is."""
    columns = (
        TextColumn("{task.description:>6}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}"),
    )
    console = Console()
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as progress:
        yield TrainingProgress(progress, epochs, images, shown)


def summary(metrics: Mapping[str, float]) -> str:
    """The metrics of one epoch as one line, validation in brackets; nats, but for the images a second."""
    parts = [
        f"{name} {metrics[f'train/{name}']:.2f} ({metrics[f'val/{name}']:.2f})"
        for name in ("elbo", "recon", "kl")
        if f"train/{name}" in metrics
    ]
    return "  ".join([*parts, f"{metrics['images_per_second']:,.0f} images/s"])
