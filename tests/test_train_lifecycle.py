"""The train stage as a process: killed, stopped, without a store, on two ranks."""

import contextlib
import errno
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
import torch
from mlflow.tracking import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine import Engine

from pipeline import train
from pipeline.errors import Stopped, UserError
from pipeline.files import read_csv, read_json
from pipeline.params import load_params
from pipeline.training import fit
from pipeline.training import name as naming
from pipeline.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
LONG = {"train__epochs": 40, "train__checkpoint_minutes": 1e-9, "train__ema_decay": 0.9}


def start(*program, **environment):
    """The train stage in a process of its own; `program` is what Python runs in its place."""
    return subprocess.Popen(
        [sys.executable, *(program or ("-m", "pipeline.train")), "data/prepared", "models/checkpoint", ".training"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def wait_for_states(count):
    """Until a training has saved so many states."""
    for _ in range(30_000):
        numbers = [int(path.stem) for path in Path(".training").glob("*/*.safetensors")]
        if max(numbers, default=0) >= count:
            return
        time.sleep(0.01)
    raise TimeoutError("no states were saved")


def weights(folder):
    return (Path(folder) / "model.safetensors").read_bytes()


def curves(folder):
    return [
        {name: value for name, value in row.items() if name != "images_per_second"}
        for row in read_csv(Path(folder) / "history.csv")
    ]


def assert_one_whole_run(store, epochs):
    [row] = store.search_runs([store.get_experiment_by_name("vae").experiment_id])
    assert row.info.status == "FINISHED"
    for name in ("train/elbo", "val/elbo", "learning_rate"):
        steps = [point.step for point in store.get_metric_history(row.info.run_id, name)]
        assert sorted(steps) == list(range(1, epochs + 1))
    return row


def test_a_killed_training_goes_on_as_the_same_run_to_the_same_weights(workplace, store):
    workplace.train("unbroken", **LONG)
    run = read_json(Path("unbroken/run.json"))["run_id"]
    store.delete_run(run)
    workplace.forget()
    for states in (30, 90):
        process = start()
        wait_for_states(states)
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL
        assert not Path("models").exists()
    code, output, errors = finish(start())
    assert code == 0, errors
    assert "train: going on at epoch " in output
    assert weights("models/checkpoint") == weights("unbroken")
    assert curves("models/checkpoint") == curves("unbroken")
    row = assert_one_whole_run(store, epochs=40)
    assert read_json(Path("models/checkpoint/run.json"))["run_id"] == row.info.run_id
    [folder] = Path(".training").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["finished.safetensors", "lock", "run"]


FULL_AT_THE_THIRD_STATE = """
import resource
from pipeline import train
from pipeline.errors import run_stage
from pipeline.training import scratch

whole, writes = scratch._write, []

def write(path, content):
    writes.append(path)
    if len(writes) == 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))  # Python ignores the signal that tells of it
    whole(path, content)

scratch._write = write
run_stage(train.main)
"""


def test_a_disk_that_is_full_from_some_state_on_ends_in_one_line_and_leaves_what_to_go_on_from(workplace, capsys):
    """By the system's limit of a file's size: a model of 3.3 MB meets it, and the store of runs does not."""
    large = {"model__hidden": [6000]}
    workplace.train("unbroken", **large)
    workplace.forget()
    workplace.set_params(**large, train__checkpoint_minutes=1e-9)
    code, _, errors = finish(start("-c", FULL_AT_THE_THIRD_STATE))
    assert code == 1
    *warnings, last = errors.splitlines()
    refused = [*["00000003.safetensors"] * 9, "finished.safetensors"]  # after eight steps, two epochs, and at the end
    for line, file in zip(warnings, refused, strict=True):
        assert line.endswith(f"/{file}: File too large; training goes on without this checkpoint")
    assert last == "error: models/checkpoint: File too large"
    assert list(Path("models").iterdir()) == []
    capsys.readouterr()
    folder = workplace.train_or_find(**large)
    assert "train: going on at epoch 1/2, image 100" in capsys.readouterr().out
    assert weights(folder) == weights("unbroken")


def all_bytes(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_a_training_that_has_ended_is_found_again_to_the_bit_as_the_same_run(workplace, store, capsys, monkeypatch):
    """As after a kill before DVC has the outputs, or by `dvc repro --force`."""
    folder = workplace.train(model__likelihood="gaussian", model__sigma="optimal", train__binarize="none")
    before, row = all_bytes(folder), assert_one_whole_run(store, epochs=2)
    shutil.rmtree(folder)
    monkeypatch.setattr(Trainer, "steps", lambda _: pytest.fail("trained again"))
    monkeypatch.setenv("DVC_EXP_NAME", "another")  # the record tells of the training as it was
    changed = {"train__checkpoint_minutes": 7, "model__likelihood": "gaussian", "model__sigma": "optimal"}
    workplace.train_or_find(**changed, train__binarize="none")
    assert all_bytes(folder) == before
    assert assert_one_whole_run(store, epochs=2).to_dictionary() == row.to_dictionary()
    assert "train: trained before, and not again: the weights are those in " in capsys.readouterr().out


class Killed(BaseException):
    pass


def kill(*_, **__):
    raise Killed


@pytest.mark.parametrize(
    ("owner", "moment"),
    [(fit, "named_weights"), (train.Scratch, "finish"), (train, "save"), (MlflowClient, "log_artifact")],
)
def test_a_kill_at_any_moment_after_the_last_step_costs_no_step_and_no_run(
    workplace, store, monkeypatch, owner, moment
):
    whole = all_bytes(workplace.train("whole"))
    store.delete_run(read_json(Path("whole/run.json"))["run_id"])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, moment, kill)
        patch.setattr("pipeline.tracking.training.TrainingRun.end", lambda *_: None)
        workplace.train()
    monkeypatch.setattr(Trainer, "steps", lambda _: pytest.fail("trained again"))
    found = all_bytes(workplace.train_or_find())
    assert found["model.safetensors"] == whole["model.safetensors"]
    assert curves("models/checkpoint") == curves("whole")
    row = assert_one_whole_run(store, epochs=2)
    assert row.data.tags["stage.train"] == "finished"


def test_a_run_that_no_state_knows_of_yet_is_gone_on_with(workplace, store, monkeypatch):
    """Killed before the first state was saved, and so before anything but the store knew of the run."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("pipeline.tracking.training.TrainingRun.end", lambda *_: None)
        patch.setattr(Trainer, "end_epoch", kill)
        workplace.train(train__checkpoint_minutes=60)
    workplace.train(train__checkpoint_minutes=60)
    assert_one_whole_run(store, epochs=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_says_so_and_the_same_command_goes_on(workplace, store, number):
    workplace.set_params(**LONG | {"train__checkpoint_minutes": 60, "train__epochs": 100})
    process = start()
    assert process.stdout.readline().startswith("train: 2,294 parameters")
    line = process.stdout.readline()
    assert line.startswith("epoch   1/100"), line
    process.send_signal(number)
    code, _, errors = finish(process)
    assert code == 128 + number
    [line] = errors.splitlines()
    assert line.startswith(f"stopped: {signal.Signals(number).name}: saved at epoch ")
    assert line.endswith("the same command goes on from there")
    [row] = store.search_runs([store.get_experiment_by_name("vae").experiment_id])
    assert row.info.status == "KILLED"
    code, output, errors = finish(start())
    assert code == 0, errors
    assert "train: going on at epoch " in output
    assert assert_one_whole_run(store, epochs=100).info.run_id == row.info.run_id


def test_other_params_do_not_go_on_from_there(workplace, capsys, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit.Fit, "_is_finished", lambda self: self._save() and interrupt(self))
        workplace.train(**LONG)
    assert len(list(Path(".training").glob("*/0*.safetensors"))) == 1
    workplace.train(**LONG | {"train__learning_rate": 0.002, "train__epochs": 2})
    assert "going on" not in capsys.readouterr().out
    workplace.train(**LONG)
    assert "going on at epoch 1/40" in capsys.readouterr().out


def test_how_often_states_are_saved_may_change_on_the_way(workplace, store, capsys, monkeypatch):
    unbroken = weights(workplace.train("unbroken", **LONG))
    store.delete_run(read_json(Path("unbroken/run.json"))["run_id"])
    end_epoch = Trainer.end_epoch

    def interrupt(self):
        if self.position.epoch == 3:
            raise KeyboardInterrupt
        return end_epoch(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "end_epoch", interrupt)
        workplace.train(**LONG)
    folder = workplace.train(**LONG | {"train__checkpoint_minutes": 60})
    assert "train: going on at epoch 3/40" in capsys.readouterr().out
    assert weights(folder) == unbroken
    row = assert_one_whole_run(store, epochs=40)
    assert row.data.params["train.checkpoint_minutes"] == "1e-09"
    assert row.data.tags["resumed.train.checkpoint_minutes"] == "60.0"


def test_what_shapes_the_weights_names_a_training_and_how_it_runs_does_not(workplace):
    workplace.set_params()
    params = load_params()
    name = train.training_name(params, "da7a")
    for section, changes, same in (
        ("train", {"checkpoint_minutes": 1, "devices": 4, "nodes": 2}, True),
        ("export", {"score_samples": 9}, True),
        ("train", {"seed": 7}, False),
        ("train", {"epochs": 9}, False),
        ("model", {"latent_dim": 9}, False),
    ):
        changed = params.model_copy(update={section: getattr(params, section).model_copy(update=changes)})
        assert (train.training_name(changed, "da7a") == name) == same, changes
    assert train.training_name(params, "other") != name


def test_another_torch_or_another_precision_of_the_processor_names_another_training(workplace, monkeypatch):
    workplace.set_params(train__precision="auto", train__device="cpu")
    params, names = load_params(), []
    for version, can_multiply in (("2.0", False), ("2.1", False), ("2.0", True)):
        monkeypatch.setattr(torch, "__version__", version)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=can_multiply: {"avx512_bf16": found})
        names.append(train.training_name(params, "da7a"))
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    ("file", "same"),
    [
        ("train.py", False),
        ("checkpoint.py", False),
        ("compiler.py", False),
        ("device.py", False),
        ("params/sections.py", False),
        ("training/precision.py", False),
        ("vae/model.py", False),
        ("vae/likelihoods/gaussian.py", False),
        ("dataset/noise.py", False),
        ("tracking/runs.py", True),
        ("runtime/noise.py", True),
    ],
)
def test_a_changed_line_of_code_names_another_training_where_it_may_shape_the_weights(
    workplace, tmp_path, monkeypatch, file, same
):
    workplace.set_params()
    params = load_params()
    name = train.training_name(params, "da7a")
    copied = shutil.copytree(naming.PACKAGE, tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(naming, "PACKAGE", copied)
    assert train.training_name(params, "da7a") == name
    with open(copied / file, "a") as changed:
        changed.write("# changed")
    assert (train.training_name(params, "da7a") == name) == same


@pytest.mark.parametrize(("moment", "runs"), [("training_name", 0), ("save", 1)])
def test_sigterm_before_and_after_the_steps_ends_with_a_line_and_costs_no_step(
    workplace, store, monkeypatch, moment, runs
):
    with monkeypatch.context() as patch, pytest.raises(Stopped, match="^SIGTERM: outside of the steps; ") as stopped:
        patch.setattr(train, moment, lambda *_: signal.raise_signal(signal.SIGTERM))
        workplace.train()
    assert stopped.value.code == 128 + signal.SIGTERM
    assert not Path("models/checkpoint").exists()
    found = store.search_runs(["1"])
    assert [row.info.status for row in found] == ["KILLED"] * runs
    if moment == "save":
        monkeypatch.setattr(Trainer, "steps", lambda _: pytest.fail("trained again"))
    workplace.train_or_find()
    assert_one_whole_run(store, epochs=2)


def test_a_store_that_is_away_holds_nothing_up_and_gets_the_run_when_it_is_back(workplace, store, monkeypatch, capsys):
    uri = os.environ["MLFLOW_TRACKING_URI"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = workplace.train(train__epochs=3)
    captured = capsys.readouterr()
    assert captured.err.count("training goes on without it") == 1
    assert "the run is not whole in the store; evaluate completes it from run.json" in captured.err
    assert "(MLflow run not in the store yet)" in captured.out
    assert len(curves(folder)) == 3
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    workplace.evaluate()
    row = assert_one_whole_run(store, epochs=3)
    assert {"test/elbo", "best_epoch"} <= set(row.data.metrics)
    assert row.data.tags["restored"] == "true"


def test_a_database_that_somebody_holds_at_the_start_holds_nothing_up(workplace, store, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}?timeout=0.1")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as somebody:
        somebody.execute("BEGIN EXCLUSIVE")
        folder = workplace.train(train__epochs=3)
    assert "warning: MLflow store: (sqlite3.OperationalError) database is locked" in capsys.readouterr().err
    assert len(curves(folder)) == 3
    workplace.evaluate()
    row = assert_one_whole_run(store, epochs=3)
    assert {"test/elbo", "best_epoch"} <= set(row.data.metrics)


@pytest.fixture
def no_patience():
    """MLflow waits 20 seconds for whoever has locked an sqlite file, at each call; here it waits 50 ms."""

    def hasten(_connection, _cursor, statement, parameters, _context, _many):
        return statement.replace("busy_timeout = 20000", "busy_timeout = 50"), parameters

    event.listen(Engine, "before_cursor_execute", hasten, retval=True)
    yield
    event.remove(Engine, "before_cursor_execute", hasten)


@pytest.mark.usefixtures("no_patience")
def test_a_store_that_locks_half_way_holds_nothing_up_and_is_completed_later(
    workplace, store, tmp_path, capfd, monkeypatch
):
    monkeypatch.setattr("pipeline.tracking.training.FLUSH_SECONDS", -1.0)
    end_epoch = Trainer.end_epoch
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as somebody:

        def end_and_lock(self):
            if self.position.epoch == 2:
                somebody.execute("BEGIN IMMEDIATE")
            return end_epoch(self)

        monkeypatch.setattr(Trainer, "end_epoch", end_and_lock)
        workplace.train(train__epochs=3)
    locked, unfinished = capfd.readouterr().err.splitlines()
    assert "database is locked" in locked
    assert locked.endswith("; training goes on without it")
    assert unfinished == "warning: the run is not whole in the store; evaluate completes it from run.json"
    workplace.evaluate(train__epochs=3)
    row = assert_one_whole_run(store, epochs=3)
    assert {"test/elbo", "best_epoch"} <= set(row.data.metrics)
    assert "restored" not in row.data.tags


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), requests.HTTPError("507")])
def test_a_place_of_artifacts_that_refuses_them_costs_no_checkpoint_and_gets_them_later(
    workplace, store, monkeypatch, capsys, error
):
    def refuse(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", refuse)
        folder = workplace.train()
        [line, last] = capsys.readouterr().err.splitlines()
        assert line.startswith("warning: MLflow store: ")
        assert line.endswith("; training goes on without it")
        assert "evaluate completes it from run.json" in last
        with pytest.raises(UserError, match=r"^MLflow store sqlite:.* see MLFLOW_TRACKING_URI$"):
            workplace.evaluate()
    assert len(curves(folder)) == 2
    workplace.evaluate()
    row = assert_one_whole_run(store, epochs=2)
    assert {"stage.train", "stage.evaluate"} <= set(row.data.tags)
    assert "train/model.safetensors" in {item.path for item in store.list_artifacts(row.info.run_id, "train")}


@pytest.mark.slow
def test_a_signal_to_the_launcher_stops_all_ranks_with_one_line(workplace):
    workplace.set_params(**LONG | {"train__checkpoint_minutes": 60, "train__epochs": 3000, "train__devices": 2})
    process = start()
    assert process.stdout.readline().startswith("train: 2,294 parameters")
    assert process.stdout.readline().startswith("epoch    1/3000")
    process.send_signal(signal.SIGTERM)
    code, _, errors = finish(process)
    [line] = errors.splitlines()
    assert line.startswith("stopped: SIGTERM: saved at epoch ")
    assert code == 128 + signal.SIGTERM
    assert len(list(Path(".training").glob("*/*.safetensors"))) == 1


@pytest.mark.slow
def test_two_devices_train_as_one_run(workplace, store, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    alone = workplace.train("alone")
    store.delete_run(read_json(alone / "run.json")["run_id"])
    together = workplace.train(train__devices=2)
    for expected, found in zip(curves(alone), curves(together), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    assert_one_whole_run(store, epochs=2)


def test_a_training_over_several_machines_that_has_ended_wants_none_of_them_again(workplace, capsys):
    expected = weights(workplace.train())
    shutil.rmtree("models")
    found = workplace.train_or_find(train__nodes=2)  # MASTER_ADDR is not set
    assert weights(found) == expected
    assert "train: trained before, and not again" in capsys.readouterr().out
    workplace.forget()
    with pytest.raises(UserError, match="expected the environment of each to name MASTER_ADDR"):
        workplace.train_or_find(train__nodes=2)


def test_a_training_over_several_devices_whose_end_is_damaged_is_launched_again(workplace, monkeypatch):
    workplace.train()
    [file] = Path(".training").glob("*/finished.safetensors")
    file.write_bytes(file.read_bytes()[:-10])
    launched = []
    monkeypatch.setattr(train, "launch", lambda command, devices, nodes: launched.append((devices, nodes)))
    workplace.train_or_find(train__devices=2)
    assert launched == [(2, 1)]


def start_ranks(workplaces):
    """One rank in each of the folders, as on machines of their own."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(len(workplaces))}
    ranks = []
    for rank, folder in enumerate(workplaces):
        with contextlib.chdir(folder):
            ranks.append(start(RANK=str(rank), **meeting))
    return [finish(rank) for rank in ranks]


@pytest.mark.slow
def test_ranks_that_would_train_something_else_than_the_first_are_told_of_once_and_train_nothing(
    workplace, store, tmp_path
):
    workplace.set_params()
    other = shutil.copytree(tmp_path, tmp_path / "other", symlinks=True)
    with contextlib.chdir(other):
        workplace.set_params(train__learning_rate=0.002)
    (code, _, errors), (other_code, _, other_errors) = start_ranks([tmp_path, other])
    assert (code, other_code, other_errors) == (1, 1, "")
    assert errors == (
        "error: train: of 2 ranks, 1 would train with other params, data, code, torch or precision than rank 0; "
        "expected the same on every machine\n"
    )
    assert not store.search_runs(["0", "1"])
    assert not Path("models").exists()


@pytest.mark.slow
def test_a_loss_of_a_whole_batch_is_not_shared_by_ranks_that_params_do_not_know_of(workplace, tmp_path):
    workplace.set_params(train__objective="tc")
    (code, _, errors), (other_code, _, other_errors) = start_ranks([tmp_path, tmp_path])
    assert (code, other_code, other_errors) == (1, 1, "")
    assert errors == (
        "error: params.yaml: train.objective is 'tc', whose total correlation is that of a whole batch, on 2 ranks; "
        "expected one process, or train.objective: elbo without free bits\n"
    )
