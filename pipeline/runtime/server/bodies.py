"""Arrays out of request bodies: JSON, .npy files and uploaded pictures. All of it is hostile until checked."""

import ast
import io
import json
import math
import re
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from fastapi import HTTPException, Request
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.runtime.images import MODES, load_as
from pipeline.runtime.server.formats import JSON, NPY
from pipeline.runtime.server.graphs import as_array

NOT_JSON = "the body is not JSON; expected an object"
PICTURES = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}

SMALL_JSON = 2**18
"""Bytes; JSON of no more may hold what it likes, and waits for no other."""

_BYTES_A_NUMBER = 64  # indented, in brackets of its own as the values of grey pixels are
_OTHER_PARTS = 1024  # what stands around the rows, above all in KServe's protocol

_NPY_HEADER = re.compile(rb"\x93NUMPY\x01\x00..(\{[^{}]{1,200}\}) *\n", re.DOTALL)
_NPY_TYPES = ("|u1", "<f2", "<f4", "<f8", "<i4", "<i8")


def media_type(request: Request) -> str:
    """What the body is said to be, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def read_array(content: bytes, kind: str, name: str, dtype: str, others: Iterable[str] = ()) -> NDArray[Any]:
    """The array in a body of media type `kind`: JSON `{name: [...]}`, or one .npy file.

    `others` are the types that the caller reads itself, for the message.

    Raises:
        HTTPException: 415, the media type is another.
        UserError: the body is not what it is said to be, or its numbers do not fit in `dtype`.
    """
    if kind == JSON:
        body = read_json_object(content)
        if set(body) != {name}:
            raise UserError(f"the body names {sorted(body)!r:.80}; expected {name} alone")
        return as_array(body[name], dtype, name)
    if kind == NPY:
        return as_array(read_npy(content), dtype, name)
    expected = ", ".join([*others, JSON])
    raise HTTPException(415, f"Content-Type is {kind!r:.80}; expected {expected} or {NPY}")


def read_json_object(content: bytes, not_json: str = NOT_JSON) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: the bytes are not JSON, which `not_json` says, or hold something else.
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise UserError(not_json) from None
    if not isinstance(body, dict):
        raise UserError(no_object(body))
    return body


def no_object(body: Any) -> str:
    """What is wrong with JSON that is not an object."""
    return f"the body is a JSON {'null' if body is None else type(body).__name__}; expected an object"


def check_json_size(text: bytes, rows: int, row_shapes: Iterable[tuple[int, ...]]) -> None:
    """Hold that JSON is no longer, and has no more parts, than it needs for so many rows of these shapes.

    Parsed, empty lists and objects take twenty times their text, and nothing else is served meanwhile. Where many
    images may be sent, every body has a limit below this one on bytes, and the one on parts is what bounds them.

    Raises:
        HTTPException: 413, it is longer or has more.
    """
    shapes = list(row_shapes)
    numbers = rows * sum(map(math.prod, shapes))
    # A number a row may stand in a list of its own, as Triton's clients send it.
    lists = rows * sum(math.prod(shape[:depth]) for shape in shapes for depth in range(len(shape) or 1))
    check_body_size(text, SMALL_JSON + numbers * _BYTES_A_NUMBER)
    parts, most = sum(map(text.count, (b"[", b"{", b","))), numbers + 2 * lists + _OTHER_PARTS
    if parts > most:
        raise HTTPException(413, f"the JSON has {parts} brackets and commas; expected at most {most}")


def check_body_size(content: bytes, most: int) -> None:
    """Hold that a body has at most so many bytes.

    Raises:
        HTTPException: 413, it has more.
    """
    if len(content) > most:
        raise HTTPException(413, f"the body has more than {most} bytes")


def read_npy(content: bytes) -> NDArray[Any]:
    """A plain array of numbers from an .npy file (format 1.0); nothing is allocated for what is not there.

    Raises:
        UserError: the bytes are not such a file, or are fewer or more than its header says.
    """
    match = _NPY_HEADER.match(content)
    header = _literal(match[1]) if match else None
    if not match or not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise UserError("the body is not an .npy file of format 1.0; expected what numpy.save writes")
    descr, shape = header["descr"], header["shape"]
    if descr not in _NPY_TYPES:
        raise UserError(f"the .npy file holds {descr!r:.40}; expected one of {', '.join(_NPY_TYPES)}")
    if header["fortran_order"] is not False:
        raise UserError("the .npy file is in Fortran order; expected C order, as of numpy.ascontiguousarray")
    if not isinstance(shape, tuple) or len(shape) > 8 or not all(type(side) is int and side >= 0 for side in shape):
        raise UserError(f"the .npy file has shape {shape!r:.40}; expected whole numbers")
    data = content[match.end() :]
    if math.prod(shape) * np.dtype(descr).itemsize != len(data):
        raise UserError(f"the .npy file has {len(data)} bytes of data; expected {descr} {list(shape)}")
    return np.frombuffer(data, np.dtype(descr)).reshape(shape)


def read_picture(content: bytes, kind: str, shape: tuple[int, ...], max_pixels: int, resize: bool) -> NDArray[np.uint8]:
    """An uploaded picture as uint8 [1, H, W, C] of `shape` (H, W, C).

    Its orientation (EXIF) is applied, transparency is laid on white, colours become grey if C is 1. With `resize` it
    is stretched to H x W with a Lanczos filter, to the very pixels that `vae score --resize` makes of the same file.

    Raises:
        UserError: it is not a picture of that kind, is too large to decode, or has another size.
    """
    from PIL import Image, UnidentifiedImageError

    from pipeline.image_file import may_have_size

    height, width, channels = shape
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # Pillow warns of bombs at a size that is held below
            Image.open(io.BytesIO(content), formats=[PICTURES[kind]]) as opened,
        ):
            if opened.width * opened.height > max_pixels:
                raise UserError(f"the picture has {opened.width}x{opened.height} pixels; expected <= {max_pixels}")
            if not (resize or may_have_size(opened, height, width)):
                raise _another_size(opened.size, (width, height))
            picture = load_as(opened, MODES[channels], (height, width) if resize else None)
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise UserError(f"the picture has far too many pixels; expected <= {max_pixels}") from None
    except UnidentifiedImageError:
        raise UserError(f"the body is not a {PICTURES[kind]} picture") from None
    except Exception as error:  # Pillow promises no closed list of what a broken file may raise
        raise UserError(f"the picture cannot be decoded ({str(error)[:80]})") from None
    if picture.size != (width, height):
        raise _another_size(picture.size, (width, height))
    return np.asarray(picture).reshape(1, *shape)


def _another_size(found: tuple[int, int], expected: tuple[int, int]) -> UserError:
    (width, height), wanted = found, "x".join(map(str, expected))
    return UserError(f"the picture has {width}x{height} pixels; expected {wanted} (or resize=true)")


def _literal(text: bytes) -> Any:
    try:
        return ast.literal_eval(text.decode("latin-1"))
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
