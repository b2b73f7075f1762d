import dataclasses
import shutil
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from pipeline import publish
from pipeline.champion import PARITY_ERRORS
from pipeline.errors import UserError
from pipeline.params import load_params
from pipeline.record import Record
from pipeline.tracking.runs import log_stage

TAGS = {"data_sha256": "da7a" * 16}
TRAINED = Record("train", "0" * 32, {"train.binarize": "dynamic", "model.likelihood": "bernoulli"}, TAGS)
EVALUATED = Record(
    "evaluate",
    "0" * 32,
    {"evaluate.importance_samples": 5, "evaluate.seed": 0},
    metrics={"test/nll_iw5": 103.5, "test/failed_checks": 0},
)
METRICS = {f"export/{name}": 8e-7 for name in PARITY_ERRORS}


@pytest.fixture
def register(store, mlp, tmp_path):
    """Log the small model's export with some params changed; what the stage's line says of it."""
    models = tmp_path / "models"
    shutil.copytree(mlp.folder, models)
    (models / "card.md").write_text("# A model\n")
    shown = tmp_path / "explorer"
    shown.mkdir()
    (shown / "index.html").touch()
    params = load_params(Path(__file__).parents[1] / "params.yaml").export

    def run(evaluated=EVALUATED, **changes):
        changed = params.model_copy(update={"max_latency_ms": None, **changes})
        return publish.publish([TRAINED, evaluated], changed, METRICS, models, [shown])

    return run


def only_run(store):
    [run] = store.search_runs([store.get_experiment_by_name("vae").experiment_id])
    return run


def test_an_export_is_registered_and_its_run_holds_the_decision(store, register):
    assert register() == "; vae version 1 is champion (nll_iw 103.5; there was no champion)"
    run = only_run(store)
    assert run.data.tags["registry.alias"] == "champion"
    assert run.data.tags["stage.export"] == "finished"
    assert run.data.metrics.items() >= {"registry/candidate": 103.5, **METRICS}.items()
    assert run.data.metrics["export/sample64_ms"] > 0
    assert store.get_model_version_by_alias("vae", "champion").run_id == run.info.run_id
    kept = [item.path for item in store.list_artifacts(run.info.run_id, "export")]
    assert kept == ["export/card.md", "export/manifest.json", "export/registry.json"]
    assert [item.path for item in store.list_artifacts(run.info.run_id, "explorer")] == ["explorer/index.html"]


def test_a_limit_of_the_params_keeps_an_export_from_being_champion(store, register):
    assert register(max_latency_ms=1e-9).startswith("; vae version 1 is challenger (gate latency_ms: ")
    assert register(max_nll=100.0) == "; vae version 2 is challenger (gate nll: 103.5, limit 100)"
    assert "champion" not in store.get_registered_model("vae").aliases


def test_the_metric_and_the_name_are_those_of_the_params(store, register):
    evaluated = dataclasses.replace(EVALUATED, metrics={**EVALUATED.metrics, "test/elbo": -107.8})
    told = register(evaluated, registered_model="digits", champion_metric="elbo")
    assert told == "; digits version 1 is champion (elbo -107.8; there was no champion)"


def test_without_a_name_the_export_is_logged_and_not_registered(store, register):
    assert register(registered_model=None) == ""
    assert store.search_registered_models() == []
    run = only_run(store)
    assert run.data.tags["stage.export"] == "finished"
    assert [model.name for model in store.search_logged_models([run.info.experiment_id])] == ["sampler"]


def test_an_export_that_fails_before_its_end_leaves_the_champion(store, register, monkeypatch):
    register()

    def fail(record):
        raise UserError("the store is gone")

    monkeypatch.setattr(publish, "log_record", fail)
    better = dataclasses.replace(EVALUATED, metrics={**EVALUATED.metrics, "test/nll_iw5": 90.0})
    with pytest.raises(UserError, match="the store is gone"):
        register(better)
    assert str(store.get_model_version_by_alias("vae", "champion").version) == "1"


@pytest.fixture
def register_at_once(register, monkeypatch):
    """Begin a second export while the first one writes; what the stage's line says of the second."""

    def run(first, second):
        log_record, others = publish.log_record, []

        def log_while_another_begins(record):
            if not others:
                others.append(workers.submit(register, second))
                wait(others, timeout=3)
            log_record(record)

        monkeypatch.setattr(publish, "log_record", log_while_another_begins)
        with ThreadPoolExecutor(1) as workers:
            register(first)
        return others[0].result()

    return run


def test_one_setting_that_is_exported_twice_at_once_shares_no_row(store, register_at_once):
    """The second waits, and finds the stage finished."""
    evaluated = log_stage([TRAINED], EVALUATED)
    register_at_once(evaluated, evaluated)
    second, first = store.search_runs([store.get_experiment_by_name("vae").experiment_id])
    assert first.info.run_id == evaluated.run_id
    assert second.data.tags["continues"] == evaluated.run_id
    assert [run.data.tags["registry.version"] for run in (first, second)] == ["1", "2"]


def test_of_two_exports_that_end_at_once_the_better_is_champion(store, register_at_once):
    """The worse has read that there is no champion when the better tries to come in between."""
    better = dataclasses.replace(EVALUATED, metrics={**EVALUATED.metrics, "test/nll_iw5": 90.0})
    told = register_at_once(EVALUATED, better)
    assert told.endswith("is champion (nll_iw 90, better than 103.5 of version 1)")
    assert float(store.get_model_version_by_alias("vae", "champion").tags["value"]) == 90.0
