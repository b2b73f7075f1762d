"""What a file of recipes/paper asks for: params, a grid of those that differ from run to run, and where to measure."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.params import Params, check_params, parse_setting, read_recipe
from pipeline.sweep.grid import applied

Value = float | str

_DIM, _SIZE = "model.latent_dim", "prepare.train_images"
FIGURES = {"bound": _DIM, "likelihood": _SIZE, "manifold": _DIM, "samples": _DIM}
"""What can be drawn of a recipe, and the param of the grid that each has a panel for each value of."""
_KEYS = {"figures": list, "params": dict, "grid": dict, "measure": dict}
_OPTIONAL = {"also": list, "learning_rates": list}
_EXPECTED = "the list figures, the mappings params, grid and measure, and perhaps the lists also and learning_rates"
_ALGORITHM, _RATE = "train.objective", "train.learning_rate"
MCEM = "mcem"
"""What a recipe gives for train.objective where Monte Carlo EM trains, which is none of the train stage's."""


@dataclass(frozen=True)
class Measure:
    """Where a run is measured, and how.

    Attributes:
        first: training samples seen at the first measurement.
        last: at the last one, which ends the run.
        per_decade: how many measurements lie between one number of samples and its tenfold.
        images: of each split, at most, evenly spaced over it.
        importance_samples: K of the importance bound; with 1 it is the ELBO alone that tells something.
        posterior_samples: L of the estimate of log p(x) by samples of p(z|x), for z of less than five dimensions;
            0: none.
    """

    first: int
    last: int
    per_decade: int
    images: int
    importance_samples: int
    posterior_samples: int = 0

    @property
    def milestones(self) -> list[int]:
        """Numbers of training samples at which to measure, at equal ratios down from the last to about the first."""
        steps = round(math.log10(self.last / self.first) * self.per_decade)
        return sorted({round(self.last * 10 ** (-step / self.per_decade)) for step in range(steps + 1)})

    @property
    def first_alone(self) -> "Measure":
        """The first of these milestones and no other."""
        return replace(self, first=self.milestones[0], last=self.milestones[0])


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        name: of the recipe and of this point of its grid, for people.
        point: the grid's values, by dotted name.
        params: all of them; of Monte Carlo EM, which has no encoder, the objective says nothing.
        measure: where it is measured.
        learning_rates: among which the run chooses by its first measurement; none: that of the params.
    """

    name: str
    point: Mapping[str, Value]
    params: Params
    measure: Measure
    learning_rates: tuple[float, ...] = ()

    def at_rate(self, learning_rate: float) -> "Run":
        """The same run with this learning rate."""
        train = self.params.train.model_copy(update={"learning_rate": learning_rate})
        return replace(self, params=self.params.model_copy(update={"train": train}), learning_rates=())

    @property
    def algorithm(self) -> str:
        """The objective that is trained by, or MCEM."""
        return str(self.point.get(_ALGORITHM, self.params.train.objective))


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
        path: of the recipe: the mappings `params` and `grid` of dotted names, `measure`, and the list `figures`; the
            list `also` of points beside those of the grid, and the list `learning_rates` among which each run chooses
            one by its first measurement.
        base: what params are where the recipe says nothing.
        overrides: `section.param=value` or `measure.name=value`, over the recipe's own.

    Raises:
        UserError: it is not there, it is no such recipe, or a param is unknown or out of range.
    """
    content = read_recipe(path)
    kinds = _KEYS | {key: kind for key, kind in _OPTIONAL.items() if key in content}
    if set(content) != kinds.keys() or not all(isinstance(content[key], kind) for key, kind in kinds.items()):
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
    points = _points(content["grid"], content.get("also", []), path)
    rates = None if _RATE in changed else content.get("learning_rates")
    runs = [_run(point, shared, base, path, measure, rates) for point in points]
    for run in runs:
        _check_effect(run, path)
    if "likelihood" in content["figures"] and not measure.posterior_samples:
        raise UserError(f"{path}: figures has 'likelihood', and measure.posterior_samples is 0; expected at least 1")
    if "manifold" in content["figures"] and all(run.params.model.latent_dim != 2 for run in runs):
        raise UserError(f"{path}: figures has 'manifold', and no run a model.latent_dim of 2; expected one")
    return Plan(path.stem, content["figures"], runs)


def _points(grid: Mapping[str, Sequence[Value]], also: Sequence[Any], path: Path) -> list[dict[str, Value]]:
    for point in also:
        if not isinstance(point, dict) or set(point) != set(grid):
            raise UserError(f"{path}: also has {point!r}; expected a value for each of {', '.join(grid)}")
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())] + list(also)


def _run(
    point: Mapping[str, Value],
    shared: Mapping[str, Any],
    base: dict[str, Any],
    path: Path,
    measure: Measure,
    rates: Sequence[Any] | None,
) -> Run:
    """A run whose params are checked, with each of its learning rates where it has several to choose among."""
    values, name = {**shared, **_params_of(point)}, _name(path.stem, point)
    if rates is None:
        return Run(name, point, check_params(applied(values, base, path), path), measure)
    if not rates or _RATE in shared:
        expected = f"at least one value, and no {_RATE} in params"
        raise UserError(f"{path}: learning_rates is {rates!r}; expected {expected}")
    checked = [check_params(applied(values | {_RATE: rate}, base, path), path) for rate in rates]
    return Run(name, point, checked[0], measure, tuple(params.train.learning_rate for params in checked))


def _params_of(point: Mapping[str, Value]) -> dict[str, Value]:
    return {**point, _ALGORITHM: "elbo"} if point.get(_ALGORITHM) == MCEM else dict(point)


def _check_effect(run: Run, path: Path) -> None:
    """Refuse what has no effect here: a run is measured on its way, by the weights as they are, and not as it ends."""
    params = run.params
    without: dict[str, tuple[object, bool, str]] = {
        "model.sigma": (params.model.sigma, params.model.sigma == "optimal", "learned"),
        "model.prior": (params.model.prior, params.model.prior == "vamp", "another"),
        "train.ema_decay": (params.train.ema_decay, params.train.ema_decay > 0, "0"),
    }
    if run.algorithm == MCEM:
        clip = params.train.max_gradient_norm
        without |= {
            "train.schedule": (params.train.schedule, params.train.schedule != "constant", "constant"),
            "train.max_gradient_norm": (clip, clip is not None, "null"),
        }
    for name, (value, is_without, expected) in without.items():
        if is_without:
            raise UserError(f"{path}: {name} is {value!r}, which has no effect on these runs; expected {expected}")


def _name(recipe: str, point: Mapping[str, Value]) -> str:
    return "-".join([recipe, *(f"{key.split('.')[-1]}-{value}" for key, value in point.items())])


def _measure(values: Mapping[str, Any], path: Path) -> Measure:
    least = dict.fromkeys(Measure.__dataclass_fields__, 1) | {"posterior_samples": 0}
    if set(values) | {"posterior_samples"} != set(least):
        raise UserError(f"{path}: measure holds {', '.join(map(str, values))}; expected {', '.join(least)}")
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least[name]:
            raise UserError(f"{path}: measure.{name} is {value!r}; expected a whole number >= {least[name]}")
    if values["last"] < values["first"]:
        raise UserError(f"{path}: measure.last is {values['last']}; expected at least measure.first, {values['first']}")
    return Measure(**values)
