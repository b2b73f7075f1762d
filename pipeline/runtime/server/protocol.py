"""Clients that are slow, endless or too many: uvicorn waits for them for ever; this does not."""

import asyncio
import json
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline.runtime.server.settings import Settings

_Base: Any = HttpToolsProtocol


class ImpatientProtocol(_Base):  # type: ignore[misc]
    """uvicorn's HTTP protocol with limits, whose own errors are `{"error": "one line"}` too.

    Args:
        settings: `header_seconds` and `max_head_bytes` bound the time from opening a connection, or from the first
            byte of a later request, to its last header, and what comes in it; `max_head_bytes` bounds trailers too;
            `send_seconds` is how long a full send buffer may stay unread; `max_connections` is how many may be open.
        refuse_connection: answers every request on a connection above that number.
        given: uvicorn's own.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _send_timer: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0

    def __init__(self, settings: Settings, refuse_connection: ASGIApp, **given: Any) -> None:
        super().__init__(**given)
        self._settings, self._refuse_connection = settings, refuse_connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of one connection too many every request is refused."""
        super().connection_made(transport)
        if len(self.connections) > self._settings.max_connections:
            self.app = self._refuse_connection
        self._expect_head()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; a trailer comes here too, and would be one for whoever reads the headers after the body."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head has ended, in time."""
        self._stop_head_timer()
        self._in_head, self._head_bytes = False, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body, which is limited where it is read."""
        self._head_bytes = 0
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        """Bytes of a head, or of what follows it."""
        # A read in which a head ended, or a part of a body came, says nothing of how long the next head or trailer is.
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head or self._is_answered():  # most heads come whole, and need no timer
            self._expect_head()
        if self._head_bytes > self._settings.max_head_bytes and not self.transport.is_closing():
            found = "trailers have" if self._head_timer is None else "head has"
            self._refuse(431, f"the request's {found} more than {self._settings.max_head_bytes} bytes")

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """What uvicorn answers to bytes that are no request."""
        self._refuse(400, "the request is not HTTP/1.1")

    def pause_writing(self) -> None:
        """The client leaves a full buffer unread."""
        super().pause_writing()
        self._send_timer = self.loop.call_later(self._settings.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads on."""
        super().resume_writing()
        self._stop_send_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left to wait for."""
        self._stop_head_timer()
        self._stop_send_timer()
        super().connection_lost(exc)

    def _is_answered(self) -> bool:
        """Whether only a next head may come: what is none, as empty lines, would have no end otherwise."""
        return self.cycle is not None and self.cycle.response_complete

    def _refuse(self, status: int, reason: str) -> None:
        body = json.dumps({"error": reason}).encode()
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        rest = f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            self.transport.write(f"{head}{rest}".encode() + body)  # in an answer it would be taken for a part of that
        self.transport.close()

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._settings.header_seconds, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
