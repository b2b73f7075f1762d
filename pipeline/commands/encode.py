"""`vae encode`: images to latents."""

from typing import Annotated

import typer

from pipeline.commands.counted import counted
from pipeline.commands.options import EXPORT_FOLDER, Device, Label, Model, Photos, Resize, SkipBad, open_sampler


def encode(
    images: Photos,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The codes.npz to write.")
    ] = "codes.npz",
    resize: Resize = False,
    skip_bad: SkipBad = False,
    label: Label = None,
    model: Model = EXPORT_FOLDER,
    device: Device = "auto",
) -> None:
    """Map images to their latents.

    The file holds `files` (their names), and `mu` and `logvar` of each one's latents, float32 [n, latent_dim].
    Images become grey or coloured as the model takes them. Only the codes are kept in memory, not the images.
    """
    import numpy as np

    from pipeline.commands.reading import check_file, read_batches
    from pipeline.files import atomic_file

    check_file(output, ".npz")
    sampler = open_sampler(model, device)
    files, codes = [], []
    for batch in read_batches(images, sampler, "encoding", resize, skip_bad):
        files += batch.files
        codes.append(sampler.encode(batch.images, label))
    mu, logvar = (np.concatenate(part) for part in zip(*codes, strict=True))
    with atomic_file(output) as beside, open(beside, "wb") as file:  # of a name it would have .npz at the end, as spelt
        np.savez(file, files=np.array(files), mu=mu, logvar=logvar)
    typer.echo(f"wrote {output}: {counted(sampler.latent_dim, 'latent')} of {counted(len(files), 'image')}")
