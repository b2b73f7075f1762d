import dataclasses
import math
import threading
import time

import pytest
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient

from pipeline.errors import UserError
from pipeline.record import Record
from pipeline.tracking import runs, training
from pipeline.tracking.provenance import provenance
from pipeline.tracking.runs import log_stage
from pipeline.tracking.training import complete_run, training_run

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


@pytest.fixture
def outage(monkeypatch):
    """Makes a call to the store fail the first so many times, after it has done what it does, or before."""

    def outage(name, times=1, after=True):
        call, failures = getattr(MlflowClient, name), []

        def failing(client, *arguments, **named):
            result = call(client, *arguments, **named) if after or len(failures) >= times else None
            if len(failures) < times:
                failures.append(name)
                raise MlflowException("the answer was lost")
            return result

        monkeypatch.setattr(MlflowClient, name, failing)
        monkeypatch.setattr(training, "RETRY_SECONDS", 0.0)
        return failures

    return outage


def steps_of(curve, run_id, name="val/elbo"):
    return [step for step, _ in curve(run_id, name)]


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("name", ["create_run", "get_run", "log_batch", "search_runs", "get_experiment_by_name"])
def test_an_outage_while_the_run_is_opened_makes_no_second_run(store, outage, rows, curve, name, after):
    failures = outage(name, times=2, after=after)
    with training_run(PARAMS, {}, "a-key") as run:
        for epoch in (1.0, 2.0, 3.0, 4.0):
            run.log_epoch(ROW | {"epoch": epoch})
            run.wait()
    assert failures
    assert [row.info.run_id for row in rows()] == [run.id]
    assert store.get_run(run.id).data.params == {"train.beta": "1.0"}
    assert steps_of(curve, run.id) == [1, 2, 3, 4]


def test_points_whose_arrival_is_not_known_are_not_sent_twice(store, outage, curve, batches, monkeypatch):
    monkeypatch.setattr(runs, "MOST_METRICS_PER_CALL", 3)
    with training_run(PARAMS, {}) as run:
        outage("log_batch")
        for epoch in range(1, 7):
            run.log_epoch(ROW | {"epoch": float(epoch), "val/elbo": -30.0 + epoch})
        run.wait()
    assert steps_of(curve, run.id) == [1, 2, 3, 4, 5, 6]
    assert steps_of(curve, run.id, "beta") == [1, 2, 3, 4, 5, 6]
    assert sum(batches) == 12  # of a point that comes twice the store itself keeps one


def test_a_store_that_is_away_is_tried_again_after_a_while_alone(store, monkeypatch, capsys):
    now, tries = 100.0, []

    def away(*_):
        tries.append(now)
        raise MlflowException("away")

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(training, "log_metrics", away)
    run = training.TrainingRun(PARAMS, {})
    for _ in range(80):
        run.log_epoch(ROW)
        run._sending.result()
        now += 1.0
    assert tries == [100.0, 130.0, 160.0]
    assert capsys.readouterr().err.count("training goes on without it") == 1


def test_a_resumed_run_logs_what_it_held_once_even_if_asking_for_it_fails_at_first(store, outage, rows, curve):
    history = [ROW | {"epoch": float(epoch)} for epoch in (1, 2)]
    with training_run(PARAMS, {}, "a-key") as first:
        first.log_epoch(history[0])
    failures = outage("get_metric_history", after=False)
    with training_run(PARAMS, {}, "a-key", history) as second:
        second.log_epoch(ROW | {"epoch": 3.0})
    assert failures
    assert second.id == first.id
    assert second.is_resumed
    assert steps_of(curve, second.id) == [1, 2, 3]
    assert len(rows()) == 1


def test_a_run_that_was_opened_after_an_outage_is_gone_on_with(store, outage, rows, curve):
    """Nobody but the store knew of it when its process was killed."""
    outage("get_experiment_by_name", after=False)
    run = training.TrainingRun(PARAMS, {}, "a-key")
    assert run.id == ""
    run.log_epoch(ROW)
    run.wait()
    with training_run(PARAMS, {}, "a-key", [ROW]) as second:
        second.log_epoch(ROW | {"epoch": 2.0})
    assert [row.info.run_id for row in rows()] == [run.id] == [second.id]
    assert steps_of(curve, run.id) == [1, 2]


def test_a_training_that_ends_without_a_run_opens_none_any_more(store, outage, rows, capsys):
    """The next stage lays one: it would not know of this."""
    failures = outage("create_run", times=100, after=False)
    with training_run(PARAMS, {}, "a-key") as run:
        run.log_epoch(ROW)
        record = Record("train", run.settle(), PARAMS, metrics={"best_epoch": 1}, curves=[ROW])
        failures.extend(["the store is back"] * 100)
        run.finish(record)
    assert record.run_id == ""
    assert rows() == []
    assert "the run is not whole in the store; evaluate completes it from run.json" in capsys.readouterr().err
    joined = log_stage([record], Record("evaluate", "", PARAMS))
    assert [row.info.run_id for row in rows()] == [joined.run_id]


def test_a_run_that_an_earlier_process_opened_is_completed_though_the_store_was_away_from_then_on(
    store, outage, rows, curve
):
    with pytest.raises(KeyboardInterrupt), training_run(PARAMS, {}, "a-key") as first:
        first.log_epoch(ROW)
        raise KeyboardInterrupt
    history = [ROW, ROW | {"epoch": 2.0}]
    failures = outage("search_runs", times=100, after=False)
    with training_run(PARAMS, {}, "a-key", history[:1]) as second:
        second.log_epoch(history[1])
        record = Record("train", second.settle(), PARAMS, {}, {"best_epoch": 2}, history, key="a-key")
    failures.extend(["the store is back"] * 100)
    assert record.run_id == ""
    joined = log_stage([record], Record("evaluate", "", PARAMS))
    assert joined.run_id == first.id
    [row] = rows()
    assert row.info.status == "FINISHED"
    assert {"stage.train", "stage.evaluate"} <= row.data.tags.keys()
    assert steps_of(curve, first.id) == [1, 2]


def test_a_store_that_refuses_ends_a_training_before_its_first_step_alone(store, outage, monkeypatch, capsys):
    def refuse(*_):
        raise UserError("the experiment is deleted")

    failures = outage("create_run", times=100, after=False)
    with training_run(PARAMS, {}, "a-key") as run:
        monkeypatch.setattr(training, "create_run", refuse)
        failures.extend(["the store is back"] * 100)
        run.log_epoch(ROW)
        assert run.settle() == ""
    with pytest.raises(UserError, match="deleted"), training_run(PARAMS, {}, "a-key"):
        pass


def test_another_training_goes_on_with_no_run_but_its_own(store, rows):
    for key in ("a-key", "another", None, None):
        with training_run(PARAMS, {}, key):
            pass
    assert len(rows()) == 4


def test_a_training_that_has_ended_is_put_into_its_run_where_that_lacks_it(store, trained, curve, capsys, monkeypatch):
    before = store.get_run(trained.run_id).to_dictionary()
    complete_run(trained)
    assert store.get_run(trained.run_id).to_dictionary() == before
    with training_run(PARAMS, {}) as run:
        pass
    complete_run(dataclasses.replace(trained, run_id=run.id))
    assert store.get_run(run.id).data.tags["stage.train"] == "finished"
    assert steps_of(curve, run.id) == [1, 2]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    complete_run(trained)
    assert "evaluate completes the run from run.json" in capsys.readouterr().err


def test_a_run_of_a_dvc_experiment_bears_its_name(store, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "tidy-mole")
    tags = provenance("9a3a", "da7a")
    assert tags["dvc_exp_name"] == "tidy-mole"
    with training_run(PARAMS, tags) as run:
        pass
    assert store.get_run(run.id).info.run_name == "tidy-mole"
