"""fp16, for GPUs: a decoder that computes in half precision from z to the likelihood's parameters.

What turns those parameters into pixels stays float32: a sigmoid near 1 has fewer steps in half precision than a pixel
has levels to tell apart. The generator and z are no part of it.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pipeline.graphs.variants.layers import PARAMETERS, ancestors

_HALF = "fp16/"
_LARGEST = float(np.finfo(np.float16).max)


def to_half(decoder: ModelProto) -> ModelProto:
    """A decoder with the same inputs and outputs, in half precision between z and its parameters; a copy."""
    model = onnx.ModelProto()
    model.CopyFrom(decoder)
    graph = model.graph
    upper = ancestors(graph, PARAMETERS)
    floats = {"z", *(t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT)}
    halved = set()
    for node in upper:
        for place in _half_places(node):
            if node.input[place] in floats:
                halved.add(node.input[place])
                node.input[place] = _HALF + node.input[place]
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    for node in upper:
        node.output[:] = [_HALF + name if name == PARAMETERS else name for name in node.output]
    _store(graph, halved - {"z"})
    _insert_casts(graph)
    del graph.value_info[:]
    return model


def _half_places(node: NodeProto) -> Iterator[int]:
    """Which inputs follow the precision of the data: of Resize the first alone, its scales are float32 always."""
    return iter(range(1 if node.op_type == "Resize" else len(node.input)))


def _store(graph: GraphProto, names: set[str]) -> None:
    """Half-precision copies of stored arrays; what no node asks for any more goes."""
    for tensor in [tensor for tensor in graph.initializer if tensor.name in names]:
        array = np.clip(numpy_helper.to_array(tensor), -_LARGEST, _LARGEST).astype(np.float16)
        graph.initializer.append(numpy_helper.from_array(array, _HALF + tensor.name))
    used = {name for node in graph.node for name in node.input}
    kept = [TensorProto.FromString(t.SerializeToString()) for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _insert_casts(graph: GraphProto) -> None:
    """To half precision before the first node, and back behind the one that gives the parameters."""
    down = helper.make_node("Cast", ["z"], [f"{_HALF}z"], name=f"{_HALF}from_z", to=TensorProto.FLOAT16)
    up = helper.make_node(
        "Cast", [_HALF + PARAMETERS], [PARAMETERS], name=f"{_HALF}to_parameters", to=TensorProto.FLOAT
    )
    last = max(place for place, node in enumerate(graph.node) if _HALF + PARAMETERS in node.output)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend([down, *copies[: last + 1], up, *copies[last + 1 :]])
