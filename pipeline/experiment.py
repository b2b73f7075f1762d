"""One DVC experiment: the pipeline with some params changed, run in a temporary copy of the repository.

The workspace stays as it is; the experiment's row lands in the same MLflow store, its results in `dvc exp show`. What
an earlier experiment has computed already, DVC takes from its run cache.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import dvc.api

from pipeline.errors import UserError


def as_settings(values: Mapping[str, Any]) -> list[str]:
    """`{"train.beta": 4.0}` as DVC takes params on its command line."""
    return [f"{name}={json.dumps(value)}" for name, value in values.items()]


def run_experiment(name: str, settings: Sequence[str], *, stages: Sequence[str] = (), force: bool = False) -> None:
    """Run an experiment and name it; one that had the name before is gone.

    Args:
        name: of the experiment.
        settings: `section.param=value`, the later over the earlier.
        stages: to run, with all that they need; none: the whole pipeline.
        force: run the stages even where DVC has their results.

    Raises:
        UserError: a stage failed; what failed has been printed by then.
    """
    subprocess.run(["dvc", "exp", "remove", "--quiet", name], check=False, capture_output=True)
    options = [argument for setting in settings for argument in ("-S", setting)]
    command = ["dvc", "exp", "run", "--temp", "--name", name, *options, *(["--force"] if force else []), *stages]
    if subprocess.run(command, check=False).returncode != 0:
        raise UserError(f"experiment {name}: failed; see above")


def metrics_of(name: str) -> dict[str, float]:
    """All metrics of a named experiment."""
    return dict(dvc.api.metrics_show(rev=name))
