"""Run a sweep: a DVC experiment for each point of its grid, then a table and the rate-distortion figure of all.

    python -m pipeline.sweep recipes/sweeps/rate-distortion.yaml reports/sweeps [train.epochs=20 ...]

What an earlier sweep, or a queue of experiments, has trained is taken from DVC's cache: a sweep that was stopped goes
on, and one whose experiments were queued and run by several workers is only evaluated again, which DVC does not keep,
and collected.
"""

import argparse
from pathlib import Path

from pipeline.errors import UserError, run_stage
from pipeline.experiment import as_settings, metrics_of, run_experiment
from pipeline.files import write_csv
from pipeline.metrics.figures import save_figure
from pipeline.params import PARAMS_FILE, parse_setting, read_yaml
from pipeline.sweep.figure import rate_distortion
from pipeline.sweep.grid import Sweep, applied, check_overrides, load_sweep

LAST_STAGE = "evaluate"


def run_points(sweep: Sweep, overrides: list[str]) -> None:
    """Run the experiment of every point; one that fails keeps no other from running.

    Raises:
        UserError: some failed.
    """
    failed = []
    for number, point in enumerate(sweep.points, 1):
        settings = as_settings({**sweep.shared, **point, **dict(map(parse_setting, overrides))})
        print(f"sweep {sweep.name}: {number} of {len(sweep.points)}, {', '.join(as_settings(point))}", flush=True)
        try:
            run_experiment(sweep.experiment(point), settings, stages=[LAST_STAGE])
        except UserError:
            failed.append(sweep.experiment(point))
    if failed:
        raise UserError(
            f"sweep {sweep.name}: {len(failed)} of {len(sweep.points)} experiments failed: {', '.join(failed)}; see "
            "above; the same command runs these alone"
        )


def collect(sweep: Sweep) -> list[dict[str, float]]:
    """A row for each point: the grid's values; rate, distortion and ELBO of the test split in nats; active units.

    Raises:
        UserError: an experiment has no rate; a plain auto-encoder has none.
    """
    rows = []
    for point in sweep.points:
        metrics = metrics_of(sweep.experiment(point))
        if "test/kl" not in metrics:
            raise UserError(f"experiment {sweep.experiment(point)}: has no test/kl; expected train.objective: elbo")
        rate, distortion = metrics["test/kl"], -metrics["test/recon"]
        figures = {"rate": rate, "distortion": distortion, "elbo": metrics["test/elbo"]}
        rows.append({**point, **figures, "active_units": metrics["test/active_units"]})
    return rows


def main() -> None:
    """Run the points, write the table, draw the figure."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.sweep", description="Run a sweep of DVC experiments.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("folder", type=Path, help="where the table and the figure are written, under the recipe's name")
    parser.add_argument("overrides", nargs="*", help="section.param=value, over the recipe's own")
    arguments = parser.parse_args()
    base = read_yaml(PARAMS_FILE)
    sweep = load_sweep(arguments.recipe, base)
    for point in sweep.points:
        check_overrides(arguments.overrides, applied({**sweep.shared, **point}, base, arguments.recipe))
    run_points(sweep, arguments.overrides)
    rows = collect(sweep)
    table, figure = (arguments.folder / f"{sweep.name}{suffix}" for suffix in (".csv", ".png"))
    write_csv(table, rows)
    save_figure(rate_distortion(rows, *sweep.grid), figure)
    print(f"sweep {sweep.name}: {len(rows)} points -> {table}, {figure}")


if __name__ == "__main__":
    run_stage(main)
