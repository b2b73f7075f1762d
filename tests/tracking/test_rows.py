import pytest
from mlflow.tracking import MlflowClient

from pipeline.errors import UserError
from pipeline.record import Record
from pipeline.tracking import rows as module
from pipeline.tracking.rows import read_epochs, read_rows
from pipeline.tracking.runs import log_stage
from pipeline.tracking.training import training_run

PARAMS = {"train.beta": 1.0}


def test_a_row_holds_what_its_run_does(store, trained):
    [row] = read_rows()
    run = store.get_run(trained.run_id)
    assert (row.run_id, row.name) == (run.info.run_id, run.info.run_name)
    assert row.params == {"model.latent_dim": "2", "model.hidden": "[4, 5]", "train.beta": "1.0"}
    assert row.metrics == {"val/elbo": -20.0, "beta": 1.0, "best_epoch": 2.0}
    assert row.tags["data_sha256"] == "da7a"
    assert row.started.timestamp() == pytest.approx(run.info.start_time / 1000)


def test_the_status_says_which_stage_ended_last(trained):
    assert [row.status for row in read_rows()] == ["after train"]
    log_stage([trained], Record("evaluate", "", {}))
    assert [row.status for row in read_rows()] == ["after evaluate"]
    log_stage([trained], Record("export", "", {}))
    assert [row.status for row in read_rows()] == ["finished"]


def test_the_status_of_a_run_that_has_not_ended_well(store):
    with training_run(PARAMS, {}):
        assert [row.status for row in read_rows()] == ["running"]
    for error, status in ((ValueError, "failed"), (KeyboardInterrupt, "killed")):
        with pytest.raises(error), training_run(PARAMS, {}):
            raise error
        assert read_rows()[0].status == status


def test_all_pages_are_read_and_the_newest_run_is_first(store, monkeypatch):
    client_search = MlflowClient.search_runs
    monkeypatch.setattr(
        MlflowClient, "search_runs", lambda self, ids, **named: client_search(self, ids, max_results=2, **named)
    )
    experiment = store.create_experiment("vae")
    for number in range(5):
        store.create_run(experiment, start_time=1000 + number, run_name=f"run {number}")
    assert [row.name for row in read_rows()] == ["run 4", "run 3", "run 2", "run 1", "run 0"]


def test_a_deleted_run_is_no_row(store, trained):
    with training_run(PARAMS, {}) as run:
        pass
    store.delete_run(run.id)
    assert [row.run_id for row in read_rows()] == [trained.run_id]


def test_a_store_that_is_not_there_is_named_and_not_made(tmp_path):
    with pytest.raises(UserError, match=rf"^{tmp_path}/mlflow.db: not found; expected the runs that `make repro`"):
        read_rows()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("made", [False, True])
def test_an_experiment_without_a_run_is_named(store, monkeypatch, made):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "faces")
    if made:
        store.create_experiment("faces")
    with pytest.raises(UserError, match="holds no run of experiment faces; " + module.HOW_TO_GET_RUNS):
        read_rows()


def test_the_epochs_of_a_training_have_their_speed_and_their_end(store, tmp_path):
    with training_run({}, {}) as run:
        for epoch, speed in ((1, 500.0), (2, 700.0)):
            run.log_epoch({"epoch": epoch, "images_per_second": speed})
            run.wait()
        run.finish(Record("train", run.id, {}))
    [row] = read_rows()
    first, second = read_epochs(row)
    assert (first.images_per_second, second.images_per_second) == (500.0, 700.0)
    assert row.started <= first.ended <= second.ended
