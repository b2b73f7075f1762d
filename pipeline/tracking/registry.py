"""MLflow's model registry: each export a version of one name, whose aliases say which version stands for it.

`champion` is the version that `models:/NAME@champion` serves; `challenger` the latest one that did not take its place.
Aliases are the only thing that exports share. Whoever calls `register` and `point_alias` holds the store alone between
them, so that two that end at the same moment decide one after the other; on a server, where no such lock is to be had,
the later alias stands.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.champion import CHAMPION, Champion, Decision, Figure, Gate, decide
from pipeline.record import Record
from pipeline.tracking.store import connect, store_errors

FIGURES = "registry.json"
ABOUT = (
    "Images from seeds: int64 `seed` and `index`, float32 `temperature` in, uint8 `images` [n, H, W, C] out. Each "
    "version is one export, whole in its `extra_files`.\n\n"
    "`champion` passed every gate of params.yaml and was better than the champion before it; `challenger` is the "
    "latest that was not. The figures stand in each version's tags and description, and in its run."
)


@dataclass(frozen=True)
class Registration:
    """A new version of a registered model and what was decided about it; the alias does not point to it yet."""

    name: str
    version: str
    figure: Figure
    gates: Sequence[Gate]
    champion: Champion | None
    """The one that it was compared with."""
    decision: Decision

    def in_record(self, record: Record) -> Record:
        """The record of the export with the decision among its tags, and the figures among its metrics."""
        told = {"model": self.name, "version": self.version, **asdict(self.decision)}
        standing = self.champion.figure if self.champion else None
        values = {
            "registry/candidate": self.figure.value,
            "registry/champion": standing.value if standing else None,
            "registry/failed_gates": sum(not gate.passed for gate in self.gates),
        }
        return replace(
            record,
            tags={**record.tags, **{f"registry.{name}": text for name, text in told.items()}},
            metrics={**record.metrics, **{name: value for name, value in values.items() if value is not None}},
        )

    def __str__(self) -> str:
        return f"{self.name} version {self.version} is {self.decision.alias} ({self.decision.reason})"


def register(name: str, run_id: str, model_id: str, figure: Figure, gates: Sequence[Gate]) -> Registration:
    """Make a logged model a version of `name`, and decide its alias; all figures go to the run as registry.json.

    Raises:
        UserError: the store refuses it.
    """
    client = connect()
    with store_errors():
        _make_name(client, name)
        champion = _champion(client, name)
        decision = decide(figure, gates, champion)
        with contextlib.redirect_stderr(io.StringIO()):  # says in two lines what the stage says in one
            version = mlflow.register_model(f"models:/{model_id}", name, tags=figure.to_tags())
        registration = Registration(name, str(version.version), figure, gates, champion, decision)
        client.update_model_version(name, registration.version, _description(registration))
        client.log_dict(run_id, _as_json(registration), f"export/{FIGURES}")
    return registration


def point_alias(registration: Registration) -> None:
    """Let the alias of the decision point to the new version.

    Raises:
        UserError: the store refuses it.
    """
    client = connect()
    with store_errors():
        client.set_registered_model_alias(registration.name, registration.decision.alias, registration.version)


def _make_name(client: MlflowClient, name: str) -> None:
    """Enter the name where it is new, with a description for whoever meets it in the UI."""
    try:
        client.create_registered_model(name, description=ABOUT)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _champion(client: MlflowClient, name: str) -> Champion | None:
    aliases = client.get_registered_model(name).aliases
    if CHAMPION not in aliases:
        return None
    version = client.get_model_version(name, str(aliases[CHAMPION]))
    return Champion(str(version.version), Figure.from_tags(version.tags))


def _description(registration: Registration) -> str:
    """Markdown for the version's page."""
    rows = [
        f"| {gate.name} | {_cell(gate.value)} | {_cell(gate.limit)} | {'yes' if gate.passed else '**no**'} |"
        for gate in registration.gates
    ]
    head = f"became {registration.decision.alias}: {registration.decision.reason}"  # lists show it as it is written
    return "\n".join([head, "", "| gate | value | limit | passed |", "|---|---|---|---|", *rows])


def _cell(number: float | None) -> str:
    return "-" if number is None else f"{number:.5g}"


def _as_json(registration: Registration) -> dict[str, Any]:
    return {
        "model": registration.name,
        "version": registration.version,
        **asdict(registration.decision),
        "candidate": asdict(registration.figure),
        "champion_before": asdict(registration.champion) if registration.champion else None,
        "gates": [asdict(gate) for gate in registration.gates],
    }
