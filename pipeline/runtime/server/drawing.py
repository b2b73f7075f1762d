"""The routes that draw images: sample, decode and interpolate."""

import asyncio
import math
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.runtime.draws import rows
from pipeline.runtime.interpolation import WAYS, usual_way
from pipeline.runtime.labels import Label
from pipeline.runtime.noise import check_first
from pipeline.runtime.pictures import strip_columns
from pipeline.runtime.pixels import to_pixels
from pipeline.runtime.server.batching import Arrays
from pipeline.runtime.server.bodies import media_type, read_array
from pipeline.runtime.server.direct import QueryRoute
from pipeline.runtime.server.fields import FieldsRoute
from pipeline.runtime.server.formats import JSON, OF_IMAGES, form_for, pixels_json, respond
from pipeline.runtime.server.openapi import IMAGES, Z_BODY
from pipeline.runtime.server.schemas import DecodeQuery, InterpolateRequest, SampleRequest, refuse_query
from pipeline.runtime.server.service import Service

_FIELDS_IN_THE_BODY = [Depends(refuse_query)]


def build_drawing_routes(service: Service) -> APIRouter:
    """The routes over one service."""
    router = APIRouter(route_class=FieldsRoute)

    @router.get("/sample", responses=IMAGES, response_class=Response)
    async def get_sample(asked: Annotated[SampleRequest, Query()], request: Request) -> Response:
        """Images `first` to `first + count - 1` of `seed`; a URL for an img tag."""
        return await _sample(service, asked, request)

    @router.post("/sample", responses=IMAGES, response_class=Response, dependencies=_FIELDS_IN_THE_BODY)
    async def post_sample(asked: SampleRequest, request: Request) -> Response:
        """Images `first` to `first + count - 1` of `seed`."""
        return await _sample(service, asked, request)

    @router.post("/decode", responses=IMAGES, response_class=Response, openapi_extra=Z_BODY)
    async def decode(request: Request, asked: Annotated[DecodeQuery, Query()]) -> Response:
        """The images of latents: JSON `{"z": [[...], ...]}`, or an .npy file of numbers [n, latent_dim]."""
        form_for(request, OF_IMAGES)
        content, kind = await request.body(), media_type(request)
        text, shape = content if kind == JSON else b"", (service.sampler.latent_dim,)
        z = await service.parse(text, [shape], partial(read_array, content, kind, "z", "float32"), math.inf)
        if z.ndim != 2 or z.shape[1] != service.sampler.latent_dim or not len(z):
            raise UserError(f"z has shape {list(z.shape)}; expected [n >= 1, {service.sampler.latent_dim}]")
        return await _respond_images(request, await _decode(service, z, asked.label, request))

    @router.post("/interpolate", responses=IMAGES, response_class=Response, dependencies=_FIELDS_IN_THE_BODY)
    async def post_interpolate(asked: InterpolateRequest, request: Request) -> Response:
        """A walk of `steps` images from image 0 of one seed to image 0 of another, through the latents.

        As PNG it is one row, and more rows of equal length where it is long.
        """
        form_for(request, OF_IMAGES)
        service.check_count(asked.steps, "steps")
        ends = await service.run("sampler", _ends(asked), request, asked.label, checked=True)
        path = asked.path or usual_way(service.sampler.metadata)
        z = WAYS[path](ends["z"][0], ends["z"][1], asked.steps)
        images = await _decode(service, z, asked.label, request)
        columns = strip_columns(asked.steps)
        return await _respond_images(request, images, columns, seeds=asked.seeds, path=path)

    return router


def build_direct_sample(service: Service) -> QueryRoute[SampleRequest]:
    """GET /sample, as the routes have it, without FastAPI's way to it."""
    return QueryRoute("/sample", SampleRequest, partial(_sample, service))


async def _sample(service: Service, asked: SampleRequest, request: Request) -> Response:
    form_for(request, OF_IMAGES)
    service.check_count(asked.count)
    check_first(asked.first, asked.count)
    asked_for = rows(asked.count, asked.seed, asked.first, asked.temperature)
    drawn = await service.run("sampler", asked_for, request, asked.label, checked=True)
    return await _respond_images(request, drawn["images"], seed=asked.seed, first=asked.first)


def _ends(asked: InterpolateRequest) -> Arrays:
    return {
        "seed": np.array(asked.seeds, np.int64),
        "index": np.zeros(2, np.int64),
        "temperature": np.full(2, asked.temperature, np.float32),
    }


async def _decode(service: Service, z: NDArray[np.float32], label: Label | None, request: Request) -> NDArray[np.uint8]:
    x = (await service.run("decoder", {"z": z}, request, label))["x"]
    return await asyncio.to_thread(to_pixels, x)


async def _respond_images(
    request: Request, images: NDArray[np.uint8], columns: int | None = None, **origin: Any
) -> Response:
    def as_json() -> dict[str, Any]:
        return {**origin, "shape": list(images.shape), "images": pixels_json(images)}

    return await respond(request, images, OF_IMAGES, as_json, columns)
