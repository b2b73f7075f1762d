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

from mlflow.entities import Metric, RunStatus
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient

from pipeline.errors import Stopped, UserError
from pipeline.record import Metrics, Record
from pipeline.tracking.runs import (
    NO_POINTS,
    RUN_KEY,
    Points,
    as_metrics,
    complete,
    create_run,
    held_points,
    lay,
    log_metrics,
    log_params,
    revive_run,
)
from pipeline.tracking.store import STORE_FAILURES, reach, reason

FLUSH_SECONDS = 2.0
RETRY_SECONDS = 30.0  # while the store is away
SYSTEM_METRICS_SECONDS = 5


class TrainingRun:
    """Rows of metrics on their way to the store; a thread of its own sends them, in order.

    Attributes:
        id: of the run; empty as long as the store could not be asked for one.
        is_resumed: whether an earlier process opened it.
    """

    def __init__(self, params: Mapping[str, Any], tags: Mapping[str, str], key: str | None = None) -> None:
        """`key` names the training: a run that an earlier process opened for it is gone on with."""
        self.id = ""
        self.is_resumed = False
        self._reached: MlflowClient | None = None
        self._params, self._tags, self._key = params, tags, key
        self._is_open = False
        self._held: Points | None = None  # not known: they are asked for before anything is sent
        self._unsent: list[Metric] = []
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._sending: Future[None] | None = None
        self._next = 0.0
        self._told = self._is_settled = False
        self._losses: tuple[type[Exception], ...] = STORE_FAILURES
        self._attempt(self._open)
        self._losses = (*STORE_FAILURES, UserError)  # a refusal is told before the first step, and costs none later

    def log_epoch(self, row: Metrics) -> None:
        """Add one row of metrics, at the step `row["epoch"]`."""
        self._unsent.extend(as_metrics([row]))
        if time.monotonic() >= self._next and (self._sending is None or self._sending.done()):
            self._sending = self._sender.submit(self._send)

    def wait(self) -> bool:
        """Send what was added, and wait; whether the store has all of it. A store that is away is tried once."""
        if self._sending is not None:
            self._sending.result()
        self._send()
        return not self._unsent

    def settle(self) -> str:
        """Wait as `wait` does; the run's id, which is final: of a training that has none no run is opened any more.

        Who joins the run next knows it by this id alone, and would lay it a second time.
        """
        self.wait()
        self._is_settled = True
        return self.id

    def finish(self, record: Record) -> None:
        """Log what is known at the end: the rows that the store lacks, final metrics and artifacts."""
        if not (self.wait() and self.id and self._attempt(lambda: lay(self._client, self.id, record))):
            print("warning: the run is not whole in the store; evaluate completes it from run.json", file=sys.stderr)

    def end(self, status: int) -> None:
        """Say how the training ended."""
        is_sent = self.wait()
        self._sender.shutdown()
        if is_sent and self.id:
            self._attempt(lambda: self._client.set_terminated(self.id, RunStatus.to_string(status)))

    @property
    def _client(self) -> MlflowClient:
        self._reached = self._reached or reach()
        return self._reached

    def _open(self) -> None:
        """Find the run or open it. It may fail half-way and be tried again: there is one run with the key."""
        if not self.id:
            found = revive_run(self._client, self._key) if self._key else None
            self.id, self.is_resumed = found or self._create(), found is not None
        log_params(self._client, self.id, self._params)
        self._is_open = True

    def _create(self) -> str:
        self._held = NO_POINTS
        return create_run(self._client, {**self._tags, **({RUN_KEY: self._key} if self._key else {})})

    def _send(self) -> None:
        count = len(self._unsent)
        if not count or (self._is_settled and not self.id):
            return
        sent = (self._is_open or self._attempt(self._open)) and self._attempt(lambda: self._log(self._unsent[:count]))
        if sent:
            del self._unsent[:count]
        self._next = time.monotonic() + (FLUSH_SECONDS if sent else RETRY_SECONDS)

    def _log(self, metrics: Sequence[Metric]) -> None:
        held = held_points(self._client, self.id) if self._held is None else self._held
        self._held = None  # for as long as it is open whether they arrive
        log_metrics(self._client, self.id, metrics, held)
        self._held = held

    def _attempt(self, action: Callable[[], None]) -> bool:
        """Whether the store did it; the first time that it does not is told of."""
        try:
            action()
        except self._losses as error:
            if not self._told:
                print(f"warning: MLflow store: {reason(error, 200)}; training goes on without it", file=sys.stderr)
            self._told = True
            return False
        return True


@contextmanager
def training_run(
    params: Mapping[str, Any], tags: Mapping[str, str], key: str | None = None, rows: Sequence[Metrics] = ()
) -> Iterator[TrainingRun]:
    """A run with system metrics, new or gone on with; it ends as FINISHED, FAILED or KILLED by what was raised.

    Args:
        params: of the run.
        tags: of the run.
        key: of the training: a run that an earlier process opened with it is gone on with.
        rows: of metrics that the training had; those that the store lacks are sent.
    """
    run = TrainingRun(params, tags, key)
    for row in rows:
        run.log_epoch(row)
    status = RunStatus.FAILED
    try:
        with _system_metrics(run.id, run.is_resumed):
            yield run
        status = RunStatus.FINISHED
    except (KeyboardInterrupt, Stopped):
        status = RunStatus.KILLED
        raise
    finally:
        run.end(status)


def complete_run(record: Record) -> None:
    """Put a training that has ended into its run, where that lacks it; a store that is away is left alone."""
    try:
        complete(reach(), record)
    except STORE_FAILURES as error:
        print(f"warning: MLflow store: {reason(error, 200)}; evaluate completes the run from run.json", file=sys.stderr)


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
