"""The process: a socket, the address on one line, and a stop that lets accepted requests finish."""

import gc
import os
import socket
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from pipeline.errors import UserError
from pipeline.runtime.server.guards import error_response
from pipeline.runtime.server.metrics import MeasureRequests
from pipeline.runtime.server.protocol import ImpatientProtocol
from pipeline.runtime.server.service import Service

MOST_PORT = 2**16 - 1


def serve(app: FastAPI, host: str, port: int, on_listening: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `on_listening` hears the address, which tells the port if `port` was 0.

    Raises:
        UserError: the address cannot be bound.
    """
    service: Service = app.state.service
    settings = service.settings
    listener = listen(host, port)
    refused = error_response(
        503, f"{settings.max_connections} connections are open already", {"Retry-After": "1", "Connection": "close"}
    )
    protocol: Any = partial(ImpatientProtocol, settings, MeasureRequests(refused, service.metrics))
    config = uvicorn.Config(
        app,
        http=protocol,  # called for each connection
        ws="none",
        lifespan="off",  # a second signal would end it with a traceback; all that it does is done below
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(settings.drain_seconds) + 1,
    )
    shown = f"[{host}]" if ":" in host else host
    # What is here now stays: a full collection that went through it all would hold every request up for 30 ms.
    gc.collect()
    gc.freeze()
    on_listening(f"http://{shown}:{listener.getsockname()[1]}")
    try:
        _DrainingServer(config, service).run(sockets=[listener])
    finally:
        service.close()


class _DrainingServer(uvicorn.Server):
    """The first signal refuses new requests and waits for the accepted ones; a second one ends at once."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._give_up = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._service.draining:
            self.should_exit = self.force_exit = True
        self._service.draining = True
        self._give_up = time.monotonic() + self._service.settings.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        if self._service.draining and (not self._service.in_flight or time.monotonic() > self._give_up):
            self.should_exit = True
        return await super().on_tick(counter)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; its connections send what is written without waiting for more.

    Raises:
        UserError: the port is none, or the address cannot be bound.
    """
    if not 0 <= port <= MOST_PORT:
        raise UserError(f"port is {port}; expected a whole number from 0 to {MOST_PORT}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror  # of a name: below 0
        raise UserError(f"{host}:{port}: cannot be listened on ({reason}); expected a free address or port") from None
    # Connections inherit it. asyncio sets it only where a socket names its protocol, which this one does not. Without
    # it, the end of an answer waits up to 40 ms for the client to acknowledge its beginning.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
