"""Models by their name in MLflow's registry: `models:/vae@champion`, `models:/vae/3`."""

from pathlib import Path

from pipeline.errors import UserError

SCHEME = "models:/"


def local_path(path: Path | str) -> Path:
    """The path itself, or for a name in the registry the folder that its export was fetched into.

    MLflow is imported for such a name alone: an app that opens a folder need not have it.

    Raises:
        UserError: MLflow is not installed, or its store has no such model.
    """
    name = path.as_posix() if isinstance(path, Path) else path
    if not name.startswith(SCHEME):
        return Path(path)
    try:
        from pipeline.tracking.exports import fetch_export
    except ImportError as error:
        raise UserError(f"{name}: needs MLflow ({error}); pip install '.[train]'") from None
    return fetch_export(name)
