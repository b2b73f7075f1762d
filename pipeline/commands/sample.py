"""`vae sample`: images drawn from the model."""

from typing import Annotated

import typer

from pipeline.commands.options import (
    Demo,
    Device,
    Label,
    Pictures,
    SamplerModel,
    Temperature,
    Variant,
    choose_model,
    open_sampler,
)


def sample(
    output: Pictures = "grid.png",
    count: Annotated[int, typer.Option("--count", "-n", help="How many images.")] = 64,
    seed: Annotated[int, typer.Option(help="The same seed gives the same images.")] = 0,
    first: Annotated[int, typer.Option(help="Where in the seed's endless row of images to start.")] = 0,
    temperature: Temperature = 1.0,
    label: Label = None,
    model: SamplerModel = None,
    demo: Demo = False,
    device: Device = "auto",
    variant: Variant = None,
) -> None:
    """Draw images from the model."""
    from pipeline.commands.progress import track_images
    from pipeline.runtime.draws import whole_number
    from pipeline.runtime.noise import check_first
    from pipeline.runtime.pictures import check_output, write_images

    check_output(output, whole_number("count", count, 1))
    check_first(first, count)
    path = choose_model(model, demo)
    sampler = open_sampler(path, device, variant)
    parts = sampler.iterate(count, seed, first, temperature, label)
    write_images(output, track_images(parts, count, "drawing"), count, sampler.image_shape)
    numbers = f"number {first}" if count == 1 else f"numbers {first} to {first + count - 1}"
    typer.echo(f"wrote {output}: {numbers} of seed {seed}, drawn from {'the demo' if demo else path}")
