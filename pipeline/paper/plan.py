"""What a file of recipes/paper asks for: params, a grid of those that differ from run to run, and where to measure."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.params import Params, check_params, parse_setting, read_yaml
from pipeline.sweep.grid import applied

Value = float | str

_DIM, _SIZE = "model.latent_dim", "prepare.train_images"
FIGURES = {"bound": _DIM, "likelihood": _SIZE, "manifold": _DIM, "samples": _DIM}
"""What can be drawn of a recipe, and the param of the grid that each has a panel for each value of."""
_KEYS = {"figures": list, "params": dict, "grid": dict, "measure": dict}
_EXPECTED = "the list figures, and the mappings params, grid and measure"


@dataclass(frozen=True)
class Measure:
    """Where a run is measured, and how.

    Attributes:
        first: training samples seen at the first measurement.
        last: at the last one, which ends the run.
        per_decade: how many measurements lie between one number of samples and its tenfold.
        images: of each split, at most, evenly spaced over it.
        importance_samples: K of the estimate of log p(x); with 1 it is the bound alone that tells something.
    """

    first: int
    last: int
    per_decade: int
    images: int
    importance_samples: int

    @property
    def milestones(self) -> list[int]:
        """Numbers of training samples at which to measure, at equal ratios down from the last to about the first."""
        steps = round(math.log10(self.last / self.first) * self.per_decade)
        return sorted({round(self.last * 10 ** (-step / self.per_decade)) for step in range(steps + 1)})


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        name: of the recipe and of this point of its grid, for people.
        point: the grid's values, by dotted name.
        params: all of them.
        measure: where it is measured.
    """

    name: str
    point: Mapping[str, Value]
    params: Params
    measure: Measure


@dataclass(frozen=True)
class Plan:
    """A recipe.

    Attributes:
        name: of its file.
        figures: what is drawn of it, names of FIGURES.
        runs: all points of its grid.
    """

    name: str
    figures: Sequence[str]
    runs: Sequence[Run]


def load_plan(path: Path, base: dict[str, Any], overrides: Sequence[str] = ()) -> Plan:
    """Read a recipe and check every run of it as applied to `base`, the content of params.yaml.

    Args:
        path: of the recipe: the mappings `params` and `grid` of dotted names, `measure`, and the list `figures`.
        base: what params are where the recipe says nothing.
        overrides: `section.param=value` or `measure.name=value`, over the recipe's own.

    Raises:
        UserError: it is no such recipe, or a param is unknown or out of range.
    """
    content = read_yaml(path)
    if set(content) != _KEYS.keys() or not all(isinstance(content[key], kind) for key, kind in _KEYS.items()):
        raise UserError(f"{path}: holds {', '.join(map(str, content))}; expected {_EXPECTED}")
    if unknown := [name for name in content["figures"] if not isinstance(name, str) or name not in FIGURES]:
        raise UserError(f"{path}: figures has {unknown[0]!r}; expected some of {', '.join(FIGURES)}")
    if lacking := [name for name in content["figures"] if FIGURES[name] not in content["grid"]]:
        raise UserError(f"{path}: figures has {lacking[0]!r}; expected {FIGURES[lacking[0]]} in grid")
    for name, values in content["grid"].items():
        if not isinstance(values, list) or not values:
            raise UserError(f"{path}: grid.{name} is {values!r}; expected a list of values")
    changed = dict(parse_setting(override) for override in overrides)
    measured = {name.removeprefix("measure."): value for name, value in changed.items() if name.startswith("measure.")}
    shared = content["params"] | {name: value for name, value in changed.items() if not name.startswith("measure.")}
    measure = _measure(content["measure"] | measured, path)
    points = [
        dict(zip(content["grid"], values, strict=True)) for values in itertools.product(*content["grid"].values())
    ]
    runs = [
        Run(_name(path.stem, point), point, check_params(applied(shared | point, base, path), path), measure)
        for point in points
    ]
    for run in runs:
        _check_effect(run.params, path)
    if "manifold" in content["figures"] and all(run.params.model.latent_dim != 2 for run in runs):
        raise UserError(f"{path}: figures has 'manifold', and no run a model.latent_dim of 2; expected one")
    return Plan(path.stem, content["figures"], runs)


def _check_effect(params: Params, path: Path) -> None:
    """Refuse what has no effect here: a run is measured on its way, by the weights as they are, and not as it ends."""
    without = {
        "model.sigma": (params.model.sigma, params.model.sigma == "optimal", "learned"),
        "model.prior": (params.model.prior, params.model.prior == "vamp", "another"),
        "train.ema_decay": (params.train.ema_decay, params.train.ema_decay > 0, "0"),
    }
    for name, (value, is_without, expected) in without.items():
        if is_without:
            raise UserError(f"{path}: {name} is {value!r}, which has no effect on these runs; expected {expected}")


def _name(recipe: str, point: Mapping[str, Value]) -> str:
    return "-".join([recipe, *(f"{key.split('.')[-1]}-{value}" for key, value in point.items())])


def _measure(values: Mapping[str, Any], path: Path) -> Measure:
    names = list(Measure.__dataclass_fields__)
    if set(values) != set(names):
        raise UserError(f"{path}: measure holds {', '.join(map(str, values))}; expected {', '.join(names)}")
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{path}: measure.{name} is {value!r}; expected a whole number >= 1")
    if values["last"] < values["first"]:
        raise UserError(f"{path}: measure.last is {values['last']}; expected at least measure.first, {values['first']}")
    return Measure(**values)
