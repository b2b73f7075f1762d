import dataclasses

import numpy as np
import onnx
import pytest
from samplers import in_int8
from sklearn.datasets import load_digits

from pipeline.graphs.onnx_export import finish
from pipeline.graphs.sampler import sampler_model
from pipeline.graphs.variants.half import to_half


@pytest.fixture(scope="session")
def pictures():
    """Digits that `trained` was not trained on, uint8 [n, 8, 8, 1]."""
    return (load_digits().images[1000:1400, :, :, None] * 255 / 16).round().astype(np.uint8)


def decoder_of(exported):
    return onnx.load_model_from_string(exported.files["decoder.onnx"])


def finished(exported, decoder, variant):
    """sampler.onnx and decoder.onnx around a decoder, as bytes."""
    metadata = dataclasses.replace(exported.metadata, variant=variant)
    models = {"sampler": sampler_model(decoder, metadata.latent_dim), "decoder": decoder}
    return {f"{n}.onnx": finish(model, dataclasses.replace(metadata, graph=n)) for n, model in models.items()}


@pytest.fixture(scope="session")
def int8(trained, pictures):
    return finished(trained, in_int8(trained.files, pictures), "int8")


@pytest.fixture(scope="session")
def int8_conv(conv):
    return finished(conv, in_int8(conv.files), "int8")


@pytest.fixture(scope="session")
def fp16(trained):
    return finished(trained, to_half(decoder_of(trained)), "fp16")


@pytest.fixture(scope="session")
def fp16_conv(conv):
    return finished(conv, to_half(decoder_of(conv)), "fp16")
