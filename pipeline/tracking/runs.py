"""The row of an execution: which run a stage joins, and what it puts there."""

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.entities import LifecycleStage, Metric, Param, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.record import Metrics, Record
from pipeline.tracking.provenance import experiment_tags
from pipeline.tracking.store import alone_with_store, connect, experiment_id, store_errors

MOST_METRICS_PER_CALL = 1000

RUN_KEY = "training"
"""The tag that names the training of a run: with it the run is found again, even if nobody was told its id."""

_UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")

Points = frozenset[tuple[str, int]]
NO_POINTS: Points = frozenset()


def join_run(before: Sequence[Record], record: Record) -> Record:
    """The record with the id of the run that is to hold it: that of the stages `before` it, or a new one.

    When it is a new one the docstring of `pipeline.tracking` says. The run has the record's params from now on, so that
    of two workers of a queue that took the same training, the second one sees that the row is another setting's.

    Raises:
        UserError: the store refuses it.
    """
    client = connect()
    with store_errors(), alone_with_store("rows"):
        return _join(client, before, record)


def log_record(record: Record) -> None:
    """Put a finished stage into its run; only then does the run count the stage as finished.

    Raises:
        UserError: the store refuses it.
    """
    client = connect()
    with store_errors():
        lay(client, record.run_id, record)


def log_stage(before: Sequence[Record], record: Record) -> Record:
    """Join the run as `join_run` does and put the finished stage into it; its record, with the run's id.

    No other process joins a run meanwhile: of two that end with the same params at once, the second finds the stage
    finished, and opens a row of its own.

    Raises:
        UserError: the store refuses it.
    """
    client = connect()
    with store_errors(), alone_with_store("rows"):
        joined = _join(client, before, record)
        lay(client, joined.run_id, joined)
    return joined


def create_run(client: MlflowClient, tags: Mapping[str, str]) -> str:
    """A new run, named after the DVC experiment if there is one; its id."""
    name = os.environ.get("DVC_EXP_NAME")
    return str(client.create_run(experiment_id(client), tags=dict(tags), run_name=name).info.run_id)


def revive_run(client: MlflowClient, key: str) -> str | None:
    """The id of the run that bears this key, now RUNNING again; None where the store has no such run."""
    run = _run_with_key(client, key)
    if run is None:
        return None
    client.update_run(run.info.run_id, status=RunStatus.to_string(RunStatus.RUNNING))
    return str(run.info.run_id)


def log_metrics(client: MlflowClient, run_id: str, metrics: Sequence[Metric], held: Points = NO_POINTS) -> None:
    """Log points, but for those that the run holds already: none stands there twice."""
    metrics = [metric for metric in metrics if (metric.key, metric.step) not in held]
    for start in range(0, len(metrics), MOST_METRICS_PER_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + MOST_METRICS_PER_CALL])


def held_points(client: MlflowClient, run_id: str) -> Points:
    """Name and step of every point that the run holds, but for those that describe the machine."""
    names = [name for name in client.get_run(run_id).data.metrics if not name.startswith("system/")]
    return frozenset((name, point.step) for name in names for point in client.get_metric_history(run_id, name))


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, Any]) -> None:
    """Log params. The store never changes one: of a training that went on with others, `resumed.NAME` tags say so."""
    given, held = as_params(params), client.get_run(run_id).data.params
    changed = [param for param in given if held.get(param.key, param.value) != param.value]
    client.log_batch(
        run_id,
        params=[param for param in given if param.key not in held],
        tags=[RunTag(f"resumed.{param.key}", param.value) for param in changed],
    )


def lay(client: MlflowClient, run_id: str, record: Record) -> None:
    """Put all of a record into a run."""
    tags = [RunTag(key, value) for key, value in {**record.tags, _stage_tag(record.stage): "finished"}.items()]
    log_metrics(client, run_id, as_metrics([*record.curves, record.metrics]), held_points(client, run_id))
    log_params(client, run_id, record.params)
    for artifact in record.artifacts:
        if artifact.is_dir():
            client.log_artifacts(run_id, str(artifact), artifact.name)
        else:
            client.log_artifact(run_id, str(artifact), record.stage)
    client.log_batch(run_id, tags=tags)  # last: a stage that died half-way does not count as finished
    client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))


def complete(client: MlflowClient, record: Record) -> None:
    """Put a record into its run where that is in the store without it: a process that was to do so was killed."""
    run = _find_run(client, record)
    if run is not None and _stage_tag(record.stage) not in run.data.tags:
        lay(client, run.info.run_id, record)


def as_params(params: Mapping[str, Any]) -> list[Param]:
    """Params as MLflow keeps them: texts."""
    return [Param(name, str(value)) for name, value in params.items()]


def as_metrics(rows: Sequence[Metrics]) -> list[Metric]:
    """Rows of metrics as MLflow keeps them, each at the step that is its `epoch`, or 0."""
    now = int(time.time() * 1000)
    return [
        Metric(name, value, now, int(row.get("epoch", 0)))
        for row in rows
        for name, value in row.items()
        if name != "epoch"
    ]


def _join(client: MlflowClient, before: Sequence[Record], record: Record) -> Record:
    run_id = _run_to_join(client, before, record)
    log_params(client, run_id, record.params)
    return dataclasses.replace(record, run_id=run_id)


def _run_to_join(client: MlflowClient, before: Sequence[Record], record: Record) -> str:
    latest = _find_run(client, before[-1])
    if latest is None:
        return _relay(client, before, {"restored": "true"})
    run_id, held = str(latest.info.run_id), latest.data
    for earlier in before:  # of a store that was away for a while
        if earlier.run_id == run_id or earlier is before[-1]:
            complete(client, earlier)
    # A stage that died half-way has left its params, which the store never changes.
    other_setting = any(held.params.get(param.key, param.value) != param.value for param in as_params(record.params))
    return (
        _relay(client, before, {"continues": run_id})
        if _stage_tag(record.stage) in held.tags or other_setting
        else run_id
    )


def _find_run(client: MlflowClient, record: Record) -> Run | None:
    """The run of a stage, where the store knows it and nobody has deleted it."""
    if not record.run_id:
        return _run_with_key(client, record.key) if record.key else None
    try:
        run = client.get_run(record.run_id)
    except MlflowException as error:
        if error.error_code not in _UNKNOWN:  # it is away
            raise
        return None
    return None if run.info.lifecycle_stage == LifecycleStage.DELETED else run


def _run_with_key(client: MlflowClient, key: str) -> Run | None:
    """The run that a training opened under its key; None where the store has none that is not deleted."""
    found = client.search_runs([experiment_id(client)], f"tags.{RUN_KEY} = '{key}'", max_results=1)
    return found[0] if found else None


def _relay(client: MlflowClient, records: Sequence[Record], tags: Mapping[str, str]) -> str:
    """A new run that carries all that the stages before this one logged, under the name of this execution."""
    run_id = create_run(client, tags)
    for record in records:
        lay(client, run_id, record)
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in experiment_tags().items()])
    return run_id


def _stage_tag(stage: str) -> str:
    return f"stage.{stage}"
