"""Run the recipes of the paper's experiments, and draw its figures from what was measured.

Reads    the recipes named; params.yaml for what they leave open; the images, by the prepare stage
Writes   in the first folder, a folder for each run (the trained model, but of Monte Carlo EM; curve.csv); in the
         second, for each recipe a table of its curves, and its figures

A run that is there, under the same params, data and code, is not repeated: what was stopped goes on with the next one.

    python -m pipeline.paper models/paper reports/paper recipes/paper/*.yaml [--set section.param=value ...] [--draw]
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pipeline.threads  # noqa: F401  # before torch

import torch
from matplotlib.figure import Figure

from pipeline.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pipeline.dataset.store import PreparedData, open_prepared
from pipeline.errors import UserError, run_stage
from pipeline.files import atomic_directory, read_csv, sha256_of_files, write_csv, write_json
from pipeline.metrics.figures import save_figure
from pipeline.paper import figures
from pipeline.paper.plan import MCEM, Plan, Run, load_plan
from pipeline.paper.training import train_and_measure
from pipeline.params import PARAMS_FILE, Params, read_yaml

CURVE = "curve.csv"
PACKAGE = Path(__file__).parents[1]
CODE = (
    "paper/training.py",
    "paper/mcem.py",
    "paper/marginal.py",
    "training/*.py",
    "vae/**/*.py",
    "dataset/*.py",
    "metrics/hmc.py",
    "metrics/likelihood.py",
    "metrics/streams.py",
    "optimizers.py",
    "compiler.py",
    "device.py",
)
"""What shapes a run, held by tests/test_architecture.py to be all that its training reaches."""


def prepared(params: Params, folder: Path) -> PreparedData:
    """The images that params name, by the prepare stage, unless they are there already.

    Raises:
        UserError: the stage failed; why has been printed by then.
    """
    place = folder / f"data-{_digest(params.prepare.model_dump(mode='json'))}"
    if not (place / "prepared").is_dir():
        place.mkdir(parents=True, exist_ok=True)
        write_json(place / PARAMS_FILE, params.model_dump(mode="json"))  # every JSON file is a YAML file
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "DVC_ROOT": str(Path.cwd())}
        command = [sys.executable, "-m", "pipeline.prepare", "prepared"]
        if subprocess.run(command, cwd=place, env=environment, check=False).returncode != 0:
            raise UserError(f"prepare.source {params.prepare.source}: the prepare stage failed; see above")
    return open_prepared(place / "prepared")


def folder_of(run: Run, data: PreparedData, folder: Path) -> Path:
    """Where a run lies: named by all that shapes it, this code too, so that recipes share what they have in common."""
    code = sha256_of_files(path for pattern in CODE for path in sorted(PACKAGE.glob(pattern)))
    how = [run.algorithm, run.params.digest(), run.learning_rates, run.params.evaluate.seed, vars(run.measure)]
    shaping = [data.sha256, code, *how]
    return folder / f"run-{_digest(shaping)}"


def run_plan(plan: Plan, folder: Path, train: bool = True) -> dict[Path, Run]:
    """The runs of a recipe by their folders; those that are not there yet are trained, or without `train` left out."""
    places = {}
    for number, run in enumerate(plan.runs, 1):
        data = prepared(run.params, folder)
        place = folder_of(run, data, folder)
        if not place.is_dir():
            if not train:
                continue
            model, rows = train_and_measure(run, data)
            with atomic_directory(place) as beside:
                if run.algorithm != MCEM:  # an encoder that was never trained is for nobody to load
                    save_checkpoint(beside, Checkpoint(model, run.algorithm, run.params.train.binarize))
                write_csv(beside / CURVE, rows)
        places[place] = run
        last = read_csv(place / CURVE)[-1]
        seen, rate = last.pop("samples"), last.pop("learning_rate")
        found = ", ".join(f"{column} {value:.2f}" for column, value in last.items())
        print(
            f"paper: {number} of {len(plan.runs)}, {run.name}: {found} at {seen:,.0f} samples, learning rate {rate:g}",
            flush=True,
        )
    return places


def report(plan: Plan, places: dict[Path, Run], folder: Path) -> None:
    """Write the table of a recipe's curves, and its figures, of the runs that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{**run.point, **row} for place, run in places.items() for row in read_csv(place / CURVE)]
    rows.sort(key=len, reverse=True)  # stable; the first one names the columns
    write_csv(folder / f"{plan.name}.csv", rows)
    for name in plan.figures:
        if figure := _draw(name, rows, places):
            save_figure(figure, folder / f"{plan.name}-{name}.png")


def main() -> None:
    """Run and draw one recipe after the other."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.paper", description="Redraw the paper's experiments.")
    parser.add_argument("runs", type=Path, help="folder of the runs")
    parser.add_argument("reports", type=Path, help="folder of the tables and figures")
    parser.add_argument("recipes", type=Path, nargs="+")
    parser.add_argument(
        "--set", nargs="*", default=[], help="section.param=value or measure.name=value, over the recipe's"
    )
    parser.add_argument("--draw", action="store_true", help="train nothing: draw the runs that are there")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)  # as the train stage does
    plans = [load_plan(recipe, read_yaml(PARAMS_FILE), arguments.set) for recipe in arguments.recipes]
    for plan in plans:
        places = run_plan(plan, arguments.runs, train=not arguments.draw)
        if places:
            report(plan, places, arguments.reports)
        print(f"paper: {plan.name}: {len(places)} of {len(plan.runs)} runs -> {arguments.reports}", flush=True)


def _draw(name: str, rows: Sequence[figures.Row], places: dict[Path, Run]) -> Figure | None:
    if name == "bound":
        return figures.bound_curves(rows)
    if name == "likelihood":
        return figures.likelihood_curves(rows)
    models = {
        run.params.model.latent_dim: load_checkpoint(place).model
        for place, run in places.items()
        if run.algorithm == "elbo"
    }
    if name == "manifold":
        return figures.manifold(models[2]) if 2 in models else None
    return figures.samples(models) if models else None


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


if __name__ == "__main__":
    run_stage(main)
