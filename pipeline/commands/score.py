"""`vae score`: which images are strange, and where in them."""

import csv
import dataclasses
import math
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.counted import counted
from pipeline.commands.options import EXPORT_FOLDER, Device, Label, Model, Photos, Resize, SkipBad, open_sampler
from pipeline.errors import UserError, shown
from pipeline.files import atomic_file

if TYPE_CHECKING:
    from pipeline.runtime.contact_sheet import Scored
    from pipeline.runtime.images import ImageBatch
    from pipeline.runtime.sampler import Sampler

ON_THE_SHEET = 24

Row = tuple[str, float, float]
"""File, score in nats, and the share of validation images that are less strange."""


def score(
    images: Photos,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The scores.csv to write.")
    ] = "scores.csv",
    sheet: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help=f"A sheet.png to write, of the {ON_THE_SHEET} strangest beside their error maps."
        ),
    ] = None,
    resize: Resize = False,
    skip_bad: SkipBad = False,
    label: Label = None,
    model: Model = EXPORT_FOLDER,
    device: Device = "auto",
) -> None:
    """Say how strange the model finds images, the strangest first.

    Columns: file, score (nats, higher is stranger) and stranger_than (the share of the model's validation images that
    score lower, 0 to 1). A plain picture may score low though the model never saw one: see card.md.
    """
    from pipeline.commands.reading import check_file, read_batches
    from pipeline.runtime.contact_sheet import contact_sheet, in_nats

    check_file(output, ".csv")
    if sheet is not None:
        check_file(sheet, ".png")
    sampler = open_sampler(model, device)
    rows: list[Row] = []
    strangest: list[Scored] = []
    for batch in read_batches(images, sampler, "scoring", resize, skip_bad):
        scored = score_batch(sampler, batch, label)
        rows += [(item.file, item.score, item.stranger_than) for item in scored]
        strangest = keep_strangest(strangest + scored) if sheet is not None else []
    rows.sort(key=lambda row: (-row[1], row[0]))
    _write_rows(output, rows)
    strangest_of_all = f"{shown(rows[0][0])} at {in_nats(rows[0][1])}"
    typer.echo(f"wrote {output}: {counted(len(rows), 'image')}; the strangest is {strangest_of_all}")
    if sheet is not None:
        with atomic_file(sheet) as beside:
            contact_sheet(strangest).save(beside)
        those = f"the {len(strangest)} strangest beside their error maps"
        typer.echo(f"wrote {sheet}: {those if len(strangest) > 1 else 'the image beside its error map'}")


def score_batch(sampler: "Sampler", batch: "ImageBatch", label: str | None = None) -> "list[Scored]":
    """Each file of a batch with its score and its error map.

    Raises:
        UserError: the model has no finite score for an image.
    """
    from pipeline.runtime.contact_sheet import Scored

    scores, errors = sampler.score(batch.images, label)
    for file, found in zip(batch.files, scores, strict=True):
        if not math.isfinite(found):
            raise UserError(
                f"{shown(file)}: its score is {found}; expected a finite number (is the model's training sound?)"
            )
    columns = (batch.files, scores.tolist(), sampler.strangeness(scores).tolist(), batch.images, errors)
    return [Scored(*row) for row in zip(*columns, strict=True)]


def keep_strangest(scored: "list[Scored]") -> "list[Scored]":
    """The strangest of them, the strangest first, as copies: a slice would keep its whole batch in memory."""
    chosen = sorted(scored, key=lambda item: (-item.score, item.file))[:ON_THE_SHEET]
    return [dataclasses.replace(item, image=item.image.copy(), error=item.error.copy()) for item in chosen]


def _write_rows(output: str, rows: list[Row]) -> None:
    # A file name may hold bytes of no encoding; they are written as they were.
    with (
        atomic_file(output) as beside,
        open(beside, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["file", "score", "stranger_than"])
        writer.writerows((name, f"{found:.7g}", f"{share:.4f}") for name, found, share in rows)
