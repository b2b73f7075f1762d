"""A few lines that make an ONNX graph read like the formulas it computes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper


class Nodes:
    """The nodes and constants of one part of a graph; every name that it makes starts with the part's prefix."""

    def __init__(self, prefix: str):
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def __call__(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node with one output; returns the output's name."""
        output = output or f"{self.prefix}{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=f"{output}_node", **attributes))
        return output

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """A named constant, stored once however often it is asked for; returns its full name."""
        name = f"{self.prefix}{name}"
        self.constants[name] = numpy_helper.from_array(value, name)
        return name
