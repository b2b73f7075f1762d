"""The open inference protocol, version 2, of KServe and Triton: their clients work here unchanged.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol, with the extension for binary
tensors. A model has one version, "1"; the models are the names of GRAPHS.
"""

from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from pipeline.runtime.server.formats import JSON, RAW, beside
from pipeline.runtime.server.graphs import Tensor
from pipeline.runtime.server.guards import error_response
from pipeline.runtime.server.openapi import ERRORS, TENSORS, TENSORS_BODY
from pipeline.runtime.server.service import Service
from pipeline.runtime.server.tensors import DATATYPES, HEADER_LENGTH, json_length, pack_response, unpack_request

_VERSION = "1"


def _check_version(number: str) -> None:
    if number != _VERSION:
        raise HTTPException(404, f"version is {number!r:.40}; expected {_VERSION!r}")


_PATHS = {"/v2/models/{name}": [], "/v2/models/{name}/versions/{number}": [Depends(_check_version)]}


def build_kserve_routes(service: Service) -> APIRouter:
    """The routes under /v2."""
    router = APIRouter()

    @router.get("/v2", responses=ERRORS)
    async def server() -> dict[str, Any]:
        """The server's name, version and extensions."""
        return {"name": "vae serve", "version": version("vae-pipeline"), "extensions": ["binary_tensor_data"]}

    @router.get("/v2/health/live", responses=ERRORS)
    async def live() -> dict[str, bool]:
        """200 as long as the process answers."""
        return {"live": True}

    @router.get("/v2/health/ready", responses=ERRORS)
    async def ready() -> JSONResponse:
        """200 while new requests are taken."""
        return error_response(503, "the server is stopping") if service.draining else JSONResponse({"ready": True})

    async def model(name: str) -> dict[str, Any]:
        """A model's inputs and outputs; -1 is the number of rows."""
        graph = service.graph(name)
        sides = {"inputs": list(map(_described, graph.inputs)), "outputs": list(map(_described, graph.outputs))}
        return {"name": name, "versions": [_VERSION], "platform": "onnxruntime_onnx", **sides}

    async def model_ready(name: str) -> dict[str, Any]:
        """200 if the model can be asked."""
        return {"name": service.graph(name).name, "ready": True}

    async def infer(name: str, request: Request) -> Response:
        """Run a model; tensors are JSON, or binary behind the JSON if Inference-Header-Content-Length is given."""
        graph = service.graph(name)
        body, length = await request.body(), request.headers.get(HEADER_LENGTH)
        text, shapes = body[: json_length(length, len(body))], [tensor.row_shape for tensor in graph.inputs]
        asked = await service.parse(text, shapes, partial(unpack_request, body, length, graph), len(body))
        outputs = await service.run(name, asked.rows, request)
        size = sum(output.nbytes for output in outputs.values())
        head = {"model_name": name, "model_version": _VERSION}
        content, headers = await beside(size, pack_response, asked, outputs, head)
        return Response(content, headers=headers, media_type=RAW if headers else JSON)

    for path, checks in _PATHS.items():
        router.get(path, responses=ERRORS, dependencies=checks)(model)
        router.get(f"{path}/ready", responses=ERRORS, dependencies=checks)(model_ready)
        router.post(
            f"{path}/infer",
            responses=TENSORS,
            response_class=Response,
            openapi_extra=TENSORS_BODY,
            dependencies=checks,
        )(infer)
    return router


def _described(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": DATATYPES[tensor.dtype], "shape": [-1, *tensor.row_shape]}
