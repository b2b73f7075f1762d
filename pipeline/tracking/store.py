"""The MLflow store: where it is, its experiment, and what it refuses, told in one line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.errors import UserError
from pipeline.files import repository_root

EXPERIMENT = "vae"


def connect() -> MlflowClient:
    """A client of MLFLOW_TRACKING_URI, else of the sqlite file at the root of the DVC repository.

    Raises:
        UserError: MLflow does not know such a store.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{repository_root() / 'mlflow.db'}"
    with store_errors():
        mlflow.set_tracking_uri(uri)
        return MlflowClient(uri)


@contextmanager
def store_errors() -> Iterator[None]:
    """What the store refuses is told in one line that names it."""
    try:
        yield
    except MlflowException as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"MLflow store {mlflow.get_tracking_uri()}: {reason}; see MLFLOW_TRACKING_URI") from error


def experiment_id(client: MlflowClient) -> str:
    """The experiment that holds the rows, MLFLOW_EXPERIMENT_NAME or EXPERIMENT; made where there is none.

    Raises:
        UserError: somebody has deleted it.
    """
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
