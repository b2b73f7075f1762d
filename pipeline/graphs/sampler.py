"""`sampler.onnx`: noise, prior, decoder and pixel conversion in one graph; a seed goes in, pixels come out."""

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from pipeline.graphs.nodes import Nodes
from pipeline.graphs.prior import PriorGraph, standard_prior
from pipeline.graphs.variants.layers import ancestors, image_shape_of
from pipeline.graphs.versions import IR_VERSION
from pipeline.runtime.labels import LABEL
from pipeline.runtime.pixels import GREY_LEVEL


def sampler_model(decoder: ModelProto, latent_dim: int, prior: PriorGraph = standard_prior) -> ModelProto:
    """Put the noise and the prior before a decoder and the pixel conversion behind it.

    Args:
        decoder: `z` float32 [n, latent_dim], and `label` int64 [n] if conditional -> `x` float32 [n, C, H, W],
            means in [0, 1].
        latent_dim: of the decoder.
        prior: appends the nodes that draw z.

    Returns:
        `seed` int64 [n], `index` int64 [n], `temperature` float32 [n] (and the decoder's `label`) -> `images` uint8
        [n, H, W, C] and `z` float32 [n, latent_dim]. Each row stands alone. Metadata is left to the caller.

    Raises:
        UserError: latent_dim is more than the generator has counters for.
    """
    noise_nodes, prior_nodes = Nodes("noise/"), Nodes("prior/")
    prior(noise_nodes, prior_nodes, latent_dim)
    constants = [*noise_nodes.constants.values(), *prior_nodes.constants.values()]
    return _sampler([*noise_nodes.nodes, *prior_nodes.nodes], constants, decoder, latent_dim)


def sampler_around(decoder: ModelProto, sampler: ModelProto, latent_dim: int) -> ModelProto:
    """The same sampler, its noise and its prior, around another decoder of as many dimensions."""
    drawing = ancestors(sampler.graph, "z")
    used = {name for node in drawing for name in node.input}
    return _sampler(
        drawing, [tensor for tensor in sampler.graph.initializer if tensor.name in used], decoder, latent_dim
    )


def _sampler(
    drawing: Sequence[NodeProto], constants: Sequence[TensorProto], decoder: ModelProto, latent_dim: int
) -> ModelProto:
    """`drawing` are the nodes up to z, with their constants."""
    pixels = Nodes("pixels/")
    image_shape = image_shape_of(decoder)
    to_pixels(pixels, "x", image_shape, output="images")
    nodes = [*drawing, *decoder.graph.node, *pixels.nodes]
    stored = [*constants, *pixels.constants.values(), *decoder.graph.initializer]
    graph = helper.make_graph(nodes, "sampler", _inputs(decoder.graph), _outputs(image_shape, latent_dim), stored)
    return helper.make_model(
        graph, opset_imports=decoder.opset_import, functions=decoder.functions, ir_version=IR_VERSION
    )


def to_pixels(nodes: Nodes, x: str, shape: tuple[int, int, int], output: str) -> str:
    """From means, float32 [n, C, H, W], to uint8 [n, H, W, C]: the nearest of 256 levels, cut to the range.

    Args:
        nodes: to append to.
        x: the name of the means; those outside [0, 1] become 0 or 255.
        shape: C, H, W.
        output: the name of the pixels.
    """
    channels, height, width = shape
    # QuantizeLinear divides, rounds, clips and converts in one pass over the pixels; onnxruntime then drops the
    # decoder's own clip.
    level = nodes.constant("level", np.array(GREY_LEVEL))
    zero = nodes.constant("zero", np.array(0, dtype=np.uint8))
    if channels == 1:  # nothing has to move, and a reshape in front costs no copy
        flat = nodes("Reshape", x, nodes.constant("shape", np.array([0, height, width, 1])))
        return nodes("QuantizeLinear", flat, level, zero, output=output)
    return nodes("Transpose", nodes("QuantizeLinear", x, level, zero), perm=[0, 2, 3, 1], output=output)


def _inputs(decoder: GraphProto) -> list[ValueInfoProto]:
    types = {"seed": TensorProto.INT64, "index": TensorProto.INT64, "temperature": TensorProto.FLOAT}
    if any(value.name == LABEL for value in decoder.input):
        types[LABEL] = TensorProto.INT64
    return [helper.make_tensor_value_info(name, kind, ["n"]) for name, kind in types.items()]


def _outputs(image_shape: tuple[int, int, int], latent_dim: int) -> list[ValueInfoProto]:
    channels, height, width = image_shape
    return [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", height, width, channels]),
        helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", latent_dim]),
    ]
