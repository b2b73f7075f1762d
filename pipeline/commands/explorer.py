"""`vae explorer`: the explorer as a folder for any web server."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import EXPORT_FOLDER, Model


def explorer(
    output: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to write; new or empty.")],
    model: Model = EXPORT_FOLDER,
    runtime: Annotated[
        Path | None, typer.Option(metavar="DIST", help="dist/ of the npm package onnxruntime-web, to be copied.")
    ] = None,
) -> None:
    """Write the explorer as a folder that any web server can show.

    The browser then runs the model; no server of ours is needed.
    """
    from pipeline.runtime.explorer.folder import RUNTIME, write_explorer
    from pipeline.runtime.registry import local_path

    write_explorer(output, local_path(model), runtime)
    lacks = "" if runtime else f"; put {' and '.join(RUNTIME)} of onnxruntime-web's dist/ into it"
    typer.echo(f"wrote {output}: the explorer of {model}, for any web server{lacks}")
