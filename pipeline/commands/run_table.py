"""Runs as a table that fits the terminal, or whole, for other programs."""

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from pipeline.commands.ranking import DATA, are_of_other_data, differing, names

if TYPE_CHECKING:
    from pipeline.tracking.rows import Row

IMPORTANCE_BOUND = "test/nll_iw"
MEASURES = ("test/elbo", "test/recon", "test/kl", IMPORTANCE_BOUND, "test/bits_per_dim", "test/active_units")
FINISHED = "finished"
STYLES = {"running": "yellow", "failed": "red", "killed": "red"}
LONGEST = 24  # cells of a name or a value where the terminal cannot hold all columns; a longer one loses its middle
WIDEST_HEADING = 10  # where it can be broken
GAP = 2  # between two columns; the box has a space of its own there
NOTHING = "-"
PLACES = ("prepare.root", "prepare.path")  # long, and of the bytes that lie there the data's sha256 says more


@dataclass(frozen=True)
class Column:
    """One column: its heading, the text of each row, and its place among those that must fit, 0 the first."""

    heading: str
    cells: Sequence[str]
    urgency: int
    is_number: bool = False

    @property
    def lines(self) -> str:
        """The heading broken at slashes, dots and underscores, so that a narrow column stays narrow."""
        lines = [""]
        for part in re.findall(r"[^/._]+[/._]?", self.heading):
            if lines[-1] and (lines[-1][-1] in "/." or len(lines[-1] + part) > WIDEST_HEADING):
                lines.append("")
            lines[-1] += part
        return "\n".join(lines)

    def width(self) -> int:
        """In cells of a terminal."""
        return max(map(cell_len, [*self.lines.split("\n"), *self.cells]))


def run_table(rows: "Sequence[Row]", by: str, width: int, curve: bool = False) -> tuple[Table, int]:
    """A table of what fits into `width` cells, and how many columns do not.

    Of the importance bound it has each run's own K, the largest, or with `curve` every K that was measured.
    """
    columns = _columns(rows, by, curve)
    if _total(columns) > width:
        columns = [replace(column, cells=[_shortened(cell) for cell in column.cells]) for column in columns]
    kept: list[Column] = []
    for column in sorted(columns, key=lambda column: column.urgency):
        if not kept or _total([*kept, column]) <= width:
            kept.append(column)
    table = Table(box=SIMPLE, pad_edge=False, show_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold")
    shown = [column for column in columns if column in kept]
    for column in shown:
        table.add_column(
            Text(column.lines, overflow="fold"),
            justify="right" if column.is_number else "left",
            width=column.width(),
            overflow="fold",
        )
    for cells in zip(*(column.cells for column in shown), strict=True):
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in cells))
    return table, len(columns) - len(kept)


def as_json(rows: "Sequence[Row]") -> str:
    """Params, metrics and tags of the runs; a metric that is no finite number is null."""
    return json.dumps([_told(row) for row in rows], indent=2, allow_nan=False)


def as_csv(rows: "Sequence[Row]") -> str:
    """A line a run: all params and metrics, each a column."""
    params, metrics = names(row.params for row in rows), names(row.metrics for row in rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run_id", "name", "status", "started", *params, *metrics])
    for row in rows:
        values = [*(row.params.get(name, "") for name in params), *(row.metrics.get(name, "") for name in metrics)]
        writer.writerow([row.run_id, row.name, row.status, row.started.isoformat(), *values])
    return text.getvalue()


def _columns(rows: "Sequence[Row]", by: str, curve: bool) -> list[Column]:
    """All columns in the order in which they stand."""
    statuses = [row.status for row in rows]
    columns = [
        Column("run", [row.name for row in rows], 0),
        _measured(by, rows, 1),
        *(_chosen(name, rows, 6 if name in PLACES else 3) for name in differing(rows)),
        *(_measured(name, rows, 5) for name in _measures(rows, by, curve)),
        Column("started (UTC)", [f"{row.started:%Y-%m-%d %H:%M}" for row in rows], 7),
        Column("run id", [row.run_id[:8] for row in rows], 8),
    ]
    if set(statuses) != {FINISHED}:
        columns.insert(1, Column("status", statuses, 2))
    if are_of_other_data(rows):
        columns.insert(-2, Column(DATA, [row.tags.get("data_sha256", NOTHING)[:8] for row in rows], 4))
    return columns


def _measures(rows: "Sequence[Row]", by: str, curve: bool) -> list[str]:
    known = [name for name in names(row.metrics for row in rows) if name != by and not name.endswith("_stderr")]
    if not curve:
        reported = {max(bounds, key=_samples) for row in rows if (bounds := [*filter(_samples, row.metrics)])}
        known = [name for name in known if not _samples(name) or name in reported]
    return [name for measure in MEASURES for name in sorted(known, key=_place) if name.startswith(measure)]


def _samples(metric: str) -> int:
    """K of an importance bound's name, 0 of another metric's."""
    found = re.fullmatch(rf"{IMPORTANCE_BOUND}(\d+)", metric)
    return int(found[1]) if found else 0


def _place(metric: str) -> tuple[int, str]:
    return _samples(metric), metric


def _shortened(cell: str) -> str:
    if len(cell) <= LONGEST:
        return cell
    half = LONGEST // 2
    return f"{cell[: half - 1]}…{cell[-half:]}"


def _total(columns: Sequence[Column]) -> int:
    return sum(column.width() for column in columns) + GAP * (len(columns) - 1)


def _chosen(name: str, rows: "Sequence[Row]", urgency: int) -> Column:
    """The column of a param."""
    return Column(name, [row.params.get(name, NOTHING) for row in rows], urgency, is_number=True)


def _measured(name: str, rows: "Sequence[Row]", urgency: int) -> Column:
    """The column of a metric, with as many digits in all rows: none where all are whole numbers."""
    values = [row.metrics.get(name) for row in rows]
    known = [value for value in values if value is not None and math.isfinite(value)]
    whole, large = all(value.is_integer() for value in known), any(abs(value) >= 10 for value in known)
    form = ".0f" if whole else ".2f" if large else ".4g"
    cells = [NOTHING if value is None else format(value, form) for value in values]
    return Column(name, cells, urgency, is_number=True)


def _told(row: "Row") -> dict[str, object]:
    metrics = {name: value if math.isfinite(value) else None for name, value in row.metrics.items()}
    identity = {"run_id": row.run_id, "name": row.name, "status": row.status, "started": row.started.isoformat()}
    return {**identity, "params": dict(row.params), "metrics": metrics, "tags": dict(row.tags)}
