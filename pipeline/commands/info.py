"""`vae info`: what an export is, where it came from, if it is whole."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.options import EXPORT_FOLDER, Demo, choose_model

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from rich.table import Table

    from pipeline.runtime.metadata import Metadata


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
    console = Console(highlight=False)
    tables = [
        _named(_origin(origin) | _meanings(sessions)),
        _files(described, files),
        *([_named(variants)] if variants else []),
    ]
    for part in (Text(str(path), style="bold"), *tables):
        console.print(part)
        console.print()
    console.print(_verdict(path, files, others))


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


def _verdict(path: Path, files: Mapping[str, bytes], others: list[str]) -> str:
    """That the files of a folder are whole, as `_read` has found; of a single file, which nothing lists, its sha256."""
    if not path.is_dir():
        return f"sha256 {hashlib.sha256(files[str(path)]).hexdigest()}"
    folders = " and ".join(sorted({f"{other.split('/')[0]}/" for other in others}))
    beside = f", the {len(others)} in {folders} too" if others else ""
    return f"Every file has the sha256 that manifest.json lists{beside}."


def _origin(metadata: "Metadata") -> dict[str, str]:
    """Every entry; of the lists with a number for each latent dimension, what a line tells."""
    from pipeline.runtime.describe import kl_as_text
    from pipeline.runtime.metadata import OF_LATENTS

    lists = {name: values for name in OF_LATENTS if (values := getattr(metadata, name)) is not None}
    told = {name: f"{min(values):.4g} to {max(values):.4g}" for name, values in lists.items()}
    kl = {} if metadata.latent_kl is None else {"latent_kl": kl_as_text(metadata.latent_kl)}
    return {**metadata.to_strings(), **told, **kl}


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
