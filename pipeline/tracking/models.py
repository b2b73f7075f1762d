"""The exported sampler as the model of a run, with the whole export folder beside it."""

from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import mlflow
import numpy as np
import onnx
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec

from pipeline.tracking.store import connect, store_errors

# Numbers 0 and 1 of seed 0: what `mlflow models serve` is sent to see that it works.
_EXAMPLE = {"seed": [0, 0], "index": [0, 1], "temperature": [1.0, 1.0], "label": [0, 0]}


def log_sampler(run_id: str, sampler: Path) -> str:
    """Log the sampler's ONNX file as the run's model, with the signature of its graph; the model's id.

    All files of its folder go along as the model's `extra_files`, so whoever has the model has the export.

    Raises:
        UserError: the store refuses it.
    """
    graph = onnx.load(sampler)
    connect()  # mlflow.start_run asks for no client: it takes the store that was set last
    with store_errors(), mlflow.start_run(run_id=run_id):
        info = mlflow.onnx.log_model(
            graph,
            name=sampler.stem,
            signature=ModelSignature(_schema(graph.graph.input), _schema(graph.graph.output)),
            input_example=_example(graph.graph.input),
            pip_requirements=_requirements(),
            # By default MLflow asks for CUDA too, and onnxruntime-gpu prints errors wherever there is none.
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,
            extra_files=[str(path) for path in sorted(sampler.parent.iterdir())],
        )
    return str(info.model_id)


def _example(inputs: Iterable[onnx.ValueInfoProto]) -> dict[str, np.ndarray]:
    return {
        value.name: np.array(
            _EXAMPLE[value.name], onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        )
        for value in inputs
    }


def _requirements() -> list[str]:
    """What serving the model needs, as installed here; mlflow's own list adds onnxruntime to onnxruntime-gpu."""
    installed = {str(found.metadata["Name"]).lower() for found in metadata.distributions()}
    runtime = "onnxruntime-gpu" if "onnxruntime-gpu" in installed else "onnxruntime"
    return [f"{name}=={metadata.version(name)}" for name in ("mlflow", "numpy", "onnx", runtime)]


def _schema(values: Iterable[onnx.ValueInfoProto]) -> Schema:
    """Names, types and shapes of a graph's inputs or outputs; -1 stands for the batch."""
    specs: list[ColSpec | TensorSpec] = []
    for value in values:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        specs.append(TensorSpec(dtype, tuple(dim.dim_value or -1 for dim in tensor.shape.dim), value.name))
    return Schema(specs)
