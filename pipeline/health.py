"""Whether a model is fit for use: what evaluate measured, held against limits, with what to try where one is missed.

All of it is a function of figures. evaluate writes the verdict, export refuses an unhealthy model unless told
otherwise, and no champion is unhealthy. docs/architecture.md has the reason for each limit.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.params import HealthParams

HEALTH = "health.json"

FAILED_CHECKS = "test/failed_checks"
"""The metric that tells a run, and the champion's gates, how many checks the model missed."""

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Check:
    """One limit: `found` says in words what was measured, `advice` which param to try."""

    name: str
    value: float
    limit: float
    healthy: bool
    found: str
    advice: str


@dataclass(frozen=True)
class Sizes:
    """What the limits scale with: dimensions of z, stored values of an image, K of the importance bound."""

    latent_dim: int
    values: int
    importance_samples: int


def examine(metrics: Metrics, sizes: Sizes, params: HealthParams) -> list[Check]:
    """Every check whose metric was measured and whose limit is not null.

    `metrics` are those of evaluate, by their names in metrics.json.
    """
    checks = (
        _collapsed_units(metrics, sizes, params.min_active_share),
        _train_test_gap(metrics, sizes, params.max_train_test_gap),
        _unconverged_bound(metrics, sizes.importance_samples, params.max_bound_drift),
        _prior_hole(metrics, params.max_prior_gap),
        _memorisation(metrics, params.max_copied_share),
    )
    return [check for check in checks if check is not None]


def unhealthy(checks: Iterable[Check]) -> str:
    """What was found and what to try, of the checks that were missed, in one line; empty for a healthy model."""
    return "; ".join(f"{check.found} (try {check.advice})" for check in checks if not check.healthy)


def verdict(checks: Iterable[Check]) -> dict[str, Any]:
    """The content of health.json."""
    by_name = {check.name: asdict(check) for check in checks}
    return {"healthy": all(check["healthy"] for check in by_name.values()), "checks": by_name}


def read_verdict(path: Path) -> list[Check]:
    """The checks in a health.json.

    Raises:
        UserError: the file is missing or is not what evaluate writes.
    """
    content = read_json(path)
    try:
        return [Check(**check) for check in content["checks"].values()]
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not what evaluate writes ({error})") from None


def _collapsed_units(metrics: Metrics, sizes: Sizes, limit: float | None) -> Check | None:
    active = metrics.get("test/active_units")
    if active is None or limit is None:
        return None
    found = f"{active:.0f} of {sizes.latent_dim} latent dimensions are active, expected a share of at least {limit:g}"
    advice = (
        "a smaller train.beta, longer train.warmup_epochs, a smaller model.latent_dim or, with model.prior: standard, "
        "train.free_bits"
    )
    return _at_least("collapsed_units", active / sizes.latent_dim, limit, found, advice)


def _train_test_gap(metrics: Metrics, sizes: Sizes, limit: float | None) -> Check | None:
    gap, nats = metrics.get("test/train_test_gap"), _code_length(metrics, sizes)
    if gap is None or nats is None or limit is None:
        return None
    found = f"test images cost {gap:.3g} nats more than training images, {gap / nats:.0%}, expected at most {limit:.0%}"
    advice = "more images, a smaller model.hidden, fewer train.epochs or train.early_stopping_epochs"
    return _at_most("train_test_gap", gap / nats, limit, found, advice)


def _unconverged_bound(metrics: Metrics, k: int, limit: float | None) -> Check | None:
    half, whole = metrics.get(f"test/nll_iw{k // 2}"), metrics.get(f"test/nll_iw{k}")  # of one sample there is no half
    if half is None or whole is None or limit is None:
        return None
    drift = half - whole
    found = f"the second half of {k} importance samples moved the bound by {drift:.3g} nats, expected at most {limit:g}"
    return _at_most("unconverged_bound", drift, limit, found, "more evaluate.importance_samples")


def _prior_hole(metrics: Metrics, limit: float | None) -> Check | None:
    gap, kl = metrics.get("test/marginal_kl_fitted"), metrics.get("test/kl")
    if gap is None or kl is None or limit is None:
        return None
    share = gap / max(kl, 1.0)  # of a KL below a nat a share would be noise
    found = f"the codes are {gap:.3g} nats from the prior, {share:.0%} of their KL, expected at most {limit:.0%}"
    advice = (
        "more train.epochs if the ELBO still rose, a larger train.beta or, unless model.network is ladder, "
        "model.prior: mixture or flow"
    )
    return _at_most("prior_hole", share, limit, found, advice)


def _memorisation(metrics: Metrics, limit: float | None) -> Check | None:
    copies, of_test = metrics.get("test/memorisation_copies"), metrics.get("test/memorisation_test_copies")
    if copies is None or of_test is None or limit is None:
        return None
    found = (
        f"{copies:.1%} of the samples are copies of training images, and {of_test:.1%} of test images, "
        f"expected at most {limit:.1%} more"
    )
    advice = "more images, fewer train.epochs or a smaller model.hidden"
    return _at_most("memorisation", copies - of_test, limit, found, advice)


def _code_length(metrics: Metrics, sizes: Sizes) -> float | None:
    """Nats of a test image's stored values: above 0 and of one scale, whether the likelihood is a density or not."""
    bits = metrics.get("test/bits_per_dim")
    return None if bits is None else bits * sizes.values * math.log(2)


def _at_least(name: str, value: float, limit: float, found: str, advice: str) -> Check:
    return Check(name, value, limit, value >= limit, found, advice)


def _at_most(name: str, value: float, limit: float, found: str, advice: str) -> Check:
    return Check(name, value, limit, value <= limit, found, advice)
