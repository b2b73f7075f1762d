"""The graphs that a server can run, and the rows that each accepts. A new graph is a new entry of GRAPHS."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.runtime.captured import bucket_size
from pipeline.runtime.describe import describe
from pipeline.runtime.draws import MAX_TEMPERATURE
from pipeline.runtime.labels import LABEL, Label, label_index, read_labels
from pipeline.runtime.noise import INDEX_LIMIT, SEED_LIMIT
from pipeline.runtime.sampler import Sampler
from pipeline.runtime.scores import images_together
from pipeline.runtime.server.batching import Arrays

GRAPHS = ("sampler", "decoder", "encoder", "scorer")

_RANGES = {"seed": (0, SEED_LIMIT - 1), "index": (0, INDEX_LIMIT - 1), "temperature": (0, MAX_TEMPERATURE)}
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Tensor:
    """One input or output: `row_shape` is its shape without the first dimension, the rows."""

    name: str
    dtype: str
    row_shape: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """An opened ONNX file as a function of rows.

    Attributes:
        batch_size: how many rows it may be given at once.
        labels: names of the values of its input `label`; none if it has no such input.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    run: Callable[[Arrays], Arrays]
    batch_size: int
    labels: tuple[str, ...]


def open_graphs(sampler: Sampler) -> dict[str, Graph]:
    """The graphs of an export folder, or the sampler alone, by name; all are opened and verified here.

    Raises:
        UserError: a file that the manifest lists is missing or damaged.
    """
    return {name: _graph(name, sampler) for name in GRAPHS if f"{name}.onnx" in sampler.files}


def warm_up(graph: Graph, device: str) -> None:
    """Run the sizes of batch that a device prepares for, so that no request waits for that."""
    for size in warm_up_sizes(device, graph.batch_size):
        graph.run({tensor.name: np.zeros((size, *tensor.row_shape), tensor.dtype) for tensor in graph.inputs})


def warm_up_sizes(device: str, batch_size: int) -> list[int]:
    """The largest batch alone on the CPU, which then has the memory that it will ever want.

    TensorRT builds engines for the sizes from the smallest to the largest that it has seen; on CUDA each bucket of
    sizes is captured when it is first met.
    """
    if device == "cuda":
        return [*(2**power for power in range(bucket_size(batch_size).bit_length() - 1)), batch_size]
    return sorted({1, batch_size}) if device == "tensorrt" else [batch_size]


def label_rows(graph: Graph, label: Label | None, count: int) -> Arrays:
    """The graph's input `label` for `count` rows of one class; nothing if the graph takes no label.

    Raises:
        UserError: a label is given where there is none, is missing where there are, or is no class of the model.
    """
    index = label_index(label, graph.labels, graph.name)
    return {} if index is None else {LABEL: np.full(count, index, np.int64)}


def check_rows(graph: Graph, rows: Arrays) -> None:
    """Hold that every value is one that the graph computes with.

    Raises:
        UserError: a value is not finite or outside its range.
    """
    ranges = _RANGES | {LABEL: (0, len(graph.labels) - 1)}
    for name, array in rows.items():
        low, high = ranges.get(name, (-_LARGEST, _LARGEST))
        if low <= array.min() and array.max() <= high:  # a NaN fails both
            continue
        wrong = array[~((array >= low) & (array <= high))]
        expected = f"expected numbers from {low} to {high}" if name in ranges else "expected finite numbers"
        raise UserError(f"{name} holds {wrong.flat[0]}; {expected}")


def as_array(values: Any, dtype: str, name: str) -> NDArray[Any]:
    """JSON's nested lists of numbers as an array of `dtype`; no value is rounded to another integer or wrapped.

    Raises:
        UserError: the values are not numbers, are ragged, or do not fit in `dtype`.
    """
    try:
        array = _as_numbers(values)
    except (ValueError, OverflowError):
        raise UserError(f"{name} is ragged; expected lists of equal length") from None
    wanted = np.dtype(dtype)
    if array.dtype.kind not in ("iuf" if wanted.kind == "f" else "iu") or _holds_booleans(values, array.ndim):
        raise UserError(f"{name} does not hold {dtype} numbers alone; expected lists of them")
    with np.errstate(over="ignore"):  # an infinity is refused by check_rows
        converted = array.astype(wanted)
    if wanted.kind != "f" and not np.array_equal(converted, array):
        raise UserError(f"{name} holds a number outside the range of {dtype}")
    return converted


def _as_numbers(values: Any) -> NDArray[Any]:
    """numpy's array of the values; with an integer that no type of numpy's holds, all are floats, as 1e30 is."""
    array = np.asarray(values)
    if array.dtype.kind == "O" and {int, float}.issuperset(map(type, array.flat)):
        return np.array([_as_float(value) for value in array.flat]).reshape(array.shape)
    return array


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # as JSON's 1e400 is
        return math.inf if value > 0 else -math.inf


def _holds_booleans(values: Any, depth: int) -> bool:
    """Whether lists of `depth` levels hold a boolean, which among numbers numpy takes for one of them."""
    if not isinstance(values, list):
        return False
    for _ in range(depth - 1):
        values = chain.from_iterable(values)
    return bool in map(type, values)


def _graph(name: str, sampler: Sampler) -> Graph:
    session = sampler.session(f"{name}.onnx")
    described = describe(session)
    inputs, outputs = (tuple(map(_tensor, described[side])) for side in ("inputs", "outputs"))
    names = [tensor.name for tensor in outputs]
    batch_size = sampler.batch_size
    if name == "scorer":
        batch_size = images_together(batch_size, sampler.score_scale.samples)

    runner = sampler.runner(f"{name}.onnx")

    def run(rows: Arrays) -> Arrays:
        return dict(zip(names, runner(names, rows), strict=True))

    return Graph(name, inputs, outputs, run, batch_size, read_labels(session, f"{name}.onnx"))


def _tensor(described: dict[str, Any]) -> Tensor:
    return Tensor(described["name"], described["dtype"], tuple(described["shape"][1:]))
