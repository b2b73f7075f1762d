"""Where a decoder's graph multiplies by its weights, and what flows between those places."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pipeline.graphs.labels import Labels, label_input
from pipeline.runtime.sampler import DECODER
from pipeline.runtime.session import open_session
from pipeline.runtime.together import rows_together

PARAMETERS = "parameters"
"""The tensor inside decoder.onnx that the likelihood takes: all that is above it may be computed otherwise."""

TOGETHER = 2048  # latents decoded at once, at most

Floats = NDArray[np.float32]


def constants(graph: GraphProto) -> dict[str, NDArray[Any]]:
    """The stored arrays of a graph, by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def layers(graph: GraphProto) -> list[NodeProto]:
    """The dense and convolutional nodes with stored weights and biases, from z on; one without a bias is left out."""
    stored = {tensor.name for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type in ("Gemm", "Conv") and len(node.input) == 3]
    return [node for node in products if stored.issuperset(node.input[1:])]


def ancestors(graph: GraphProto, tensor: str) -> list[NodeProto]:
    """The nodes that a tensor is computed by, in the graph's order."""
    wanted, found = {tensor}, []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            found.append(node)
    return found[::-1]


def expose(decoder: ModelProto, names: Iterable[str]) -> bytes:
    """The file of a decoder that gives the named float tensors out besides."""
    model = onnx.ModelProto()
    model.CopyFrom(decoder)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    content: bytes = model.SerializeToString()
    return content


def image_shape_of(decoder: ModelProto) -> tuple[int, int, int]:
    """(channels, height, width) of what a decoder gives."""
    _, channels, height, width = (size.dim_value for size in decoder.graph.output[0].type.tensor_type.shape.dim)
    return channels, height, width


def ranges(
    decoder: ModelProto, names: Iterable[str], z: Floats, labels: Labels | None = None
) -> Mapping[str, tuple[float, float]]:
    """The least and the largest value of each named tensor over latents z [n, latent_dim], of the classes `labels`."""
    names = list(dict.fromkeys(names))
    if not names:
        return {}
    run = open_session(expose(decoder, names), "cpu", name=DECODER).run
    together = rows_together(image_shape_of(decoder), TOGETHER)
    slices = (slice(start, start + together) for start in range(0, len(z), together))
    parts = [run(names, {"z": z[rows], **label_input(labels, rows)}) for rows in slices]
    return {
        name: (float(min(part.min() for part in column)), float(max(part.max() for part in column)))
        for name, column in zip(names, zip(*parts, strict=True), strict=True)
    }
