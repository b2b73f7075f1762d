"""run.json: what a stage put into its MLflow run, kept on disk so that the row can be laid again without the store."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import read_csv, read_json, write_json

RECORD = "run.json"

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Record:
    """What one stage put into its run.

    `run_id` is empty where the store was away; then `key`, which names a training, finds the run that an earlier
    process may have opened for it. `curves` are rows of metrics with their `epoch`; `artifacts` are files and folders
    on disk.
    """

    stage: str
    run_id: str
    params: Mapping[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)
    curves: Sequence[Metrics] = ()
    artifacts: Sequence[Path] = ()
    key: str = ""

    def as_json(self) -> dict[str, Any]:
        """What run.json says; curves and artifacts are files beside it."""
        return {name: getattr(self, name) for name in ("stage", "run_id", "params", "tags", "metrics", "key")}


def write_record(folder: Path, record: Record) -> None:
    """Write run.json; the curves and artifacts lie beside it already."""
    write_json(folder / RECORD, record.as_json())


def read_record(folder: Path, curves: str | None = None, artifacts: Sequence[str] = ()) -> Record:
    """Read run.json, and the curves from a CSV file; both files and artifacts are named as they lie in `folder`.

    Raises:
        UserError: a file is missing or unreadable, a field is of another kind, or it names no epoch of the curves.
    """
    content = read_json(folder / RECORD)
    try:
        record = Record(**content)
    except TypeError as error:
        raise UserError(f"{folder / RECORD}: not what a stage writes ({error})") from None
    _check_kinds(record, folder / RECORD)
    rows = read_csv(folder / curves) if curves else ()
    if curves:
        _check_epochs(record.metrics, len(rows), folder / RECORD)
    return dataclasses.replace(record, curves=rows, artifacts=[folder / name for name in artifacts])


def _check_kinds(record: Record, path: Path) -> None:
    for name in ("stage", "run_id", "key"):
        if not isinstance(value := getattr(record, name), str):
            raise UserError(f"{path}: {name} is {value!r}; expected a text")
    for name in ("params", "tags", "metrics"):
        if not isinstance(value := getattr(record, name), dict):
            raise UserError(f"{path}: {name} is {value!r}; expected an object")
    for name, value in record.metrics.items():
        if type(value) not in (int, float):
            raise UserError(f"{path}: metrics.{name} is {value!r}; expected a number")


def _check_epochs(metrics: Metrics, epochs: int, path: Path) -> None:
    """Hold that the best epoch, and the kept one where they are told apart, is one of the curves'."""
    if "best_epoch" not in metrics:
        raise UserError(f"{path}: metrics.best_epoch is missing; expected a file that train wrote")
    for name in ("best_epoch", "kept_epoch"):
        if (epoch := metrics.get(name, 1)) not in range(1, epochs + 1):
            raise UserError(f"{path}: metrics.{name} is {epoch!r}; expected an epoch from 1 to {epochs}")
