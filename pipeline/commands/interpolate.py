"""`vae interpolate`: from one seed's image to another's."""

from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.decode import decode_in_parts
from pipeline.commands.options import EXPORT_FOLDER, Device, Label, Model, Temperature, open_sampler
from pipeline.errors import UserError

STEPS = {".gif": 30, ".png": 10}
MOST_PICTURES = 2000


def interpolate(
    seeds: Annotated[str, typer.Option(metavar="SEEDS", help="Two seeds or more, such as 3,8.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="A walk.gif or a strip.png to write.")
    ] = "walk.gif",
    steps: Annotated[
        int | None,
        typer.Option(
            help="Pictures from one seed to the next, both ends included.", show_default="30 in GIF, 10 in PNG"
        ),
    ] = None,
    fps: Annotated[int, typer.Option("--fps", help="Pictures a second of a GIF, 1 to 50.")] = 20,
    temperature: Temperature = 1.0,
    label: Label = None,
    model: Model = EXPORT_FOLDER,
    device: Device = "auto",
) -> None:
    """Walk from one seed's image to another's.

    The image is the seed's first, number 0; the way is a great circle in the latents, or a straight
    line where they are not drawn from the standard normal. A GIF plays there and back; in a
    PNG, each way from seed to seed is a row.
    """
    import numpy as np

    from pipeline.commands.reading import check_file
    from pipeline.files import atomic_file
    from pipeline.runtime.interpolation import WAYS, there_and_back, usual_way, walk, write_animation
    from pipeline.runtime.pictures import check_grid, make_grid

    check_file(output, *STEPS)
    numbers = read_seeds(seeds)
    moving = Path(output).suffix.lower() == ".gif"
    steps = _check(STEPS[Path(output).suffix.lower()] if steps is None else steps, len(numbers), fps)
    sampler = open_sampler(model, device)
    if not moving:
        check_grid(steps * (len(numbers) - 1), sampler.image_shape, steps, f"{output}: a strip")
    stations = np.concatenate([sampler.latents(1, seed, 0, temperature, label) for seed in numbers])
    legs = walk(stations, steps, WAYS[usual_way(sampler.metadata)])  # (legs, steps, latent_dim)
    z = there_and_back(legs) if moving else legs.reshape(-1, sampler.latent_dim)
    parts = decode_in_parts(sampler, z, label)
    if moving:
        write_animation(output, chain.from_iterable(parts), fps)
    else:
        with atomic_file(output) as beside:
            make_grid(np.concatenate(list(parts)), columns=steps).save(beside)
    typer.echo(f"wrote {output}: from seed to seed through {', '.join(map(str, numbers))} in {steps} pictures each")


def read_seeds(text: str) -> list[int]:
    """`3,8` -> [3, 8].

    Raises:
        UserError: an entry is no seed, or there are fewer than two.
    """
    from pipeline.runtime.noise import check_seed

    entries = [entry.strip() for entry in text.split(",")]
    if len(entries) < 2 or not all(entry.isascii() and entry.isdigit() for entry in entries):
        raise UserError(f"--seeds is {text!r}; expected two whole numbers or more, such as 3,8")
    try:
        return [check_seed(int(entry)) for entry in entries]
    except ValueError as error:  # so long that Python will not read it, or no seed
        raise error if isinstance(error, UserError) else UserError(f"--seeds is {text[:40]!r}...; too long") from None


def _check(steps: int, seeds: int, fps: int) -> int:
    if not 2 <= steps <= MOST_PICTURES // (seeds - 1):
        raise UserError(f"--steps is {steps}; expected 2 to {MOST_PICTURES // (seeds - 1)} for {seeds} seeds")
    if not 1 <= fps <= 50:
        raise UserError(f"--fps is {fps}; expected 1 to 50")
    return steps
