"""torch module -> one self-contained ONNX file: dynamic batch, pinned opset, nothing of the building machine."""

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from pipeline.graphs.versions import IR_VERSION, OPSET
from pipeline.runtime.metadata import Metadata

BATCH = "n"


def to_onnx(
    module: nn.Module, example_inputs: Sequence[Tensor], input_names: Sequence[str], output_names: Sequence[str]
) -> onnx.ModelProto:
    """Trace a module whose inputs and outputs all have the batch as their first dimension.

    Args:
        module: in evaluation mode.
        example_inputs: at least two rows each: sizes 0 and 1 would be taken as constants.
        input_names: of the graph, one for each example.
        output_names: of the graph, in the order in which the module returns them.

    Raises:
        ValueError: the examples have fewer than two rows, or the graph came out with a fixed batch size.
    """
    if any(len(example) < 2 for example in example_inputs):
        raise ValueError("example_inputs have fewer than two rows; expected at least two")
    with torch.no_grad(), redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own deprecations; parity says whether it did its work
        program: Any = torch.onnx.export(
            module,
            tuple(example_inputs),
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes=tuple({0: Dim(BATCH)} for _ in example_inputs),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    model: onnx.ModelProto = program.model_proto
    model.ir_version = IR_VERSION
    strip_traces(model)
    check_batch_is_dynamic(model)
    return model


def strip_traces(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes, which hold stack traces with paths of this machine."""
    for part in _parts(model):
        part.doc_string = ""
        del part.metadata_props[:]


def check_batch_is_dynamic(model: onnx.ModelProto) -> None:
    """Hold that every input and output keeps a symbolic first dimension.

    Raises:
        ValueError: one of them has a fixed batch size.
    """
    for value in [*model.graph.input, *model.graph.output]:
        shape = value.type.tensor_type.shape
        if not shape.dim or shape.dim[0].WhichOneof("value") != "dim_param":
            sizes = [dim.dim_param or dim.dim_value for dim in shape.dim]
            raise ValueError(f"{value.name} of the exported graph has shape {sizes}; expected a dynamic batch")


def finish(model: onnx.ModelProto, metadata: Metadata, extra: Mapping[str, str] | None = None) -> bytes:
    """Write `metadata` into the model, check the whole, and give the file's bytes.

    Args:
        model: the graph; metadata that it already has are replaced.
        metadata: what every file says of itself.
        extra: entries that this file has besides.

    Raises:
        onnx.checker.ValidationError: the graph breaks ONNX's rules.
    """
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata.to_strings() | dict(extra or {}))
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _parts(model: onnx.ModelProto) -> Iterable[Any]:
    """Everything in a model that can carry a doc_string and metadata_props."""
    yield model
    yield from model.functions
    for graph in (model.graph, *model.functions):
        yield from graph.node
        yield from graph.value_info
    yield model.graph
    for values in (model.graph.input, model.graph.output, model.graph.initializer):
        yield from values
