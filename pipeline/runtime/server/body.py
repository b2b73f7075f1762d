"""A request's body, whole and in time, or refused: it is counted as it comes, whatever its headers say."""

import asyncio

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.runtime.server.guards import error_response
from pipeline.runtime.server.settings import Settings


class BodyTooLargeError(Exception):
    """The body is longer than is allowed."""


class LimitBody:
    """ASGI middleware: the routes behind it are called once the body is here."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        limit, seconds = self._settings.max_body_bytes, self._settings.body_seconds
        # What is left unread of a refused body would be taken for the next request.
        close = {"Connection": "close"}
        try:
            async with asyncio.timeout(seconds):
                body = await _read(receive, Headers(scope=scope), limit)
        except BodyTooLargeError:
            refused = error_response(413, f"the body has more than {limit} bytes", close)
        except TimeoutError:
            refused = error_response(408, f"the body was not here within {seconds} s", close)
        except ClientDisconnect:
            return
        else:
            await self._app(scope, _replaying(body, receive), send)
            return
        await refused(scope, receive, send)


def _has_body(scope: Scope) -> bool:
    """Whether the headers speak of one, without which HTTP/1.1 has none (RFC 9112, 6.3)."""
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


async def _read(receive: Receive, headers: Headers, limit: int) -> bytes:
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise BodyTooLargeError
    parts: list[bytes] = []
    read, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        read += len(parts[-1])
        if read > limit:
            raise BodyTooLargeError
        more = message.get("more_body", False)
    return b"".join(parts)


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
