"""What every exported file says of itself: one record, written by the export stage and read by the runtime."""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from pipeline.errors import UserError

FORMAT = "vae-pipeline/1"

OF_LATENTS = ("latent_kl", "latent_mean", "latent_deviation")
"""The entries that have a number for each latent dimension."""


@dataclass(frozen=True)
class Metadata:
    """What an ONNX file is and where it came from; stored as strings in its `metadata_props`."""

    graph: str
    """Which of the graphs this is: decoder, encoder, sampler or scorer."""
    latent_dim: int
    image_shape: tuple[int, int, int]
    """(channels, height, width), the network's own order."""
    likelihood: str
    prior: str
    objective: str
    data_sha256: str
    params_hash: str
    git_revision: str
    """The commit of the code that trained the model; ends in -dirty where that was changed. Params have a hash."""
    mlflow_run: str
    latent_kl: tuple[float, ...] | None = None
    """KL(q(z|x) || p(z)) of each latent dimension in nats, the mean over the validation images; None where the model
    has no posterior (a plain auto-encoder), and of files that were exported before it was measured."""
    latent_mean: tuple[float, ...] | None = None
    """Of each latent dimension, under the density that the sampler draws z from, at temperature 1; None where that is
    the standard normal, and of files that were exported before it was measured."""
    latent_deviation: tuple[float, ...] | None = None
    """The standard deviations beside these means."""
    aggregate_components: int | None = None
    """Gaussians of the mixture, fitted to the training codes, that the sampler draws z from; None: from the prior."""
    posterior: str | None = None
    """q(z|x): diagonal, iaf, coupling or ladder; None where the model has no posterior, and of files that were exported
    before it was named."""
    variant: str | None = None
    """int8 or fp16 where the decoder computes in that; None: float32."""

    @property
    def draws_standard_normal(self) -> bool:
        """Whether the sampler's z is a draw from the standard normal."""
        return self.prior == "standard" and self.aggregate_components is None

    def to_strings(self) -> dict[str, str]:
        """The entries of `metadata_props`: texts as they are, the numbers as JSON; what is None is left out."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return {"format": FORMAT, **{name: v if isinstance(v, str) else json.dumps(v) for name, v in values.items()}}

    @classmethod
    def from_strings(cls, strings: Mapping[str, str], source: str) -> "Metadata":
        """Read what `to_strings` wrote; errors name `source`.

        Raises:
            UserError: `strings` is not from a file of ours, or an entry is missing or malformed.
        """
        found = strings.get("format")
        if found is None:
            raise UserError(f"{source}: carries no vae-pipeline metadata; expected a file that the export stage wrote")
        if found != FORMAT:
            raise UserError(f"{source}: format is {found!r}; expected {FORMAT!r}")
        required = [field.name for field in fields(cls) if field.default is MISSING]
        values: dict[str, Any] = {name: _entry(strings, name, source) for name in required}
        values["latent_dim"] = _whole_numbers(f"[{values['latent_dim']}]", 1, "latent_dim", source)[0]
        values["image_shape"] = _whole_numbers(values["image_shape"], 3, "image_shape", source)
        of_latents: dict[str, Any] = {
            name: _numbers(strings.get(name), values["latent_dim"], name, source) for name in OF_LATENTS
        }
        aggregate = strings.get("aggregate_components")
        if aggregate is not None:
            (components,) = _whole_numbers(f"[{aggregate}]", 1, "aggregate_components", source)
            values["aggregate_components"] = components
        return cls(**values, **of_latents, posterior=strings.get("posterior"), variant=strings.get("variant"))


def _entry(strings: Mapping[str, str], name: str, source: str) -> str:
    if name not in strings:
        raise UserError(f"{source}: metadata {name} is missing; expected every entry that the export stage writes")
    return strings[name]


def _whole_numbers(text: str, count: int, name: str, source: str) -> tuple[int, ...]:
    try:
        numbers = json.loads(text)
    except (ValueError, RecursionError):
        numbers = None
    if not isinstance(numbers, list) or len(numbers) != count or not all(type(n) is int and n > 0 for n in numbers):
        raise UserError(f"{source}: metadata {name} is {text[:40]}; expected {count} whole number(s) > 0")
    return tuple(numbers)


def _numbers(text: str | None, count: int, name: str, source: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(number) for number in json.loads(text))
    except (TypeError, ValueError, OverflowError, RecursionError):
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise UserError(f"{source}: metadata {name} is {text[:40]}; expected {count} finite number(s)")
    return numbers
