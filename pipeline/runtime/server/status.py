"""The routes that say what the model is and how the server does: metadata, health, readiness and metrics."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from pipeline.runtime.metadata import OF_LATENTS
from pipeline.runtime.server.guards import error_response
from pipeline.runtime.server.openapi import ERRORS
from pipeline.runtime.server.service import Service


def build_status_routes(service: Service) -> APIRouter:
    """The routes over one service."""
    router = APIRouter()

    @router.get("/metadata", responses=ERRORS)
    async def metadata() -> dict[str, Any]:
        """What the model is, where it came from, and what the server allows."""
        return _described(service)

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


def _described(service: Service) -> dict[str, Any]:
    sampler, settings = service.sampler, service.settings
    sizes = {"latent_dim": sampler.latent_dim, "image_shape": list(sampler.image_shape)}
    of_latents = {name: getattr(sampler.metadata, name) for name in OF_LATENTS}
    described = {**sampler.metadata.to_strings(), **sizes, **of_latents}
    if "scorer" in service.graphs:
        described["score"] = sampler.score_scale.to_json()
    if labels := service.graphs["sampler"].labels:
        described["labels"] = list(labels)
    limits = {name: getattr(settings, name) for name in ("max_body_bytes", "max_pixels")}
    return {**described, "graphs": list(service.graphs), "max_images": service.max_images, **limits}
