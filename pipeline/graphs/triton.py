"""`triton/` of an export folder: a model repository for the onnxruntime backend of NVIDIA's Triton server.

What each field of a configuration means stands in Triton's user guide ("Model Configuration", "Batchers") and in the
README of its onnxruntime backend. A copy of the repository is the place to tune them: see docs/serving.md.
"""

from collections.abc import Iterable, Mapping
from string import Template

import onnx
from onnx import TensorProto, ValueInfoProto

from pipeline.graphs.scorer import LATENTS_TOGETHER
from pipeline.runtime.metadata import Metadata
from pipeline.runtime.sampler import DECODER, ENCODER, SAMPLER, SCORER
from pipeline.runtime.scores import ScoreScale, images_together
from pipeline.runtime.together import rows_together

FOLDER = "triton"
_MODELS = (SAMPLER, DECODER, ENCODER, SCORER)
_TYPES: dict[int, str] = {
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.UINT8: "TYPE_UINT8",
}

_CONFIG = Template("""\
# Written by the export stage; names, types and shapes are those of $file.
name: "$name"
backend: "onnxruntime"
default_model_filename: "model.onnx"
version_policy { latest { num_versions: 1 } }

# Rows of one run, and of one request. Every tensor has them as its first dimension, which dims leave out; a value a
# row, [n] in the graph, is [n, 1] to clients.
max_batch_size: $rows
input [
$inputs
]
output [
$outputs
]

# Rows stand alone: requests that wait while the model is busy share its next run. An idle model starts at once.
dynamic_batching { max_queue_delay_microseconds: 0 }

# One for each GPU, or one on the CPU where there is none.
instance_group [ { count: 1, kind: KIND_AUTO } ]

# On a GPU, the settings of `vae serve`. TF32 would show in the pixels; the algorithm search is HEURISTIC, the arena
# kSameAsRequested. The backend takes the last two from `parameters` and would overwrite them in the first list.
optimization {
  execution_accelerators { gpu_execution_accelerator [ { name: "cuda", parameters { key: "use_tf32", value: "0" } } ] }
}
parameters [
  { key: "cudnn_conv_algo_search", value: { string_value: "1" } },
  { key: "arena_extend_strategy", value: { string_value: "1" } }
]

# Ready means that the first run and the largest one are over. Zeros are within the range of every input.
model_warmup [
$warmups
]
""")


def triton_repository(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The model repository of exported files: its files, by their paths in the export folder.

    Those are `triton/NAME/config.pbtxt` and `triton/NAME/1/model.onnx`, for the sampler, decoder, encoder and scorer
    among `files`. The models are whole copies, since the folder is mounted or uploaded on its own, where a link into
    the export folder leads nowhere. DVC's cache holds equal files once.
    """
    repository = {}
    for file in (file for file in _MODELS if file in files):
        name = file.removesuffix(".onnx")
        repository[f"{FOLDER}/{name}/config.pbtxt"] = model_config(file, files[file]).encode()
        repository[f"{FOLDER}/{name}/1/model.onnx"] = files[file]
    return repository


def model_config(file: str, content: bytes) -> str:
    """The configuration of one exported file, in protobuf's text format.

    Args:
        file: its name in the export folder.
        content: its bytes; the first dimension of every input and output is the batch.
    """
    model = onnx.load_model_from_string(content)
    rows = _rows_together(file, model)
    inputs, outputs = model.graph.input, model.graph.output
    return _CONFIG.substitute(
        file=file,
        name=file.removesuffix(".onnx"),
        rows=rows,
        inputs=_joined(map(_tensor, inputs)),
        outputs=_joined(map(_tensor, outputs)),
        warmups=_joined([_warmup("one row", 1, inputs), _warmup("all rows", rows, inputs)]),
    )


def _rows_together(file: str, model: onnx.ModelProto) -> int:
    """How many rows the memory is bounded by; the scorer decodes each several times."""
    properties = {entry.key: entry.value for entry in model.metadata_props}
    latents = rows_together(Metadata.from_strings(properties, file).image_shape, LATENTS_TOGETHER)
    return latents if file != SCORER else images_together(latents, ScoreScale.from_strings(properties, file).samples)


def _tensor(value: ValueInfoProto) -> str:
    reshape = "" if _row_shape(value) else ", reshape: { shape: [ ] }"
    return f'  {{ name: "{value.name}", {_type_and_dims(value)}{reshape} }}'


def _warmup(name: str, rows: int, inputs: Iterable[ValueInfoProto]) -> str:
    zeros = "".join(
        f'\n    inputs {{ key: "{value.name}", value: {{ {_type_and_dims(value)}, zero_data: true }} }}'
        for value in inputs
    )
    return f'  {{\n    name: "{name}", batch_size: {rows}{zeros}\n  }}'


def _type_and_dims(value: ValueInfoProto) -> str:
    """Triton has no empty shape beside the batch: where a row is one value, it is asked for as [1] and reshaped."""
    dims = ", ".join(map(str, _row_shape(value) or [1]))
    return f"data_type: {_TYPES[value.type.tensor_type.elem_type]}, dims: [ {dims} ]"


def _row_shape(value: ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]


def _joined(entries: Iterable[str]) -> str:
    return ",\n".join(entries)
