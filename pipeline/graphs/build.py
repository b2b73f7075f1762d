"""A model as ONNX files: decoder, encoder, sampler and scorer, each whole in itself."""

import dataclasses

import numpy as np
import torch

from pipeline.graphs.labels import Labels, labels_entry
from pipeline.graphs.latents import latent_moments, measure_latent_kl
from pipeline.graphs.modules import DecoderAndParameters, Encoder, Scorer
from pipeline.graphs.onnx_export import finish, to_onnx
from pipeline.graphs.prior import graph_of
from pipeline.graphs.sampler import sampler_model
from pipeline.graphs.scorer import finish_scorer
from pipeline.graphs.variants.layers import PARAMETERS
from pipeline.runtime.labels import LABEL
from pipeline.runtime.metadata import Metadata
from pipeline.runtime.sampler import DECODER, ENCODER, SAMPLER, SCORER
from pipeline.vae.model import VAE
from pipeline.vae.priors.base import Prior


def build_files(
    vae: VAE,
    metadata: Metadata,
    score_samples: int,
    validation: np.ndarray,
    density: Prior | None = None,
    labels: Labels | None = None,
) -> dict[str, bytes]:
    """The ONNX files of a model, by name; `metadata` is written into each with its own `graph`.

    Args:
        vae: the model, in evaluation mode.
        metadata: what the files say of themselves, but for KL and scale of their latents, which are measured here.
        score_samples: samples of z for each score.
        validation: uint8 [n, C, H, W]; their KL orders the latents, their scores are the scorer's scale.
        density: what the sampler draws from, where that is not the model's prior.
        labels: of a conditional model: the classes of the validation images, int64 [n].
    """
    channels, height, width = vae.config.image_shape
    extra = labels_entry(vae.config.classes)
    label, label_name = ([torch.zeros(2, dtype=torch.int64)], [LABEL]) if extra else ([], [])
    z = torch.zeros(2, vae.config.latent_dim)
    decoder = to_onnx(DecoderAndParameters(vae), [z, *label], ["z", *label_name], ["x", PARAMETERS])
    del decoder.graph.output[1:]  # the name alone is wanted, of a tensor inside: variants differ above it
    images = torch.zeros(2, height, width, channels, dtype=torch.uint8)
    encoder = to_onnx(Encoder(vae), [images, *label], ["images", *label_name], ["mu", "logvar"])
    if metadata.objective != "autoencoder":
        content = finish(encoder, _of_graph(metadata, ENCODER), extra)
        latent_kl = measure_latent_kl(content, vae.prior, validation, labels)
        metadata = dataclasses.replace(metadata, latent_kl=latent_kl)
    if not metadata.draws_standard_normal:
        mean, deviation = latent_moments(density or vae.prior, len(vae.config.classes))
        metadata = dataclasses.replace(metadata, latent_mean=mean, latent_deviation=deviation)
    models = {
        SAMPLER: sampler_model(decoder, vae.config.latent_dim, graph_of(density or vae.prior)),
        DECODER: decoder,
        ENCODER: encoder,
    }
    files = {name: finish(model, _of_graph(metadata, name), extra) for name, model in models.items()}
    module = Scorer(vae, metadata.objective, score_samples)
    scorer = to_onnx(module, [images, *label], ["images", *label_name], ["score", "error"])
    scored = finish_scorer(scorer, _of_graph(metadata, SCORER), score_samples, validation, labels, extra)
    return files | {SCORER: scored}


def _of_graph(metadata: Metadata, name: str) -> Metadata:
    return dataclasses.replace(metadata, graph=name.removesuffix(".onnx"))
