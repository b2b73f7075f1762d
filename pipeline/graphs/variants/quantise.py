"""int8, for the CPU: a decoder whose large products are sums of whole numbers.

Activations are eight bits in a fixed range, weights seven bits with a scale for each output, sums 32 bits, and nothing
is rounded between them (Jacob et al. 2018, arXiv 1712.05877, section 2). The operators are ONNX's own: MatMulInteger
and QLinearConv. What lies between two products (activation functions, resizing) stays float32.

The ranges are constants of the file. A range taken from the batch at hand, as `quantize_dynamic` of onnxruntime does,
would make a row's image depend on the rows beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from pipeline.graphs.nodes import Nodes
from pipeline.graphs.variants.layers import constants, layers

# Not 127: without VNNI a processor adds two products of 8 bits in 16, which 2 * 255 * 64 just fits into. With more, the
# sums would be cut off on such a machine alone, and the image would depend on the processor.
WEIGHT_LEVELS = 64
_ACTIVATION_LEVELS = 255
_LEAST_STEP = 1e-4  # of the largest output's; an output with smaller weights than that is a constant
_LARGEST_BIAS = 2**30

Ranges = Mapping[str, tuple[float, float]]
Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Scale:
    """An activation x is stored as the byte x / step + zero, cut to 0..255."""

    step: np.float32
    zero: np.uint8

    @classmethod
    def of(cls, low: float, high: float) -> "Scale":
        """The scale of a range; it is widened to hold 0, which padding needs and which is then exact."""
        low, high = min(low, 0.0), max(high, 0.0)
        step = np.float32((high - low) / _ACTIVATION_LEVELS or 1.0)
        return cls(step, np.uint8(round(-low / float(step))))

    def store(self, nodes: Nodes, name: str) -> tuple[str, str]:
        """The names of step and zero as constants of the graph."""
        return nodes.constant(f"{name}_step", np.array(self.step)), nodes.constant(f"{name}_zero", np.array(self.zero))


def quantised_layers(graph: GraphProto) -> list[NodeProto]:
    """The layers that int8 is for; none in a decoder that is too shallow.

    The first stays float32: it is the smallest, and rounding z would cost quality. So does a convolution that gives the
    pixels: its output would have to be rounded too.
    """
    behind = layers(graph)[1:]
    return [node for node in behind if node.op_type != "Conv" or node is not behind[-1]]


def ranged_tensors(graph: GraphProto) -> list[str]:
    """The tensors whose ranges `quantise` asks for."""
    chosen = quantised_layers(graph)
    return [node.input[0] for node in chosen] + [node.output[0] for node in chosen if node.op_type == "Conv"]


def quantise(decoder: ModelProto, ranges: Ranges) -> ModelProto:
    """A decoder with the same inputs and outputs, whose `quantised_layers` multiply whole numbers.

    Args:
        decoder: float32; it is not changed.
        ranges: the least and the largest value of each of `ranged_tensors`.
    """
    model = onnx.ModelProto()
    model.CopyFrom(decoder)
    graph, stored = model.graph, constants(model.graph)
    chosen = {node.output[0] for node in quantised_layers(graph)}
    made: list[NodeProto] = []
    added: dict[str, TensorProto] = {}
    for node in graph.node:
        if node.output[0] not in chosen:
            made.append(node)
            continue
        nodes = Nodes(f"int8/{node.output[0]}/")
        (_dense if node.op_type == "Gemm" else _convolution)(nodes, node, stored, ranges)
        made += nodes.nodes
        added |= nodes.constants
    used = {name for node in made for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used] + list(added.values())
    for field, values in ((graph.node, made), (graph.initializer, kept), (graph.value_info, [])):
        values = [type(value).FromString(value.SerializeToString()) for value in values]
        del field[:]
        field.extend(values)
    return model


def _dense(nodes: Nodes, node: NodeProto, stored: Arrays, ranges: Ranges) -> None:
    """x [n, in] times weights [in, out] plus a bias [out]."""
    given = Scale.of(*ranges[node.input[0]])
    weight = stored[node.input[1]]
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    weight = weight if transposed else weight.T  # [out, in]
    whole, step = _whole_numbers(weight)
    given_step, given_zero = given.store(nodes, "input")
    stored_input = nodes("QuantizeLinear", node.input[0], given_step, given_zero)
    sums = nodes("MatMulInteger", stored_input, nodes.constant("weight", np.ascontiguousarray(whole.T)), given_zero)
    product = nodes("Cast", sums, to=TensorProto.FLOAT)
    scaled = nodes("Mul", product, nodes.constant("step", given.step * step))
    nodes("Add", scaled, nodes.constant("bias", stored[node.input[2]]), output=node.output[0])


def _convolution(nodes: Nodes, node: NodeProto, stored: Arrays, ranges: Ranges) -> None:
    """x [n, in, h, w] -> [n, out, h, w]; the output is rounded to 8 bits too, as QLinearConv wants it."""
    given, taken = Scale.of(*ranges[node.input[0]]), Scale.of(*ranges[node.output[0]])
    weight = stored[node.input[1]]
    whole, step = _whole_numbers(weight.reshape(len(weight), -1))
    bias = np.clip(np.rint(stored[node.input[2]] / (given.step * step)), -_LARGEST_BIAS, _LARGEST_BIAS)
    given_step, given_zero = given.store(nodes, "input")
    taken_step, taken_zero = taken.store(nodes, "output")
    rounded = nodes(
        "QLinearConv",
        nodes("QuantizeLinear", node.input[0], given_step, given_zero),
        given_step,
        given_zero,
        nodes.constant("weight", whole.reshape(weight.shape)),
        nodes.constant("weight_step", step),
        nodes.constant("weight_zero", np.zeros(len(step), np.int8)),
        taken_step,
        taken_zero,
        nodes.constant("bias", bias.astype(np.int32)),
        **{attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute},
    )
    nodes("DequantizeLinear", rounded, taken_step, taken_zero, output=node.output[0])


def _whole_numbers(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights [out, in] as whole numbers in -64..64 times a step [out] for each output."""
    largest = np.abs(weight).max(axis=1)  # (out,)
    least = _LEAST_STEP * float(largest.max()) or 1.0
    step = np.maximum(largest, np.float32(least)) / WEIGHT_LEVELS
    return np.rint(weight / step[:, None]).astype(np.int8), step.astype(np.float32)
