"""The MLflow store: where it is, its experiment, and what it refuses, told in one line.

Several processes share an sqlite file: MLflow waits for another's write as long as 20 seconds, but makes the tables of
a new file without asking who else does, so that is done under a lock of ours.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import mlflow
from filelock import FileLock, Timeout
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from pipeline.errors import UserError, one_line
from pipeline.files import repository_root

EXPERIMENT = "vae"
LONGEST_WAIT_SECONDS = 120.0
STORE_FAILURES = (MlflowException, SQLAlchemyError, OSError)
"""What a store raises that is away: MLflow wraps what its database says, but not while it opens one, nor what the place
of its artifacts does, a folder or a server (of whose answers `requests` makes an OSError)."""

_SQLITE = "sqlite:///"


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, else the sqlite file at the root of the DVC repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{repository_root() / 'mlflow.db'}"


def sqlite_file(store: str) -> Path | None:
    """The file of an sqlite store; None of another."""
    return Path(store.removeprefix(_SQLITE).partition("?")[0]).resolve() if store.startswith(_SQLITE) else None


def expect_store(otherwise: str) -> None:
    """Hold that there is a store to read from: where an sqlite file is missing, MLflow would make an empty one.

    Raises:
        UserError: there is none; it ends in `otherwise`, what was expected.
    """
    file = sqlite_file(store_uri())
    if file is not None and not file.exists():
        raise UserError(f"{file}: not found; {otherwise}")


def connect() -> MlflowClient:
    """A client of MLFLOW_TRACKING_URI, else of the sqlite file at the root of the DVC repository.

    Raises:
        UserError: MLflow does not know such a store, or it is away.
    """
    with store_errors():
        return reach()


def reach() -> MlflowClient:
    """As `connect`, for a caller that can do without a store for a while.

    Raises:
        UserError: MLflow does not know such a store.
        SQLAlchemyError: it is a database that is away, or locked by somebody else.
    """
    uri = store_uri()
    try:
        with alone_with_store("tables"):
            mlflow.set_tracking_uri(uri)
            return MlflowClient(uri)
    except (MlflowException, ImportError) as error:  # no driver for that kind of database
        raise _refusal(error) from error


@contextmanager
def alone_with_store(purpose: str) -> Iterator[None]:
    """Hold an sqlite store for one purpose, among the processes of this machine; a server keeps its own order.

    Where no lock can be had, because the folder is read-only or another process holds it for LONGEST_WAIT_SECONDS, the
    work is done without: tables that are there need none, and no stage is to hang.
    """
    file = sqlite_file(store_uri())
    with ExitStack() as held:
        if file is not None:
            lock = FileLock(f"{file}.{purpose}.lock", timeout=LONGEST_WAIT_SECONDS)
            try:
                held.enter_context(lock)
            except Timeout:
                print(f"warning: {lock.lock_file} is held by another process; going on beside it", file=sys.stderr)
            except OSError:
                pass  # of a folder that is read-only
        yield


@contextmanager
def store_errors() -> Iterator[None]:
    """What the store refuses is told in one line that names it."""
    try:
        yield
    except STORE_FAILURES as error:
        raise _refusal(error) from error


def reason(error: Exception, most: int) -> str:
    """What a store said, in one line of at most so many characters, as it may stand in a log."""
    return one_line(_without_credentials(str(error)), most)


def shown_store() -> str:
    """`store_uri` as it may stand in a log."""
    return _without_credentials(store_uri())


def _without_credentials(text: str) -> str:
    """Without what stands before the @ of the addresses in a text: names and passwords."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def _refusal(error: Exception) -> UserError:
    return UserError(f"MLflow store {shown_store()}: {reason(error, 300)}; see MLFLOW_TRACKING_URI")


def experiment_name() -> str:
    """MLFLOW_EXPERIMENT_NAME, else EXPERIMENT."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT


def experiment_id(client: MlflowClient) -> str:
    """The experiment that holds the rows, MLFLOW_EXPERIMENT_NAME or EXPERIMENT; made where there is none.

    Raises:
        UserError: somebody has deleted it.
    """
    name = experiment_name()
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
    file = sqlite_file(store)
    return None if file is None else (file.parent / "mlruns").as_uri()
