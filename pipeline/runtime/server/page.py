"""The explorer at `/`: a few files of our own, held in memory, under a policy that lets nothing else run."""

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter, Response

FILES = {
    "index.html": "text/html",
    "style.css": "text/css",
    "app.js": "text/javascript",
    "server.js": "text/javascript",
}

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",  # a newer server brings a newer page
}


def build_page_routes() -> APIRouter:
    """`/` and the files that it names; they are no part of the API that OpenAPI describes."""
    router = APIRouter(include_in_schema=False)
    for name, media_type in FILES.items():
        router.get("/" if name == "index.html" else f"/{name}")(_answer(name, media_type))
    return router


def _answer(name: str, media_type: str) -> Callable[[], Awaitable[Response]]:
    content = (files("pipeline.runtime") / "explorer" / name).read_bytes()

    async def answer() -> Response:
        return Response(content, headers=HEADERS, media_type=f"{media_type}; charset=utf-8")

    return answer
