"""Runs in order of a metric, and where their params differ."""

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pipeline.direction import more_is_better
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.tracking.rows import Row

DEFAULT_METRICS = ("test/elbo", "val/elbo")
MEASURED_ON = ("model.likelihood", "model.condition", "train.binarize")
"""Params that say of what a bound is one: a density or a probability, of grey pixels or of drawn black and white ones,
of an image alone or of one whose class is told."""
DATA = "data (sha256)"


def default_metric(rows: "Sequence[Row]") -> str:
    """The first of DEFAULT_METRICS that a run has: before any is evaluated, the validation ELBO."""
    return next((name for name in DEFAULT_METRICS if any(name in row.metrics for row in rows)), DEFAULT_METRICS[0])


def best_is_lowest(metric: str) -> bool:
    """Whether less of a metric is better, by its name; of one that is not known more is."""
    return more_is_better(metric) is False


def expect_metric(name: str, rows: "Sequence[Row]") -> None:
    """Refuse a metric that no run has.

    Raises:
        UserError: that is so; it names those whose names are near, or those of the test split.
    """
    known = sorted({metric for row in rows for metric in row.metrics})
    if name in known:
        return
    near = (
        [metric for metric in known if name in metric]
        or difflib.get_close_matches(name, known, n=3)
        or [metric for metric in known if metric.startswith("test/")]
    )
    raise UserError(f"--by is {name}, a metric that no run has; expected one such as {', '.join(near or known[:5])}")


def ranked(rows: "Sequence[Row]", metric: str, lowest_first: bool) -> "list[Row]":
    """The best first; those without a value, or with one that is no number, last and otherwise in their order."""

    def place(row: "Row") -> tuple[bool, float]:
        value = row.metrics.get(metric, math.nan)
        return (True, 0.0) if math.isnan(value) else (False, value if lowest_first else -value)

    return sorted(rows, key=place)


def differing(rows: "Sequence[Row]") -> list[str]:
    """The params of which the rows have different values; one that lacks a param, as unfinished runs do, has none."""
    return [name for name in names(row.params for row in rows) if _values(rows, name) > 1]


def measured_on_different(rows: "Sequence[Row]") -> list[str]:
    """The data and those of MEASURED_ON, as far as the rows differ in them, so that their nats do not compare."""
    return [DATA] * are_of_other_data(rows) + [name for name in differing(rows) if name in MEASURED_ON]


def are_of_other_data(rows: "Sequence[Row]") -> bool:
    """Whether prepare left different bytes for some of the rows, whatever the params say; of others it is not known."""
    return len({row.tags["data_sha256"] for row in rows if "data_sha256" in row.tags}) > 1


def names(mappings: "Iterable[Iterable[str]]") -> list[str]:
    """All keys, each once, in the order in which they come."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _values(rows: "Sequence[Row]", name: str) -> int:
    return len({row.params[name] for row in rows if name in row.params})
