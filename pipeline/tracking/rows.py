"""The rows of the store as they stand: every run of the experiment, read and not changed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from pipeline.errors import UserError
from pipeline.tracking.store import connect, expect_store, experiment_name, shown_store, store_errors

STAGES = ("export", "evaluate", "train")  # the last first
HOW_TO_GET_RUNS = "expected the runs that `make repro` leaves; MLFLOW_TRACKING_URI names another store"


@dataclass(frozen=True)
class Row:
    """One run: params are texts and metrics their latest values, as MLflow keeps them.

    Attributes:
        status: `finished`, `after train`, `after evaluate` (the next stage has not ended), `running`, `failed` or
            `killed`.
        started: in UTC.
    """

    run_id: str
    name: str
    status: str
    started: datetime
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


def read_rows() -> list[Row]:
    """All runs of the experiment, the newest first; a store that is not there is not made.

    Raises:
        UserError: there is no store, it refuses, or it holds no run.
    """
    expect_store(HOW_TO_GET_RUNS)
    client = connect()
    with store_errors():
        experiment = client.get_experiment_by_name(experiment_name())
        rows = [_row(run) for run in _runs(client, str(experiment.experiment_id))] if experiment else []
    if not rows:
        raise UserError(
            f"MLflow store {shown_store()}: holds no run of experiment {experiment_name()}; {HOW_TO_GET_RUNS}"
        )
    return rows


class Epoch(NamedTuple):
    """How fast an epoch of training went, and when it was over, in UTC."""

    images_per_second: float
    ended: datetime


def read_epochs(row: Row) -> list[Epoch]:
    """The epochs of a run's training, in their order.

    Raises:
        UserError: the store refuses.
    """
    client = connect()
    with store_errors():
        points = client.get_metric_history(row.run_id, "images_per_second")
    in_order = sorted(points, key=lambda point: int(point.step))
    return [Epoch(point.value, datetime.fromtimestamp(point.timestamp / 1000, UTC)) for point in in_order]


def _runs(client: MlflowClient, experiment: str) -> Iterator[Run]:
    page, token = client.search_runs([experiment], order_by=["attributes.start_time DESC"]), None
    while True:
        yield from page
        if not (token := page.token):
            return
        page = client.search_runs([experiment], order_by=["attributes.start_time DESC"], page_token=token)


def _row(run: Run) -> Row:
    data, info = run.data, run.info
    started = datetime.fromtimestamp(info.start_time / 1000, UTC)
    params, metrics, tags = dict(data.params), dict(data.metrics), dict(data.tags)
    return Row(str(info.run_id), str(info.run_name), _status(str(info.status), tags), started, params, metrics, tags)


def _status(status: str, tags: Mapping[str, str]) -> str:
    """MLflow's, but where stages are to come: each stage leaves the run as FINISHED."""
    last = next((stage for stage in STAGES if f"stage.{stage}" in tags), STAGES[0])
    return f"after {last}" if status == "FINISHED" and last != STAGES[0] else status.lower()
