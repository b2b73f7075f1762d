"""Who may ask, and how much at once: host names, origins, the token, stopping, requests of one client.

A page of another site can make a browser send requests to a server on loopback, and can have its own name resolve to
127.0.0.1. So the Host header must be a name that we know, a foreign Origin is refused, and no CORS header is sent.
"""

import asyncio
import hmac
from collections import Counter
from contextlib import suppress
from typing import NamedTuple

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.runtime.server.page import FILES
from pipeline.runtime.server.service import Service

OPEN_PATHS = ("/health", "/ready", "/v2/health/live", "/v2/health/ready")
"""Answered without a token, and while the server stops: an orchestrator asks here."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-site",
    "Referrer-Policy": "no-referrer",
}

LINGER_SECONDS = 1
"""How long what is left of a refused body is read past. A connection closed on unread bytes is reset, and its client
may lose the answer."""

_SECURITY_HEADERS = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


class Refusal(NamedTuple):
    """Why a request is not served."""

    status: int
    reason: str
    headers: dict[str, str] | None = None


class Guard:
    """ASGI middleware: refuses what may not be served, counts what is, and adds the security headers."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service, self._settings = app, service, service.settings
        self._per_client: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_security_headers(send)
        client = scope["client"][0] if scope.get("client") else ""
        refusal = self._refusal(scope["path"], Headers(scope=scope), client)
        if refusal and has_body(scope):
            headers = {**(refusal.headers or {}), "Connection": "close"}
            await error_response(refusal.status, refusal.reason, headers)(scope, receive, _lingering(receive, send))
            return
        if refusal:
            await error_response(*refusal)(scope, receive, send)
            return
        self._per_client[client] += 1
        self._service.in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._service.in_flight -= 1
            self._per_client[client] -= 1
            if not self._per_client[client]:
                del self._per_client[client]  # addresses that come once must not pile up

    def _refusal(self, path: str, headers: Headers, client: str) -> Refusal | None:
        host = headers.get("host", "")
        hosts = self._settings.allowed_hosts
        if hosts is not None and _name(host) not in hosts:
            return Refusal(421, f"Host is {host[:80]!r}; expected one of {', '.join(hosts)}")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return Refusal(403, f"Origin is {origin[:80]!r}; expected a page of this server")
        if path in OPEN_PATHS:
            return None
        if path not in FILES and not self._authorized(headers.get("authorization", "")):
            return Refusal(401, "expected the header Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
        if self._service.draining:
            return Refusal(503, "the server is stopping", {"Retry-After": "5", "Connection": "close"})
        limit = self._settings.max_per_client
        if self._per_client[client] >= limit:
            return Refusal(429, f"{limit} requests of this client are in progress already", {"Retry-After": "1"})
        return None

    def _authorized(self, authorization: str) -> bool:
        if self._settings.token is None:
            return True
        scheme, _, given = authorization.partition(" ")
        same = hmac.compare_digest(given.strip().encode(), self._settings.token.strip().encode())
        return scheme.lower() == "bearer" and same


def error_response(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Every error has this form: `{"error": "one line"}`."""
    return JSONResponse({"error": " ".join(reason.split())}, status, headers)


def has_body(scope: Scope) -> bool:
    """Whether the headers speak of a body, without which HTTP/1.1 has none (RFC 9112, 6.3)."""
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


def _lingering(receive: Receive, send: Send) -> Send:
    """Sends an answer at once, and ends it when the request's body has come, its client left, or it took too long."""

    async def sending(message: Message) -> None:
        if message["type"] != "http.response.body":
            await send(message)
            return
        await send({**message, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while (await receive()).get("more_body", False):
                    pass
        await send({"type": "http.response.body", "body": b""})

    return sending


def _with_security_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message["headers"] = list(message["headers"])
            given = {name for name, _ in headers}
            headers.extend(header for header in _SECURITY_HEADERS if header[0] not in given)
        await send(message)

    return sending


def _name(host: str) -> str:
    """A Host header without its port."""
    return (host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]).lower()
