"""`vae reconstruct`: what the model keeps of an image."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.counted import counted
from pipeline.commands.options import EXPORT_FOLDER, Device, Label, Model, Photos, Resize, SkipBad, open_sampler
from pipeline.errors import UserError
from pipeline.files import atomic_directory, expect_new_folder

if TYPE_CHECKING:
    from pipeline.runtime.images import Images

MOST_STEM_BYTES = 200
SMALLEST_PAIR = 224  # pixels; smaller pairs are enlarged by a whole factor, each pixel a square


def reconstruct(
    images: Photos,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FOLDER", help="The folder to fill; new or empty.")
    ] = "reconstructions",
    alone: Annotated[
        bool, typer.Option("--alone", help="Write the reconstruction alone, in the model's size.")
    ] = False,
    resize: Resize = False,
    skip_bad: SkipBad = False,
    label: Label = None,
    model: Model = EXPORT_FOLDER,
    device: Device = "auto",
) -> None:
    """Write images beside what the model makes of them.

    One PNG an image, 000000-name.png and so on in their order: the original on the left, its reconstruction on the
    right, small ones enlarged. z is the mean of q(z|x), so nothing is random.
    """
    from pipeline.commands.reading import read_batches
    from pipeline.runtime.pictures import as_picture

    if Path(output).suffix.lower() in (".png", ".npy", ".gif"):
        raise UserError(f"--output is {output}; expected a folder to fill, one picture for each image")
    expect_new_folder(output)
    sampler = open_sampler(model, device)
    written = 0
    with atomic_directory(output) as beside:
        for batch in read_batches(images, sampler, "reconstructing", resize, skip_bad):
            mu, _ = sampler.encode(batch.images, label)
            pictures = _pictures(batch.images, sampler.decode(mu, label), alone)
            for file, picture in zip(batch.files, pictures, strict=True):
                name = beside / f"{written:06}-{_shortened(Path(file).stem)}.png"
                as_picture(picture, 1 if alone else SMALLEST_PAIR).save(name)
                written += 1
    beside_each = "its reconstruction" if written == 1 else "their reconstructions"
    told = counted(written, "reconstruction") if alone else f"{counted(written, 'image')} beside {beside_each}"
    typer.echo(f"wrote {output}: {told}")


def _shortened(stem: str) -> str:
    """A file system counts bytes: a number in front must not make a name too long that was just short enough."""
    while len(os.fsencode(stem)) > MOST_STEM_BYTES:
        stem = stem[:-1]
    return stem


def _pictures(originals: "Images", reconstructions: "Images", alone: bool) -> "Iterator[Images]":
    from pipeline.runtime.pictures import beside_each_other

    if alone:
        yield from reconstructions
    else:
        yield from map(beside_each_other, originals, reconstructions)
