"""Reproduce a recipe: a named set of params, run as a DVC experiment, and held to the result it must reach.

    python -m pipeline.recipe recipes/paper-mnist.yaml [prepare.root=/where/mnist/lies ...]

The experiment runs in a temporary copy of the repository, so the workspace stays as it is; its row lands in the
same MLflow store, its results in `dvc exp show`. What is printed at the end is a row of docs/results.md.
"""

import argparse
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, run_stage
from pipeline.experiment import as_settings, metrics_of, run_experiment
from pipeline.metrics.likelihood import curve_sizes
from pipeline.params import PARAMS_FILE, Params, check_params, copy_sections, parse_setting, read_recipe, read_yaml
from pipeline.results_row import results_row
from pipeline.sweep.grid import COMMAND_LINE, check_overrides

_FEATURES = ("classifier", "random_conv")  # of images, in which samples are held against test images
_DISTANCES = ("kid", "fid", "precision", "recall", "density", "coverage")
_OF_SAMPLES = (
    "test/sample_label_accuracy",
    *(f"test/{distance}_{features}" for features in _FEATURES for distance in _DISTANCES),
    "test/memorisation_ratio",
    "test/memorisation_copies",
)

_OF_DENSITIES = (
    "test/elbo",
    "test/kl",
    "test/bits_per_dim",
    "test/train_test_gap",
    "test/marginal_kl_fitted",
    "test/amortisation_gap",
)

MEASURED = (
    *_OF_DENSITIES,
    "test/recon",
    "test/active_units",
    "test/failed_checks",
    "test/probe_accuracy",
    *_OF_SAMPLES,
    "export/auroc_held_out",
    "export/auroc_defects",
)
"""What a recipe may be held to, beside the importance bound of all samples, `test/nll_iwK`: what evaluate and export
measure of how good a model is, as their tests hold."""

_SIGNS = {"at_least": ">=", "at_most": "<="}
_SIGNS_IN_TABLES = {"at_least": "≥", "at_most": "≤"}


@dataclass(frozen=True)
class Recipe:
    """Params that differ from params.yaml, by section, and the metrics that a run with them must reach."""

    params: dict[str, dict[str, Any]]
    target: dict[str, dict[str, float]]

    def applied_to(self, base: dict[str, Any]) -> dict[str, Any]:
        """The sections of `base`, the content of params.yaml, with this recipe's values in place.

        Raises:
            UserError: one of `base` is no section.
        """
        return {name: section | self.params.get(name, {}) for name, section in copy_sections(base).items()}

    @property
    def settings(self) -> dict[str, Any]:
        """The params by their dotted names."""
        return {f"{name}.{key}": value for name, section in self.params.items() for key, value in section.items()}

    @property
    def target_in_words(self) -> str:
        """The target as a table has it."""
        return ", ".join(
            f"{name} {_SIGNS_IN_TABLES[sign]} {bound:g}"
            for name, limits in self.target.items()
            for sign, bound in limits.items()
        )

    def misses(self, metrics: dict[str, float]) -> list[str]:
        """One line for each target that `metrics` do not reach; empty when all are reached."""
        return [
            f"{name} is {metrics.get(name)}; expected {_SIGNS[sign]} {bound}"
            for name, limits in self.target.items()
            for sign, bound in limits.items()
            if not _reached(metrics.get(name), sign, bound)
        ]


def load_recipe(path: Path, base: dict[str, Any]) -> Recipe:
    """Read a recipe and check it as applied to `base`.

    Raises:
        UserError: it is not there, it is not a recipe, or a param is unknown or out of range.
    """
    content = read_recipe(path)
    params, target = content.get("params"), content.get("target")
    if set(content) != {"params", "target"} or not isinstance(params, dict) or not isinstance(target, dict):
        raise UserError(f"{path}: holds {', '.join(map(str, content))}; expected the mappings params and target")
    for name, limits in target.items():
        if not _are_limits(limits):
            raise UserError(f"{path}: target.{name} is {limits!r}; expected at_least or at_most with a number")
    for name, section in params.items():
        if not isinstance(section, dict):
            raise UserError(f"{path}: params.{name} is {section!r}; expected a section of named params")
    if unknown := params.keys() - base.keys():
        raise UserError(f"{path}: params.{min(unknown)} is not a section; expected one of {', '.join(base)}")
    recipe = Recipe(params, target)
    applied = check_params(recipe.applied_to(base), path)
    _check_target(target, applied.evaluate.importance_samples, path)
    _check_measured(target, applied, path)
    return recipe


def main() -> None:
    """Run one recipe, say whether it reached its target, and give its row of the table."""
    parser = argparse.ArgumentParser(description="Reproduce a recipe as a DVC experiment.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", help="section.param=value, over the recipe's own")
    arguments = parser.parse_args()
    base = read_yaml(PARAMS_FILE)
    recipe = load_recipe(arguments.recipe, base)
    _check_measured(recipe.target, check_overrides(arguments.overrides, recipe.applied_to(base)), COMMAND_LINE)
    settings = recipe.settings | dict(map(parse_setting, arguments.overrides))
    run_experiment(arguments.recipe.stem, as_settings(settings), force=True)
    metrics = metrics_of(arguments.recipe.stem)
    misses = recipe.misses(metrics)
    if not misses:
        reached = ", ".join(f"{name} {metrics[name]:.2f}" for name in recipe.target)
        print(f"recipe {arguments.recipe.stem}: target reached, {reached}")
    print(results_row(arguments.recipe.stem, recipe.target_in_words, recipe.target))
    if misses:
        raise UserError(f"recipe {arguments.recipe.stem}: {'; '.join(misses)}")


def _check_target(target: dict[str, Any], importance_samples: int, path: Path) -> None:
    if not target:
        raise UserError(f"{path}: target is empty; expected at least one metric with its limit")
    known = [*MEASURED, f"test/nll_iw{importance_samples}"]
    for name in target:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            expected = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
            raise UserError(f"{path}: target.{name} is not measured; {expected}")


def _check_measured(target: dict[str, Any], params: Params, source: Path) -> None:
    """Refuse params that keep a metric of the target from being measured: only the end of the run would tell of it."""
    for name in target:
        if obstacle := _obstacle(name, params):
            raise UserError(f"{source}: {obstacle}, without which target.{name} is not measured")


def _obstacle(name: str, params: Params) -> str | None:
    """The param that keeps a metric from being measured, and what was expected of it."""
    evaluate = params.evaluate
    samples = name.removeprefix("test/nll_iw")
    if params.train.objective == "autoencoder" and (name in _OF_DENSITIES or samples != name):
        return "train.objective is 'autoencoder'; expected elbo, say"
    if samples not in (name, *map(str, curve_sizes(evaluate.importance_samples))):
        return f"evaluate.importance_samples is {evaluate.importance_samples}; expected {samples}"
    if name in _OF_SAMPLES and evaluate.quality_images == 0:
        return "evaluate.quality_images is 0; expected a whole number >= 1"
    if name == "test/amortisation_gap" and evaluate.amortisation_images == 0:
        return "evaluate.amortisation_images is 0; expected a whole number >= 1"
    if name == "test/sample_label_accuracy" and params.model.condition == "none":
        return "model.condition is 'none'; expected label"
    if name == "export/auroc_held_out" and not params.prepare.held_out_labels:
        return "prepare.held_out_labels is []; expected a class"
    return None


def _are_limits(limits: Any) -> bool:
    if not isinstance(limits, dict) or not limits or not limits.keys() <= _SIGNS.keys():
        return False
    return all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in limits.values())


def _reached(value: float | None, sign: str, bound: float) -> bool:
    if value is None:
        return False
    return value >= bound if sign == "at_least" else value <= bound


if __name__ == "__main__":
    run_stage(main)
