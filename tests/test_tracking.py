import dataclasses
import json
import math
import shutil
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlsplit

import onnx
import pytest
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient
from ruamel.yaml import YAML

from pipeline import tracking
from pipeline.errors import UserError
from pipeline.tracking import Record, log_stage, provenance, read_record, training_run, write_record

TAGS = {"data_sha256": "da7a", "params_hash": "9a3a", "git_revision": "0fb6cfb", "git_dirty": "false"}
PARAMS = {"model.latent_dim": 2, "model.hidden": [4, 5], "train.beta": 1.0}
ROWS = [{"epoch": 1.0, "val/elbo": -30.0, "beta": 0.0}, {"epoch": 2.0, "val/elbo": -20.0, "beta": 1.0}]


@pytest.fixture(autouse=True)
def monitors(monkeypatch):
    """System metrics are measured by a thread of MLflow's; here it is only noted what was asked of it."""
    asked = []

    class Monitor:
        def __init__(self, run_id, sampling_interval):
            asked.append(("made", run_id, sampling_interval))

        def start(self):
            asked.append("started")

        def finish(self):
            asked.append("finished")

    monkeypatch.setattr(tracking, "SystemMetricsMonitor", Monitor)
    return asked


@pytest.fixture
def batches(monkeypatch):
    """How many metrics each call to the store carried."""
    sizes = []
    log_batch = MlflowClient.log_batch

    def counted(client, run_id, metrics=(), **named):
        if metrics:
            sizes.append(len(metrics))
        return log_batch(client, run_id, metrics=metrics, **named)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    return sizes


@pytest.fixture
def trained(store, tmp_path):
    """The record of a training that stands in the store, with its curves and one artifact."""
    (tmp_path / "history.csv").write_text("epoch\n1\n")
    with training_run(PARAMS, TAGS) as run:
        for row in ROWS:
            run.log_epoch(row)
        record = Record("train", run.id, PARAMS, TAGS, {"best_epoch": 2}, ROWS, [tmp_path / "history.csv"])
        run.finish(record)
    return record


def evaluation(seed, folder):
    (folder / "figures").mkdir(exist_ok=True)
    (folder / "figures" / "samples.png").write_bytes(b"png")
    return Record("evaluate", "", {"evaluate.seed": seed}, metrics={"test/elbo": -25.0 - seed})


def curve(client, run_id, name):
    return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


def artifacts(client, run_id, folder=None):
    return sorted(item.path for item in client.list_artifacts(run_id, folder))


def rows(client):
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def test_a_training_is_one_row_with_params_curves_tags_and_artifacts(store, trained, monitors):
    row = store.get_run(trained.run_id)
    assert row.info.status == "FINISHED"
    assert row.data.params == {"model.latent_dim": "2", "model.hidden": "[4, 5]", "train.beta": "1.0"}
    assert curve(store, trained.run_id, "val/elbo") == [(1, -30.0), (2, -20.0)]
    assert curve(store, trained.run_id, "beta") == [(1, 0.0), (2, 1.0)]
    assert row.data.metrics["best_epoch"] == 2
    assert "epoch" not in row.data.metrics
    assert TAGS.items() <= row.data.tags.items()
    assert artifacts(store, trained.run_id, "train") == ["train/history.csv"]
    assert len(rows(store)) == 1


def test_system_metrics_run_as_long_as_the_training(store, monitors):
    with training_run(PARAMS, TAGS) as run:
        assert monitors == [("made", run.id, tracking.SYSTEM_METRICS_SECONDS), "started"]
    assert monitors[2:] == ["finished"]


def test_system_metrics_reach_the_row(store, monkeypatch):
    monkeypatch.setattr(tracking, "SystemMetricsMonitor", SystemMetricsMonitor)
    monkeypatch.setattr(tracking, "SYSTEM_METRICS_SECONDS", 0.01)
    published = threading.Event()
    publish = SystemMetricsMonitor.publish_metrics

    def publish_and_tell(monitor, metrics):
        publish(monitor, metrics)
        published.set()

    monkeypatch.setattr(SystemMetricsMonitor, "publish_metrics", publish_and_tell)
    with training_run(PARAMS, TAGS) as run:
        assert published.wait(timeout=60)
    metrics = store.get_run(run.id).data.metrics
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(metrics)


@pytest.mark.parametrize(
    ("failure", "status"), [(UserError, "FAILED"), (ZeroDivisionError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_training_that_ends_early_says_so_and_keeps_its_curve(store, monitors, failure, status):
    with pytest.raises(failure), training_run(PARAMS, TAGS) as run:
        run.log_epoch(ROWS[0])
        raise failure
    assert store.get_run(run.id).info.status == status
    assert curve(store, run.id, "val/elbo") == [(1, -30.0)]
    assert "stage.train" not in store.get_run(run.id).data.tags
    assert monitors[-1] == "finished"


def test_many_epochs_take_few_calls(store, batches, monkeypatch):
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", math.inf)
    with training_run(PARAMS, TAGS) as run:
        for epoch in range(1, 401):
            run.log_epoch({"epoch": epoch, "a": 1.0, "b": 2.0, "c": 3.0})
    assert sum(batches) == 1200
    assert len(batches) <= 3
    assert len(curve(store, run.id, "b")) == 400


def test_a_running_training_can_be_watched(store, batches, monkeypatch):
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", -1.0)
    with training_run(PARAMS, TAGS) as run:
        run.log_epoch(ROWS[0])
        assert batches == [2]


def test_more_metrics_than_a_call_may_carry_are_split(store, batches):
    many = [{"epoch": epoch, "a": 1.0, "b": 2.0} for epoch in range(1, 1301)]
    record = log_stage([Record("train", "unknown", PARAMS, TAGS, curves=many)], Record("evaluate", "", {}), [])
    assert batches == [1000, 1000, 600]
    assert len(curve(store, record.run_id, "b")) == 1300


def test_a_later_stage_joins_the_row_of_the_training(store, trained, tmp_path):
    record = log_stage([trained], evaluation(0, tmp_path), [tmp_path / "figures"])
    assert record.run_id == trained.run_id
    row = store.get_run(trained.run_id)
    assert row.data.params.items() >= {"model.latent_dim": "2", "evaluate.seed": "0"}.items()
    assert row.data.metrics["test/elbo"] == -25.0
    assert artifacts(store, trained.run_id, "figures") == ["figures/samples.png"]
    assert row.info.status == "FINISHED"
    assert len(rows(store)) == 1


def test_the_same_stage_again_opens_a_row_that_continues_the_first(store, trained, tmp_path):
    first = log_stage([trained], evaluation(0, tmp_path), [tmp_path / "figures"])
    again = log_stage([trained], evaluation(1, tmp_path), [tmp_path / "figures"])
    assert again.run_id != first.run_id
    row = store.get_run(again.run_id)
    assert row.data.tags["continues"] == first.run_id
    assert row.data.tags.items() >= TAGS.items()
    assert row.data.params == {name: str(value) for name, value in PARAMS.items()} | {"evaluate.seed": "1"}
    assert curve(store, again.run_id, "val/elbo") == [(1, -30.0), (2, -20.0)]
    assert row.data.metrics["best_epoch"] == 2
    assert row.data.metrics["test/elbo"] == -26.0
    assert artifacts(store, again.run_id) == ["figures", "train"]
    assert store.get_run(first.run_id).data.metrics["test/elbo"] == -25.0


def test_the_last_stage_follows_the_one_before_it(store, trained, tmp_path):
    log_stage([trained], evaluation(0, tmp_path), [])
    second = log_stage([trained], evaluation(1, tmp_path), [])
    export = Record("export", "", {"export.max_parity_error": 1e-4}, metrics={"export/error": 1e-6})
    assert log_stage([trained, second], export, []).run_id == second.run_id
    alone = log_stage([trained, second], export, [])
    row = store.get_run(alone.run_id)
    assert row.data.tags["continues"] == second.run_id
    assert row.data.metrics.items() >= {"test/elbo": -26.0, "best_epoch": 2.0, "export/error": 1e-6}.items()
    assert len(rows(store)) == 3


def test_a_run_that_the_store_does_not_know_is_laid_again(store, trained, tmp_path):
    lost = dataclasses.replace(trained, run_id="0" * 32)
    record = log_stage([lost], evaluation(0, tmp_path), [])
    row = store.get_run(record.run_id)
    assert record.run_id not in (lost.run_id, trained.run_id)
    assert row.data.tags["restored"] == "true"
    assert "continues" not in row.data.tags
    assert curve(store, record.run_id, "val/elbo") == [(1, -30.0), (2, -20.0)]
    assert row.data.params.items() >= {"model.hidden": "[4, 5]", "evaluate.seed": "0"}.items()
    assert artifacts(store, record.run_id, "train") == ["train/history.csv"]


def test_a_run_that_was_deleted_is_laid_again(store, trained, tmp_path):
    store.delete_run(trained.run_id)
    record = log_stage([trained], evaluation(0, tmp_path), [])
    assert store.get_run(record.run_id).data.tags["restored"] == "true"


def test_a_deleted_experiment_is_an_error_that_says_what_to_do(store, trained):
    store.delete_experiment(store.get_experiment_by_name("vae").experiment_id)
    with pytest.raises(UserError, match=r"MLflow: the experiment 'vae' is deleted; .*mlflow experiments restore -x 1"):
        training_run(PARAMS, TAGS).__enter__()


def test_a_stage_that_died_half_way_does_not_count_as_finished(store, trained, tmp_path):
    with pytest.raises(OSError, match="gone"):
        log_stage([trained], evaluation(0, tmp_path), [tmp_path / "gone"])
    record = log_stage([trained], evaluation(0, tmp_path), [])
    assert record.run_id == trained.run_id


def test_a_stage_that_died_half_way_with_other_params_leaves_them_alone(store, trained, tmp_path):
    with pytest.raises(OSError, match="gone"):
        log_stage([trained], evaluation(0, tmp_path), [tmp_path / "gone"])
    record = log_stage([trained], evaluation(1, tmp_path), [])
    row = store.get_run(record.run_id)
    assert row.data.tags["continues"] == trained.run_id
    assert row.data.params["evaluate.seed"] == "1"


def test_a_row_that_continues_another_bears_the_name_of_its_own_experiment(store, trained, tmp_path, monkeypatch):
    log_stage([trained], evaluation(0, tmp_path), [])
    monkeypatch.setenv("DVC_EXP_NAME", "tidy-mole")
    row = store.get_run(log_stage([trained], evaluation(1, tmp_path), []).run_id)
    assert (row.info.run_name, row.data.tags["dvc_exp_name"]) == ("tidy-mole", "tidy-mole")


def test_a_store_that_cannot_be_used_is_named(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://store")
    with pytest.raises(UserError, match=r"^MLflow store nowhere://store: .*; see MLFLOW_TRACKING_URI$"):
        training_run(PARAMS, TAGS).__enter__()


def test_the_onnx_model_carries_the_signature_of_its_graph(store, trained, tmp_path):
    model = log_stage([trained], Record("export", "", {}), [], model=identity_model(tmp_path / "decoder.onnx"))
    [logged] = store.search_logged_models([store.get_run(model.run_id).info.experiment_id])
    assert (logged.name, logged.source_run_id) == ("decoder", trained.run_id)
    folder = Path(urlsplit(logged.artifact_location).path)
    inputs = json.loads(YAML(typ="safe").load((folder / "MLmodel").read_text())["signature"]["inputs"])
    assert inputs == [{"name": "z", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]
    requirements = (folder / "requirements.txt").read_text().split()
    assert "onnxruntime" not in requirements
    assert store.get_run(trained.run_id).info.status == "FINISHED"


def identity_model(path):
    z = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["batch", 2])
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 2])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["z"], ["x"])], "g", [z], [x])
    onnx.save(onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 18)]), path)
    return path


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
    with training_run(PARAMS, TAGS) as run:
        run.finish(Record("train", run.id, PARAMS, TAGS, artifacts=[root / "weights"]))
    [row] = rows(MlflowClient(f"sqlite:///{root / 'mlflow.db'}"))
    assert row.info.run_id == run.id
    assert [path.read_text() for path in (root / "mlruns").rglob("weights")] == ["1"]


def test_a_users_experiment_name_is_taken(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "faces")
    with training_run(PARAMS, TAGS) as run:
        pass
    assert store.get_experiment(store.get_run(run.id).info.experiment_id).name == "faces"


def test_a_run_of_a_dvc_experiment_bears_its_name(store, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "tidy-mole")
    tags = provenance("9a3a", "da7a")
    assert tags["dvc_exp_name"] == "tidy-mole"
    with training_run(PARAMS, tags) as run:
        pass
    assert store.get_run(run.id).info.run_name == "tidy-mole"


def git(*arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_the_revision_is_known_and_results_do_not_make_it_dirty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    for name in ("params.yaml", "dvc.yaml"):
        Path(name).write_text("a: 1\n")
    git("add", ".")
    git("commit", "-qm", "start")
    Path("metrics.json").write_text("{}")
    clean = {"git_revision": git("rev-parse", "HEAD"), "git_dirty": "false"}
    assert provenance("9a3a", "da7a") == {"params_hash": "9a3a", "data_sha256": "da7a", **clean}
    Path("params.yaml").write_text("a: 2\n")
    assert provenance("9a3a", "da7a")["git_dirty"] == "true"


def test_without_git_the_revision_is_unknown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert provenance("9a3a", "da7a")["git_revision"] == "unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance("9a3a", "da7a") == {
        "params_hash": "9a3a",
        "data_sha256": "da7a",
        "git_revision": "unknown",
        "git_dirty": "unknown",
    }


def test_a_record_comes_back_with_its_curves(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,val/elbo\n1,-30.0\n")
    record = Record("train", "8f14", PARAMS, TAGS, {"best_epoch": 1})
    write_record(tmp_path, record)
    found = read_record(tmp_path, "history.csv", ["history.csv"])
    assert found == dataclasses.replace(
        record, curves=[{"epoch": 1.0, "val/elbo": -30.0}], artifacts=[tmp_path / "history.csv"]
    )


def test_a_record_of_something_else_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"stage": "train", "colour": 1}')
    with pytest.raises(UserError, match=r"run\.json: not what a stage writes"):
        read_record(tmp_path)
