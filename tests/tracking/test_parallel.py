"""Several processes at one store, as the workers of a queue are."""

import json
import os
import subprocess
import sys

from mlflow.tracking import MlflowClient

WORKERS, EPOCHS = 4, 10
WORKER = """
import json, sys
from pipeline.record import Record
from pipeline.tracking.runs import log_stage
from pipeline.tracking.training import training_run

name, epochs = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
sys.stdin.read()  # until all are
with training_run({"train.seed": name}, {}) as run:
    for epoch in range(1, epochs + 1):
        run.log_epoch({"epoch": epoch, "val/elbo": -100.0 + epoch})
        run.wait()
    trained = Record("train", run.id, {"train.seed": name})
    run.finish(trained)
measured = log_stage([trained], Record("evaluate", "", {"evaluate.seed": name}, metrics={"test/elbo": -90.0}))
print(json.dumps([run.id, measured.run_id]))
"""


def test_workers_that_start_at_once_on_a_new_store_lose_nothing(tmp_path):
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    command = [sys.executable, "-c", WORKER]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    workers = [
        subprocess.Popen([*command, str(name), str(EPOCHS)], env=environment, text=True, **pipes)
        for name in range(WORKERS)
    ]
    assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * WORKERS
    for worker in workers:
        worker.stdin.close()
        worker.stdin = None
    ended = [worker.communicate(timeout=120) for worker in workers]
    assert [(worker.returncode, err) for worker, (_, err) in zip(workers, ended, strict=True)] == [(0, "")] * WORKERS

    client = MlflowClient(environment["MLFLOW_TRACKING_URI"])
    assert sorted(experiment.name for experiment in client.search_experiments()) == ["Default", "vae"]
    for name, (out, _) in enumerate(ended):
        trained, measured = json.loads(out)
        assert trained == measured
        run = client.get_run(trained)
        assert run.data.params == {"train.seed": str(name), "evaluate.seed": str(name)}
        assert run.data.metrics["test/elbo"] == -90.0
        assert [point.step for point in client.get_metric_history(trained, "val/elbo")] == list(range(1, EPOCHS + 1))
    assert len(client.search_runs([client.get_experiment_by_name("vae").experiment_id])) == WORKERS
