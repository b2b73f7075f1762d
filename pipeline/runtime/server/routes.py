"""The routes that draw images, and those that say how the server is: metadata, health and metrics."""

import asyncio
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.runtime.interpolation import spherical, straight
from pipeline.runtime.labels import Label
from pipeline.runtime.noise import check_first
from pipeline.runtime.pixels import to_pixels
from pipeline.runtime.server.batching import Arrays
from pipeline.runtime.server.bodies import media_type, read_array
from pipeline.runtime.server.formats import OF_IMAGES, negotiate, respond
from pipeline.runtime.server.guards import error_response
from pipeline.runtime.server.openapi import ERRORS, IMAGES, Z_BODY
from pipeline.runtime.server.schemas import InterpolateRequest, SampleRequest
from pipeline.runtime.server.service import Service


def build_routes(service: Service) -> APIRouter:
    """The routes over one service."""
    router = APIRouter()

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
        drawn = await service.run("sampler", _rows(asked), request, asked.label)
        return await _respond_images(request, drawn["images"], seed=asked.seed, first=asked.first)

    @router.post("/decode", responses=IMAGES, response_class=Response, openapi_extra=Z_BODY)
    async def decode(request: Request, label: str | None = None) -> Response:
        """The images of latents: JSON `{"z": [[...], ...]}`, or an .npy file of numbers [n, latent_dim]."""
        negotiate(request.headers.get("accept"), OF_IMAGES)
        z = await asyncio.to_thread(read_array, await request.body(), media_type(request), "z", "float32")
        if z.ndim != 2 or z.shape[1] != service.sampler.latent_dim or not len(z):
            raise UserError(f"z has shape {list(z.shape)}; expected [n >= 1, {service.sampler.latent_dim}]")
        return await _respond_images(request, await _decode(service, z, label, request))

    @router.post("/interpolate", responses=IMAGES, response_class=Response)
    async def post_interpolate(asked: InterpolateRequest, request: Request) -> Response:
        """A walk of `steps` images from image 0 of one seed to image 0 of another, through the latents."""
        negotiate(request.headers.get("accept"), OF_IMAGES)
        service.check_count(asked.steps, "steps")
        ends = await service.run("sampler", _ends(asked), request, asked.label)
        path = {"spherical": spherical, "linear": straight}[asked.path]
        z = path(ends["z"][0], ends["z"][1], asked.steps)
        images = await _decode(service, z, asked.label, request)
        return await _respond_images(request, images, seeds=asked.seeds, path=asked.path)

    @router.get("/metadata", responses=ERRORS)
    async def metadata() -> dict[str, Any]:
        """What the model is, where it came from, and what the server allows."""
        limits = {name: getattr(service.settings, name) for name in ("max_images", "max_body_bytes", "max_pixels")}
        scale = {"score": service.sampler.score_scale.to_json()} if "scorer" in service.graphs else {}
        model = {**service.sampler.metadata.to_strings(), **_sizes(service), **scale}
        labels = service.graphs["sampler"].labels
        named = {"labels": list(labels)} if labels else {}
        return {**model, **named, "graphs": list(service.graphs), **limits}

    @router.get("/health", responses=ERRORS)
    async def health() -> dict[str, Any]:
        """200 as long as the process answers; `token` says whether the routes that compute ask for one."""
        return {"status": "alive", "token": service.settings.token is not None}

    @router.get("/ready", responses=ERRORS)
    async def ready() -> JSONResponse:
        """200 while new requests are taken, 503 once the server is stopping."""
        return error_response(503, "the server is stopping") if service.draining else JSONResponse({"status": "ready"})

    @router.get("/metrics", responses=ERRORS, response_class=Response)
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


async def _decode(service: Service, z: NDArray[np.float32], label: Label | None, request: Request) -> NDArray[np.uint8]:
    x = (await service.run("decoder", {"z": z}, request, label))["x"]
    return await asyncio.to_thread(to_pixels, x)


def _sizes(service: Service) -> dict[str, Any]:
    sampler = service.sampler
    sizes = {"latent_dim": sampler.latent_dim, "image_shape": list(sampler.image_shape)}
    return {**sizes, "latent_kl": sampler.metadata.latent_kl}


async def _respond_images(request: Request, images: NDArray[np.uint8], **origin: Any) -> Response:
    return await respond(request, images, OF_IMAGES, lambda: {**origin, "shape": list(images.shape), "images": images})
