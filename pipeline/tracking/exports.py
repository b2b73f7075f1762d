"""Exports in MLflow's registry, fetched: what `log_sampler` put beside a model comes back as a folder."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import mlflow

from pipeline.errors import UserError
from pipeline.tracking.store import connect, expect_store, reason, store_errors

EXTRA_FILES = "extra_files"


def fetch_export(name: str) -> Path:
    """A folder with the export of a registered model, gone when the process ends; its manifest holds it to its hashes.

    Args:
        name: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        UserError: there is no store, it has no such model, or the version has no export beside it.
    """
    expect_store(f"expected the MLflow store that knows {name}; MLFLOW_TRACKING_URI names another")
    connect()
    with store_errors():
        mlflow.models.get_model_info(name)  # an unknown model is the store's own error, not a missing file
    try:
        place = tempfile.mkdtemp(dir=_place())  # its own: several are open at once
        return Path(mlflow.artifacts.download_artifacts(f"{name}/{EXTRA_FILES}", dst_path=place))
    except (OSError, mlflow.MlflowException) as error:
        told = f"has no {EXTRA_FILES} ({reason(error, 160)}); expected a version that export made"
        raise UserError(f"{name}: {told}") from None


@functools.cache
def _place() -> str:
    place = tempfile.mkdtemp(prefix="vae-models-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place
