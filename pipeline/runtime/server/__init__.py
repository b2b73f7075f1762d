"""HTTP to pixels: the sampler as a server. Needs the extra `serve`; nothing here loads torch or mlflow."""

from typing import Any

from pipeline.errors import UserError


def import_server() -> tuple[Any, Any]:
    """`create_app` and `serve`, imported when a server is wanted.

    Raises:
        UserError: the extra `serve` is not installed.
    """
    try:
        from pipeline.runtime.server.app import create_app
        from pipeline.runtime.server.run import serve
    except ModuleNotFoundError as error:
        install = "install it with: pip install '.[serve]'"
        raise UserError(f"vae serve needs {error.name}, which is not installed; {install}") from None
    return create_app, serve
