import pytest
from mlflow.tracking import MlflowClient

from pipeline.record import Record
from pipeline.tracking import training

TAGS = {"data_sha256": "da7a", "params_hash": "9a3a", "git_revision": "0fb6cfb", "git_dirty": "false"}
PARAMS = {"model.latent_dim": 2, "model.hidden": [4, 5], "train.beta": 1.0}
ROWS = [{"epoch": 1.0, "val/elbo": -30.0, "beta": 0.0}, {"epoch": 2.0, "val/elbo": -20.0, "beta": 1.0}]


@pytest.fixture(autouse=True)
def monitors(monkeypatch):
    """System metrics are measured by a thread of MLflow's; here it is only noted what was asked of it."""
    asked = []

    class Monitor:
        def __init__(self, run_id, sampling_interval, resume_logging):
            asked.append(("made", run_id, sampling_interval))

        def start(self):
            asked.append("started")

        def finish(self):
            asked.append("finished")

    monkeypatch.setattr(training, "SystemMetricsMonitor", Monitor)
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
    with training.training_run(PARAMS, TAGS) as run:
        for row in ROWS:
            run.log_epoch(row)
        record = Record("train", run.id, PARAMS, TAGS, {"best_epoch": 2}, ROWS, [tmp_path / "history.csv"])
        run.finish(record)
    return record


@pytest.fixture
def curve(store):
    """The steps and values of a metric of a run."""
    return lambda run_id, name: [(point.step, point.value) for point in store.get_metric_history(run_id, name)]


@pytest.fixture
def artifacts(store):
    """The paths that the store keeps of a run, in one folder."""
    return lambda run_id, folder=None: sorted(item.path for item in store.list_artifacts(run_id, folder))


@pytest.fixture
def rows(store):
    """All runs of the store."""
    return lambda: store.search_runs([experiment.experiment_id for experiment in store.search_experiments()])
