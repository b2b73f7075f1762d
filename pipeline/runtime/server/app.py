"""The application: routes behind guards, and every error as `{"error": "one line"}`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pipeline.errors import UserError
from pipeline.runtime.sampler import Sampler
from pipeline.runtime.server.bodies import NOT_JSON, media_type, no_object
from pipeline.runtime.server.body import LimitBody
from pipeline.runtime.server.drawing import build_direct_sample, build_drawing_routes
from pipeline.runtime.server.formats import JSON
from pipeline.runtime.server.guards import SECURITY_HEADERS, Guard, error_response
from pipeline.runtime.server.head import AnswerHead
from pipeline.runtime.server.kserve import build_kserve_routes
from pipeline.runtime.server.metrics import MeasureRequests, Metrics
from pipeline.runtime.server.page import build_page_routes
from pipeline.runtime.server.reading import build_reading_routes
from pipeline.runtime.server.service import Service
from pipeline.runtime.server.settings import Settings
from pipeline.runtime.server.status import build_status_routes


def create_app(sampler: Sampler, settings: Settings | None = None) -> FastAPI:
    """The server of one model; `app.state.service` is what its routes share.

    Raises:
        UserError: a file of the model is missing or damaged.
    """
    settings = settings or Settings()
    service = Service(sampler, settings, Metrics())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    # The interactive pages of FastAPI load their scripts from another host, so there are none.
    app = FastAPI(title="vae serve", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan)
    app.state.service = service
    app.include_router(build_drawing_routes(service))
    app.include_router(build_reading_routes(service))
    app.include_router(build_status_routes(service))
    app.include_router(build_kserve_routes(service))
    app.include_router(build_page_routes())
    app.router.routes.insert(0, build_direct_sample(service))
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_middleware(LimitBody, settings=settings)  # the last one added is the first to see a request
    app.add_middleware(Guard, service=service)
    app.add_middleware(MeasureRequests, metrics=service.metrics)
    app.add_middleware(AnswerHead)
    return app


async def _refused(request: Request, error: Exception) -> JSONResponse:
    refused = cast(HTTPException, error)
    if refused.status_code == 400 and refused.__cause__ is not None:  # FastAPI's word for what json cannot follow
        return error_response(422, NOT_JSON)
    headers = dict(refused.headers or {})
    if refused.status_code == 404 and "route" not in request.scope:
        return error_response(404, f"{request.scope['path']!r:.80} is no path; expected one that /openapi.json lists")
    if refused.status_code == 405:
        headers["Allow"] = _allowed(request, headers.get("Allow", ""))
        return error_response(405, f"{request.method:.20} does not work here; expected {headers['Allow']}", headers)
    return error_response(refused.status_code, str(refused.detail), headers)


def _allowed(request: Request, of_first_route: str) -> str:
    """All methods of the path; the error names those of its first route alone."""
    described = request.app.openapi()["paths"].get(request.url.path)
    methods = {name.upper() for name in described or of_first_route.split(", ")}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


async def _mistaken(_: Request, error: Exception) -> JSONResponse:
    return error_response(422, str(error))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    first = cast(RequestValidationError, error).errors()[0]
    kind = media_type(request)
    if first["loc"] == ("body",) and kind != JSON:
        return error_response(415, f"Content-Type is {kind!r:.80}; expected {JSON}")
    if first["type"] == "json_invalid" or (first["loc"] == ("body",) and first["type"] == "missing"):
        return error_response(422, NOT_JSON)
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error" and len(first["loc"]) == 1:  # of no one field: it says itself what it is about
        return error_response(422, reason)
    if first["loc"] == ("body",):
        return error_response(422, no_object(first["input"]))
    place = ".".join(str(part) for part in first["loc"][1:])
    if first["type"] == "missing":  # the input is what lacks it
        return error_response(422, f"{place} is missing; expected a value")
    return error_response(422, f"{place} is {first['input']!r:.60}; {reason[0].lower()}{reason[1:]}")


async def _failed(_: Request, __: Exception) -> JSONResponse:
    # Starlette answers this outside of the guard, which gives all other answers these headers.
    return error_response(500, "the server failed; its log says why", SECURITY_HEADERS)


_HANDLERS = {HTTPException: _refused, UserError: _mistaken, RequestValidationError: _invalid, Exception: _failed}
