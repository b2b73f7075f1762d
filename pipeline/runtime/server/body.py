"""A request's body, whole and in time, or refused: it is counted as it comes, whatever its headers say."""

import asyncio

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.runtime.server.guards import error_response, has_body
from pipeline.runtime.server.settings import Settings

_SMALL = 2**16  # bytes; so many of every request find room even while others send pictures


class CompressedBodyError(Exception):
    """The body would have to be unpacked, to a size that nobody knows."""


class BodyTooLargeError(Exception):
    """The body is longer than is allowed."""


class NoRoomError(Exception):
    """The bodies of other requests take all the memory that bodies may have."""


class LimitBody:
    """ASGI middleware: the routes behind it are called once the body is here."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._held = 0
        """Bytes of the bodies of all requests that are not answered yet."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not has_body(scope):
            await self._app(scope, receive, send)
            return
        seconds = self._settings.body_seconds
        # What is left unread of a refused body would be taken for the next request.
        close = {"Connection": "close"}
        try:
            async with asyncio.timeout(seconds):
                body = await self._read(receive, Headers(scope=scope))
        except CompressedBodyError:
            refused = error_response(415, "Content-Encoding is set; expected a body that is not compressed", close)
        except BodyTooLargeError:
            refused = error_response(413, f"the body has more than {self._settings.max_body_bytes} bytes", close)
        except NoRoomError:
            reason = f"{self._settings.max_bodies_bytes} bytes of bodies are being read already"
            refused = error_response(503, reason, close | {"Retry-After": "1"})
        except TimeoutError:
            refused = error_response(408, f"the body was not here within {seconds} s", close)
        except ClientDisconnect:
            return
        else:
            try:
                await self._app(scope, _replaying(body, receive), send)
            finally:
                self._held -= len(body)
            return
        await refused(scope, receive, send)

    async def _read(self, receive: Receive, headers: Headers) -> bytes:
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise CompressedBodyError
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._settings.max_body_bytes:
            raise BodyTooLargeError
        parts: list[bytes] = []
        read, more = 0, True
        try:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                parts.append(message.get("body", b""))
                read, self._held = read + len(parts[-1]), self._held + len(parts[-1])
                self._check(read)
                more = message.get("more_body", False)
        except BaseException:  # a time that is over is none of Exception
            self._held -= read
            raise
        return b"".join(parts)

    def _check(self, read: int) -> None:
        if read > self._settings.max_body_bytes:
            raise BodyTooLargeError
        if read > _SMALL and self._held > self._settings.max_bodies_bytes:
            raise NoRoomError


def _replaying(body: bytes, receive: Receive) -> Receive:
    """Gives the body once; after it comes what the client does next, which is to leave."""
    replayed = False

    async def receiving() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving
