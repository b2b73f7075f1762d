"""A sweep's recipe: params that all its experiments share, and a grid of two that differ.

Params are named as DVC names them on its command line, `train.beta`; those that are not named are those of params.yaml.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.params import Params, check_params, copy_sections, parse_setting, read_recipe

COMMAND_LINE = Path("command line")
"""What errors name in the place of a file."""

Point = Mapping[str, float]
"""A value for each of the grid's params, by its dotted name."""


@dataclass(frozen=True)
class Sweep:
    """What to run.

    Attributes:
        name: of the recipe; those of its experiments begin with it.
        shared: params that differ from params.yaml, by dotted name.
        grid: the values of two params: the first has a line of the figure for each, the second a point along it.
    """

    name: str
    shared: Mapping[str, Any]
    grid: Mapping[str, Sequence[float]]

    @property
    def points(self) -> list[Point]:
        """All pairs of the grid's values, line by line."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]

    def experiment(self, point: Point) -> str:
        """The name of a point's experiment, which git and DVC take as a name."""
        return "-".join([self.name, *(f"{key.split('.')[-1]}{value}" for key, value in point.items())])


def load_sweep(path: Path, base: dict[str, Any]) -> Sweep:
    """Read a sweep's recipe and check every point of it as applied to `base`, the content of params.yaml.

    Raises:
        UserError: it is not there, it is no such recipe, or a param is unknown or out of range.
    """
    content = read_recipe(path, "sweep")
    if set(content) != {"params", "grid"} or not all(isinstance(value, dict) for value in content.values()):
        raise UserError(f"{path}: holds {', '.join(map(str, content))}; expected the mappings params and grid")
    grid = content["grid"]
    if len(grid) != 2:
        raise UserError(f"{path}: grid names {len(grid)} params; expected two: the lines, and the points along each")
    for name, values in grid.items():
        numbers = isinstance(values, list) and all(isinstance(value, int | float) for value in values)
        if not numbers or not values or len(set(values)) < len(values):
            raise UserError(f"{path}: grid.{name} is {values!r}; expected a list of different numbers")
    sweep = Sweep(path.stem, content["params"], grid)
    for point in sweep.points:
        check_params(applied({**sweep.shared, **point}, base, path), path)
    return sweep


def applied(values: Mapping[str, Any], base: dict[str, Any], path: Path) -> dict[str, Any]:
    """`base` with values in place, which are named as `train.beta`; errors name the recipe at `path`.

    Raises:
        UserError: a name is in no section, or one of `base` is none.
    """
    changed = copy_sections(base)
    for name, value in values.items():
        section, _, param = str(name).partition(".")
        if section not in changed:
            raise UserError(f"{path}: {name} is in no section; expected one of {', '.join(base)} before the dot")
        changed[section][param] = value
    return changed


def check_overrides(overrides: Sequence[str], base: dict[str, Any]) -> Params:
    """The params of `base` with `section.param=value`, given on the command line, applied to them and checked.

    Raises:
        UserError: one is no such setting, or a param is unknown or out of range.
    """
    values = dict(parse_setting(override) for override in overrides)
    return check_params(applied(values, base, COMMAND_LINE), COMMAND_LINE)
