"""What goes into an opened file and what comes out, as plain data: for manifests, cards and people."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_NUMPY_NAMES = {"float": "float32", "double": "float64"}


def describe(session: "InferenceSession") -> dict[str, Any]:
    """`{"inputs": [{"name": "z", "dtype": "float32", "shape": ["n", 20]}], "outputs": [...]}`."""
    return {"inputs": _tensors(session.get_inputs()), "outputs": _tensors(session.get_outputs())}


def as_text(tensors: list[dict[str, Any]]) -> str:
    """`z float32 [n, 20]`, several joined by commas."""
    return ", ".join(f"{t['name']} {t['dtype']} [{', '.join(map(str, t['shape']))}]" for t in tensors)


def _tensors(nodes: Any) -> list[dict[str, Any]]:
    return [{"name": node.name, "dtype": _numpy_name(node.type), "shape": list(node.shape)} for node in nodes]


def _numpy_name(onnx_type: str) -> str:
    element = onnx_type.removeprefix("tensor(").removesuffix(")")
    return _NUMPY_NAMES.get(element, element)
