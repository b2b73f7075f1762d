import hashlib
import os
import shutil
import time
from pathlib import Path

import pytest
from filelock import FileLock

from pipeline.training import abandoned
from pipeline.training.abandoned import FINISHED_KEPT_DAYS, KEPT_DAYS, tidy


def named(name):
    """A training's name is a hash."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


@pytest.fixture
def training(tmp_path):
    """Makes the folder of a training that was last written to so many days ago."""

    def make(name, days, state="00000001.safetensors"):
        folder = tmp_path / named(name)
        folder.mkdir()
        for file in (state, "lock"):
            (folder / file).write_bytes(bytes(1_000_000 if file != "lock" else 0))
        then = time.time() - days * 86400
        for path in (*folder.iterdir(), folder):
            os.utime(path, (then, then))
        return folder

    return make


def test_a_training_alone_says_nothing(training, capsys):
    tidy(training("ours", 100))
    assert capsys.readouterr().out == ""


def test_a_training_of_late_stays_and_is_told_of(training, tmp_path, capsys):
    other = training("other", KEPT_DAYS - 1)
    tidy(training("ours", 0))
    assert (other / "00000001.safetensors").exists()
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(
        f"train: 1 unfinished training (1.0 MB) of other params, data or code in {tmp_path}; removed"
    )


def test_one_that_nobody_came_back_for_goes_and_is_named(training, tmp_path, capsys):
    olds = [training(name, KEPT_DAYS + 1) for name in ("a", "b")]
    ours = training("ours", KEPT_DAYS + 1)
    tidy(ours)
    assert [path.exists() for path in (*olds, ours)] == [False, False, True]
    assert capsys.readouterr().out == (
        f"train: removed 2 unfinished trainings (2.0 MB) from {tmp_path}, untouched for more than 30 days "
        f"({', '.join(sorted(map(named, 'ab')))})\n"
    )


@pytest.mark.parametrize("days", [0, KEPT_DAYS + 1])
def test_one_in_which_a_process_is_at_work_stays_and_is_not_told_of(training, capsys, days):
    busy = training("busy", days)
    with FileLock(busy / "lock"):
        os.utime(busy / "lock", (0, 0))
        tidy(training("ours", 0))
    assert (busy / "00000001.safetensors").exists()
    assert capsys.readouterr().out == ""


def test_to_look_at_one_does_not_make_it_younger(training):
    old = training("old", KEPT_DAYS - 0.5)
    tidy(training("ours", 0))
    then = time.time() - (KEPT_DAYS + 1) * 86400
    for path in (old / "00000001.safetensors", old):
        os.utime(path, (then, then))
    tidy(training("ours2", 0))
    assert not old.exists()


def test_one_that_ends_meanwhile_is_passed_over_and_not_made_again(training, monkeypatch, capsys):
    other = training("other", 0)
    monkeypatch.setattr(Path, "is_dir", lambda path: shutil.rmtree(path, ignore_errors=True) is None)
    tidy(other.parent / "ours")
    assert capsys.readouterr().out == ""
    assert not other.exists()


@pytest.mark.parametrize("state", ["00000001.safetensors", "finished.safetensors"])
def test_one_that_another_process_removes_between_two_looks_is_passed_over(training, monkeypatch, capsys, state):
    old, ours = training("old", KEPT_DAYS + 1, state), training("ours", 0)
    is_idle = abandoned._is_idle
    monkeypatch.setattr(abandoned, "_is_idle", lambda path: is_idle(path) and shutil.rmtree(path) is None)
    tidy(ours)
    assert capsys.readouterr().out == ""
    assert not old.exists()


def test_what_finished_ones_came_to_goes_after_a_week_and_is_told_of_then_alone(training, tmp_path, capsys):
    old, late = (
        training(f"{days}", days, "finished.safetensors") for days in (FINISHED_KEPT_DAYS + 1, FINISHED_KEPT_DAYS - 1)
    )
    ours = training("ours", FINISHED_KEPT_DAYS + 1, "finished.safetensors")
    tidy(ours)
    assert [path.exists() for path in (old, late, ours)] == [False, True, True]
    assert capsys.readouterr().out == (
        f"train: removed 1 finished training (1.0 MB) from {tmp_path}, untouched for more than 7 days ({named('8')})\n"
    )


def test_a_run_of_which_there_is_no_state_yet_keeps_its_key_and_is_not_told_of(training, capsys):
    late, old = (training(f"{days}", days, "run") for days in (KEPT_DAYS - 1, KEPT_DAYS + 1))
    tidy(training("ours", 0))
    assert [path.exists() for path in (late, old)] == [True, False]
    assert "removed 1 unfinished training" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("backup", "00000001.safetensors"),
        ("backup", "notes/thesis.txt"),
        (".git", "HEAD"),
        (named("a"), "thesis.txt"),
        (named("a"), "notes/00000001.safetensors"),
    ],
)
def test_what_is_no_training_stays_however_old_and_is_not_told_of(training, tmp_path, capsys, name, file):
    ours = training("ours", 0)
    (tmp_path / "empty").mkdir()
    foreign = tmp_path / name / file
    foreign.parent.mkdir(parents=True)
    foreign.touch()
    for path in (foreign, foreign.parent, tmp_path / name):
        os.utime(path, (0, 0))
    tidy(ours)
    assert foreign.exists()
    assert (tmp_path / "empty").exists()
    assert [path.name for path in (tmp_path / name).iterdir()] == [file.partition("/")[0]]
    assert capsys.readouterr().out == ""


def test_a_training_that_left_neither_state_nor_key_goes_without_a_word(training, tmp_path, capsys):
    left = tmp_path / named("left")
    left.mkdir()
    (left / "lock").touch()
    tidy(training("ours", 0))
    assert not left.exists()
    assert capsys.readouterr().out == ""
