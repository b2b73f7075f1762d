import math
import threading

import pytest
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from pipeline.errors import UserError
from pipeline.tracking import training
from pipeline.tracking.provenance import provenance
from pipeline.tracking.training import training_run

PARAMS = {"train.beta": 1.0}
ROW = {"epoch": 1.0, "val/elbo": -30.0, "beta": 0.0}


def test_a_training_is_one_row_with_params_curves_tags_and_artifacts(store, trained, curve, artifacts, rows):
    row = store.get_run(trained.run_id)
    assert row.info.status == "FINISHED"
    assert row.data.params == {"model.latent_dim": "2", "model.hidden": "[4, 5]", "train.beta": "1.0"}
    assert curve(trained.run_id, "val/elbo") == [(1, -30.0), (2, -20.0)]
    assert curve(trained.run_id, "beta") == [(1, 0.0), (2, 1.0)]
    assert row.data.metrics["best_epoch"] == 2
    assert "epoch" not in row.data.metrics
    assert trained.tags.items() <= row.data.tags.items()
    assert artifacts(trained.run_id, "train") == ["train/history.csv"]
    assert len(rows()) == 1


def test_system_metrics_run_as_long_as_the_training(store, monitors):
    with training_run(PARAMS, {}) as run:
        assert monitors == [("made", run.id, training.SYSTEM_METRICS_SECONDS), "started"]
    assert monitors[2:] == ["finished"]


def test_system_metrics_reach_the_row(store, monkeypatch):
    monkeypatch.setattr(training, "SystemMetricsMonitor", SystemMetricsMonitor)
    monkeypatch.setattr(training, "SYSTEM_METRICS_SECONDS", 0.01)
    published = threading.Event()
    publish = SystemMetricsMonitor.publish_metrics

    def publish_and_tell(monitor, metrics):
        publish(monitor, metrics)
        published.set()

    monkeypatch.setattr(SystemMetricsMonitor, "publish_metrics", publish_and_tell)
    with training_run(PARAMS, {}) as run:
        assert published.wait(timeout=60)
    metrics = store.get_run(run.id).data.metrics
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(metrics)


@pytest.mark.parametrize(
    ("failure", "status"), [(UserError, "FAILED"), (ZeroDivisionError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_training_that_ends_early_says_so_and_keeps_its_curve(store, monitors, failure, status, curve):
    with pytest.raises(failure), training_run(PARAMS, {}) as run:
        run.log_epoch(ROW)
        raise failure
    assert store.get_run(run.id).info.status == status
    assert curve(run.id, "val/elbo") == [(1, -30.0)]
    assert "stage.train" not in store.get_run(run.id).data.tags
    assert monitors[-1] == "finished"


def test_many_epochs_take_few_calls(store, batches, monkeypatch, curve):
    monkeypatch.setattr(training, "FLUSH_SECONDS", math.inf)
    with training_run(PARAMS, {}) as run:
        for epoch in range(1, 401):
            run.log_epoch({"epoch": epoch, "a": 1.0, "b": 2.0, "c": 3.0})
    assert sum(batches) == 1200
    assert len(batches) <= 3
    assert len(curve(run.id, "b")) == 400


def test_a_running_training_can_be_watched(store, batches, monkeypatch):
    monkeypatch.setattr(training, "FLUSH_SECONDS", -1.0)
    with training_run(PARAMS, {}) as run:
        run.log_epoch(ROW)
        run._sending.result(timeout=60)
        assert batches == [2]


def test_a_run_of_a_dvc_experiment_bears_its_name(store, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "tidy-mole")
    tags = provenance("9a3a", "da7a")
    assert tags["dvc_exp_name"] == "tidy-mole"
    with training_run(PARAMS, tags) as run:
        pass
    assert store.get_run(run.id).info.run_name == "tidy-mole"
