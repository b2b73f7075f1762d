"""A run as a row of docs/results.md, as the store has it."""

import statistics
from collections.abc import Iterable, Mapping

from pipeline.errors import UserError
from pipeline.tracking.rows import Epoch, Row, read_epochs, read_rows

_SHORT = 7, 8  # digits of the git revision and of the params hash


def results_row(recipe: str, target: str, held_to: Iterable[str] = ()) -> str:
    """The row of the newest run that bears the recipe's name; `target` as people write it, of the metrics `held_to`.

    Raises:
        UserError: the store is away, or has no such run.
    """
    row = next((row for row in read_rows() if row.name == recipe), None)
    if row is None:
        raise UserError(f"MLflow: no run is named {recipe}; expected the one that the recipe has left")
    return as_table_row(recipe, target, row, read_epochs(row), held_to)


def as_table_row(recipe: str, target: str, row: Row, epochs: list[Epoch], held_to: Iterable[str] = ()) -> str:
    """The columns: recipe, data, target, test ELBO, -log p(x) with its standard error, active units, training, code.

    Beside -log p(x) stand the bits per dimension of a density, and each metric `held_to` that has no column.
    """
    tags = (row.tags.get(name, "unknown") for name in ("git_revision", "params_hash"))
    columns = (
        f"[{recipe}](../recipes/{recipe}.yaml)",
        f"{row.params['prepare.source']}, binarisation: {row.params['train.binarize']}",
        target,
        _number(row.metrics, "test/elbo"),
        "; ".join([_nll(row), *_beside(row, held_to)]),
        f"{row.metrics['test/active_units']:.0f} of {row.params['model.latent_dim']}",
        _training(row, epochs),
        ", ".join(tag[:digits] for tag, digits in zip(tags, _SHORT, strict=True)),
    )
    return f"| {' | '.join(columns)} |"


def _nll(row: Row) -> str:
    name = f"test/nll_iw{row.params['evaluate.importance_samples']}"
    error = f" ± {row.metrics[f'{name}_stderr']:.2f}" if f"{name}_stderr" in row.metrics else ""
    return f"{_number(row.metrics, name)}{error} (K = {row.params['evaluate.importance_samples']})"


def _beside(row: Row, held_to: Iterable[str]) -> list[str]:
    in_columns = {"test/elbo", "test/active_units", f"test/nll_iw{row.params['evaluate.importance_samples']}"}
    of_density = ["test/bits_per_dim"] if row.params["model.likelihood"] != "bernoulli" else []
    names = dict.fromkeys([*of_density, *held_to])
    return [f"{name} {_number(row.metrics, name)}" for name in names if name not in in_columns]


def _training(row: Row, epochs: list[Epoch]) -> str:
    if not epochs:
        return "unknown"
    minutes = (epochs[-1].ended - row.started).total_seconds() / 60
    speed = statistics.median(epoch.images_per_second for epoch in epochs)
    how = f"seed {row.params['train.seed']}, on {row.tags.get('machine', 'an unknown machine')}"
    return f"{len(epochs)} epochs in {minutes:.1f} minutes at {speed:,.0f} images a second, {how}"


def _number(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.2f}".replace("-", "−") if name in metrics else "–"
