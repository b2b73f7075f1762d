"""Slow clients: uvicorn waits for ever for a request to arrive and for a response to be read; this does not."""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol


def impatient_protocol(header_seconds: float, send_seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol with two timers.

    Args:
        header_seconds: from opening a connection, or from the first byte of a later request, to its last header.
        send_seconds: how long a full send buffer may stay unread.
    """
    base: Any = AutoHTTPProtocol

    class ImpatientProtocol(base):  # type: ignore[misc]
        _header_timer: asyncio.TimerHandle | None = None
        _send_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self._wait_for_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_header_timer()
            else:
                self._wait_for_headers()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._send_timer = self.loop.call_later(send_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_send_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_header_timer()
            self._stop_send_timer()
            super().connection_lost(exc)

        def _wait_for_headers(self) -> None:
            if self._header_timer is None:
                self._header_timer = self.loop.call_later(header_seconds, self.transport.abort)

        def _stop_header_timer(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

        def _stop_send_timer(self) -> None:
            if self._send_timer is not None:
                self._send_timer.cancel()
                self._send_timer = None

    return ImpatientProtocol
