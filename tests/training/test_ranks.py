import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import UserError
from pipeline.training.launch import is_launched, launch, threads_per_rank
from pipeline.training.ranks import Ranks, ranks_of_environment

PROGRAM = str(Path(__file__).with_name("train_on_ranks.py"))


def train(folder, ranks, epochs, *options):
    folder.mkdir(exist_ok=True)
    launch([PROGRAM, str(folder), str(epochs), *map(str, options)], devices=ranks, nodes=1)
    return [load_file(folder / f"{rank}of{ranks}.safetensors") for rank in range(ranks)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    [trained] = train(tmp_path_factory.mktemp("alone"), 1, 2)
    return trained


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return train(tmp_path_factory.mktemp("pair"), 2, 2)


def test_two_ranks_hold_the_same_weights(pair):
    assert torch.equal(pair[0]["weights"], pair[1]["weights"])


def test_two_ranks_with_half_the_batch_take_the_steps_of_one(alone, pair):
    """After 20 steps; the sums are taken in another order, so they agree to rounding."""
    torch.testing.assert_close(pair[0]["weights"], alone["weights"], rtol=0, atol=2e-5)
    torch.testing.assert_close(pair[0]["elbos"], alone["elbos"], rtol=1e-5, atol=0)


def test_every_rank_reports_sums_over_all_examples(pair):
    assert torch.equal(pair[0]["elbos"], pair[1]["elbos"])


def test_a_killed_rank_ends_the_job_with_an_error_and_one_rank_goes_on_from_there(alone, tmp_path):
    with pytest.raises(UserError, match=r"^train: rank 1 ended with exit code -9, and the others with it$"):
        train(tmp_path, 2, 2, 17)
    [resumed] = train(tmp_path, 1, 2)
    torch.testing.assert_close(resumed["weights"], alone["weights"], rtol=0, atol=2e-5)
    torch.testing.assert_close(resumed["elbos"], alone["elbos"], rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Ranks()),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Ranks(3, 8, 1)),
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "0"}, Ranks(2, 4, 0)),
        ({"SLURM_PROCID": "0"}, Ranks()),
    ],
)
def test_ranks_that_somebody_else_started_are_recognised(environment, expected):
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    assert ranks_of_environment(environment | meeting) == expected


def test_a_rank_without_a_meeting_point_is_refused():
    with pytest.raises(UserError, match="RANK says that this is one of 8 ranks; expected MASTER_ADDR too"):
        ranks_of_environment({"RANK": "3", "WORLD_SIZE": "8"})


def test_a_rank_that_is_no_number_is_refused():
    with pytest.raises(UserError, match="environment variable RANK is 'first'; expected a whole number >= 0"):
        ranks_of_environment({"RANK": "first", "WORLD_SIZE": "2"})


def test_several_machines_need_a_meeting_point(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"train.nodes is 2; expected .* MASTER_ADDR, MASTER_PORT, NODE_RANK"):
        launch(["program.py"], devices=1, nodes=2)


def test_ranks_of_one_machine_share_its_cores(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert [threads_per_rank(devices) for devices in (1, 2, 3, 16)] == [8, 4, 2, 1]


def test_a_rank_starts_no_ranks_of_its_own():
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    assert not is_launched({})
    assert is_launched({"RANK": "0", "WORLD_SIZE": "2"} | meeting)
    assert is_launched({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"} | meeting)
    assert is_launched({"TORCHELASTIC_RUN_ID": "train", "RANK": "0", "WORLD_SIZE": "1"})


@pytest.mark.parametrize("environment", [{"SLURM_PROCID": "0"}, {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}])
def test_the_shell_of_a_slurm_job_is_no_rank(environment):
    assert not is_launched(environment)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def test_a_rank_that_nobody_watches_ends_with_a_line_when_its_peer_is_killed(tmp_path):
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "SLURM_STEP_NUM_TASKS": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, PROGRAM, str(tmp_path), "2", "17"],
            env={**os.environ, **meeting, "SLURM_PROCID": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    _, errors = ranks[0].communicate(timeout=300)
    assert ranks[1].wait(timeout=300) == -signal.SIGKILL
    assert ranks[0].returncode == 1
    assert errors.splitlines()[-1].startswith("error: train: rank 0 of 2 lost the others (")
    assert "Traceback" not in errors


def test_two_machines_meet_and_train_as_one(alone, tmp_path):
    """Each is a launcher of its own on this machine."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    code = "import sys; from pipeline.training.launch import launch; launch(sys.argv[1:], devices=1, nodes=2)"
    machines = [
        subprocess.Popen(
            [sys.executable, "-c", code, PROGRAM, str(tmp_path), "2"],
            env={**os.environ, **meeting, "NODE_RANK": str(node)},
        )
        for node in range(2)
    ]
    assert [machine.wait(timeout=300) for machine in machines] == [0, 0]
    for rank in range(2):
        trained = load_file(tmp_path / f"{rank}of2.safetensors")
        torch.testing.assert_close(trained["weights"], alone["weights"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_shares_cover_a_batch_once(world_size):
    shares = [Ranks(rank, world_size).share(100, 20) for rank in range(world_size)]
    assert torch.equal(torch.cat(shares), torch.arange(100, 120))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
