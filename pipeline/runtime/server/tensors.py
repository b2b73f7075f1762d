"""Tensors as the v2 protocol writes them: numbers in JSON, or bytes behind the JSON, little-endian and row by row."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.runtime.server.batching import Arrays
from pipeline.runtime.server.bodies import NOT_JSON, read_json_object
from pipeline.runtime.server.formats import to_bytes, to_json
from pipeline.runtime.server.graphs import Graph, Tensor, as_array

HEADER_LENGTH = "Inference-Header-Content-Length"
_NOT_JSON_ALONE = f"{NOT_JSON}, and the header {HEADER_LENGTH} if binary tensors follow it"
DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}

_NOT_SERVED = ("classification", "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size")
"""With these of Triton's parameters a tensor would be another, or elsewhere. What is unknown is ignored, as there."""


@dataclass(frozen=True)
class InferRequest:
    """A checked request: the rows to compute, and how each output is wanted."""

    rows: Arrays
    binary: dict[str, bool]
    """Output name -> whether it goes behind the JSON, in the order asked for."""
    id: str | None


def unpack_request(content: bytes, header_length: str | None, graph: Graph) -> InferRequest:
    """Read a request to infer with `graph`.

    Raises:
        HTTPException: 400, it is not of the protocol, or does not fit the graph.
    """
    length = json_length(header_length, len(content))
    try:
        body = read_json_object(content[:length], NOT_JSON if header_length else _NOT_JSON_ALONE)
        _expect(_is_text(body.get("id", "")), "id is not a string, or holds half of a surrogate pair")
        rows = _unpack_inputs(body.get("inputs"), content[length:], graph)
        return InferRequest(rows, _wanted(body, graph), body.get("id"))
    except UserError as error:
        raise HTTPException(400, str(error)) from None


def json_length(header_length: str | None, available: int) -> int:
    """How many bytes of a body are JSON: all of them, unless the header says otherwise.

    Raises:
        HTTPException: 400, the header holds no such number.
    """
    if header_length is None:
        return available
    whole = header_length.isascii() and header_length.isdecimal() and len(header_length) < 16
    if not (whole and int(header_length) <= available):
        raise HTTPException(400, f"{HEADER_LENGTH} is {header_length!r:.40}; expected 0 to {available}")
    return int(header_length)


def pack_response(asked: InferRequest, outputs: Arrays, head: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    """The body of the response, and its headers if tensors stand behind the JSON."""
    described, behind = [], []
    for name, binary in asked.binary.items():
        array = outputs[name]
        entry: dict[str, Any] = {"name": name, "datatype": DATATYPES[array.dtype.name], "shape": list(array.shape)}
        if binary:
            behind.append(to_bytes(array))
            entry["parameters"] = {"binary_data_size": len(behind[-1])}
        else:
            entry["data"] = array.ravel()
        described.append(entry)
    body = head | ({} if asked.id is None else {"id": asked.id})
    text = to_json({**body, "outputs": described})
    return b"".join([text, *behind]), {HEADER_LENGTH: str(len(text))} if behind else {}


def _is_text(value: Any) -> bool:
    """Whether it is a string that UTF-8 can write, which of what JSON can write is not all."""
    return isinstance(value, str) and value.encode(errors="replace").decode() == value


def _unpack_inputs(entries: Any, behind: bytes, graph: Graph) -> Arrays:
    _expect(isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries), "inputs is not a list")
    expected = {tensor.name: tensor for tensor in graph.inputs}
    named = [entry.get("name") for entry in entries]
    _expect(sorted(map(str, named)) == sorted(expected), f"inputs are {named!r:.80}; expected {', '.join(expected)}")
    rows: dict[str, NDArray[Any]] = {}
    for entry in entries:
        array, behind = _unpack(entry, behind, expected[entry["name"]])
        rows[entry["name"]] = array
    _expect(not behind, f"{len(behind)} bytes behind the last tensor belong to none")
    _expect(len({len(array) for array in rows.values()}) == 1, "the inputs differ in their number of rows")
    return rows


def _unpack(entry: dict[str, Any], behind: bytes, tensor: Tensor) -> tuple[NDArray[Any], bytes]:
    """One tensor, and the bytes that follow it."""
    name, datatype = tensor.name, DATATYPES[tensor.dtype]
    _expect(entry.get("datatype") == datatype, f"{name} is {entry.get('datatype')!r:.40}; expected {datatype}")
    shape = _row_count_and_shape(entry.get("shape"), tensor)
    size = _parameters(entry).get("binary_data_size")
    if size is None:
        array = as_array(entry.get("data"), tensor.dtype, name)
    else:
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
        needed = math.prod(shape) * dtype.itemsize
        _expect(type(size) is int and size == needed, f"{name} has {size!r:.40} bytes; expected {needed}")
        _expect(
            needed <= len(behind),
            f"{name} has {len(behind)} bytes behind the JSON; expected {needed} ({HEADER_LENGTH} says where it ends)",
        )
        array, behind = np.frombuffer(behind[:needed], dtype), behind[needed:]
    _expect(array.size == math.prod(shape), f"{name} has {array.size} values; expected {list(shape)}")
    return array.reshape(shape), behind


def _row_count_and_shape(shape: Any, tensor: Tensor) -> tuple[int, ...]:
    expected = f"expected [{', '.join(['n >= 1', *map(str, tensor.row_shape)])}]"
    whole = isinstance(shape, list) and bool(shape) and all(type(side) is int for side in shape)
    # Triton's batching wants at least one dimension a row, so its clients send a number a row as [n, 1].
    rest = shape[1:] if whole else None
    fits = rest == list(tensor.row_shape) or (rest == [1] and not tensor.row_shape)
    _expect(whole and fits and 1 <= shape[0] <= 2**31, f"{tensor.name} has shape {shape!r:.60}; {expected}")
    return (shape[0], *tensor.row_shape)


def _wanted(body: dict[str, Any], graph: Graph) -> dict[str, bool]:
    names = [tensor.name for tensor in graph.outputs]
    otherwise = _flag(body, "binary_data_output", otherwise=False)
    entries = body.get("outputs")
    if entries is None or entries == []:
        entries = [{"name": name} for name in names]
    wellformed = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    _expect(wellformed and all(entry.get("name") in names for entry in entries), f"outputs: expected {names}")
    return {entry["name"]: _flag(entry, "binary_data", otherwise) for entry in entries}


def _flag(entry: dict[str, Any], name: str, otherwise: bool) -> bool:
    value = _parameters(entry).get(name, otherwise)
    _expect(isinstance(value, bool), f"{name} is {value!r:.40}; expected true or false")
    return bool(value)


def _parameters(entry: dict[str, Any]) -> dict[str, Any]:
    parameters = entry.get("parameters", {})
    _expect(isinstance(parameters, dict), "parameters is not an object")
    for name in _NOT_SERVED:
        _expect(name not in parameters, f"{name} is an extension that is not served; expected JSON or binary tensors")
    return dict(parameters)


def _expect(held: bool, otherwise: str) -> None:
    if not held:
        raise UserError(otherwise)
