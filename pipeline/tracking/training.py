"""The run that `train` opens and fills while it trains.

The store may be away, at the start or at any time later: training goes on, and what could not be sent is sent when
the store is back, at the latest by the stage that joins the run next, from the records on disk.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from mlflow.entities import RunStatus
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient

from pipeline.errors import Stopped
from pipeline.record import Metrics, Record
from pipeline.tracking.runs import Points, create_run, held_points, lay, log_params, log_rows, revive_run
from pipeline.tracking.store import STORE_FAILURES, reach

FLUSH_SECONDS = 2.0
RETRY_SECONDS = 30.0  # while the store is away
SYSTEM_METRICS_SECONDS = 5


class TrainingRun:
    """Rows of metrics on their way to the store; a thread of its own sends them, in order.

    Attributes:
        id: of the run; empty as long as the store could not be asked for one.
    """

    def __init__(self, params: Mapping[str, Any], tags: Mapping[str, str], run_id: str | None = None) -> None:
        """`run_id` is of a run that an earlier process of the same training opened."""
        self.id = ""
        self._reached: MlflowClient | None = None
        self._params, self._tags = params, tags
        self._earlier = run_id
        self._unsent: list[Metrics] = []
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._sending: Future[None] | None = None
        self._next = 0.0
        self._held: Points = frozenset()
        self._told = False
        self._attempt(self._open)

    def log_epoch(self, row: Metrics) -> None:
        """Add one row of metrics, at the step `row["epoch"]`."""
        self._unsent.append(row)
        if time.monotonic() >= self._next and (self._sending is None or self._sending.done()):
            self._sending = self._sender.submit(self._send)

    def wait(self) -> None:
        """Send what was added, and wait until the store has it; a store that is away is tried once."""
        if self._sending is not None:
            self._sending.result()
        self._send()

    def finish(self, record: Record) -> None:
        """Log what is known at the end: the rows that the store lacks, final metrics and artifacts."""
        self.wait()
        if not (self.id and self._attempt(lambda: lay(self._client, self.id, record))):
            print("warning: the run is not whole in the store; evaluate completes it from run.json", file=sys.stderr)

    def end(self, status: int) -> None:
        """Say how the training ended."""
        self.wait()
        self._sender.shutdown()
        if self.id:
            self._attempt(lambda: self._client.set_terminated(self.id, RunStatus.to_string(status)))

    @property
    def _client(self) -> MlflowClient:
        self._reached = self._reached or reach()
        return self._reached

    def _open(self) -> None:
        self.id = self.id or revive_run(self._client, self._earlier) or create_run(self._client, self._tags)
        log_params(self._client, self.id, self._params)
        if self.id == self._earlier:
            self._held = held_points(self._client, self.id)

    def _send(self) -> None:
        count = len(self._unsent)
        if not count:
            return
        sent = (self.id or self._attempt(self._open)) and self._attempt(
            lambda: log_rows(self._client, self.id, self._unsent[:count], self._held)
        )
        if sent:
            del self._unsent[:count]
        self._next = time.monotonic() + (FLUSH_SECONDS if sent else RETRY_SECONDS)

    def _attempt(self, action: Callable[[], None]) -> bool:
        """Whether the store did it; the first time that it does not is told of."""
        try:
            action()
        except STORE_FAILURES as error:
            if not self._told:
                reason = " ".join(str(error).split())[:200]
                print(f"warning: MLflow store: {reason}; training goes on without it", file=sys.stderr)
            self._told = True
            return False
        return True


@contextmanager
def training_run(
    params: Mapping[str, Any], tags: Mapping[str, str], run_id: str | None = None, rows: Sequence[Metrics] = ()
) -> Iterator[TrainingRun]:
    """A run with system metrics, new or gone on with; it ends as FINISHED, FAILED or KILLED by what was raised.

    Args:
        params: of the run.
        tags: of the run.
        run_id: that an earlier process of the same training opened.
        rows: of metrics that it had; those that the store lacks are sent.
    """
    run = TrainingRun(params, tags, run_id)
    for row in rows:
        run.log_epoch(row)
    status = RunStatus.FAILED
    try:
        with _system_metrics(run.id, resumed=run.id == run_id):
            yield run
        status = RunStatus.FINISHED
    except (KeyboardInterrupt, Stopped):
        status = RunStatus.KILLED
        raise
    finally:
        run.end(status)


@contextmanager
def _system_metrics(run_id: str, resumed: bool) -> Iterator[None]:
    """Sample the machine's load; MLflow's own monitor swallows what a store that is away answers."""
    if not run_id:
        yield
        return
    monitor = SystemMetricsMonitor(  # type: ignore[no-untyped-call]
        run_id, sampling_interval=SYSTEM_METRICS_SECONDS, resume_logging=resumed
    )
    monitor.start()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        monitor.finish()  # type: ignore[no-untyped-call]
