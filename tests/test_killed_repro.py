"""`dvc repro` is killed at the worst moments and run again: one run, no step logged twice, the very same weights.

Killed with all that it started, as by the end of a machine, or alone, as by a user or the kernel's lack of memory: then
the stage that it started is still at work.
"""

import os
import shutil
import signal
import sys
import time

import psutil
import pytest
from digits import TINY, prepare_digits
from mlflow.tracking import MlflowClient
from repository import Repository

from pipeline import train
from pipeline.files import read_csv, read_json

EPOCHS = 60
PAUSE = """
import time
from pathlib import Path

Path("trained").touch()
while Path("pause").exists():
    time.sleep(0.02)
"""
pytestmark = pytest.mark.slow


class Killable(Repository):
    """Of its stages train alone, followed by a pause, if a file asks for one, before DVC takes the outputs."""

    def __init__(self, folder, home):
        super().__init__(folder, home)
        prepare_digits(folder / "data" / "prepared", {"train": 200, "val": 60, "test": 50})
        (folder / "pause.py").write_text(PAUSE)
        for name, value in TINY.items():
            section, field = name.split(".")
            self.change(section, **{field: value})
        self.change("train", epochs=EPOCHS, checkpoint_minutes=1e-9)
        self.edit("dvc.yaml", self._keep_train)
        self.run("git", "init", "--quiet")
        self._logs = 0

    def _keep_train(self, content):
        stage = content["stages"]["train"]
        content.clear()
        content["stages"] = {"train": stage | {"cmd": [stage["cmd"], "python pause.py"]}}

    def start_repro(self):
        """The process, and the file with what it prints."""
        self._logs += 1
        log = self.folder / f"{self._logs}.log"
        return self.start("dvc", "repro", log=log), log

    def pause(self, wanted):
        (self.folder / "trained").unlink(missing_ok=True)
        if wanted:
            (self.folder / "pause").touch()
        else:
            (self.folder / "pause").unlink()

    def states(self):
        return [path for path in (self.folder / ".training").glob("*/*.safetensors") if path.stem.isdecimal()]


@pytest.fixture
def repository(tmp_path):
    folder, home = tmp_path / "repository", tmp_path / "home"
    for path in (folder, home, folder / "data" / "prepared"):
        path.mkdir(parents=True)
    return Killable(folder, home)


def wait_until(condition):
    for _ in range(60_000):
        if condition():
            return
        time.sleep(0.01)
    raise TimeoutError


def kill_all(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def stage_of(process):
    """The stage that a `dvc repro` has started."""
    return next(
        child for child in psutil.Process(process.pid).children(recursive=True) if "pipeline.train" in child.cmdline()
    )


def test_repro_killed_with_all_that_it_started(repository, tmp_path, monkeypatch):
    process, _ = repository.start_repro()
    wait_until(lambda: len(repository.states()) == 2)
    kill_all(process)

    repository.pause(True)
    process, log = repository.start_repro()
    wait_until((repository.folder / "trained").exists)
    kill_all(process)
    assert "train: going on at epoch " in log.read_text()
    assert not (repository.folder / "dvc.lock").exists()

    repository.pause(False)
    assert "train: trained before, and not again" in repository.run("dvc", "repro")
    assert_as_if_nothing_had_happened(repository, tmp_path, monkeypatch)


def test_repro_killed_alone(repository, tmp_path, monkeypatch):
    process, _ = repository.start_repro()
    wait_until(lambda: len(repository.states()) == 2)
    stage = stage_of(process)
    stage.suspend()  # so that it is surely at work when the second comes
    process.kill()
    process.wait()

    repository.pause(True)
    process, log = repository.start_repro()
    wait_until(lambda: "another process trains with the same params, data and code; waiting" in log.read_text())
    stage.resume()
    wait_until((repository.folder / "trained").exists)
    process.kill()
    process.wait()
    assert "train: trained before, and not again" in log.read_text()
    assert not (repository.folder / "dvc.lock").exists()

    repository.pause(False)
    assert "train: trained before, and not again" in repository.run("dvc", "repro")
    assert_as_if_nothing_had_happened(repository, tmp_path, monkeypatch)


def assert_as_if_nothing_had_happened(repository, tmp_path, monkeypatch):
    found = repository.folder / "models" / "checkpoint"
    [row] = repository.rows()
    assert row.info.status == "FINISHED"
    assert row.info.run_id == read_json(found / "run.json")["run_id"]
    client = MlflowClient(f"sqlite:///{repository.store}")
    for name in ("train/elbo", "val/elbo", "learning_rate"):
        steps = [point.step for point in client.get_metric_history(row.info.run_id, name)]
        assert sorted(steps) == list(range(1, EPOCHS + 1))
    expected = unbroken(repository, tmp_path / "unbroken", monkeypatch)
    assert (found / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    for ours, theirs in zip(read_csv(found / "history.csv"), read_csv(expected / "history.csv"), strict=True):
        assert ours | {"images_per_second": 0} == theirs | {"images_per_second": 0}
    assert "Stage 'train' didn't change, skipping" in repository.run("dvc", "repro")


def unbroken(repository, folder, monkeypatch):
    """The checkpoint of the same training, by a process that nobody disturbs."""
    folder.mkdir()
    shutil.copy(repository.folder / "params.yaml", folder)
    monkeypatch.chdir(folder)
    prepared = str(repository.folder / "data" / "prepared")
    monkeypatch.setattr(sys, "argv", ["train", prepared, "checkpoint", ".training"])
    train.main()
    return folder / "checkpoint"
