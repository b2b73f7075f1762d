"""What OpenAPI says of bodies and answers that are no pydantic models: arrays, pictures, errors."""

from typing import Any

from pipeline.runtime.server.bodies import PICTURES
from pipeline.runtime.server.formats import JSON, NPY, OF_IMAGES, OF_NUMBERS, RAW

Responses = dict[int | str, dict[str, Any]]

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ERROR = {"content": {JSON: {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}}}
ERRORS: Responses = {
    status: {"description": reason, **_ERROR}
    for status, reason in {
        400: "malformed body", 401: "no or another token", 403: "another site's page", 404: "not of this model",
        406: "no such form", 408: "slow body", 413: "large body", 415: "unknown media type", 421: "another host",
        422: "value out of range", 429: "too many at once", 431: "large head",
        503: "queue full, or stopping", 504: "took too long",
    }.items()
}  # fmt: skip


def _answers(*forms: str) -> Responses:
    return {200: {"content": {form: {} if form == JSON else _BINARY for form in forms}}, **ERRORS}


def _accepts(*forms: str, **json_schema: Any) -> dict[str, Any]:
    body = {form: {"schema": json_schema} if form == JSON else _BINARY for form in forms}
    return {"requestBody": {"required": True, "content": body}}


def _lists(depth: int, of: dict[str, Any]) -> dict[str, Any]:
    return of if depth == 0 else {"type": "array", "items": _lists(depth - 1, of)}


def _object(name: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: value}, "required": [name], "additionalProperties": False}


IMAGES = _answers(*OF_IMAGES)
TENSORS = _answers(JSON, RAW)
TENSORS_BODY = {"requestBody": {"required": True, "content": {JSON: {"schema": {"type": "object"}}, RAW: _BINARY}}}
NUMBERS = _answers(*OF_NUMBERS)
Z_BODY = _accepts(JSON, NPY, **_object("z", _lists(2, {"type": "number"})))
IMAGES_BODY = _accepts(JSON, NPY, *PICTURES, **_object("images", _lists(4, {"type": "integer"})))
