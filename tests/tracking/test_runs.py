import dataclasses
import threading

import pytest

from pipeline.errors import UserError
from pipeline.record import Record
from pipeline.tracking import runs
from pipeline.tracking.runs import join_run, log_stage


@pytest.fixture
def figures(tmp_path):
    """A folder with one figure."""
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "samples.png").write_bytes(b"png")
    return tmp_path / "figures"


def evaluation(seed, *artifacts):
    return Record("evaluate", "", {"evaluate.seed": seed}, metrics={"test/elbo": -25.0 - seed}, artifacts=artifacts)


def test_more_metrics_than_a_call_may_carry_are_split(store, batches, curve):
    many = [{"epoch": epoch, "a": 1.0, "b": 2.0} for epoch in range(1, 1301)]
    record = log_stage([Record("train", "unknown", {}, {}, curves=many)], Record("evaluate", "", {}))
    assert batches == [1000, 1000, 600]
    assert len(curve(record.run_id, "b")) == 1300


def test_a_later_stage_joins_the_row_of_the_training(store, trained, figures, artifacts, rows):
    record = log_stage([trained], evaluation(0, figures))
    assert record.run_id == trained.run_id
    row = store.get_run(trained.run_id)
    assert row.data.params.items() >= {"model.latent_dim": "2", "evaluate.seed": "0"}.items()
    assert row.data.metrics["test/elbo"] == -25.0
    assert artifacts(trained.run_id, "figures") == ["figures/samples.png"]
    assert row.info.status == "FINISHED"
    assert len(rows()) == 1


def test_the_same_stage_again_opens_a_row_that_continues_the_first(store, trained, figures, curve, artifacts):
    first = log_stage([trained], evaluation(0, figures))
    again = log_stage([trained], evaluation(1, figures))
    assert again.run_id != first.run_id
    row = store.get_run(again.run_id)
    assert row.data.tags["continues"] == first.run_id
    assert row.data.tags.items() >= trained.tags.items()
    assert row.data.params == {name: str(value) for name, value in trained.params.items()} | {"evaluate.seed": "1"}
    assert curve(again.run_id, "val/elbo") == [(1, -30.0), (2, -20.0)]
    assert row.data.metrics["best_epoch"] == 2
    assert row.data.metrics["test/elbo"] == -26.0
    assert artifacts(again.run_id) == ["figures", "train"]
    assert store.get_run(first.run_id).data.metrics["test/elbo"] == -25.0


def test_two_settings_that_join_the_same_training_at_once_share_no_row(store, trained):
    """As two workers of a queue do, of which the second waited for the first to train."""
    first, second, third = (join_run([trained], evaluation(seed)) for seed in (0, 1, 0))
    assert first.run_id == third.run_id == trained.run_id
    assert second.run_id != first.run_id
    assert store.get_run(second.run_id).data.tags["continues"] == trained.run_id


def test_one_setting_that_is_measured_twice_at_once_shares_no_row(store, trained, monkeypatch, curve):
    """The second begins to join while the first one writes; it waits, and finds the stage finished."""
    lay, joined, first_writes, second_writes = runs.lay, {}, threading.Event(), threading.Event()

    def work(name):
        joined[name] = log_stage([trained], evaluation(0))

    def slow(client, run_id, record):
        if threading.current_thread() is threading.main_thread():
            first_writes.set()
            second_writes.wait(2)  # for nothing, where it may not join yet
        else:
            second_writes.set()
        lay(client, run_id, record)

    monkeypatch.setattr(runs, "lay", slow)
    second = threading.Thread(target=lambda: first_writes.wait(60) and work("second"))
    second.start()
    work("first")
    second.join()
    assert joined["first"].run_id == trained.run_id
    assert store.get_run(joined["second"].run_id).data.tags["continues"] == trained.run_id
    for record in joined.values():
        assert curve(record.run_id, "test/elbo") == [(0, -25.0)]


def test_the_last_stage_follows_the_one_before_it(store, trained, rows):
    log_stage([trained], evaluation(0))
    second = log_stage([trained], evaluation(1))
    export = Record("export", "", {"export.max_parity_error": 1e-4}, metrics={"export/error": 1e-6})
    assert log_stage([trained, second], export).run_id == second.run_id
    alone = log_stage([trained, second], export)
    row = store.get_run(alone.run_id)
    assert row.data.tags["continues"] == second.run_id
    assert row.data.metrics.items() >= {"test/elbo": -26.0, "best_epoch": 2.0, "export/error": 1e-6}.items()
    assert len(rows()) == 3


def test_a_run_that_the_store_does_not_know_is_laid_again(store, trained, curve, artifacts):
    lost = dataclasses.replace(trained, run_id="0" * 32)
    record = log_stage([lost], evaluation(0))
    row = store.get_run(record.run_id)
    assert record.run_id not in (lost.run_id, trained.run_id)
    assert row.data.tags["restored"] == "true"
    assert "continues" not in row.data.tags
    assert curve(record.run_id, "val/elbo") == [(1, -30.0), (2, -20.0)]
    assert row.data.params.items() >= {"model.hidden": "[4, 5]", "evaluate.seed": "0"}.items()
    assert artifacts(record.run_id, "train") == ["train/history.csv"]


def test_a_run_that_was_deleted_is_laid_again(store, trained):
    store.delete_run(trained.run_id)
    record = log_stage([trained], evaluation(0))
    assert store.get_run(record.run_id).data.tags["restored"] == "true"


def test_a_stage_that_died_half_way_does_not_count_as_finished(store, trained, tmp_path):
    with pytest.raises(UserError, match="gone"):
        log_stage([trained], evaluation(0, tmp_path / "gone"))
    record = log_stage([trained], evaluation(0))
    assert record.run_id == trained.run_id


def test_a_stage_that_died_half_way_with_other_params_leaves_them_alone(store, trained, tmp_path):
    with pytest.raises(UserError, match="gone"):
        log_stage([trained], evaluation(0, tmp_path / "gone"))
    record = log_stage([trained], evaluation(1))
    row = store.get_run(record.run_id)
    assert row.data.tags["continues"] == trained.run_id
    assert row.data.params["evaluate.seed"] == "1"


def test_a_row_that_continues_another_bears_the_name_of_its_own_experiment(store, trained, monkeypatch):
    log_stage([trained], evaluation(0))
    monkeypatch.setenv("DVC_EXP_NAME", "tidy-mole")
    row = store.get_run(log_stage([trained], evaluation(1)).run_id)
    assert (row.info.run_name, row.data.tags["dvc_exp_name"]) == ("tidy-mole", "tidy-mole")
