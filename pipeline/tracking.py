"""Rows of the MLflow store: the only file that imports mlflow.

One run per pipeline execution: `train` opens it, `evaluate` and `export` join it. A stage that already stands in
the row, because it ran before over the same training, opens a row of its own that carries all that came before
it and names the run that it continues; so a row never mixes two settings. A run that the store does not know
(DVC restored the training from its cache) is laid again from the records that the stages left on disk.
"""

import dataclasses
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

import mlflow
import onnx
from mlflow.entities import LifecycleStage, Metric, Param, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.utils.async_logging.run_operations import RunOperations

from pipeline.errors import UserError
from pipeline.files import read_csv, read_json, write_json

EXPERIMENT = "vae"
RECORD = "run.json"
MOST_METRICS_PER_CALL = 1000
FLUSH_SECONDS = 2.0
SYSTEM_METRICS_SECONDS = 5

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Record:
    """What one stage put into its run: enough to lay the row again without the store.

    `curves` are rows of metrics with their `epoch`; `artifacts` are files and folders on disk.
    """

    stage: str
    run_id: str
    params: Mapping[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)
    curves: Sequence[Metrics] = ()
    artifacts: Sequence[Path] = ()


def write_record(folder: Path, record: Record) -> None:
    """Write run.json; the curves and artifacts lie beside it already."""
    names = ("stage", "run_id", "params", "tags", "metrics")
    write_json(folder / RECORD, {name: getattr(record, name) for name in names})


def read_record(folder: Path, curves: str | None = None, artifacts: Sequence[str] = ()) -> Record:
    """Read run.json, and the curves from a CSV file; both files and artifacts are named as they lie in `folder`.

    Raises:
        UserError: a file is missing or unreadable.
    """
    content = read_json(folder / RECORD)
    try:
        record = Record(**content)
    except TypeError as error:
        raise UserError(f"{folder / RECORD}: not what a stage writes ({error})") from None
    rows = read_csv(folder / curves) if curves else ()
    return dataclasses.replace(record, curves=rows, artifacts=[folder / name for name in artifacts])


class TrainingRun:
    """The run that `train` fills while it trains. Metrics are buffered and sent by a thread of MLflow's."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.id = run_id
        self._client = client
        self._buffer: list[Metric] = []
        self._sent: list[RunOperations] = []
        self._last_flush = time.monotonic()

    def log_epoch(self, row: Metrics) -> None:
        """Add one row of metrics, at the step `row["epoch"]`."""
        self._buffer += _as_metrics([row])
        if time.monotonic() - self._last_flush > FLUSH_SECONDS or len(self._buffer) > MOST_METRICS_PER_CALL // 2:
            self._flush(synchronous=False)

    def finish(self, record: Record) -> None:
        """Log what is known at the end: final metrics and artifacts. The curves were logged epoch by epoch."""
        self.wait()
        _lay(self._client, self.id, dataclasses.replace(record, curves=()))

    def wait(self) -> None:
        """Send what is buffered and wait until the store has all of it."""
        self._flush(synchronous=True)  # MLflow's thread would take a second to begin
        for operation in self._sent:
            operation.wait()  # type: ignore[no-untyped-call]
        self._sent.clear()

    def _flush(self, synchronous: bool) -> None:
        if self._buffer:
            operation = self._client.log_batch(self.id, metrics=self._buffer, synchronous=synchronous)
            self._sent += [operation] if operation else []
        self._buffer, self._last_flush = [], time.monotonic()


@contextmanager
def training_run(params: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[TrainingRun]:
    """Open a new run with system metrics; it ends as FINISHED, or as FAILED or KILLED by what was raised."""
    client = _client()
    with _store_errors():
        run_id = _create_run(client, tags)
    monitor = SystemMetricsMonitor(run_id, sampling_interval=SYSTEM_METRICS_SECONDS)  # type: ignore[no-untyped-call]
    status = RunStatus.FAILED
    try:
        client.log_batch(run_id, params=_as_params(params))
        monitor.start()  # type: ignore[no-untyped-call]
        run = TrainingRun(client, run_id)
        try:
            yield run
        finally:
            run.wait()
        status = RunStatus.FINISHED
    except KeyboardInterrupt:
        status = RunStatus.KILLED
        raise
    finally:
        monitor.finish()  # type: ignore[no-untyped-call]
        client.set_terminated(run_id, RunStatus.to_string(status))


def log_stage(before: Sequence[Record], record: Record, artifacts: Sequence[Path], model: Path | None = None) -> Record:
    """Log a finished stage, its artifacts and its ONNX model; return its record with the id of the run that holds it.

    That is the run of the stages `before` it, or a new one as this module's docstring says.
    """
    client = _client()
    with _store_errors():
        record = dataclasses.replace(record, run_id=_run_to_join(client, before, record), artifacts=artifacts)
        if model is not None:
            _log_onnx_model(record.run_id, model)
        _lay(client, record.run_id, record)
    return record


def provenance(params_hash: str, data_sha256: str) -> dict[str, str]:
    """Tags that say where a run came from: data, params, git revision, DVC experiment."""
    return {"data_sha256": data_sha256, "params_hash": params_hash, **_git_state(), **_experiment_tags()}


def _experiment_tags() -> dict[str, str]:
    experiment = os.environ.get("DVC_EXP_NAME")
    return {"dvc_exp_name": experiment} if experiment else {}


def _client() -> MlflowClient:
    """A client of MLFLOW_TRACKING_URI, else of the sqlite file at the root of the DVC repository."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_root() / 'mlflow.db'}"
    with _store_errors():
        mlflow.set_tracking_uri(uri)
        return MlflowClient(uri)


@contextmanager
def _store_errors() -> Iterator[None]:
    """What the store refuses is told in one line that names it."""
    try:
        yield
    except MlflowException as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"MLflow store {mlflow.get_tracking_uri()}: {reason}; see MLFLOW_TRACKING_URI") from error


def _root() -> Path:
    """DVC names the parent repository to experiments that it runs in a temporary copy."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def _experiment_id(client: MlflowClient) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    existing = client.get_experiment_by_name(name)
    if existing is not None and existing.lifecycle_stage == LifecycleStage.DELETED:
        raise UserError(
            f"MLflow: the experiment {name!r} is deleted; expected one to add a run to: restore it "
            f"(mlflow experiments restore -x {existing.experiment_id}), or set MLFLOW_EXPERIMENT_NAME"
        )
    if existing is not None:
        return str(existing.experiment_id)
    try:
        return str(client.create_experiment(name, artifact_location=_artifact_location(client.tracking_uri)))
    except MlflowException:
        created_meanwhile = client.get_experiment_by_name(name)
        if created_meanwhile is None:
            raise
        return str(created_meanwhile.experiment_id)


def _artifact_location(store: str) -> str | None:
    """Beside an sqlite file; a server has a place of its own.

    MLflow would put them into the working directory, which is lost when DVC runs a queued experiment in a
    temporary folder.
    """
    if not store.startswith("sqlite:///"):
        return None
    return (Path(store.removeprefix("sqlite:///")).resolve().parent / "mlruns").as_uri()


def _create_run(client: MlflowClient, tags: Mapping[str, str]) -> str:
    name = os.environ.get("DVC_EXP_NAME")
    return str(client.create_run(_experiment_id(client), tags=dict(tags), run_name=name).info.run_id)


def _run_to_join(client: MlflowClient, before: Sequence[Record], record: Record) -> str:
    latest = _find_run(client, before[-1].run_id)
    if latest is None:
        return _relay(client, before, {"restored": "true"})
    run_id, held = str(latest.info.run_id), latest.data
    # A stage that died half-way has left its params, which the store never changes.
    other_setting = any(held.params.get(param.key, param.value) != param.value for param in _as_params(record.params))
    return (
        _relay(client, before, {"continues": run_id})
        if _stage_tag(record.stage) in held.tags or other_setting
        else run_id
    )


def _find_run(client: MlflowClient, run_id: str) -> Run | None:
    """The run, where the store knows it and nobody has deleted it."""
    try:
        run = client.get_run(run_id)
    except MlflowException:
        return None
    return None if run.info.lifecycle_stage == LifecycleStage.DELETED else run


def _relay(client: MlflowClient, records: Sequence[Record], tags: Mapping[str, str]) -> str:
    """A new run that carries all that the stages before this one logged, under the name of this execution."""
    run_id = _create_run(client, tags)
    for record in records:
        _lay(client, run_id, record)
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in _experiment_tags().items()])
    return run_id


def _lay(client: MlflowClient, run_id: str, record: Record) -> None:
    tags = [RunTag(key, value) for key, value in {**record.tags, _stage_tag(record.stage): "finished"}.items()]
    metrics = _as_metrics(record.curves) + _as_metrics([record.metrics])
    for start in range(0, len(metrics), MOST_METRICS_PER_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + MOST_METRICS_PER_CALL])
    client.log_batch(run_id, params=_as_params(record.params))
    for artifact in record.artifacts:
        if artifact.is_dir():
            client.log_artifacts(run_id, str(artifact), artifact.name)
        else:
            client.log_artifact(run_id, str(artifact), record.stage)
    client.log_batch(run_id, tags=tags)  # last: a stage that died half-way does not count as finished
    client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))


def _log_onnx_model(run_id: str, path: Path) -> None:
    """Log an ONNX file as the run's model, with the signature of its graph, under the file's stem."""
    graph = onnx.load(path)
    with mlflow.start_run(run_id=run_id):
        mlflow.onnx.log_model(
            graph,
            name=path.stem,
            signature=ModelSignature(_schema(graph.graph.input), _schema(graph.graph.output)),
            # mlflow's own list names onnxruntime, which must never be installed beside onnxruntime-gpu
            pip_requirements=[f"mlflow=={mlflow.__version__}", "numpy", "onnx", "onnxruntime-gpu"],
            save_as_external_data=False,
        )


def _schema(values: Iterable[onnx.ValueInfoProto]) -> Schema:
    """Names, types and shapes of a graph's inputs or outputs; -1 stands for the batch."""
    specs: list[ColSpec | TensorSpec] = []
    for value in values:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        specs.append(TensorSpec(dtype, tuple(dim.dim_value or -1 for dim in tensor.shape.dim), value.name))
    return Schema(specs)


def _stage_tag(stage: str) -> str:
    return f"stage.{stage}"


def _as_params(params: Mapping[str, Any]) -> list[Param]:
    return [Param(name, str(value)) for name, value in params.items()]


def _as_metrics(rows: Sequence[Metrics]) -> list[Metric]:
    now = int(time.time() * 1000)
    return [
        Metric(name, value, now, int(row.get("epoch", 0)))
        for row in rows
        for name, value in row.items()
        if name != "epoch"
    ]


def _git_state() -> dict[str, str]:
    """The revision, and whether code or params differ from it; results do not count as a difference."""
    try:
        revision = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--", "pipeline", "params.yaml", "dvc.yaml")
    except (OSError, subprocess.CalledProcessError):
        return {"git_revision": "unknown", "git_dirty": "unknown"}
    return {"git_revision": revision, "git_dirty": str(bool(changed)).lower()}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()
