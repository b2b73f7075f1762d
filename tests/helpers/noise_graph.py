"""The noise of a sampler's graph as a graph of its own."""

from onnx import TensorProto, helper

from pipeline.graphs.nodes import Nodes
from pipeline.graphs.noise import normals, words
from pipeline.graphs.versions import IR_VERSION, OPSET


def noise_model(latent_dim):
    """`seed`, `index` int64 [n] -> `eps` float32 [n, latent_dim], `bits` uint64 [n, 2 * ceil(latent_dim / 2)].

    `bits` are the generator's words, as `pipeline.runtime.noise.random_integers` gives them.
    """
    nodes = Nodes("noise/")
    fourth, fifth = words(nodes, "seed", "index", latent_dim)
    nodes("Transpose", normals(nodes, fourth, fifth, latent_dim), perm=[1, 0], output="eps")
    nodes("Transpose", nodes("Concat", fourth, fifth, axis=0), perm=[1, 0], output="bits")
    outputs = [
        helper.make_tensor_value_info("eps", TensorProto.FLOAT, ["n", latent_dim]),
        helper.make_tensor_value_info("bits", TensorProto.UINT64, ["n", latent_dim + latent_dim % 2]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n"]) for name in ("seed", "index")]
    graph = helper.make_graph(nodes.nodes, "noise", inputs, outputs, list(nodes.constants.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
