"""An export in MLflow: the model of its run, and a version of the registered name."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.champion import LATENCY, figure_of, gates_of
from pipeline.graphs.card import CARD
from pipeline.graphs.latency import sample_latency
from pipeline.params import ExportParams, flatten
from pipeline.record import Metrics, Record
from pipeline.runtime.manifest import MANIFEST
from pipeline.runtime.sampler import SAMPLER
from pipeline.tracking.models import log_sampler
from pipeline.tracking.registry import point_alias, register
from pipeline.tracking.runs import join_run, log_record
from pipeline.tracking.store import alone_with_store


def publish(
    before: Sequence[Record], params: ExportParams, metrics: Metrics, models: Path, shown: Sequence[Path]
) -> str:
    """Put an export into its run and into the registry; what the stage's line says of it, nothing where it is nowhere.

    Args:
        before: the records of train and evaluate.
        params: names the registered model, the metric that decides and the gates.
        metrics: of the export stage.
        models: the written files; all of them go to the store, the sampler as the run's model.
        shown: further files and folders for the run to show.

    Raises:
        UserError: the store refuses it, or a record lacks what its stage writes.
    """
    latency = {} if params.registered_model is None else {LATENCY: sample_latency(models)}
    # Alone: an export that ends meanwhile would share the row, or be judged by a champion of the past.
    with alone_with_store("registry"):
        return _publish(before, params, {**metrics, **latency}, models, [models / MANIFEST, models / CARD, *shown])


def _publish(
    before: Sequence[Record], params: ExportParams, metrics: Metrics, models: Path, artifacts: Sequence[Path]
) -> str:
    asked = Record("export", "", flatten(params, "export"), metrics=metrics, artifacts=artifacts)
    record = join_run(before, asked)
    model_id = log_sampler(record.run_id, models / SAMPLER)
    if params.registered_model is None:
        log_record(record)
        return ""
    training, evaluation = before
    figure = figure_of(params.champion_metric, training, evaluation)
    gates = gates_of(params, evaluation, record.metrics)
    registration = register(params.registered_model, record.run_id, model_id, figure, gates)
    log_record(registration.in_record(record))
    point_alias(registration)  # last: what fails before it leaves the champion as it was
    return f"; {registration}"
