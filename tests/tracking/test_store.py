import shutil

import pytest
from mlflow.tracking import MlflowClient

from pipeline.errors import UserError
from pipeline.record import Record
from pipeline.tracking.rows import read_rows
from pipeline.tracking.training import training_run


def test_a_deleted_experiment_is_an_error_that_says_what_to_do(store, trained):
    store.delete_experiment(store.get_experiment_by_name("vae").experiment_id)
    with pytest.raises(UserError, match=r"MLflow: the experiment 'vae' is deleted; .*mlflow experiments restore -x 1"):
        training_run({}, {}).__enter__()


def test_a_store_that_cannot_be_used_is_named(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://store")
    with pytest.raises(UserError, match=r"^MLflow store nowhere://store: .*; see MLFLOW_TRACKING_URI$"):
        training_run({}, {}).__enter__()


@pytest.mark.parametrize("scheme", ["postgresql", "http"])
def test_names_and_passwords_of_a_store_are_not_told(monkeypatch, scheme):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://bob:hunter2@127.0.0.1:1/db")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=rf"^MLflow store {scheme}://127.0.0.1:1/db: ") as error:
        read_rows()
    assert "hunter2" not in str(error.value)
    assert "bob" not in str(error.value)


def test_the_store_lies_at_the_root_that_dvc_names(empty_store, tmp_path, monkeypatch):
    root, elsewhere = tmp_path / "repository", tmp_path / "temporary"
    root.mkdir()
    elsewhere.mkdir()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.chdir(elsewhere)
    assert_one_training_is_kept_in(root, empty_store)
    assert list(elsewhere.iterdir()) == []


def test_without_dvc_the_store_lies_in_the_working_directory(empty_store, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(tmp_path)
    assert_one_training_is_kept_in(tmp_path, empty_store)


def test_artifacts_lie_beside_a_store_that_the_user_names(empty_store, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "stores").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'stores' / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert_one_training_is_kept_in(tmp_path / "stores", empty_store)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def assert_one_training_is_kept_in(root, empty_store):
    shutil.copy(empty_store, root / "mlflow.db")
    (root / "weights").write_text("1")
    with training_run({}, {}) as run:
        run.finish(Record("train", run.id, {}, artifacts=[root / "weights"]))
    assert MlflowClient(f"sqlite:///{root / 'mlflow.db'}").get_run(run.id).info.status == "FINISHED"
    assert [path.read_text() for path in (root / "mlruns").rglob("weights")] == ["1"]


def test_a_users_experiment_name_is_taken(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "faces")
    with training_run({}, {}) as run:
        pass
    assert store.get_experiment(store.get_run(run.id).info.experiment_id).name == "faces"
