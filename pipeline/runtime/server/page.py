"""The explorer at `/`: a few files of our own, held in memory, under a policy that lets nothing else run."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Response

from pipeline.runtime.explorer import ON_SERVER, read_page_file

FILES = {"/" if name == "index.html" else f"/{name}": name for name in ON_SERVER}
"""Path -> file. None of them is secret: they answer without a token, which the page itself then asks for."""

MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",  # a newer server brings a newer page
}


def build_page_routes() -> APIRouter:
    """`/` and the files that it names; they are no part of the API that OpenAPI describes."""
    router = APIRouter(include_in_schema=False)
    for path, name in FILES.items():
        router.get(path)(_answer(name))
    return router


def _answer(name: str) -> Callable[[], Awaitable[Response]]:
    content = read_page_file(name)
    media_type = MEDIA_TYPES[name.rpartition(".")[2]]

    async def answer() -> Response:
        return Response(content, headers=HEADERS, media_type=f"{media_type}; charset=utf-8")

    return answer
