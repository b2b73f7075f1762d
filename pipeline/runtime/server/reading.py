"""The routes that read images: encode and score. A body is one picture, JSON, or an .npy file."""

import math
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.runtime.server.bodies import PICTURES, media_type, read_array, read_picture
from pipeline.runtime.server.formats import JSON, OF_NUMBERS, form_for, respond
from pipeline.runtime.server.openapi import IMAGES_BODY, NUMBERS
from pipeline.runtime.server.schemas import EncodeQuery, ScoreQuery
from pipeline.runtime.server.service import Service


def build_reading_routes(service: Service) -> APIRouter:
    """The routes over one service."""
    router = APIRouter()

    @router.post("/encode", responses=NUMBERS, response_class=Response, openapi_extra=IMAGES_BODY)
    async def encode(request: Request, asked: Annotated[EncodeQuery, Query()]) -> Response:
        """q(z|x): mu and logvar, float32 [n, latent_dim] each; in raw and .npy one array [2, n, latent_dim].

        The body is one PNG, JPEG or WebP picture, JSON `{"images": [...]}`, or an .npy file uint8 [n, H, W, C].
        `resize` stretches a picture to the model's size; without it, another size is refused.
        """
        images = {"images": await _read_images(service, request, asked.resize)}
        q = await service.run("encoder", images, request, asked.label)
        return await respond(request, np.stack([q["mu"], q["logvar"]]), OF_NUMBERS, lambda: q)

    @router.post("/score", responses=NUMBERS, response_class=Response, openapi_extra=IMAGES_BODY)
    async def score(request: Request, asked: Annotated[ScoreQuery, Query()]) -> Response:
        """How strange the model finds images, in nats; the body is that of /encode.

        JSON holds `score` [n] (minus the ELBO, higher is stranger), `strangeness` [n] (the share of the validation
        images that score lower) and `error` [n, H, W] (each pixel's part in minus log p(x|z)). In raw and .npy it is
        the score, float32 [n], or with `error_map` the error, float32 [n, H, W].
        """
        images = {"images": await _read_images(service, request, asked.resize)}
        found = await service.run("scorer", images, request, asked.label)
        strangeness = service.sampler.strangeness(found["score"])
        return await respond(
            request,
            found["error" if asked.error_map else "score"],
            OF_NUMBERS,
            lambda: {"score": found["score"], "strangeness": strangeness, "error": found["error"]},
            nbytes=found["error"].nbytes,
        )

    return router


async def _read_images(service: Service, request: Request, resize: bool) -> NDArray[np.uint8]:
    """The images of a request that an answer in numbers can be given to: uint8 [n, H, W, C]."""
    form_for(request, OF_NUMBERS)
    content, kind = await request.body(), media_type(request)
    images = await _parse_images(service, content, kind, resize)
    shape = service.sampler.image_shape
    if images.shape[1:] != shape or not len(images):
        raise UserError(f"images have shape {list(images.shape)}; expected ['n >= 1', {str(list(shape))[1:]}")
    return images


async def _parse_images(service: Service, content: bytes, kind: str, resize: bool) -> NDArray[Any]:
    shape, most = service.sampler.image_shape, service.settings.max_pixels
    if kind in PICTURES:
        return await service.decode(partial(read_picture, content, kind, shape, most, resize))
    read = partial(read_array, content, kind, "images", "uint8", PICTURES)
    return await service.parse(content if kind == JSON else b"", [shape], read, math.inf)
