"""How far a command is: a bar on stderr while it works, on a terminal alone."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from pipeline.runtime.pixels import Images


def open_console() -> Console:
    """stderr, for bars and for lines that stand above them; file names come as they are."""
    return Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(console: Console) -> Iterator[Progress]:
    """A bar that goes away when the work is over."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield progress


def track_images(parts: "Iterable[Images]", total: int, title: str) -> "Iterator[Images]":
    """The parts as they come, each uint8 [k, H, W, C], under a bar that counts their images up to `total`."""
    with progress_bar(open_console()) as bar:
        task = bar.add_task(title, total=total)
        for part in parts:
            yield part
            bar.advance(task, len(part))
