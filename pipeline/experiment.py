"""One DVC experiment: the pipeline with some params changed, run in a temporary copy of the repository.

The workspace stays as it is; the experiment's row lands in the same MLflow store, its results in `dvc exp show`. What
an earlier experiment has computed already, DVC takes from its run cache.
"""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from dvc.api import DVCFileSystem

from pipeline.errors import UserError
from pipeline.params import read_yaml


def as_settings(values: Mapping[str, Any]) -> list[str]:
    """`{"train.beta": 4.0}` as DVC takes params on its command line.

    Raises:
        UserError: a text is `???`, for which there is no other spelling.
    """
    for name, value in values.items():
        if value == "???":
            raise UserError(f"{name} is {value!r}, which DVC takes for a missing value; expected another text")
    return [f"{name}={_as_hydra(value)}" for name, value in values.items()]


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
    """All metrics of a named experiment; the workspace, which may have none, says nothing."""
    files = DVCFileSystem(rev=name)  # dvc.api.metrics_show fails where the workspace lacks its files
    stages = read_yaml("dvc.yaml")["stages"].values()
    declared = [path for stage in stages for outputs in stage.get("metrics", []) for path in outputs]
    kept = [json.loads(files.read_text(path)) for path in declared if files.exists(path)]
    return {metric: value for metrics in kept for metric, value in metrics.items()}


def _as_hydra(value: Any) -> str:
    """A value in the grammar of Hydra, by which DVC reads what stands after the `=`."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_as_hydra, value))}]"
    return json.dumps(value)


def _quoted(text: str) -> str:
    """Text between quotes; a backslash stands for itself there, but before a quote, and in OmegaConf before `${`."""
    literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return '"' + re.sub(r'(\\*)("|\Z)', lambda found: 2 * found[1] + found[2].replace('"', r"\""), literal) + '"'
