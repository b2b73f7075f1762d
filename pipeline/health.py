"""Whether a model is fit for use: what evaluate measured, held against limits, with what to try where one is missed.

All of it is a function of figures. evaluate writes the verdict, export refuses an unhealthy model unless told
otherwise, and no champion is unhealthy. docs/architecture.md has the reason for each limit.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.advice import Remedy, advise
from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.params import Params

HEALTH = "health.json"

FAILED_CHECKS = "test/failed_checks"
"""The metric that tells a run, and the champion's gates, how many checks the model missed."""

Metrics = Mapping[str, float]

_WITHOUT_KL = ("autoencoder",)
_MORE_IMAGES = Remedy("more images")
_SMALLER_NETWORK = Remedy("a smaller model.hidden", "model.hidden", lambda sizes: [max(1, size // 2) for size in sizes])
_FEWER_EPOCHS = Remedy("fewer train.epochs", "train.epochs", lambda epochs: max(1, epochs // 2))

REMEDIES = {
    "collapsed_units": (
        Remedy("a smaller train.beta", "train.beta", lambda beta: beta / 2, _WITHOUT_KL),
        Remedy("longer train.warmup_epochs", "train.warmup_epochs", lambda epochs: epochs + 10, _WITHOUT_KL),
        Remedy("train.free_bits", "train.free_bits", lambda nats: nats or 0.1),
        Remedy("a smaller model.latent_dim", "model.latent_dim", lambda latent_dim: latent_dim // 2),
    ),
    "train_test_gap": (
        _MORE_IMAGES,
        _SMALLER_NETWORK,
        _FEWER_EPOCHS,
        Remedy("train.early_stopping_epochs", "train.early_stopping_epochs", lambda epochs: epochs or 10),
    ),
    "unconverged_bound": (
        Remedy("more evaluate.importance_samples", "evaluate.importance_samples", lambda samples: 2 * samples),
    ),
    "prior_hole": (
        Remedy("more train.epochs if the ELBO still rose", "train.epochs", lambda epochs: 2 * epochs),
        Remedy("a larger train.beta", "train.beta", lambda beta: 2 * beta or 1.0, _WITHOUT_KL),
        Remedy("model.prior: mixture", "model.prior", lambda prior: "mixture" if prior == "standard" else prior),
        Remedy("model.prior: flow", "model.prior", lambda prior: "flow"),  # noqa: ARG005
    ),
    "memorisation": (_MORE_IMAGES, _FEWER_EPOCHS, _SMALLER_NETWORK),
}
"""What to try where a check is missed, by its name."""


@dataclass(frozen=True)
class Check:
    """One limit: `found` says in words what was measured, `advice` which param to try."""

    name: str
    value: float
    limit: float
    healthy: bool
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Sizes:
    """What the limits scale with: dimensions of z, stored values of an image, K of the importance bound."""

    latent_dim: int
    values: int
    importance_samples: int


def examine(metrics: Metrics, sizes: Sizes, params: Params) -> list[Check]:
    """Every check whose metric was measured and whose limit is not null, with advice that the other params allow.

    `metrics` are those of evaluate, by their names in metrics.json.
    """
    limits = params.health
    checks = (
        _collapsed_units(metrics, sizes, limits.min_active_share),
        _train_test_gap(metrics, sizes, limits.max_train_test_gap),
        _unconverged_bound(metrics, sizes.importance_samples, limits.max_bound_drift),
        _prior_hole(metrics, limits.max_prior_gap),
        _memorisation(metrics, limits.max_copied_share),
    )
    return [replace(check, advice=advise(REMEDIES[check.name], params)) for check in checks if check is not None]


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
    return _at_least("collapsed_units", active / sizes.latent_dim, limit, found)


def _train_test_gap(metrics: Metrics, sizes: Sizes, limit: float | None) -> Check | None:
    gap, nats = metrics.get("test/train_test_gap"), _code_length(metrics, sizes)
    if gap is None or nats is None or limit is None:
        return None
    share = gap / max(nats, 1.0)  # of an image that costs nothing a share would be noise
    found = f"test images cost {gap:.3g} nats more than training images, {share:.2%}, expected at most {100 * limit:g}%"
    return _at_most("train_test_gap", share, limit, found)


def _unconverged_bound(metrics: Metrics, k: int, limit: float | None) -> Check | None:
    half, whole = metrics.get(f"test/nll_iw{k // 2}"), metrics.get(f"test/nll_iw{k}")  # of one sample there is no half
    if half is None or whole is None or limit is None:
        return None
    drift = half - whole
    found = f"the second half of {k} importance samples moved the bound by {drift:.3g} nats, expected at most {limit:g}"
    return _at_most("unconverged_bound", drift, limit, found)


def _prior_hole(metrics: Metrics, limit: float | None) -> Check | None:
    gap, kl = metrics.get("test/marginal_kl_fitted"), metrics.get("test/kl")
    if gap is None or kl is None or limit is None:
        return None
    share = gap / max(kl, 1.0)  # of a KL below a nat a share would be noise
    found = f"the codes are {gap:.3g} nats from the prior, {share:.2%} of their KL, expected at most {100 * limit:g}%"
    return _at_most("prior_hole", share, limit, found)


def _memorisation(metrics: Metrics, limit: float | None) -> Check | None:
    copies, of_test = metrics.get("test/memorisation_copies"), metrics.get("test/memorisation_test_copies")
    if copies is None or of_test is None or limit is None:
        return None
    found = (
        f"{copies:.1%} of the samples are copies of training images, and {of_test:.1%} of test images, "
        f"expected at most {limit:.1%} more"
    )
    return _at_most("memorisation", copies - of_test, limit, found)


def _code_length(metrics: Metrics, sizes: Sizes) -> float | None:
    """Nats of a test image's stored values: above 0 and of one scale, whether the likelihood is a density or not."""
    bits = metrics.get("test/bits_per_dim")
    return None if bits is None else bits * sizes.values * math.log(2)


def _at_least(name: str, value: float, limit: float, found: str) -> Check:
    return Check(name, value, limit, value >= limit, found)


def _at_most(name: str, value: float, limit: float, found: str) -> Check:
    return Check(name, value, limit, value <= limit, found)
