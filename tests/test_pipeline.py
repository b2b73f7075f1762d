"""The whole chain as a user runs it: DVC and git on the command line, in a copy of the repository."""

import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from repository import Repository
from ruamel.yaml import YAML
from sklearn.datasets import load_digits

from pipeline.params import HealthParams

STAGES = ["prepare", "train", "evaluate", "export"]
TINY = {
    "prepare": {"source": "array", "path": "digits.npy"},
    "model": {"network": "mlp", "hidden": [16], "latent_dim": 5, "likelihood": "bernoulli"},
    "train": {"objective": "elbo", "binarize": "dynamic", "epochs": 2, "device": "cpu"},
    "evaluate": {"importance_samples": 5, "amortisation_images": 2},
    "health": dict.fromkeys(HealthParams.model_fields),
    "export": {"max_parity_error": 0.001, "max_latency_ms": None, "min_speedup": None},
}
LONGEST_QUEUE_SECONDS = 900  # a hang ends there; on a machine busy with other work two experiments took 340
pytestmark = pytest.mark.slow


class Chain(Repository):
    """The repository of these tests."""

    def repro(self):
        """The stages that `dvc repro` runs, in order."""
        return stages_in(self.run("dvc", "repro"))

    def artifacts(self, row):
        """Names of the files that the store keeps of a row."""
        kept = self.folder / "mlruns" / row.info.run_id / "artifacts"
        return {str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()}

    def start_workers(self, workers):
        """Start workers of DVC's queue; returns what that printed.

        To a file: workers inherit where it goes, and one that is idle for good would hold a pipe open.
        """
        log = self.folder.with_name(f"{self.folder.name}-queue.log")
        process = self.start("dvc", "queue", "start", "-j", str(workers), log=log)
        assert process.wait(timeout=LONGEST_QUEUE_SECONDS) == 0, log.read_text(encoding="utf-8")
        return log.read_text(encoding="utf-8")

    def run_the_queue(self, workers):
        """Start workers of DVC's queue and wait until no experiment is queued or running; returns the last status.

        Workers that met kombu's race (README, "Comparing runs") are started again, as a user would.
        """
        assert f"Started '{workers}' new experiments task queue workers." in self.start_workers(workers)
        end = time.monotonic() + LONGEST_QUEUE_SECONDS
        idle = 0
        while re.search("Queued|Running", status := self.run("dvc", "queue", "status")):
            assert time.monotonic() < end, status
            idle = 0 if "Running" in status else idle + 1
            if idle == 2:
                self.start_workers(workers)
                idle = 0
            time.sleep(15)  # to ask takes DVC seconds of a core that the experiments want
        return status


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    copied = Chain(tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("home"))
    np.save(copied.folder / "digits.npy", (load_digits().images[:400] * 15.9).astype(np.uint8))
    for section, values in TINY.items():
        copied.change(section, **values)
    copied.run("git", "init", "--quiet")
    copied.commit("start")
    yield copied
    copied.run("dvc", "queue", "stop", "--kill")  # a worker that outlived a failed test


@pytest.fixture(scope="module")
def ran(repository):
    """The stages that the first `dvc repro` of all ran."""
    return repository.repro()


def test_from_images_to_onnx_and_experiments_by_two_workers_of_the_queue(repository, ran):
    assert ran == STAGES
    [first] = repository.rows()
    assert_complete(repository, first, latent_dim=5)
    assert first.data.tags["git_dirty"] == "false"
    assert repository.repro() == []

    repository.change("export", max_parity_error=0.002)
    assert repository.repro() == ["export"]
    _, second = repository.rows()
    assert_complete(repository, second, latent_dim=5)
    assert second.data.tags["continues"] == first.info.run_id
    assert (first.data.params["export.max_parity_error"], second.data.params["export.max_parity_error"]) == (
        "0.001",
        "0.002",
    )
    assert [row.data.tags["registry.alias"] for row in (first, second)] == ["champion", "challenger"]

    repository.commit("results")
    repository.run("dvc", "exp", "run", "-S", "model.latent_dim=2,3", "-S", "train.beta=2.0", "--queue")
    status = repository.run_the_queue(workers=2)
    assert len(re.findall("Success", status)) == 2, status
    queued = repository.rows()[2:]
    for latent_dim, row in zip((2, 3), sorted(queued, key=latent_dim_of), strict=True):
        assert_complete(repository, row, latent_dim)
        assert row.info.run_name == row.data.tags["dvc_exp_name"] in status
        assert row.data.params["train.beta"] == "2.0"
        assert row.data.tags["git_dirty"] == "false"
        assert "continues" not in row.data.tags
        log = repository.run("dvc", "queue", "logs", row.info.run_name)
        assert stages_in(log) == ["train", "evaluate", "export"]
        assert "locked" not in log
    assert_the_best_is_champion(repository)


def test_a_recipe_runs_beside_the_workspace_and_is_held_to_its_target(repository):
    recipe = {"params": {"model": {"latent_dim": 4}}, "target": {"test/elbo": {"at_least": -1e6}}}
    with open(repository.folder / "tiny.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe").dump(recipe, file)
    before = (repository.folder / "params.yaml").read_text()
    shutil.rmtree(repository.folder / "reports", ignore_errors=True)  # a workspace without results
    printed = repository.run("python", "-m", "pipeline.recipe", "tiny.yaml", "train.epochs=1")
    assert re.search(r"recipe tiny: target reached, test/elbo -\d+\.\d\d", printed)
    *_, last = printed.splitlines()
    assert (repository.folder / "params.yaml").read_text() == before
    [row] = [row for row in repository.rows() if row.info.run_name == "tiny"]
    assert (row.data.params["model.latent_dim"], row.data.params["train.epochs"]) == ("4", "1")
    assert re.search(r"^\| \[tiny\]\(.*\) \| .* \| test/elbo ≥ -1e\+06 \| −\d+\.\d\d \| \d+\.\d\d ± ", last)
    assert re.search(r" of 4 \| 1 epochs in .* minutes at .* images a second, seed 0, on .* threads \| ", last)
    assert last.endswith(f" | {row.data.tags['git_revision'][:7]}, {row.data.tags['params_hash'][:8]} |")


def test_a_sweep_goes_on_with_what_is_lacking_and_draws_all_of_it(repository):
    def sweep(*betas):
        content = {"params": {"train.epochs": 1}, "grid": {"model.latent_dim": [3], "train.beta": list(betas)}}
        with open(repository.folder / "small.yaml", "w", encoding="utf-8") as file:
            YAML(typ="safe").dump(content, file)
        return stages_in(repository.run("python", "-m", "pipeline.sweep", "small.yaml", "swept"))

    assert sweep(1.0).count("train") == 1
    assert sweep(1.0, 2.0).count("train") == 1
    lines = (repository.folder / "swept" / "small.csv").read_text().splitlines()
    assert lines[0] == "model.latent_dim,train.beta,rate,distortion,elbo,active_units"
    assert [line.split(",")[:2] for line in lines[1:]] == [["3", "1.0"], ["3", "2.0"]]
    rate, distortion, elbo = map(float, lines[1].split(",")[2:5])
    assert rate + distortion == pytest.approx(-elbo, rel=1e-5)
    assert (repository.folder / "swept" / "small.png").is_file()


def stages_in(log):
    return re.findall(r"^Running stage '(\w+)'", log, re.MULTILINE)


def latent_dim_of(row):
    return int(row.data.params["model.latent_dim"])


def assert_complete(repository, row, latent_dim):
    """The row holds params, curves, metrics, figures and the ONNX model of a whole run."""
    params = YAML(typ="safe").load((repository.folder / "params.yaml").read_text())
    assert row.info.status == "FINISHED"
    assert set(row.data.params) == {f"{section}.{name}" for section, names in params.items() for name in names}
    assert latent_dim_of(row) == latent_dim
    assert {"val/elbo", "test/elbo", "test/nll_iw5", "test/bits_per_dim", "best_epoch"} <= set(row.data.metrics)
    assert {"stage.train", "stage.evaluate", "stage.export", "data_sha256", "git_revision"} <= set(row.data.tags)
    kept = repository.artifacts(row)
    assert {"train/model.safetensors", "train/history.csv", "figures/samples.png", "export/registry.json"} <= kept
    assert ("figures/manifold.png" in kept) == (latent_dim == 2)
    assert_model_is_signed(repository, row, latent_dim)


def assert_model_is_signed(repository, row, latent_dim):
    client = MlflowClient(f"sqlite:///{repository.store}")
    models = client.search_logged_models([row.info.experiment_id])
    [folder] = [
        Path(model.artifact_location.removeprefix("file://"))
        for model in models
        if model.source_run_id == row.info.run_id
    ]
    signature = YAML(typ="safe").load((folder / "MLmodel").read_text())["signature"]
    assert '"name": "seed"' in signature["inputs"]
    assert '"shape": [-1, 8, 8, 1]' in signature["outputs"]
    assert f'"shape": [-1, {latent_dim}]' in signature["outputs"]
    assert (folder / "extra_files" / "decoder.onnx").is_file()


def assert_the_best_is_champion(repository):
    client = MlflowClient(f"sqlite:///{repository.store}")
    versions = client.search_model_versions("name='vae'")
    assert len(versions) == len(repository.rows())
    best = min(float(version.tags["value"]) for version in versions)
    assert float(client.get_model_version_by_alias("vae", "champion").tags["value"]) == best


def test_a_training_out_of_the_run_cache_joins_its_row_or_has_it_laid_again(repository, ran):
    """DVC restores the checkpoint of params that it has seen; no code of ours runs, until the next stage."""
    seen = TINY["train"]["epochs"]
    assert "train" in ran
    repository.change("train", epochs=3)
    assert stages_in(repository.run("dvc", "repro", "train"))[-1] == "train"
    trained = repository.rows()[-1]
    assert "stage.evaluate" not in trained.data.tags

    repository.change("train", epochs=seen)
    assert stages_in(repository.run("dvc", "repro", "train")) == []
    repository.change("train", epochs=3)
    restored = repository.run("dvc", "repro", "evaluate")
    assert "Stage 'train' is cached - skipping run, checking out outputs" in restored
    assert stages_in(restored) == ["evaluate"]
    present = next(row for row in repository.rows() if row.info.run_id == trained.info.run_id)
    assert "stage.evaluate" in present.data.tags
    assert not {"restored", "continues"} & set(present.data.tags)

    for name in ("data/prepared", "models", "reports", "mlruns"):
        shutil.rmtree(repository.folder / name)
    repository.store.unlink()
    repository.store = repository.folder / "reports" / ".." / "mlflow.db"  # MLflow reads on in what it had opened
    repository.change("train", epochs=seen)
    assert stages_in(repository.run("dvc", "repro", "evaluate")) == ["evaluate"]
    [laid] = repository.rows()
    assert laid.data.tags["restored"] == "true"
    assert {"stage.train", "stage.evaluate"} <= set(laid.data.tags)
    assert laid.data.params["train.epochs"] == str(seen)
    client = MlflowClient(f"sqlite:///{repository.store}")
    curve = [point.step for point in client.get_metric_history(laid.info.run_id, "val/elbo")]
    assert sorted(curve) == list(range(1, seen + 1))
    assert "train/history.csv" in repository.artifacts(laid)
