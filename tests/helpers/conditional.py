"""An export folder of a conditional model, small enough to write by hand."""

import json
from dataclasses import replace

from onnx import parser

from pipeline.files import write_json
from pipeline.graphs.manifest import build_manifest
from pipeline.graphs.onnx_export import finish
from pipeline.graphs.sampler import sampler_model
from pipeline.runtime import Sampler

# Each class has a grey value of its own, to which z adds a little.
DECODER = """
<ir_version: 10, opset_import: ["" : 18]>
conditional (float[n, %d] z, int64[n] label) => (float[n, 1, 2, 2] x)
<float[3] levels = {0.2, 0.5, 0.8}, float small = {0.01}, int64[4] shape = {-1, 1, 1, 1}, int64[1] ones = {1},
 int64[4] square = {1, 1, 2, 2}>
{
    level = Gather(levels, label)
    sum = ReduceSum <keepdims = 0> (z, ones)
    added = Mul(sum, small)
    value = Add(level, added)
    pixel = Reshape(value, shape)
    x = Expand(pixel, square)
}
"""


def write_model(folder, metadata, names, latent_dim=2, latent_kl=None):
    """An export folder of a conditional sampler and decoder whose metadata name the classes."""
    made_of = replace(metadata, latent_dim=latent_dim, image_shape=(1, 2, 2), latent_kl=latent_kl)
    decoder = DECODER % latent_dim
    models = {"decoder": parser.parse_model(decoder), "sampler": sampler_model(parser.parse_model(decoder), latent_dim)}
    extra = {} if names is None else {"labels": json.dumps(names)}
    files = {f"{name}.onnx": finish(model, replace(made_of, graph=name), extra) for name, model in models.items()}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_json(folder / "manifest.json", build_manifest(files))
    return Sampler(folder, "cpu")
