"""Images from the command line, batch by batch, under a progress bar; and the check of where a file is to go."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.counted import counted
from pipeline.commands.progress import open_console, progress_bar
from pipeline.errors import UserError, shown
from pipeline.runtime.images import ImageBatch, find_images, read_images

if TYPE_CHECKING:
    from pipeline.runtime.sampler import Sampler


def read_batches(
    paths: Sequence[Path], sampler: "Sampler", title: str, resize: bool, skip_bad: bool
) -> Iterator[ImageBatch]:
    """The images at `paths`, in batches that are decoded as they are asked for.

    On a terminal a bar shows how far it is. A skipped file is named on stderr, and at the end they are counted.

    Raises:
        UserError: a file is no image and `skip_bad` is off, one has another size and `resize` is off, or none is left.
    """
    files = find_images(paths)
    console = open_console()
    skipped = 0

    def skip(file: str, reason: str) -> None:
        nonlocal skipped
        skipped += 1
        console.print(f"skipped {shown(file)}: {reason}")

    with progress_bar(console) as bar:
        tracked = bar.track(files, description=title)
        yield from read_images(tracked, sampler.image_shape, resize, skip if skip_bad else None)
    if skipped:
        console.print(f"skipped {skipped} of {counted(len(files), 'file')}")
    if skipped == len(files):
        raise UserError(f"none of {counted(len(files), 'file')} is an image; expected at least one")


def check_file(output: str, *suffixes: str) -> None:
    """Hold that a result can be written there, before anything is computed.

    Raises:
        UserError: the suffix is not one of `suffixes`, or a folder stands or is meant there.
    """
    suffix = Path(output).suffix.lower()
    if suffix not in suffixes:
        raise UserError(f"{output}: suffix is {suffix!r}; expected {' or '.join(suffixes)}")
    if Path(output).is_dir() or output.endswith(("/", "\\")):
        raise UserError(f"{output}: is a folder; expected the name of a file")
