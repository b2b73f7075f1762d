"""Samplers of every kind that the export stage writes, and what other runtimes' answers are held to."""

import dataclasses

import numpy as np
import onnx
import torch
from flows import stir
from onnx import TensorProto, helper

from pipeline.commands.options import DEMO_FOLDER
from pipeline.graphs.labels import labels_entry
from pipeline.graphs.modules import DecoderAndParameters
from pipeline.graphs.onnx_export import finish, to_onnx
from pipeline.graphs.prior import graph_of
from pipeline.graphs.sampler import sampler_model
from pipeline.graphs.variants.choice import finish_pair, latents
from pipeline.graphs.variants.layers import PARAMETERS, constants, ranges
from pipeline.graphs.variants.quantise import quantise, ranged_tensors
from pipeline.runtime import open_session
from pipeline.runtime.labels import LABEL
from pipeline.runtime.noise import random_integers
from pipeline.vae.model import VAE

MIXTURES = ["mixture", "vamp"]
LEARNED_PRIORS = [*MIXTURES, "flow"]
INT8 = ["mlp-int8", "conv-int8", "mixture-int8"]
PER_CLASS = "per_class"  # a conditional model whose classes have priors of their own
SAMPLERS = ["mlp", "conv", "demo", *LEARNED_PRIORS, PER_CLASS, *INT8]
COMPONENTS = 4
CLASSES = ("ant", "bee", "cat")


def make_samplers(mlp, conv):
    """sampler.onnx by the names of `SAMPLERS`, as bytes, from two small models."""
    learned = {kind: with_learned_prior(mlp, kind) for kind in LEARNED_PRIORS}
    plain = {"mlp": mlp.files, "conv": conv.files, "mixture": {**mlp.files, "sampler.onnx": learned["mixture"]}}
    int8 = {f"{name}-int8": finish_pair(in_int8(files), files, "int8") for name, files in plain.items()}
    demo = (DEMO_FOLDER / "sampler.onnx").read_bytes()
    return {
        "mlp": mlp.files["sampler.onnx"],
        "conv": conv.files["sampler.onnx"],
        "demo": demo,
        **learned,
        PER_CLASS: with_classes(mlp),
        **{name: files["sampler.onnx"] for name, files in int8.items()},
    }


def with_learned_prior(exported, kind):
    """sampler.onnx around the decoder of a model, with a prior that is far from standard normal."""
    torch.manual_seed(0)
    given = {"prior": kind, "prior_components": COMPONENTS, "flow_layers": 3, "flow_hidden": (7, 6)}
    vae = VAE(dataclasses.replace(exported.vae.config, **given)).eval()
    with torch.no_grad():
        vae.encoder[-1].weight.mul_(6)
        if kind == "flow":
            stir(vae.prior)
        if kind == "mixture":
            vae.prior.logits.copy_(torch.tensor([0.0, 1.0, 2.0, -2.0]))
            vae.prior.logvar.copy_(torch.randn(COMPONENTS, vae.config.latent_dim) - 1)
    decoder = onnx.load_model_from_string(exported.files["decoder.onnx"])
    model = sampler_model(decoder, vae.config.latent_dim, graph_of(vae.prior))
    return finish(model, dataclasses.replace(exported.metadata, graph="sampler", prior=kind))


def with_classes(exported):
    """sampler.onnx of a conditional model of the same network, each of whose classes is far from the others."""
    torch.manual_seed(0)
    config = dataclasses.replace(exported.vae.config, prior=PER_CLASS, condition="label", classes=CLASSES)
    vae = VAE(config).eval()
    with torch.no_grad():
        for parameter in (*vae.decoder.parameters(), *vae.prior.parameters()):
            parameter.mul_(2).add_(0.3 * torch.randn_like(parameter))
    rows = [torch.zeros(2, config.latent_dim), torch.zeros(2, dtype=torch.int64)]
    decoder = to_onnx(DecoderAndParameters(vae), rows, ["z", LABEL], ["x", PARAMETERS])
    del decoder.graph.output[1:]
    model = sampler_model(decoder, config.latent_dim, graph_of(vae.prior))
    metadata = dataclasses.replace(exported.metadata, graph="sampler", prior=PER_CLASS)
    return finish(model, metadata, labels_entry(CLASSES))


def given_to(name, rows):
    """Rows as a sampler of `SAMPLERS` takes them: where there are classes, each row has one, by its index."""
    return {**rows, LABEL: rows["index"] % len(CLASSES)} if name == PER_CLASS else rows


def in_int8(files, images=None):
    """The decoder in int8; its ranges are those of images, uint8 [n, H, W, C], or of random pixels."""
    decoder = onnx.load_model_from_string(files["decoder.onnx"])
    if images is None:
        channels, height, width = (size.dim_value for size in decoder.graph.output[0].type.tensor_type.shape.dim[1:])
        images = np.random.default_rng(0).integers(0, 256, (40, height, width, channels), dtype=np.uint8)
    return quantise(decoder, ranges(decoder, ranged_tensors(decoder.graph), latents(files, images)))


def draw(sampler, given):
    """What Python's onnxruntime gives: `images` and `z`."""
    return dict(zip(("images", "z"), open_session(sampler, "cpu").run(["images", "z"], given), strict=True))


def assert_same_draws(found, expected):
    """z to float rounding; pixels within one grey level, and nearly everywhere equal."""
    assert found["images"].dtype == np.uint8
    np.testing.assert_allclose(found["z"], expected["z"], rtol=1e-6, atol=3e-6)
    assert_same_images(found["images"], expected["images"])


def assert_same_images(found, expected):
    """Within one grey level, and nearly everywhere equal."""
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def with_choice(sampler):
    """A sampler of a mixture that also gives the row's `word`, uint64 [1, n], and its `component`, int64 [n]."""
    model = onnx.load_model_from_string(sampler)
    word = next(node.input[0] for node in model.graph.node if "prior/shift" in node.input)
    component = next(node.input[1] for node in model.graph.node if "prior/means" in node.input)
    for name, inside, kind in (("word", word, TensorProto.UINT64), ("component", component, TensorProto.INT64)):
        model.graph.node.append(helper.make_node("Identity", [inside], [name]))
        model.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return model.SerializeToString()


def assert_same_choice(found, sampler, seed, index):
    """The words bit for bit, and the component that they choose; every component occurs."""
    stored = constants(onnx.load_model_from_string(sampler).graph)
    thresholds, means = (stored[f"prior/{name}"] for name in ("thresholds", "means"))
    pairs = (means.shape[1] + 1) // 2
    word = random_integers(seed, index, 2 * (pairs + 1))[:, pairs]
    assert found["word"].dtype == np.uint64
    np.testing.assert_array_equal(found["word"], word[None])
    number = word // np.uint64(2**40)
    component = np.searchsorted(thresholds[:, 0].astype(np.uint64), number, side="right")
    np.testing.assert_array_equal(found["component"], component)
    assert set(component) == set(range(COMPONENTS))
