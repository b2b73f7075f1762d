"""Options that several commands share, described once. Nothing heavy is imported: `vae --help` reads this."""

from pathlib import Path
from typing import Annotated

import typer

EXPORT_FOLDER = Path("models/export")

Photos = Annotated[
    list[Path],
    typer.Argument(metavar="IMAGES", help="Images, and folders of images at any depth (PNG, JPEG, WebP or BMP)."),
]
Resize = Annotated[bool, typer.Option("--resize", help="Stretch images of another size to the model's.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out files that are no images, and name them.")]
Model = Annotated[Path, typer.Option(help="Export folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or tensorrt.")]
