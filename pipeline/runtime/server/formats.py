"""Results in the form that the client accepts: a picture, raw numbers, an .npy file or JSON."""

import asyncio
import functools
import io
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi import HTTPException, Request, Response
from numpy.typing import NDArray

from pipeline.runtime.pictures import make_grid

PNG, RAW, NPY, JSON = "image/png", "application/octet-stream", "application/x-npy", "application/json"
OF_IMAGES = (PNG, RAW, NPY, JSON)
OF_NUMBERS = (JSON, RAW, NPY)

_SMALL = 2**18  # bytes; what is larger is put into form beside the event loop

Array = NDArray[Any]
Result = TypeVar("Result")


async def respond(
    request: Request,
    array: Array,
    offered: tuple[str, ...],
    as_json: Callable[[], Any],
    columns: int | None = None,
    nbytes: int = 0,
) -> Response:
    """The array in the form that `request` accepts; the first of `offered` if it accepts any.

    `columns` are those of a picture, which is nearly square without. `nbytes` are those of all arrays that JSON holds,
    where there are more than one.

    Raises:
        HTTPException: 406, it accepts none of them.
    """
    form = form_for(request, offered)
    render: Callable[[Array], bytes] = {
        PNG: lambda images: _png(images, columns),
        RAW: to_bytes,
        NPY: _npy,
        JSON: lambda _: to_json(as_json()),
    }[form]
    size = math.inf if form == PNG else max(array.nbytes, nbytes)
    content = await beside(size, render, array)
    return Response(content, headers=_shape_headers(array) if form == RAW else None, media_type=form)


async def beside(nbytes: float, function: Callable[..., Result], *arguments: Any) -> Result:
    """What `function` returns; it is called beside the event loop unless it works on few bytes."""
    return function(*arguments) if nbytes <= _SMALL else await asyncio.to_thread(function, *arguments)


def to_json(value: Any) -> bytes:
    """JSON of plain data and arrays; what is not finite is null, and a float32 has the digits that it needs."""
    return orjson.dumps(value, default=_contiguous, option=orjson.OPT_SERIALIZE_NUMPY)


def to_bytes(array: Array) -> bytes:
    """The numbers alone, row by row, little-endian."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def pixels_json(images: Array) -> Any:
    """Images [n, H, W, C] for `to_json`: grey ones, a list for each pixel, take orjson ten times as long as their text.

    Between any two numbers of [n, H, W] stands one comma, and there a list ends and the next begins.
    """
    if images.shape[-1] != 1:
        return images
    text = orjson.dumps(np.ascontiguousarray(images[..., 0]), option=orjson.OPT_SERIALIZE_NUMPY)
    return orjson.Fragment(b"[" + text.replace(b",", b"],[") + b"]")


def _contiguous(value: Any) -> Any:
    """orjson asks here about arrays whose rows do not follow one another."""
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value)
    raise TypeError(f"{type(value)} has no JSON")


def form_for(request: Request, offered: tuple[str, ...]) -> str:
    """Which of `offered` a request likes best; several Accept headers are one list (RFC 9110, 5.3).

    Raises:
        HTTPException: 406, none of them.
    """
    return negotiate(", ".join(request.headers.getlist("accept")), offered)


@functools.lru_cache(maxsize=64)
def negotiate(accept: str, offered: tuple[str, ...]) -> str:
    """Which of `offered` an Accept header likes best (RFC 9110, 12.5.1); of equals, the first. An empty one likes all.

    Raises:
        HTTPException: 406, none of them.
    """
    ranges = _ranges(accept or "*/*")
    best = max(offered, key=lambda form: _quality(form, ranges))
    if _quality(best, ranges) <= 0:
        raise HTTPException(406, f"Accept is {accept!r:.80}; expected one of {', '.join(offered)}")
    return best


def _ranges(accept: str) -> Mapping[str, float]:
    ranges = {}
    for entry in accept.lower().split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            ranges[name] = float(quality)
        except ValueError:
            ranges[name] = 0.0
    return ranges


def _quality(form: str, ranges: Mapping[str, float]) -> float:
    """The most specific range that matches decides."""
    for name in (form, form.partition("/")[0] + "/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0


def _shape_headers(array: Array) -> dict[str, str]:
    return {"X-Shape": ",".join(map(str, array.shape)), "X-Dtype": _name(array.dtype)}


_name = functools.cache(lambda dtype: dtype.name)  # numpy spells it anew each time


def _png(images: Array, columns: int | None) -> bytes:
    file = io.BytesIO()
    # Run lengths in place of a search: a third of the time; enlarged pictures get no larger, photographs by 4 %.
    make_grid(images, columns).save(file, "PNG", compress_type=zlib.Z_RLE)
    return file.getvalue()


def _npy(array: Array) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()
