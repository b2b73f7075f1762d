"""`vae compare`: the runs of the MLflow store side by side."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.counted import counted
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.tracking.rows import Row


class Format(StrEnum):
    """How runs are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def compare(
    by: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            help="What decides which is best.",
            show_default="test/elbo, or val/elbo",
        ),
    ] = None,
    lowest: Annotated[
        bool | None,
        typer.Option("--lowest/--highest", help="Which value is best, where the metric's name does not say it."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many runs, at most.")] = 20,
    curve: Annotated[
        bool, typer.Option("--curve", help="Every K of the importance bound, not each run's largest alone.")
    ] = False,
    form: Annotated[
        Format,
        typer.Option(
            "--format", help="A table of what fits the terminal; csv holds all params and metrics, json tags."
        ),
    ] = Format.TABLE,
) -> None:
    """Compare the runs of the MLflow store, the best first.

    Of the params only those are shown in which these runs differ.
    """
    from pipeline.commands.ranking import best_is_lowest, default_metric, expect_metric, ranked
    from pipeline.commands.run_table import as_csv, as_json

    rows = _read_rows()
    if by is not None:
        expect_metric(by, rows)
    metric = by or default_metric(rows)
    lowest_first = best_is_lowest(metric) if lowest is None else lowest
    best = ranked(rows, metric, lowest_first)[:limit]
    if form is Format.TABLE:
        _print_table(best, len(rows), metric, lowest_first, curve)
    else:
        typer.echo(as_json(best) if form is Format.JSON else as_csv(best).rstrip("\n"))


def _read_rows() -> "list[Row]":
    try:
        from pipeline.tracking.rows import read_rows
    except ModuleNotFoundError as error:
        install = "install it with: pip install '.[train]'"
        raise UserError(f"vae compare needs {error.name}, which is not installed; {install}") from None
    return read_rows()


def _print_table(rows: "list[Row]", total: int, metric: str, lowest_first: bool, curve: bool) -> None:
    from rich.console import Console

    from pipeline.commands.ranking import measured_on_different
    from pipeline.commands.run_table import run_table

    console = Console(highlight=False, markup=False)
    table, left_out = run_table(rows, metric, console.width, curve)
    console.print(table)
    runs = counted(total, "run")
    shown = f"the best {len(rows)} of {runs}" if len(rows) < total else runs
    console.print(f"\n{shown}, {'lowest' if lowest_first else 'highest'} {metric} first")
    if different := measured_on_different(rows):
        console.print(f"nats of runs that differ in {' or '.join(different)} do not compare", style="yellow")
    if left_out:
        columns = counted(left_out, "more column")
        console.print(f"no room for {columns}: a wider terminal, or --format csv, shows all", style="dim")
