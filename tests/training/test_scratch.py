import errno
import os
import subprocess
import sys

import pytest
import torch

from pipeline.training import scratch as module
from pipeline.training.scratch import Scratch, State


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
        assert len(list(scratch.folder.glob("*.safetensors"))) == 2


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
        assert sorted(path.name for path in scratch.folder.iterdir()) == ["00000001.safetensors", "lock"]
    assert "No space left on device; training goes on without this checkpoint" in capsys.readouterr().err


WAITER = """
import sys
from pathlib import Path
from pipeline.training.scratch import Scratch
with Scratch(Path(sys.argv[1]), "a") as scratch:
    print(scratch.load() is None, flush=True)
    scratch.remove()
"""


def test_a_second_process_waits_until_the_first_has_finished(tmp_path):
    with Scratch(tmp_path, "a") as scratch:
        scratch.save(state(1))
        command = [sys.executable, "-c", WAITER, tmp_path]
        other = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        waiting = other.stdout.readline()
        scratch.remove()
    assert waiting == f"{tmp_path}/a: another process trains with the same params, data and code; waiting\n"
    assert other.communicate(timeout=60) == ("True\n", "")
    assert list(tmp_path.iterdir()) == []


def test_a_finished_training_leaves_nothing(tmp_path):
    with Scratch(tmp_path, "a") as scratch:
        scratch.save(state(1))
        scratch.remove()
    assert list(tmp_path.iterdir()) == []
