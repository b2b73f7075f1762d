import errno
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from pipeline.training import scratch as module
from pipeline.training.scratch import Scratch, State, has_finished


def state(number):
    return State({"weights": torch.full((100,), float(number))}, {"number": number})


def numbers(scratch):
    return scratch.load().content["number"]


def test_a_state_comes_back_as_it_was_saved(tmp_path):
    tensors = {"weights": torch.randn(5), "step": torch.tensor(7.0), "sums": torch.zeros(3, dtype=torch.float64)}
    with Scratch(tmp_path, "a") as scratch:
        scratch.save(State(tensors, {"position": {"epoch": 3}, "rows": [{"elbo": -1.5}]}))
    with Scratch(tmp_path, "a") as scratch:
        found = scratch.load()
    assert found.content == {"position": {"epoch": 3}, "rows": [{"elbo": -1.5}]}
    assert found.tensors.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(found.tensors[name], value)
        assert found.tensors[name].dtype == value.dtype


def test_nothing_is_found_where_nothing_was_saved(tmp_path):
    with Scratch(tmp_path, "a") as scratch:
        assert scratch.load() is None


def test_another_training_is_not_found(tmp_path):
    with Scratch(tmp_path, "a") as scratch:
        scratch.save(state(1))
    with Scratch(tmp_path, "b") as scratch:
        assert scratch.load() is None


def test_the_last_two_states_are_kept(tmp_path):
    with Scratch(tmp_path, "a") as scratch:
        for number in range(5):
            scratch.save(state(number))
        assert numbers(scratch) == 4
        _, newest = sorted(scratch.folder.glob("*.safetensors"))
        newest.unlink()
        assert numbers(scratch) == 3


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_truncated_state_is_told_of_and_the_one_before_it_counts(tmp_path, capsys, kept):
    with Scratch(tmp_path, "a") as scratch:
        scratch.save(state(1))
        scratch.save(state(2))
        newest = sorted(scratch.folder.glob("*.safetensors"))[-1]
        newest.write_bytes(newest.read_bytes()[:kept])
        assert numbers(scratch) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {newest}: not a whole checkpoint (")


def test_a_full_disk_is_told_of_and_leaves_the_last_state(tmp_path, capsys, monkeypatch):
    def full(path, content):
        path.write_bytes(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Scratch(tmp_path, "a") as scratch:
        assert scratch.save(state(1))
        monkeypatch.setattr(module, "_write", full)
        assert not scratch.save(state(2))
        assert numbers(scratch) == 1
        assert sorted(path.name for path in scratch.folder.iterdir()) == ["00000001.safetensors", "lock", "run"]
    assert "No space left on device; training goes on without this checkpoint" in capsys.readouterr().err


WAITER = """
import sys
from pathlib import Path
from pipeline.training.scratch import Scratch
with Scratch(Path(sys.argv[1]), "a") as scratch:
    print(scratch.finished().content["number"], scratch.load(), flush=True)
"""


def test_a_second_process_waits_until_the_first_has_finished_and_finds_what_it_came_to(tmp_path):
    with Scratch(tmp_path, "a") as scratch:
        scratch.save(state(1))
        command = [sys.executable, "-c", WAITER, tmp_path]
        other = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        waiting = other.stdout.readline()
        scratch.finish(state(2))
    assert waiting == f"{tmp_path}/a: another process trains with the same params, data and code; waiting\n"
    assert other.communicate(timeout=60) == ("2 None\n", "")


def test_whoever_waits_is_asked_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.001)
    first, waits = Scratch(tmp_path, "a"), []

    def on_wait():
        waits.append(len(waits))
        if len(waits) == 3:
            first.__exit__()

    with Scratch(tmp_path, "a", on_wait):
        assert waits == [0, 1, 2]


@pytest.mark.parametrize(("looks", "lines"), [(1, 0), (2, 1), (4, 1)])
def test_a_process_that_holds_the_lock_for_one_look_is_not_told_of(tmp_path, monkeypatch, capsys, looks, lines):
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.001)
    first, waits = Scratch(tmp_path, "a"), []

    def on_wait():
        waits.append(len(waits))
        if len(waits) == looks:
            first.__exit__()

    with Scratch(tmp_path, "a", on_wait):
        assert capsys.readouterr().out.count("another process trains") == lines


def test_a_finished_training_leaves_what_it_came_to_alone(tmp_path):
    with Scratch(tmp_path, "a") as scratch:
        for number in range(3):
            scratch.save(state(number))
        scratch.finish(state(3))
        assert sorted(path.name for path in scratch.folder.iterdir()) == ["finished.safetensors", "lock", "run"]
        assert scratch.load() is None
    with Scratch(tmp_path, "a") as scratch:
        assert scratch.finished().content == {"number": 3}


def test_what_a_full_disk_refuses_at_the_end_leaves_the_states(tmp_path, capsys, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Scratch(tmp_path, "a") as scratch:
        scratch.save(state(1))
        monkeypatch.setattr(module, "_write", full)
        scratch.finish(state(2))
        assert scratch.finished() is None
        assert numbers(scratch) == 1
    assert "finished.safetensors: No space left on device" in capsys.readouterr().err


def test_a_damaged_end_is_told_of_and_the_training_begins_anew(tmp_path, capsys):
    with Scratch(tmp_path, "a") as scratch:
        scratch.finish(state(1))
        file = scratch.folder / "finished.safetensors"
        file.write_bytes(file.read_bytes()[:-10])
        assert scratch.finished() is None
    assert "finished.safetensors: not a whole checkpoint (" in capsys.readouterr().err


def test_a_training_has_finished_where_what_it_came_to_is_whole(tmp_path):
    assert not has_finished(tmp_path, "a")
    with Scratch(tmp_path, "a") as scratch:
        scratch.finish(state(1))
    assert has_finished(tmp_path, "a")


@pytest.mark.parametrize("kept", [0, 7, 100, -10])
def test_a_training_whose_end_is_damaged_has_not_finished(tmp_path, kept):
    with Scratch(tmp_path, "a") as scratch:
        scratch.finish(state(1))
    file = scratch.folder / "finished.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert not has_finished(tmp_path, "a")


def test_another_safetensors_file_is_no_end_of_a_training(tmp_path):
    (tmp_path / "a").mkdir()
    save_file({"weights": torch.zeros(3)}, tmp_path / "a" / "finished.safetensors")
    assert not has_finished(tmp_path, "a")


def test_the_key_of_the_run_is_that_of_the_training_from_process_to_process(tmp_path):
    keys = []
    for name in ("a", "b", "a"):
        with Scratch(tmp_path, name) as scratch:
            keys.append(scratch.run_key)
    assert keys[0] == keys[2] != keys[1]


def test_an_empty_key_is_made_anew_and_kept(tmp_path):
    keys = []
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "run").touch()
    for _ in range(2):
        with Scratch(tmp_path, "a") as scratch:
            keys.append(scratch.run_key)
    assert len(keys[0]) == 32
    assert keys[0] == keys[1]


def test_a_key_that_the_disk_refuses_stops_nothing(tmp_path):
    (tmp_path / "a" / ".run.writing").mkdir(parents=True)
    with Scratch(tmp_path, "a") as scratch:
        assert len(scratch.run_key) == 32
