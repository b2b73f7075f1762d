"""Which variants an export gets: each is made, measured against float32, and kept only where it pays."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import ModelProto

from pipeline.errors import UserError
from pipeline.graphs.labels import Labels, label_input, labels_entry
from pipeline.graphs.onnx_export import finish
from pipeline.graphs.sampler import sampler_around
from pipeline.graphs.variants.half import to_half
from pipeline.graphs.variants.layers import Floats, ranges
from pipeline.graphs.variants.quality import Files, Images, Quality, Yardstick
from pipeline.graphs.variants.quantise import quantise, quantised_layers, ranged_tensors
from pipeline.graphs.variants.speed import DECIDING_SIZES, measure_speedups
from pipeline.runtime.draws import rows
from pipeline.runtime.labels import read_labels
from pipeline.runtime.noise import standard_normal
from pipeline.runtime.sampler import DECODER, ENCODER, SAMPLER
from pipeline.runtime.session import Device, open_session, read_metadata
from pipeline.runtime.together import rows_together
from pipeline.runtime.variants import Variant, variant_file

GREY_LEVELS = 1  # between batches: what rounding explains
_DEVICES: Mapping[Variant, Device] = {"int8": "cpu", "fp16": "cuda"}


@dataclass(frozen=True)
class Outcome:
    """What became of a variant."""

    variant: Variant
    files: Mapping[str, bytes] = field(default_factory=dict)
    """sampler and decoder under their own names, `sampler.int8.onnx`; none where `refusal` says why."""
    refusal: str = ""
    quality: Quality | None = None
    """None where it could not be made."""
    speedups: Mapping[int, float] | None = None
    """Seconds of a call of float32 over the variant's, by images a call; None where they cannot be measured here."""

    @property
    def summary(self) -> str:
        """In one line what it gains and loses, or why it is missing."""
        if self.refusal or self.quality is None or self.speedups is None:
            return f"not written: {self.refusal}"
        speeds = ", ".join(f"{self.speedups[size]:.2f} for {size}" for size in DECIDING_SIZES)
        return f"times as fast as float32: {speeds} images a call; loses {self.quality.loss.value:.3f} nats an image"

    @property
    def metrics(self) -> dict[str, float]:
        """By names such as `int8_sample64_speedup`, `int8_psnr_db`, `int8_nll_loss` and `int8_kid`."""
        measured: dict[str, float] = {f"sample{n}_speedup": ratio for n, ratio in (self.speedups or {}).items()}
        if quality := self.quality:
            measured |= {"psnr_db": quality.psnr, "nll_loss": quality.loss.value}
            measured |= {"nll_loss_stderr": quality.loss.stderr, "kid_to_fp32": quality.kid_between}
            if quality.kid:
                measured |= {"kid": quality.kid.value, "kid_stderr": quality.kid.stderr}
        return {f"{self.variant}_{name}": value for name, value in measured.items()}


@dataclass(frozen=True)
class Limits:
    """What a variant must keep; see `export` in params.yaml."""

    min_speedup: float
    max_loss: float
    """Nats per image."""


def choose_variants(
    files: Files, yardstick: Yardstick, validation: Images, limits: Limits, labels: Labels | None = None
) -> list[Outcome]:
    """Make int8 and fp16 of an export's sampler and decoder, measure them, and keep those within the limits.

    Args:
        files: sampler.onnx, decoder.onnx and encoder.onnx, in float32.
        yardstick: their quality.
        validation: uint8 [n, H, W, C]; the ranges of int8 are those of their latents and of as many from the prior.
        limits: what decides.
        labels: of a conditional model: the classes of the validation images, int64 [n].
    """
    decoder = onnx.load_model_from_string(files[DECODER])

    def to_int8() -> ModelProto | None:
        if not quantised_layers(decoder.graph):
            return None
        z, twice = latents(files, validation, labels), None if labels is None else np.tile(labels, 2)
        return quantise(decoder, ranges(decoder, ranged_tensors(decoder.graph), z, twice))

    makers: dict[Variant, Callable[[], ModelProto | None]] = {"int8": to_int8, "fp16": lambda: to_half(decoder)}
    return [_judge(files, variant, make(), yardstick, limits) for variant, make in makers.items()]


def latents(files: Files, validation: Images, labels: Labels | None = None) -> Floats:
    """z of n images by the encoder, one sample each, then as many from the prior by the sampler, [2n, latent_dim].

    Of a conditional model both are of the classes `labels`, int64 [n].
    """
    encode, draw = (open_session(files[name], "cpu", name=name).run for name in (ENCODER, SAMPLER))
    encoded, drawn = [], []
    together = rows_together(validation.shape[1:])
    for start in range(0, len(validation), together):
        images = validation[start : start + together]
        of_class = label_input(labels, slice(start, start + together))
        (z,) = draw(["z"], rows(len(images), 1, start, 1.0) | of_class)
        mu, logvar = encode(["mu", "logvar"], {"images": images, **of_class})
        eps = standard_normal(np.full(len(images), 2), np.arange(start, start + len(images)), z.shape[1])
        encoded.append(mu + np.exp(logvar / 2) * eps)
        drawn.append(z)
    return np.concatenate([*encoded, *drawn])


def _judge(files: Files, variant: Variant, decoder: ModelProto | None, yardstick: Yardstick, limits: Limits) -> Outcome:
    if decoder is None:
        return Outcome(variant, refusal="the decoder has no layer behind its first that could be quantised")
    made = finish_pair(decoder, files, variant)
    device = _DEVICES[variant]
    here = _serves(device, files[SAMPLER])
    quality = yardstick.measure(made, device if here else "cpu")
    speedups = measure_speedups(files[SAMPLER], made[SAMPLER], device) if here else None
    refusal = _refusal(quality, speedups, limits)
    kept = {} if refusal else {variant_file(name, variant): content for name, content in made.items()}
    return Outcome(variant, kept, refusal, quality, speedups)


def finish_pair(decoder: ModelProto, files: Files, variant: Variant) -> dict[str, bytes]:
    """sampler.onnx and decoder.onnx around a decoder; their metadata are those of the float32 file, and the variant."""
    session = open_session(files[DECODER], "cpu", name=DECODER)
    metadata = replace(read_metadata(session, DECODER), variant=variant)
    extra = labels_entry(read_labels(session, DECODER))
    sampler = sampler_around(decoder, onnx.load_model_from_string(files[SAMPLER]), metadata.latent_dim)
    models = {SAMPLER: sampler, DECODER: decoder}
    return {
        name: finish(model, replace(metadata, graph=name.removesuffix(".onnx")), extra)
        for name, model in models.items()
    }


def _serves(device: Device, sampler: bytes) -> bool:
    try:
        open_session(sampler, device, name=SAMPLER)
    except UserError:
        return False
    return True


def _refusal(quality: Quality, speedups: Mapping[int, float] | None, limits: Limits) -> str:
    """Why a variant is not written; nothing if it is."""
    if not quality.loss.value <= limits.max_loss:  # also when it is NaN
        return f"it loses {quality.loss.value:.3g} nats; export.max_quality_loss allows {limits.max_loss:g}"
    if quality.split_grey_levels > GREY_LEVELS:
        found = f"an image differs by {quality.split_grey_levels} grey levels from batch to batch"
        return f"{found}; expected {GREY_LEVELS} at most"
    if speedups is None:
        return "its speed counts on a GPU, and the machine that exported has none"
    least = min(speedups[size] for size in DECIDING_SIZES)
    if not least >= limits.min_speedup:
        return f"it is {least:.2f} times as fast as float32; export.min_speedup asks for {limits.min_speedup:g}"
    return ""
