"""Which model stands for the registered name: gates that it must pass, then a comparison with the present champion.

All of it is a function of figures; `pipeline.tracking.registry` reads them from the store and moves the alias.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from pipeline.direction import more_is_better
from pipeline.errors import UserError
from pipeline.health import FAILED_CHECKS
from pipeline.params import ExportParams
from pipeline.record import Metrics, Record

PARITY_ERRORS = (
    "decoder_max_abs_error",
    "encoder_max_abs_error",
    "sampler_z_max_abs_error",
    "scorer_score_max_rel_error",
    "scorer_error_max_rel_error",
)
"""Of the exported files against torch, each a gate of its own (`pipeline.graphs.parity`)."""

LATENCY = "export/sample64_ms"

CHAMPION = "champion"
CHALLENGER = "challenger"


@dataclass(frozen=True)
class Gate:
    """A limit that a champion must keep; a limit of None asks nothing, a value of None was not measured."""

    name: str
    value: float | None
    limit: float | None
    passed: bool


@dataclass(frozen=True)
class Figure:
    """A model's value of the deciding metric, and what it was measured on: only like is compared with like."""

    metric: str
    """elbo, nll_iw or bits_per_dim, of the test split."""
    value: float | None
    """None where evaluate gives no such metric, as of a plain auto-encoder."""
    data_sha256: str
    """Of the prepared images, all splits."""
    likelihood: str
    test_pixels: str
    """grey, or binarised from which seed."""
    importance_samples: str
    """K of the importance-weighted bound; `-` for the ELBO, which has none."""
    condition: str = "none"
    """What the model is told of an image: with its label, the bound is one of log p(x|y). Older versions do not say."""

    def to_tags(self) -> dict[str, str]:
        """Every field as a text, which a model version can carry."""
        return {name: str(value) for name, value in asdict(self).items()}

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> "Figure | None":
        """What `to_tags` wrote; None where something else registered the version."""
        try:
            known = {"condition": "none", **tags}
            texts: dict[str, Any] = {field.name: known[field.name] for field in fields(cls)}
            return cls(**texts | {"value": float(texts["value"])})
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True)
class Champion:
    """The version that bears the alias."""

    version: str
    figure: Figure | None


@dataclass(frozen=True)
class Decision:
    """The alias of a new version, and why."""

    alias: str
    reason: str


def figure_of(metric: str, training: Record, evaluation: Record) -> Figure:
    """The figure of a model that was trained and evaluated.

    Raises:
        UserError: a record lacks what its stage writes.
    """
    try:
        k, binarize = evaluation.params["evaluate.importance_samples"], training.params["train.binarize"]
        return Figure(
            metric=metric,
            value=evaluation.metrics.get({"nll_iw": f"test/nll_iw{k}"}.get(metric, f"test/{metric}")),
            data_sha256=training.tags["data_sha256"],
            likelihood=training.params["model.likelihood"],
            test_pixels="grey" if binarize == "none" else f"binarised, seed {evaluation.params['evaluate.seed']}",
            importance_samples="-" if metric == "elbo" else str(k),
            condition=training.params.get("model.condition", "none"),
        )
    except KeyError as error:
        raise UserError(f"run.json of train or evaluate lacks {error}; expected what those stages write") from None


def gates_of(params: ExportParams, evaluation: Record, metrics: Metrics) -> list[Gate]:
    """All that a champion must keep; `metrics` are those of the export stage."""
    nll = f"test/nll_iw{evaluation.params.get('evaluate.importance_samples')}"
    return [
        *(at_most(name, metrics.get(f"export/{name}"), params.max_parity_error) for name in PARITY_ERRORS),
        at_most("failed_checks", evaluation.metrics.get(FAILED_CHECKS), 0),
        at_most("nll", evaluation.metrics.get(nll), params.max_nll),
        at_most("latency_ms", metrics.get(LATENCY), params.max_latency_ms),
    ]


def at_most(name: str, value: float | None, limit: float | None) -> Gate:
    """A gate that a value above the limit, a NaN or a missing value fails."""
    return Gate(name, value, limit, limit is None or (value is not None and value <= limit))


def decide(candidate: Figure, gates: Sequence[Gate], champion: Champion | None) -> Decision:
    """`champion` for a version that passes every gate and is better than the present one, else `challenger`.

    An equal value leaves the champion where it is, and so does one that was measured on something else: the user
    alone can say that the new data are what counts.
    """
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        return Decision(CHALLENGER, "; ".join(map(_failure, failed)))
    if candidate.value is None:
        return Decision(CHALLENGER, f"evaluate gives no {candidate.metric}")
    if not math.isfinite(candidate.value):
        return Decision(CHALLENGER, f"{_told(candidate)} is no measurement")
    if champion is None:
        return Decision(CHAMPION, f"{_told(candidate)}; there was no champion")
    if champion.figure is None or champion.figure.value is None or not math.isfinite(champion.figure.value):
        return Decision(CHALLENGER, f"the champion, version {champion.version}, carries no figure to compare with")
    if difference := _difference(candidate, champion.figure):
        return Decision(CHALLENGER, f"not comparable with the champion, version {champion.version}: {difference}")
    return _compare(candidate, candidate.value, champion.version, champion.figure.value)


def _compare(candidate: Figure, value: float, version: str, standing: float) -> Decision:
    better = value > standing if more_is_better(candidate.metric) else value < standing
    word = "better than" if better else "no better than"
    return Decision(
        CHAMPION if better else CHALLENGER, f"{_told(candidate)}, {word} {standing:.5g} of version {version}"
    )


def _difference(candidate: Figure, standing: Figure) -> str | None:
    """The first thing that two figures do not share, beside their values."""
    theirs = asdict(standing)
    for name, ours in asdict(candidate).items():
        if name != "value" and ours != theirs[name]:
            return f"its {name} is {theirs[name][:24]}, here {ours[:24]}"
    return None


def _told(figure: Figure) -> str:
    return f"{figure.metric} {figure.value:.5g}"


def _failure(gate: Gate) -> str:
    found = "not measured" if gate.value is None else f"{gate.value:.4g}"
    return f"gate {gate.name}: {found}, limit {gate.limit:.4g}"
