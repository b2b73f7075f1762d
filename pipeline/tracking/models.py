"""An ONNX file as the model of a run."""

from collections.abc import Iterable
from pathlib import Path

import mlflow
import onnx
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec

from pipeline.tracking.store import connect, store_errors


def log_onnx_model(run_id: str, path: Path) -> None:
    """Log an ONNX file as the run's model, with the signature of its graph, under the file's stem.

    Raises:
        UserError: the store refuses it.
    """
    graph = onnx.load(path)
    connect()  # mlflow.start_run knows no client, only the store that was set last
    with store_errors(), mlflow.start_run(run_id=run_id):
        mlflow.onnx.log_model(
            graph,
            name=path.stem,
            signature=ModelSignature(_schema(graph.graph.input), _schema(graph.graph.output)),
            # mlflow's own list names onnxruntime, which must never be installed beside onnxruntime-gpu
            pip_requirements=[f"mlflow=={mlflow.__version__}", "numpy", "onnx", "onnxruntime-gpu"],
            save_as_external_data=False,
        )


def _schema(values: Iterable[onnx.ValueInfoProto]) -> Schema:
    """Names, types and shapes of a graph's inputs or outputs; -1 stands for the batch."""
    specs: list[ColSpec | TensorSpec] = []
    for value in values:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        specs.append(TensorSpec(dtype, tuple(dim.dim_value or -1 for dim in tensor.shape.dim), value.name))
    return Schema(specs)
