"""`vae serve`: the model over HTTP."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.options import EXPORT_FOLDER, Device
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.runtime.server.settings import Settings


def serve(
    model: Annotated[Path, typer.Option(help="Export folder, or one sampler.onnx.")] = EXPORT_FOLDER,
    host: Annotated[str, typer.Option(help="Address to listen on; others need VAE_TOKEN to be set.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    device: Device = "auto",
    max_images: Annotated[int, typer.Option(help="Images of one request at most.")] = 1024,
) -> None:
    """Serve the model over HTTP, until it is told to stop."""
    from pipeline.runtime.sampler import Sampler
    from pipeline.runtime.server import import_server

    create_app, run = import_server()
    settings = _settings(host, max_images)
    server = create_app(Sampler(model, device), settings)  # type: ignore[arg-type]  # open_session checks the name
    run(server, host, port, lambda address: print(f"serving {model} at {address}", flush=True))


def _settings(host: str, max_images: int) -> "Settings":
    """Whoever reaches a server on loopback has an account on this machine; all others need the token."""
    from pipeline.runtime.server.settings import LOOPBACK_NAMES, Settings

    token = os.environ.get("VAE_TOKEN")
    local = host in ("localhost", "::1") or host.startswith("127.")
    if not local and token is None:
        raise UserError(f"host is {host}, which others can reach; expected VAE_TOKEN to be set to a secret")
    names = tuple(dict.fromkeys((*LOOPBACK_NAMES, f"[{host}]" if ":" in host else host))) if local else None
    return Settings(max_images=max_images, token=token, allowed_hosts=names)
