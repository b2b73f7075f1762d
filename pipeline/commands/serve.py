"""`vae serve`: the model over HTTP."""

import os
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.options import Demo, Device, SamplerModel, Variant, choose_model, open_sampler
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.runtime.server.settings import Settings

SPIN_US = 100  # the server's own threads need the cores between two batches


def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; what is not loopback needs VAE_TOKEN to be set.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 8000,
    max_images: Annotated[int, typer.Option(help="Images of one request, at most.")] = 1024,
    model: SamplerModel = None,
    demo: Demo = False,
    device: Device = "auto",
    variant: Variant = None,
) -> None:
    """Serve the model over HTTP, until it is told to stop."""
    from pipeline.runtime.server import import_server
    from pipeline.runtime.server.memory import keep_heap_small

    keep_heap_small()
    create_app, run = import_server()
    settings = _settings(host, max_images)
    path = choose_model(model, demo)
    server = create_app(open_sampler(path, device, variant, spin_us=SPIN_US), settings)
    named = "the demo" if demo else path
    run(server, host, port, lambda address: print(f"serving {named} at {address}", flush=True))


def _settings(host: str, max_images: int) -> "Settings":
    """Whoever reaches a server on loopback has an account on this machine; all others need the token."""
    from pipeline.runtime.server.settings import LOOPBACK_NAMES, Settings

    token = os.environ.get("VAE_TOKEN")
    local = _is_loopback(host)
    if not local and token is None:
        raise UserError(f"host is {host}, which others can reach; expected VAE_TOKEN to be set to a secret")
    names = tuple(dict.fromkeys((*LOOPBACK_NAMES, f"[{host}]" if ":" in host else host))) if local else None
    return Settings(max_images=max_images, token=token, allowed_hosts=names)


def _is_loopback(host: str) -> bool:
    """Whether it can mean nothing else: another name than localhost may resolve to any address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
