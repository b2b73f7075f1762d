"""The run that `train` opens and fills while it trains."""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mlflow.entities import Metric, RunStatus
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient
from mlflow.utils.async_logging.run_operations import RunOperations

from pipeline.record import Metrics, Record
from pipeline.tracking.runs import MOST_METRICS_PER_CALL, as_metrics, as_params, create_run, lay
from pipeline.tracking.store import connect, store_errors

FLUSH_SECONDS = 2.0
SYSTEM_METRICS_SECONDS = 5


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
        self._buffer += as_metrics([row])
        if time.monotonic() - self._last_flush > FLUSH_SECONDS or len(self._buffer) > MOST_METRICS_PER_CALL // 2:
            self._flush(synchronous=False)

    def finish(self, record: Record) -> None:
        """Log what is known at the end: final metrics and artifacts. The curves were logged epoch by epoch."""
        self.wait()
        lay(self._client, self.id, dataclasses.replace(record, curves=()))

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
    client = connect()
    with store_errors():
        run_id = create_run(client, tags)
    monitor = SystemMetricsMonitor(run_id, sampling_interval=SYSTEM_METRICS_SECONDS)  # type: ignore[no-untyped-call]
    status = RunStatus.FAILED
    try:
        client.log_batch(run_id, params=as_params(params))
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
