"""The routes of our own: sample, decode, encode, interpolate, metadata, health and metrics."""

import asyncio
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.runtime.interpolation import spherical, straight
from pipeline.runtime.noise import check_first
from pipeline.runtime.sampler import to_pixels
from pipeline.runtime.server.batching import Arrays
from pipeline.runtime.server.bodies import PICTURES, media_type, read_array, read_picture
from pipeline.runtime.server.formats import JSON, NPY, OF_IMAGES, OF_NUMBERS, negotiate, respond
from pipeline.runtime.server.guards import error_response
from pipeline.runtime.server.schemas import InterpolateRequest, SampleRequest
from pipeline.runtime.server.service import Service

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ERROR = {"content": {JSON: {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": reason, **_ERROR}
    for status, reason in {
        400: "malformed body", 401: "no or another token", 403: "another site's page", 404: "not of this model",
        406: "no such form", 408: "slow body", 413: "large body", 415: "unknown media type", 421: "another host",
        422: "value out of range", 429: "too many at once", 503: "queue full, or stopping", 504: "took too long",
    }.items()
}  # fmt: skip


def _answers(*forms: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {form: {} if form == JSON else _BINARY for form in forms}}, **_ERRORS}


def _accepts(*forms: str, **json_schema: Any) -> dict[str, Any]:
    body = {form: {"schema": json_schema} if form == JSON else _BINARY for form in forms}
    return {"requestBody": {"required": True, "content": body}}


def _lists(depth: int, of: dict[str, Any]) -> dict[str, Any]:
    return of if depth == 0 else {"type": "array", "items": _lists(depth - 1, of)}


def _object(name: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: value}, "required": [name], "additionalProperties": False}


IMAGES = _answers(*OF_IMAGES)
Z_BODY = _accepts(JSON, NPY, **_object("z", _lists(2, {"type": "number"})))
IMAGES_BODY = _accepts(JSON, NPY, *PICTURES, **_object("images", _lists(4, {"type": "integer"})))


def build_routes(service: Service) -> APIRouter:
    """The routes over one service."""
    router = APIRouter()
    shape = service.sampler.image_shape

    @router.get("/sample", responses=IMAGES, response_class=Response)
    async def get_sample(asked: Annotated[SampleRequest, Query()], request: Request) -> Response:
        """Images `first` to `first + count - 1` of `seed`; a URL for an img tag."""
        return await post_sample(asked, request)

    @router.post("/sample", responses=IMAGES, response_class=Response)
    async def post_sample(asked: SampleRequest, request: Request) -> Response:
        """Images `first` to `first + count - 1` of `seed`."""
        negotiate(request.headers.get("accept"), OF_IMAGES)
        service.check_count(asked.count)
        check_first(asked.first, asked.count)
        drawn = await service.run("sampler", _rows(asked), request)
        return await _respond_images(request, drawn["images"], seed=asked.seed, first=asked.first)

    @router.post("/decode", responses=IMAGES, response_class=Response, openapi_extra=Z_BODY)
    async def decode(request: Request) -> Response:
        """The images of latents: JSON `{"z": [[...], ...]}`, or an .npy file of numbers [n, latent_dim]."""
        negotiate(request.headers.get("accept"), OF_IMAGES)
        z = await asyncio.to_thread(read_array, await request.body(), media_type(request), "z", "float32")
        if z.ndim != 2 or z.shape[1] != service.sampler.latent_dim or not len(z):
            raise UserError(f"z has shape {list(z.shape)}; expected [n >= 1, {service.sampler.latent_dim}]")
        return await _respond_images(request, await _decode(service, z, request))

    @router.post("/encode", responses=_answers(*OF_NUMBERS), response_class=Response, openapi_extra=IMAGES_BODY)
    async def encode(request: Request, resize: bool = False) -> Response:
        """q(z|x): mu and logvar, float32 [n, latent_dim] each; in raw and .npy one array [2, n, latent_dim].

        The body is one PNG, JPEG or WebP picture, JSON `{"images": [...]}`, or an .npy file uint8 [n, H, W, C].
        `resize` stretches a picture to the model's size; without it, another size is refused.
        """
        negotiate(request.headers.get("accept"), OF_NUMBERS)
        images = await asyncio.to_thread(_read_images, service, await request.body(), media_type(request), resize)
        if images.shape[1:] != shape or not len(images):
            raise UserError(f"images have shape {list(images.shape)}; expected ['n >= 1', {str(list(shape))[1:]}")
        q = await service.run("encoder", {"images": images}, request)
        return await respond(
            request, np.stack([q["mu"], q["logvar"]]), OF_NUMBERS, lambda: {k: v.tolist() for k, v in q.items()}
        )

    @router.post("/interpolate", responses=IMAGES, response_class=Response)
    async def post_interpolate(asked: InterpolateRequest, request: Request) -> Response:
        """A walk of `steps` images from image 0 of one seed to image 0 of another, through the latents."""
        negotiate(request.headers.get("accept"), OF_IMAGES)
        service.check_count(asked.steps, "steps")
        ends = await service.run("sampler", _ends(asked), request)
        path = {"spherical": spherical, "linear": straight}[asked.path]
        z = path(ends["z"][0], ends["z"][1], asked.steps)
        return await _respond_images(request, await _decode(service, z, request), seeds=asked.seeds, path=asked.path)

    @router.get("/metadata", responses=_ERRORS)
    async def metadata() -> dict[str, Any]:
        """What the model is, where it came from, and what the server allows."""
        limits = {name: getattr(service.settings, name) for name in ("max_images", "max_body_bytes", "max_pixels")}
        return {**service.sampler.metadata.to_strings(), **_sizes(service), "graphs": list(service.graphs), **limits}

    @router.get("/health", responses=_ERRORS)
    async def health() -> dict[str, str]:
        """200 as long as the process answers."""
        return {"status": "alive"}

    @router.get("/ready", responses=_ERRORS)
    async def ready() -> JSONResponse:
        """200 while new requests are taken, 503 once the server is stopping."""
        return error_response(503, "the server is stopping") if service.draining else JSONResponse({"status": "ready"})

    @router.get("/metrics", responses=_ERRORS, response_class=Response)
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    return router


def _rows(asked: SampleRequest) -> Arrays:
    return {
        "seed": np.full(asked.count, asked.seed, np.int64),
        "index": np.arange(asked.first, asked.first + asked.count, dtype=np.int64),
        "temperature": np.full(asked.count, asked.temperature, np.float32),
    }


def _ends(asked: InterpolateRequest) -> Arrays:
    return {
        "seed": np.array(asked.seeds, np.int64),
        "index": np.zeros(2, np.int64),
        "temperature": np.full(2, asked.temperature, np.float32),
    }


async def _decode(service: Service, z: NDArray[np.float32], request: Request) -> NDArray[np.uint8]:
    x = (await service.run("decoder", {"z": z}, request))["x"]
    return await asyncio.to_thread(to_pixels, x)


def _read_images(service: Service, content: bytes, kind: str, resize: bool) -> NDArray[Any]:
    if kind in PICTURES:
        return read_picture(content, kind, service.sampler.image_shape, service.settings.max_pixels, resize)
    return read_array(content, kind, "images", "uint8")


def _sizes(service: Service) -> dict[str, Any]:
    return {"latent_dim": service.sampler.latent_dim, "image_shape": list(service.sampler.image_shape)}


async def _respond_images(request: Request, images: NDArray[np.uint8], **origin: Any) -> Response:
    return await respond(
        request, images, OF_IMAGES, lambda: {**origin, "shape": list(images.shape), "images": images.tolist()}
    )
