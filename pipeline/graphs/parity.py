"""Do the exported files compute what torch does? Each is run by the session that will serve it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.graphs.labels import Labels, in_turn, label_input
from pipeline.graphs.modules import Decoder, Encoder, Scorer, score_noise, unit_pixels
from pipeline.graphs.prior import prior_z
from pipeline.runtime.noise import standard_normal
from pipeline.runtime.pixels import to_levels
from pipeline.runtime.sampler import DECODER, ENCODER, SAMPLER, SCORER
from pipeline.runtime.scores import ScoreScale
from pipeline.runtime.session import open_session, read_metadata
from pipeline.vae.bounds import elbo
from pipeline.vae.model import VAE
from pipeline.vae.priors.base import Prior

BATCH_SIZES = (1, 2, 7, 64)
SEED = 0
GREY_LEVELS = 1  # rounding of a pixel mean that lies midway may go either way

Array = NDArray[Any]


def measure_parity(
    files: Mapping[str, bytes],
    vae: VAE,
    images: Array,
    density: Prior | None = None,
) -> dict[str, float]:
    """Largest absolute differences between the files and torch, over all batch sizes, and over all classes.

    Args:
        files: decoder.onnx, encoder.onnx, sampler.onnx and scorer.onnx, as bytes.
        vae: the model that they were made from, in evaluation mode.
        images: uint8 [n, H, W, C]; repeated where there are fewer than the largest batch.
        density: what the sampler draws from, where that is not the model's prior.

    Returns:
        `decoder_max_abs_error` (pixels in [0, 1]), `encoder_max_abs_error` (mu and logvar),
        `sampler_z_max_abs_error`, `sampler_max_grey_levels` against torch and
        `sampler_split_max_grey_levels` between one call and the same rows in several (both of 255);
        `scorer_score_max_rel_error` against the checkpoint's own ELBO, and `scorer_error_max_rel_error`, both as a
        share of the value in torch where that is above one nat.
    """
    run = {name: open_session(content, "cpu", name=name).run for name, content in files.items()}
    worst = {
        "decoder_max_abs_error": _decoder_error(run[DECODER], vae),
        "encoder_max_abs_error": _encoder_error(run[ENCODER], vae, images),
    }
    sampler = _sampler_errors(run[SAMPLER], vae, density or vae.prior)
    return worst | sampler | _scorer_errors(files[SCORER], vae, images)


def check_parity(errors: Mapping[str, float], max_parity_error: float) -> None:
    """Refuse files that differ from torch by more than they may.

    Raises:
        UserError: a float differs by more than `max_parity_error`, or a pixel by more than one grey level.
    """
    for name, error in errors.items():
        grey = name.endswith("grey_levels")
        limit = GREY_LEVELS if grey else max_parity_error
        if not error <= limit:  # also when it is NaN
            source = "one grey level is what rounding explains" if grey else "params.yaml: export.max_parity_error"
            raise UserError(f"export: {name} is {error:.3g}; expected at most {limit:g} ({source})")


def _decoder_error(run: Callable[..., Any], vae: VAE) -> float:
    def difference(size: int) -> float:
        asked = {"z": _random_z(size, vae.config.latent_dim), **label_input(in_turn(len(vae.config.classes), size))}
        return _largest(run(["x"], asked)[0], _numpy(Decoder(vae), *asked.values()))

    return _worst(difference(size) for size in _sizes(vae))


def _encoder_error(run: Callable[..., Any], vae: VAE, images: Array) -> float:
    def difference(size: int) -> float:
        asked = _some(images, vae, size)
        outputs = zip(run(["mu", "logvar"], asked), _numpy(Encoder(vae), *asked.values()), strict=True)
        return _worst(_largest(found, expected) for found, expected in outputs)

    return _worst(difference(size) for size in _sizes(vae))


def _sampler_errors(run: Callable[..., Any], vae: VAE, density: Prior) -> dict[str, float]:
    most = max(_sizes(vae))
    rows = np.full(most, SEED, np.int64), np.arange(most, dtype=np.int64)
    labels = in_turn(len(vae.config.classes), most)
    reference_z = prior_z(density, *rows, labels)
    reference = to_levels(_numpy(Decoder(vae), reference_z, *label_input(labels).values()))
    calls = [_draw(run, np.arange(size), labels) for size in _sizes(vae)]
    whole, _ = calls[-1]
    shuffled = np.random.default_rng(SEED).permutation(most)
    split = np.concatenate([_draw(run, part, labels)[0] for part in np.array_split(shuffled, 5)])
    return {
        "sampler_z_max_abs_error": _worst(_largest(z, reference_z[: len(z)]) for _, z in calls),
        "sampler_max_grey_levels": _worst(_largest(images, reference[: len(images)]) for images, _ in calls),
        "sampler_split_max_grey_levels": _largest(split, whole[shuffled]),
    }


def _scorer_errors(content: bytes, vae: VAE, images: Array) -> dict[str, float]:
    """The score is held against the bound that training and evaluation report, the error map against its own module."""
    session = open_session(content, "cpu", name=SCORER)
    objective = read_metadata(session, SCORER).objective
    samples = ScoreScale.from_strings(session.get_modelmeta().custom_metadata_map, SCORER).samples
    module = Scorer(vae, objective, samples)
    score_errors, map_errors = [], []
    for size in _sizes(vae):
        asked = _some(images, vae, size)
        score, error = session.run(["score", "error"], asked)
        score_errors.append(_relative(score, _minus_elbo(vae, asked, objective, samples)))
        map_errors.append(_relative(error, _numpy(module, *asked.values())[1]))
    return {"scorer_score_max_rel_error": _worst(score_errors), "scorer_error_max_rel_error": _worst(map_errors)}


def _sizes(vae: VAE) -> tuple[int, ...]:
    """Of the batches; in the largest one every class occurs."""
    return tuple(sorted({*BATCH_SIZES, max(len(vae.config.classes), *BATCH_SIZES)}))


def _some(images: Array, vae: VAE, size: int) -> dict[str, Array]:
    """The inputs `images` and, of a conditional model, `label` for so many rows: of all classes, whatever they show."""
    labels = in_turn(len(vae.config.classes), size)
    return {"images": images[np.arange(size) % len(images)], **label_input(labels)}


def _minus_elbo(vae: VAE, asked: Mapping[str, Array], objective: str, samples: int) -> Array:
    """-ELBO, or -recon of a plain auto-encoder, the mean over the scorer's noise; float32 [n]."""
    latent_dim = vae.config.latent_dim
    noise = torch.zeros(1, latent_dim) if objective == "autoencoder" else score_noise(samples, latent_dim)
    with torch.no_grad():
        x, *label = (torch.from_numpy(value) for value in asked.values())
        x = unit_pixels(x)
        bounds = [elbo(vae, x, eps.expand(len(x), -1), *label) for eps in noise]
        values = [bound.recon if objective == "autoencoder" else bound.elbo for bound in bounds]
        return -torch.stack(values).mean(0).numpy()


def _draw(run: Callable[..., Any], index: Array, labels: Labels | None) -> tuple[Array, Array]:
    n = len(index)
    rows = {"seed": np.full(n, SEED, np.int64), "index": index, "temperature": np.ones(n, np.float32)}
    images, z = run(["images", "z"], rows | label_input(labels, index))
    return images, z


def _random_z(n: int, latent_dim: int) -> Array:
    return standard_normal(np.full(n, SEED, np.int64), np.arange(n, dtype=np.int64), latent_dim)


def _numpy(module: Callable[..., Any], *arrays: Array) -> Any:
    with torch.no_grad():
        outputs = module(*map(torch.from_numpy, arrays))
    return [output.numpy() for output in outputs] if isinstance(outputs, tuple) else outputs.numpy()


def _largest(found: Array, expected: Array) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max())


def _relative(found: Array, expected: Array) -> float:
    """As a share of the expected value where that is above 1: float32 sums over pixels have no absolute precision."""
    scale = np.maximum(1, np.abs(expected.astype(np.float64)))
    return _largest(found / scale, expected / scale)


def _worst(errors: Iterable[float]) -> float:
    return float(np.max(list(errors)))  # unlike max(), keeps a NaN
