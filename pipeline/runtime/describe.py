"""What goes into an opened file and what comes out, as plain data: for manifests, cards and people."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import shown
from pipeline.runtime.scores import ScoreScale

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ACTIVE_NATS = 0.01  # a dimension below it hardly changes the picture; the explorer folds it away
_NUMPY_NAMES = {"float": "float32", "double": "float64"}


def describe(session: "InferenceSession") -> dict[str, Any]:
    """`{"inputs": [{"name": "z", "dtype": "float32", "shape": ["n", 20]}], "outputs": [...]}`."""
    return {"inputs": _tensors(session.get_inputs()), "outputs": _tensors(session.get_outputs())}


def as_text(tensors: list[dict[str, Any]]) -> str:
    """`z float32 [n, 20]`, several joined by commas."""
    return ", ".join(f"{t['name']} {t['dtype']} [{', '.join(map(str, t['shape']))}]" for t in tensors)


def kl_as_text(latent_kl: Sequence[float]) -> str:
    """`26.22 nats, 11 of 12 dimensions >= 0.01`: what a list of each dimension's KL comes to."""
    active = sum(kl >= ACTIVE_NATS for kl in latent_kl)
    return f"{sum(latent_kl):.4g} nats, {active} of {len(latent_kl)} dimensions >= {ACTIVE_NATS}"


def labels_as_text(labels: Sequence[str]) -> str:
    """`0 ant, 1 bee`: which value of a graph's input `label` is which class."""
    return ", ".join(f"{index} {shown(name)}" for index, name in enumerate(labels))


def scores_as_text(scale: ScoreScale) -> str:
    """The quantiles of the validation scores, and over how many samples of z each score was averaged."""
    quantiles = ", ".join(
        f"{score:.1f} at {100 * level:g} %" for level, score in zip(scale.levels, scale.scores, strict=True)
    )
    return f"{quantiles} of the validation images (nats, {scale.samples} samples of z)"


def _tensors(nodes: Any) -> list[dict[str, Any]]:
    return [{"name": node.name, "dtype": _numpy_name(node.type), "shape": list(node.shape)} for node in nodes]


def _numpy_name(onnx_type: str) -> str:
    element = onnx_type.removeprefix("tensor(").removesuffix(")")
    return _NUMPY_NAMES.get(element, element)
