"""`vae`: the command for people. It needs the runtime alone, but for `compare` and models named `models:/NAME@ALIAS`,
which load mlflow; torch and dvc stay unloaded."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.compare import compare
from pipeline.commands.decode import decode
from pipeline.commands.encode import encode
from pipeline.commands.explorer import explorer
from pipeline.commands.interpolate import interpolate
from pipeline.commands.options import (
    EXPORT_FOLDER,
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
from pipeline.commands.reconstruct import reconstruct
from pipeline.commands.score import score
from pipeline.commands.serve import serve
from pipeline.errors import run_stage

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from rich.table import Table

    from pipeline.runtime.metadata import Metadata

app = typer.Typer(
    help="Draw images from a trained variational auto-encoder, look into its exported files, compare its runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; a user's mistake is one line on stderr and exit code 1."""
    run_stage(lambda: app(args=arguments, prog_name="vae"))


@app.command()
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
    from pipeline.runtime.pictures import check_output, write_images

    check_output(output, whole_number("count", count, 1))
    path = choose_model(model, demo)
    sampler = open_sampler(path, device, variant)
    parts = sampler.iterate(count, seed, first, temperature, label)
    write_images(output, track_images(parts, count, "drawing"), count, sampler.image_shape)
    numbers = f"number {first}" if count == 1 else f"numbers {first} to {first + count - 1}"
    typer.echo(f"wrote {output}: {numbers} of seed {seed}, drawn from {'the demo' if demo else path}")


for command in (interpolate, encode, decode, reconstruct, score, serve, explorer, compare):
    app.command()(command)


@app.command()
def info(
    given: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="Export folder, or one ONNX file.", show_default=str(EXPORT_FOLDER)),
    ] = None,
    demo: Demo = False,
) -> None:
    """Say what an export is, where it came from, if it is whole.

    Every file of a folder is held against the sha256 that its manifest.json lists.
    """
    from rich.console import Console
    from rich.text import Text

    from pipeline.runtime.describe import describe
    from pipeline.runtime.registry import local_path
    from pipeline.runtime.session import open_session, read_metadata

    path = local_path(choose_model(given, demo, "a path"))
    files, others, variants = _read(path)
    sessions = {name: open_session(content, "cpu", name=name) for name, content in files.items()}
    origin = next(read_metadata(session, name) for name, session in sessions.items())
    described = {name: describe(session) for name, session in sessions.items()}
    beside = f", the {len(others)} in {_folders(others)} too" if others else ""
    verdict = f"Every file has the sha256 that manifest.json lists{beside}."
    if not path.is_dir():
        verdict = f"sha256 {hashlib.sha256(files[str(path)]).hexdigest()}"
    console = Console(highlight=False)
    tables = [
        _named(_origin(origin) | _meanings(sessions)),
        _files(described, files),
        *([_named(variants)] if variants else []),
    ]
    for part in (Text(str(path), style="bold"), *tables):
        console.print(part)
        console.print()
    console.print(verdict)


def _read(path: Path) -> tuple[dict[str, bytes], list[str], Mapping[str, str]]:
    """The ONNX files at `path`, the paths of what lies beside them, and what was found of variants.

    All files are verified where a manifest lists them.
    """
    from pipeline.runtime.manifest import read_manifest
    from pipeline.runtime.session import read_file

    if not path.is_dir():
        return {str(path): read_file(path)}, [], {}
    manifest = read_manifest(path)
    for name in manifest.others:
        manifest.read(name)
    return {name: manifest.read(name) for name in manifest.sha256}, list(manifest.others), manifest.variants


def _folders(paths: list[str]) -> str:
    return " and ".join(sorted({f"{path.split('/')[0]}/" for path in paths}))


def _origin(metadata: "Metadata") -> dict[str, str]:
    """Every entry; of the list of each dimension's KL, what a line tells."""
    from pipeline.runtime.describe import kl_as_text

    kl = {} if metadata.latent_kl is None else {"latent_kl": kl_as_text(metadata.latent_kl)}
    return {**metadata.to_strings(), **kl}


def _meanings(sessions: Mapping[str, "InferenceSession"]) -> dict[str, str]:
    """What the values of `label` and the scores mean, where files take or give any."""
    from pipeline.runtime.describe import labels_as_text, scores_as_text
    from pipeline.runtime.labels import read_labels
    from pipeline.runtime.scores import ScoreScale

    found = {}
    for name, session in sessions.items():
        if labels := read_labels(session, name):
            found["labels"] = labels_as_text(labels)
        strings = session.get_modelmeta().custom_metadata_map
        if "score_quantiles" in strings:
            found["scores"] = scores_as_text(ScoreScale.from_strings(strings, name))
    return found


def _named(entries: Mapping[str, str]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, value in entries.items():
        if name != "graph":
            table.add_row(name, Text(value, overflow="fold"))
    return table


def _files(described: Mapping[str, Any], files: Mapping[str, bytes]) -> "Table":
    """One row a file, each input and output on a line of its own."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    from pipeline.runtime.describe import as_text

    table = Table("file", "inputs", "outputs", box=SIMPLE, pad_edge=False, show_edge=False, show_lines=True)
    for name, sides in described.items():
        lines = ["\n".join(as_text([tensor]) for tensor in sides[side]) for side in ("inputs", "outputs")]
        table.add_row(*map(Text, [f"{Path(name).name}\n{len(files[name]):,} bytes", *lines]))
    return table


if __name__ == "__main__":
    main()
